"""Random samples of the embeddings of a source, to train or to measure on."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import SourceError
from .source import Source

__all__ = ["draw_embeddings", "sample_embeddings"]

_READ_ROWS: Final = 4096


def sample_embeddings(
    source: Source, limit: int, *, seed: int = 0, batch_size: int = _READ_ROWS
) -> npt.NDArray[np.floating]:
    """Embeddings of a source to train on: all of them if they can be memory-mapped, otherwise a sample of `limit`.

    Returns:
        (n, d): a memory map if the source has one; otherwise a uniform sample (reservoir sampling) of at most `limit`
        rows, float32.
    """
    matrix = source.matrix()
    return matrix if matrix is not None else _reservoir(source, limit, seed, batch_size)[0]


def draw_embeddings(source: Source, limit: int, *, seed: int = 0) -> tuple[npt.NDArray[np.floating], int]:
    """A uniform sample of at most `limit` embeddings of a source, to measure on.

    Returns:
        (n, d) rows, and the number of items in the source.
    """
    matrix = source.matrix()
    if matrix is None:
        return _reservoir(source, limit, seed, _READ_ROWS)
    if len(matrix) <= limit:
        return matrix, len(matrix)
    return matrix[np.sort(np.random.default_rng(seed).choice(len(matrix), limit, replace=False))], len(matrix)


def _reservoir(source: Source, limit: int, seed: int, batch_size: int) -> tuple[FloatArray, int]:
    """A uniform sample of a stream, and the number of items in it."""
    random = np.random.default_rng(seed)
    sample: FloatArray | None = None
    seen = 0
    for batch in source.batches(batch_size):
        new = batch.embeddings
        if sample is None:
            sample = np.empty((0, source.dim), np.float32)
        room = max(limit - len(sample), 0)
        sample = np.concatenate([sample, new[:room]])
        # Item number m (from 1) replaces one of the sample with probability limit / m.
        for offset in range(min(room, len(new)), len(new)):
            slot = int(random.integers(0, seen + offset + 1))
            if slot < limit:
                sample[slot] = new[offset]
        seen += len(new)
    if sample is None:
        raise SourceError("the source has no rows; there is nothing to sample")
    return sample, seen
