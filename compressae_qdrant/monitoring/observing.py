"""Items as the monitor sees them: the latents of their codes, and as much of the rest as can be had.

| from                                        | latents, posting mass | cosine loss | recall |
|---------------------------------------------|-----------------------|-------------|--------|
| embeddings                                  | yes                   | yes         | yes    |
| an index with `keep_dense`                  | yes                   | yes         | yes    |
| an index at scale "projection" (default)    | yes                   | yes         | no     |
| an index at scale "raw"                     | yes                   | no          | no     |
| at "reconstruction" or "code"               | yes                   | no          | no     |

At projection scale a stored code still tells its loss: its reconstruction has the norm cos(x, x_hat).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError
from ..evaluation import exact_neighbours, recall
from ..index.base import CodeIndex, ItemId, Record
from ..model import CompresSAE, unit_rows
from ..similarity import asymmetric, top
from ..sources.base import Source

__all__ = ["Observation", "observe", "observe_index", "pool_recalls", "sample_source"]

DEPTH: Final = 10
"""k of the recall@k that is spot-checked."""

_READ: Final = 1024

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Observation:
    """n items, coded."""

    codes: SparseCodes
    losses: FloatArray | None
    """(n,) `1 - cos(x, x_hat)`; None where it can't be known."""
    embeddings: FloatArray | None
    """(n, d) of unit norm; None where they are not there."""
    segments: Sequence[str | None] | None
    """(n,) value of the segment field of each item, if one was asked for."""
    missing: str = ""
    """Why losses or embeddings are not there."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Observation:
        """Some of the items, by their numbers."""
        return Observation(
            self.codes[rows],
            None if self.losses is None else self.losses[rows],
            None if self.embeddings is None else self.embeddings[rows],
            None if self.segments is None else [self.segments[row] for row in rows],
            self.missing,
        )

    @property
    def supports(self) -> npt.NDArray[np.int32]:
        """(n, k) latents of each code; -1 where it uses fewer than k."""
        return np.where(self.codes.values != 0, self.codes.indices, np.int32(-1))


def observe(
    model: CompresSAE, embeddings: npt.NDArray[np.floating], segments: Sequence[str | None] | None = None
) -> Observation:
    """Encode (n, d) embeddings by pursuit, as an ingestion does."""
    x = unit_rows(embeddings)
    codes = model.encode(x, scale="projection")
    return Observation(codes, _losses(model, codes), x, segments)


def observe_index(
    model: CompresSAE, index: CodeIndex, size: int, *, field: str | None = None, seed: int = 0
) -> Observation:
    """A random sample of an index's items, from what is stored. Every id is read, and the codes of the sample.

    Raises:
        InvalidInputError: the index is empty.
    """
    ids: list[ItemId] = _sampled(itertools.chain.from_iterable(index.scan()), size, seed)
    if not ids:
        raise InvalidInputError("the index is empty; there is nothing to monitor")
    records: list[Record] = []
    for start in range(0, len(ids), _READ):
        records += index.retrieve(ids[start : start + _READ])
    segments = None if field is None else [_segment(record.payload, field) for record in records]
    scale = index.settings.scale
    codes = _codes_of(records, model.k, model.latents)
    dense = [record.dense for record in records if record.dense is not None]
    if len(dense) == len(records):
        x = unit_rows(np.stack(dense))
        x_hat = model.decode(codes)
        norms = np.maximum(np.linalg.norm(x_hat, axis=1), np.finfo(np.float32).tiny)
        return Observation(codes, np.asarray(1 - (x * x_hat).sum(axis=1) / norms, np.float32), x, segments)
    if scale == "projection":
        missing = "the index keeps no embeddings (keep_dense)"
        return Observation(codes, _losses(model, codes), None, segments, missing)
    missing = f"the index keeps no embeddings (keep_dense), and values at scale {scale!r} don't tell the loss"
    return Observation(codes, None, None, segments, missing)


def sample_source(
    source: Source, size: int, *, field: str | None = None, seed: int = 0
) -> tuple[FloatArray, list[str | None] | None]:
    """A random sample of a source, streamed: (at most size, d) embeddings, and the segment of each if asked for.

    Raises:
        InvalidInputError: the source is empty.
    """

    def rows() -> Iterator[tuple[FloatArray, str | None]]:
        for batch in source.batches(_READ):
            for embedding, payload in zip(batch.embeddings, batch.payloads, strict=True):
                yield embedding, None if field is None else _segment(payload, field)

    kept = _sampled(rows(), size, seed)
    if not kept:
        raise InvalidInputError("the source has no usable rows; there is nothing to monitor")
    return np.stack([row for row, _ in kept]), None if field is None else [segment for _, segment in kept]


def pool_recalls(
    model: CompresSAE, seen: Observation, size: int, queries: int, *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Recall@10 of codes against exact dense search among random pools of `size` of the items themselves.

    The smaller the pool, the farther apart its items and the easier the search, so only equal sizes compare. Items are
    dealt into pools at random; each of the first `queries` dealt searches its own pool, itself left out.

    Returns:
        (n,) recall of each item, NaN where it was no query.
    """
    assert seen.embeddings is not None
    recalls = np.full(len(seen), np.nan, np.float32)
    order = np.random.default_rng([seed, size]).permutation(len(seen))
    atoms = model.atoms.detach().cpu().numpy()
    for start in range(0, min(len(seen) // size * size, queries), size):
        pool = order[start : start + size]
        asked = np.arange(min(size, queries - start))
        x = seen.embeddings[pool]
        truth = exact_neighbours(x[asked], x, DEPTH, asked)
        found, _ = top(seen.codes[pool], asymmetric(atoms, x[asked]), DEPTH + 1)
        others = [[row for row in rows if row != own] for own, rows in enumerate(found.tolist())]
        recalls[pool[asked]] = recall(others, truth.tolist(), DEPTH)
    return recalls


def _losses(model: CompresSAE, codes: SparseCodes) -> FloatArray:
    """From codes at projection scale: their reconstructions' norms are the cosines."""
    return np.asarray(1 - np.linalg.norm(model.decode(codes), axis=1), np.float32)


def _codes_of(records: Sequence[Record], k: int, latents: int) -> SparseCodes:
    """Stored codes as one value, padded by zeros where padding was left out."""
    indices, values = np.empty((len(records), k), np.int32), np.zeros((len(records), k), np.float32)
    for row, record in enumerate(records):
        used = len(record.indices)
        indices[row, :used], values[row, :used] = record.indices, record.values
        if used < k:
            indices[row, used:] = np.setdiff1d(np.arange(k), record.indices)[: k - used]
    return SparseCodes(indices, values, latents)


def _segment(payload: dict[str, Any], field: str) -> str | None:
    value = payload.get(field)
    return None if value is None else str(value)


def _sampled(rows: Iterable[T], size: int, seed: int) -> list[T]:
    """At most `size` of the rows, each with equal chance, in one pass (Vitter's algorithm R, ACM TOMS 1985)."""
    random = np.random.default_rng(seed)
    kept: list[T] = []
    for number, row in enumerate(rows):
        if len(kept) < size:
            kept.append(row)
        elif (place := int(random.integers(number + 1))) < size:
            kept[place] = row
    return kept
