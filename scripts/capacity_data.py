"""Data of bench_capacity.py: a catalog enlarged as vectors and as codes, and models of several sizes.

Every step saves its result in the work directory and is skipped if the result exists, so an interrupted run resumes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressae_qdrant import CompresSAE, SparseCodes, TrainConfig, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.files import atomic_path

__all__ = ["codes_of", "grow", "jitter", "model_of", "nearest"]

_CHUNK = 16_384
_NEIGHBOURS = 8
_SWAPPED = 0.4
"""Share of latents that a jittered code takes from a neighbour's code."""


def grow(catalog: FloatArray, size: int, file: Path, seed: int = 0) -> npt.NDArray[np.float16]:
    """Return (size, d) float16 unit rows: the catalog, then synthetic items that follow its distribution.

    A synthetic item is a catalog item moved up to half way towards one of its eight nearest neighbours, then along the
    difference of two others of them, then by isotropic noise of norm 0.1. No two rows are equal, and none is far from
    the catalog.
    """
    if not file.exists():
        near = nearest(catalog, file.with_name("neighbours.npy"))
        random = np.random.default_rng(seed)
        with atomic_path(file) as temporary:
            rows = np.lib.format.open_memmap(temporary, "w+", np.float16, (size, catalog.shape[1]))
            rows[: len(catalog)] = catalog[:size]
            for start in range(len(catalog), size, _CHUNK):
                stop = min(start + _CHUNK, size)
                rows[start:stop] = _mixtures(catalog, near, stop - start, random)
            rows.flush()
    grown: npt.NDArray[np.float16] = np.load(file, mmap_mode="r")
    return grown


def _mixtures(catalog: FloatArray, near: npt.NDArray[np.int64], count: int, random: np.random.Generator) -> FloatArray:
    base = random.integers(0, len(catalog), count)
    order = random.random((count, _NEIGHBOURS)).argpartition(3, axis=1)[:, :3]
    b, c, e = (catalog[near[base, order[:, column]]] for column in range(3))
    towards, along = random.uniform(0, 0.5, (count, 1)), random.normal(0, 0.3, (count, 1))
    noise = random.normal(size=b.shape) * (0.1 / np.sqrt(b.shape[1]))
    mixed = catalog[base] * (1 - towards) + b * towards + (c - e) * along + noise
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def nearest(catalog: FloatArray, file: Path) -> npt.NDArray[np.int64]:
    """Return (n, 8) rows: the nearest neighbours of each row of the catalog without itself, in no particular order."""
    if not file.exists():
        found = np.empty((len(catalog), _NEIGHBOURS), np.int64)
        for start in range(0, len(catalog), 1024):
            scores = catalog[start : start + 1024] @ catalog.T
            scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
            found[start : start + 1024] = np.argpartition(-scores, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        with atomic_path(file) as temporary, temporary.open("wb") as out:
            np.save(out, found)
    near: npt.NDArray[np.int64] = np.load(file)
    return near


def model_of(items: FloatArray, latents: int, k: int, folder: Path) -> CompresSAE:
    """Load the model in a folder; if there is none, make one whose atoms are items, refined for two rounds.

    Such a model uses its latents about as evenly as a fully trained one (EXPERIMENTS.md: posting mass 0.27 against
    0.33), which determines sizes and times; its recall is far lower.
    """
    if not (folder / "config.json").exists():
        config = TrainConfig(latents=latents, k=k, steps=0, rounds=2, encoder_steps=0)
        train(items, config, checkpoint=folder.with_suffix(".checkpoint"), progress=True).save(folder)
    return CompresSAE.load(folder)


def codes_of(model: CompresSAE, catalog: FloatArray, folder: Path) -> SparseCodes:
    """Return the codes of the catalog, encoded in chunks that are cached in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(catalog), _CHUNK):
        file = folder / f"{model.fingerprint}-k{model.k}-{start:09d}.safetensors"
        if not file.exists():
            model.encode(catalog[start : start + _CHUNK]).save(file)
        parts.append(SparseCodes.load(file))
    return SparseCodes.concatenate(parts)


def jitter(codes: SparseCodes, near: npt.NDArray[np.int64], size: int, seed: int = 0) -> SparseCodes:
    """Return codes of `size` items: the catalog's, then variants with some latents taken from neighbours' codes.

    Each latent of a variant is replaced with probability 0.4 by one of a neighbour's code that the variant lacks;
    values change by about a tenth. The variants use latents as often, and together, as the catalog does, which
    determines bytes and times. Encoding a million synthetic vectors takes an hour and gives the same result.
    """
    if size <= len(codes):
        return codes[:size]
    random = np.random.default_rng(seed)
    indices, values = [codes.indices], [codes.values]
    for start in range(len(codes), size, _CHUNK):
        count = min(_CHUNK, size - start)
        base = random.integers(0, len(codes), count)
        other = near[base, random.integers(0, near.shape[1], count)]
        own, its = codes.indices[base].copy(), codes.indices[other]
        value = codes.values[base].copy()
        columns = random.permuted(np.tile(np.arange(codes.k), (count, 1)), axis=1)
        swapped = random.random(own.shape) < _SWAPPED
        for column in range(codes.k):  # one latent at a time, so that no code gets one twice
            taken = np.take_along_axis(its, columns[:, [column]], axis=1)
            free = swapped[:, column] & ~(own == taken).any(axis=1)
            own[free, column] = taken[free, 0]
            value[free, column] = np.take_along_axis(codes.values[other], columns[:, [column]], axis=1)[free, 0]
        value *= random.normal(1, 0.1, value.shape).astype(np.float32)
        order = np.argsort(own, axis=1)
        indices.append(np.take_along_axis(own, order, axis=1))
        values.append(np.take_along_axis(value, order, axis=1))
    return SparseCodes(np.concatenate(indices), np.concatenate(values), codes.latents)
