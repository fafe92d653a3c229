"""Dense embeddings: checks, normalisation, exact nearest neighbours, and uniform samples of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .codes import FloatArray
from .errors import DimensionError, InvalidInputError

__all__ = ["UnitRows", "check_embeddings", "exact_neighbours", "reservoir_sample", "unit_rows"]

_BATCH: Final = 16_384

T = TypeVar("T")


def check_embeddings(X: npt.ArrayLike, dim: int | None, whose: str) -> npt.NDArray[np.floating]:
    """X as a (n, d) array of real numbers, not copied if it is one; a single (d,) vector becomes (1, d).

    Raises:
        DimensionError: d isn't `dim` (None accepts any).
        InvalidInputError: X is empty, or isn't a matrix of real numbers.
    """
    rows = X if isinstance(X, np.ndarray) else np.asarray(X)
    if rows.ndim == 1 and rows.size:
        rows = rows[None, :]
    if rows.ndim != 2 or not rows.size:
        raise InvalidInputError(f"embeddings have shape {rows.shape}; they must be (items, dimensions) and not empty")
    if not np.issubdtype(rows.dtype, np.floating) and not np.issubdtype(rows.dtype, np.integer):
        raise InvalidInputError(f"embeddings are {rows.dtype}; they must be real numbers")
    if dim is not None and rows.shape[1] != dim:
        raise DimensionError(
            f"embeddings have {rows.shape[1]} dimensions but {whose} encodes {dim}; embed with the model's own backbone"
        )
    return rows


def unit_rows(rows: npt.NDArray[np.floating], first: int = 0) -> FloatArray:
    """A (n, d) block as float32 rows of unit norm, copied.

    Raises:
        InvalidInputError: a row is zero, or holds NaN or an infinite value; the message counts rows from `first`.
    """
    block = np.array(rows, np.float32)
    norms = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        row = bad[0]
        what = "is all zero" if norms[row] == 0 else "holds NaN or an infinite value"
        raise InvalidInputError(
            f"embedding in row {first + row} {what} ({bad.size} such rows here); embed those items again or drop them"
        )
    block /= norms
    return block


class UnitRows:
    """Embeddings that are known to be float32 rows of unit norm, so that they are checked and normalised once.

    Args:
        rows: (n, d) array of real numbers.
        first: number of the first row, for error messages.

    Raises:
        InvalidInputError: a row is zero, or holds NaN or an infinite value.
    """

    __slots__ = ("rows",)

    rows: FloatArray
    """(n, d)."""

    def __init__(self, rows: npt.NDArray[np.floating], first: int = 0) -> None:
        self.rows = unit_rows(rows, first)

    @classmethod
    def _trusted(cls, rows: FloatArray) -> Self:
        """Rows that are known to have unit norm; nothing is checked or copied."""
        unit = cls.__new__(cls)
        unit.rows = rows
        return unit

    def __len__(self) -> int:
        return len(self.rows)


def exact_neighbours(
    queries: npt.ArrayLike, catalog: npt.ArrayLike, depth: int, own: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """The rows of the catalog closest to each query by cosine, exactly: what every recall here is against.

    Args:
        queries: (q, d).
        catalog: (n, d) array or memory map, read in blocks.
        depth: neighbours of each query; fewer than n.
        own: (q,) row of the catalog that each query is, which doesn't count as its neighbour; None for outside queries.

    Returns:
        (q, depth) rows, closest first.
    """
    rows = check_embeddings(catalog, None, "")
    asked = unit_rows(check_embeddings(queries, rows.shape[1], "the catalog"))
    if depth + (own is not None) > len(rows):
        raise InvalidInputError(
            f"a catalog of {len(rows)} items doesn't have {depth} neighbours for each; ask for fewer"
        )
    scores = np.empty((len(asked), 0), np.float32)
    numbers = np.empty((len(asked), 0), np.int64)
    for start in range(0, len(rows), _BATCH):
        block = unit_rows(rows[start : start + _BATCH], start)
        found = asked @ block.T
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + len(block)))
            found[inside, own[inside] - start] = -np.inf
        here = np.broadcast_to(np.arange(start, start + len(block)), found.shape)
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, here], axis=1)
        if scores.shape[1] > depth:
            best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return np.take_along_axis(numbers, np.argsort(-scores, axis=1, kind="stable"), 1)


def reservoir_sample(rows: Iterable[T], size: int, random: np.random.Generator) -> tuple[list[T], int]:
    """Draw a uniform sample of a stream of unknown length in one pass (Vitter's algorithm R, ACM TOMS 1985).

    Args:
        rows: the stream. Give copies of array rows, as a kept view would keep its whole array in memory.
        size: rows to draw; a shorter stream is returned whole and in order.
        random: source of randomness.

    Returns:
        The drawn rows, and the length of the stream.
    """
    kept: list[T] = []
    count = 0
    for row in rows:
        count += 1
        if len(kept) < size:
            kept.append(row)
        elif (slot := int(random.integers(count))) < size:  # row number m is kept with probability size / m
            kept[slot] = row
    return kept, count
