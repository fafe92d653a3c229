"""Random samples of the embeddings of a source, to train or to measure on."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import SourceError
from ..vectors import reservoir_sample
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
    rows = (row.copy() for batch in source.batches(batch_size) for row in batch.embeddings)
    sample, count = reservoir_sample(rows, limit, np.random.default_rng(seed))
    if not sample:
        raise SourceError("the source has no rows; there is nothing to sample")
    return np.stack(sample), count
