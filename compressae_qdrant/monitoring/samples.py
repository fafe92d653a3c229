"""Samples for monitoring: which measures are available depends on where the items come from.

| items from                                  | latents, posting mass | cosine loss | recall |
|---------------------------------------------|-----------------------|-------------|--------|
| embeddings                                  | yes                   | yes         | yes    |
| an index with `keep_dense`                  | yes                   | yes         | yes    |
| an index at scale "projection" (default)    | yes                   | yes         | no     |
| an index at scale "raw"                     | yes                   | no          | no     |
| at "reconstruction" or "code"               | yes                   | no          | no     |

At projection scale the loss follows from the stored code: its reconstruction has norm cos(x, x_hat).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError
from ..index.protocol import CodeIndex
from ..index.results import Record
from ..model.compressae import CompresSAE
from ..model.observation import Observation, projection_losses
from ..sources.source import Source
from ..vectors import reservoir_sample, unit_rows

__all__ = ["observe_index", "sample_source"]

_READ: Final = 1024


def observe_index(
    model: CompresSAE, index: CodeIndex, size: int, *, field: str | None = None, seed: int = 0
) -> Observation:
    """Observe a random sample of the items in an index. All ids are read, and the stored codes of the sample.

    Raises:
        InvalidInputError: the index is empty.
    """
    ids, _ = reservoir_sample(itertools.chain.from_iterable(index.scan()), size, np.random.default_rng(seed))
    if not ids:
        raise InvalidInputError("the index is empty; load items before monitoring it")
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
        return Observation(codes, projection_losses(model, codes), None, segments, missing)
    missing = (
        f"the index keeps no embeddings (keep_dense), and the loss cannot be computed from values at scale {scale!r}"
    )
    return Observation(codes, None, None, segments, missing)


def sample_source(
    source: Source, size: int, *, field: str | None = None, seed: int = 0
) -> tuple[FloatArray, list[str | None] | None]:
    """Draw a random sample of a source in one pass: (at most size, d) embeddings, and segments if `field` is given.

    Raises:
        InvalidInputError: the source is empty.
    """

    def rows() -> Iterator[tuple[FloatArray, str | None]]:
        for batch in source.batches(_READ):
            for embedding, payload in zip(batch.embeddings, batch.payloads, strict=True):
                yield embedding.copy(), None if field is None else _segment(payload, field)

    kept, _ = reservoir_sample(rows(), size, np.random.default_rng(seed))
    if not kept:
        raise InvalidInputError("the source has no usable rows; monitor a source with items")
    return np.stack([row for row, _ in kept]), None if field is None else [segment for _, segment in kept]


def _codes_of(records: Sequence[Record], k: int, latents: int) -> SparseCodes:
    """Stored codes as one value; codes stored without their padding are padded with zeros again."""
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
