"""How well an approximate search finds what exact dense search finds, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .codes import FloatArray
from .errors import InvalidInputError
from .model import check_embeddings, unit_rows

__all__ = ["RetrievalReport", "evaluate_search", "exact_neighbours", "recall"]

_BATCH: Final = 16_384
_RESAMPLES: Final = 1000


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


def recall(found: Sequence[Sequence[object]], truth: Sequence[Sequence[object]], k: int) -> FloatArray:
    """Recall@k of each query: the share of the true top k among the first k found, (q,) float32."""
    return np.array([len(set(f[:k]) & set(t[:k])) / k for f, t in zip(found, truth, strict=True)], np.float32)


@dataclass(frozen=True)
class RetrievalReport:
    """Recall against exact dense search, and latency of single queries."""

    queries: int
    recall: dict[int, float]
    """Mean recall@k by k."""
    interval: dict[int, tuple[float, float]]
    """95% bootstrap interval of that mean over queries."""
    p50_ms: float
    """Median time of one query, ms."""
    p95_ms: float
    """95th percentile of it, ms."""


def evaluate_search(
    search: Callable[[FloatArray, int], Sequence[object]],
    queries: FloatArray,
    truth: Sequence[Sequence[object]],
    *,
    own: Sequence[object] | None = None,
    depths: Iterable[int] = (10, 100),
    seed: int = 0,
) -> RetrievalReport:
    """Run a search on every query, one at a time, and compare.

    Args:
        search: takes a (d,) query and a limit, gives ids, best first.
        queries: (q, d).
        truth: for each query the ids of its true neighbours, closest first; at least as many as the largest depth.
        own: for each query the id of the item that it is, which is dropped from what is found; None for outside ones.
        depths: the k of recall@k.
        seed: of the bootstrap.
    """
    depths = sorted(depths)
    deepest = depths[-1] + (own is not None)
    found, seconds = [], []
    search(queries[0], deepest)  # the first call of an engine warms its caches, and is no measure of it
    for number, query in enumerate(queries):
        started = time.perf_counter()
        ids = search(query, deepest)
        seconds.append(time.perf_counter() - started)
        found.append([item for item in ids if own is None or item != own[number]])
    resample = np.random.default_rng(seed).integers(0, len(queries), (_RESAMPLES, len(queries)))
    means: dict[int, float] = {}
    intervals: dict[int, tuple[float, float]] = {}
    for k in depths:
        each = recall(found, truth, k)
        low, high = np.percentile(each[resample].mean(axis=1), [2.5, 97.5])
        means[k], intervals[k] = float(each.mean()), (float(low), float(high))
    p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    return RetrievalReport(len(queries), means, intervals, float(p50), float(p95))
