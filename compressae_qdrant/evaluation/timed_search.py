"""Recall and latency of one search function, measured query by query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..codes import FloatArray
from ..metrics import bootstrap, recall

__all__ = ["RetrievalReport", "evaluate_search", "timed_search"]

Id = TypeVar("Id")


@dataclass(frozen=True)
class RetrievalReport:
    """Recall against exact dense search, and latency of single queries."""

    queries: int
    """Number of queries."""
    recall: dict[int, float]
    """Mean recall@k by k."""
    interval: dict[int, tuple[float, float]]
    """95% bootstrap interval of that mean over queries."""
    p50_ms: float
    """Median time of one query, ms."""
    p95_ms: float
    """95th percentile of the same, ms."""


def evaluate_search(
    search: Callable[[FloatArray, int], Sequence[object]],
    queries: FloatArray,
    truth: Sequence[Sequence[object]],
    *,
    own: Sequence[object] | None = None,
    depths: Iterable[int] = (10, 100),
    seed: int = 0,
) -> RetrievalReport:
    """Run a search on every query, one at a time, and compare with the true neighbours.

    Args:
        search: takes a (d,) query and a limit, and returns ids, best first.
        queries: (q, d) embeddings.
        truth: ids of the true neighbours of each query, closest first; at least as many as the largest depth.
        own: id of the item that each query is, which is removed from the results; None if queries are not items.
        depths: the k of recall@k.
        seed: random seed of the bootstrap.
    """
    depths = sorted(depths)
    found, (p50, p95) = timed_search(search, queries, depths[-1] + (own is not None))
    if own is not None:
        found = [[item for item in ids if item != mine] for ids, mine in zip(found, own, strict=True)]
    estimates = {k: bootstrap(recall(found, truth, k), seed) for k in depths}
    means = {k: estimate.mean for k, estimate in estimates.items()}
    intervals = {k: (estimate.low, estimate.high) for k, estimate in estimates.items()}
    return RetrievalReport(len(queries), means, intervals, p50, p95)


def timed_search(
    search: Callable[[FloatArray, int], Sequence[Id]], queries: FloatArray, limit: int
) -> tuple[list[list[Id]], tuple[float, float]]:
    """Search for one query at a time. Returns the results, and the median and 95th percentile of the times in ms."""
    found, seconds = [], []
    search(queries[0], limit)  # the first call warms the caches and is not counted
    for query in queries:
        started = time.perf_counter()
        ids = search(query, limit)
        seconds.append(time.perf_counter() - started)
        found.append(list(ids))
    p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    return found, (float(p50), float(p95))
