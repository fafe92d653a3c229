"""Dense embeddings: checks, normalisation, exact nearest neighbours, and uniform samples of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .checks import length_of
from .codes import FloatArray
from .errors import DimensionError, InvalidInputError

__all__ = ["UnitRows", "as_array", "check_embeddings", "exact_neighbours", "products", "reservoir_sample", "unit_rows"]

_BATCH: Final = 16_384

T = TypeVar("T")


def check_embeddings(X: npt.ArrayLike, dim: int | None, whose: str) -> npt.NDArray[np.floating]:
    """Return X as an (n, d) array of real numbers, without a copy if it is one; a (d,) vector becomes (1, d).

    Args:
        X: embeddings.
        dim: expected dimensions d; None accepts any.
        whose: name of what expects them, for the error message.

    Raises:
        DimensionError: the embeddings do not have `dim` dimensions.
        InvalidInputError: X is empty or is not a matrix of real numbers.
    """
    rows = as_array(X, "embeddings")
    if rows.ndim == 1 and rows.size:
        rows = rows[None, :]
    if rows.ndim != 2 or not rows.size:
        raise InvalidInputError(
            f"embeddings have shape {rows.shape}; they must have the shape (items, dimensions) and not be empty"
        )
    if not np.issubdtype(rows.dtype, np.floating) and not np.issubdtype(rows.dtype, np.integer):
        raise InvalidInputError(f"embeddings have dtype {rows.dtype}; they must be real numbers")
    if dim is not None and rows.shape[1] != dim:
        raise DimensionError(
            f"embeddings have {rows.shape[1]} dimensions but {whose} encodes {dim}; embed with the model's backbone"
        )
    return rows


def as_array(X: Any, what: str, dtype: type[np.float32] | None = None) -> npt.NDArray[Any]:
    """X as an array, not copied if it is one (of that dtype); `what` names it in an error.

    Raises:
        InvalidInputError: NumPy cannot read X: rows of unequal lengths, an iterator, or a tensor that is on a GPU, has
            a type that NumPy lacks or takes part in a gradient. Or X has masked entries, or numbers that are not real
            where a dtype is given.
    """
    if isinstance(X, Iterator):
        raise InvalidInputError(f"{what} are a {type(X).__name__}, which can be read once; pass a list or an array")
    if np.ma.is_masked(X) or (isinstance(X, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in X)):
        raise InvalidInputError(f"{what} have masked entries; fill them or leave their rows out")
    try:
        array = np.asarray(X)
        if dtype is None:
            return array
        if array.dtype.kind in "fiuO" or not array.size:  # decimals and fractions are objects that have a float value
            with np.errstate(over="ignore"):  # an infinite value is reported where rows are normalised
                return array.astype(dtype, copy=False)
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        raise InvalidInputError(f"{what} cannot be read as an array: {_unreadable(X) or exc}") from exc
    raise InvalidInputError(f"{what} have dtype {array.dtype}; they must be real numbers")


def _unreadable(X: Any) -> str | None:
    """Why NumPy cannot read X, where X tells."""
    first = X[0] if isinstance(X, (list, tuple)) and X else X
    if type(first).__module__.partition(".")[0] == "torch":
        steps = [".detach()"] if getattr(first, "requires_grad", False) else []
        steps += [".float()"] if "bfloat16" in str(getattr(first, "dtype", "")) else []
        steps += [".cpu()"] if str(getattr(first, "device", "cpu")) != "cpu" else []
        kind = f"a torch tensor of {getattr(first, 'dtype', 'unknown type')} on {getattr(first, 'device', 'no device')}"
        return f"it is {kind}; pass X{''.join(steps)}.numpy()" if steps else None
    if isinstance(X, (list, tuple)) and len(lengths := {n for row in X if (n := length_of(row)) is not None}) > 1:
        return f"rows have {min(lengths)} to {max(lengths)} dimensions; give each row the same number"
    return None


def products(x: FloatArray, rows: FloatArray) -> FloatArray:
    """Dot products `x @ rows.T` as float32: (q, d) and (n, d) to (q, n).

    One query is multiplied in this thread: where another program or the engine needs the other cores, a linear algebra
    library that divides such a small product among threads waits for them for milliseconds (EXPERIMENTS.md).
    """
    if len(x) == 1:
        return np.asarray(np.vecdot(rows, x[0])[None], np.float32)
    return np.asarray(x @ rows.T, np.float32)


def unit_rows(rows: npt.NDArray[np.floating], first: int = 0) -> FloatArray:
    """Copy an (n, d) block as float32 rows of unit norm.

    Raises:
        InvalidInputError: a row is zero, or holds NaN or an infinite value; the message counts rows from `first`.
    """
    with np.errstate(over="ignore"):  # an infinite value is reported below
        block = np.array(rows, np.float32, order="C")  # sums in another order would round differently
    norms = np.sqrt(np.square(block, dtype=np.float64).sum(axis=1, keepdims=True))
    good = np.isfinite(norms) & (norms > 0)
    if not good.all():
        bad = np.flatnonzero(~good)
        row = bad[0]
        what = "is all zero" if norms[row] == 0 else "holds NaN or an infinite value"
        raise InvalidInputError(
            f"embedding in row {first + row} {what} ({bad.size} such rows in this batch); embed them again or "
            "remove them"
        )
    block /= norms
    return block


class UnitRows:
    """Float32 embeddings of unit norm, checked and normalised once, on construction.

    Args:
        rows: (n, d) array of real numbers.
        first: number of the first row, for error messages.

    Raises:
        InvalidInputError: a row is zero, or holds NaN or an infinite value.
    """

    __slots__ = ("rows",)

    rows: FloatArray
    """(n, d) float32 rows of unit norm."""

    def __init__(self, rows: npt.NDArray[np.floating], first: int = 0) -> None:
        self.rows = unit_rows(rows, first)

    @classmethod
    def _trusted(cls, rows: FloatArray) -> Self:
        """Wrap rows that have unit norm, without checks or copies."""
        unit = cls.__new__(cls)
        unit.rows = rows
        return unit

    def __len__(self) -> int:
        return len(self.rows)


def exact_neighbours(
    queries: npt.ArrayLike, catalog: npt.ArrayLike, depth: int, own: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Find the rows of a catalog closest to each query by exact cosine, the ground truth of recall.

    Args:
        queries: (q, d).
        catalog: (n, d) array or memory map, read in blocks.
        depth: neighbours of a query; fewer than n if `own` is given, else at most n.
        own: (q,) row of the catalog that each query is, which is excluded from its neighbours; None if the queries are
            not rows of the catalog.

    Returns:
        (q, depth) rows, closest first.
    """
    rows = check_embeddings(catalog, None, "")
    unit_queries = unit_rows(check_embeddings(queries, rows.shape[1], "the catalog"))
    if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
        raise InvalidInputError(f"depth is {depth!r}; it must be a whole number of at least 1")
    if depth + (own is not None) > len(rows):
        raise InvalidInputError(
            f"a catalog of {len(rows)} items doesn't have {depth} neighbours for each query; request fewer"
        )
    scores = np.empty((len(unit_queries), 0), np.float32)
    numbers = np.empty((len(unit_queries), 0), np.int64)
    for start in range(0, len(rows), _BATCH):
        block = unit_rows(rows[start : start + _BATCH], start)
        block_scores = unit_queries @ block.T
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + len(block)))
            block_scores[inside, own[inside] - start] = -np.inf
        block_numbers = np.broadcast_to(np.arange(start, start + len(block)), block_scores.shape)
        scores, numbers = (
            np.concatenate([scores, block_scores], axis=1),
            np.concatenate([numbers, block_numbers], axis=1),
        )
        if scores.shape[1] > depth:
            best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return np.take_along_axis(numbers, np.argsort(-scores, axis=1, kind="stable"), 1)


def reservoir_sample(rows: Iterable[T], size: int, random: np.random.Generator) -> tuple[list[T], int]:
    """Draw a uniform sample of a stream of unknown length in one pass (Vitter's algorithm R, ACM TOMS 1985).

    Args:
        rows: the stream. Pass copies of array rows, because a view keeps its whole array in memory.
        size: rows to draw. A shorter stream is returned whole and in order.
        random: source of randomness.

    Returns:
        The drawn rows, and the length of the stream.
    """
    sample: list[T] = []
    count = 0
    for row in rows:
        count += 1
        if len(sample) < size:
            sample.append(row)
        elif (slot := int(random.integers(count))) < size:  # row number m enters the sample with probability size / m
            sample[slot] = row
    return sample, count
