"""Quality metrics of searches: metrics of each query, their means with bootstrap intervals, and Pareto fronts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from .codes import FloatArray
from .errors import InvalidInputError

__all__ = [
    "Estimate",
    "Segment",
    "agreement",
    "bootstrap",
    "by_segment",
    "ndcg",
    "paired_difference",
    "pareto_front",
    "recall",
    "values_of",
]

_RESAMPLES: Final = 1000
_RESAMPLED_VALUES: Final = 1 << 20
"""Values that a bootstrap keeps in memory at once (8 MiB)."""
_TOP: Final = 10

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Segment:
    """The queries whose item has one value of a payload field."""

    value: str
    queries: int
    recall: Estimate


def recall(found: Sequence[Sequence[object]], truth: Sequence[Sequence[object]], k: int) -> FloatArray:
    """Compute recall@k of each query: the share of the true top k among the first k results, (q,) float32."""
    return np.array([len(set(f[:k]) & set(t[:k])) / k for f, t in zip(found, truth, strict=True)], np.float32)


def ndcg(found: Sequence[Sequence[object]], grades: Sequence[Mapping[Any, float]], k: int) -> FloatArray:
    """(q,) normalised discounted cumulative gain of the first k results, with gains 2^grade - 1.

    Args:
        found: result ids of each query, best first.
        grades: grade of each relevant id, above 0, for each query.
        k: length of the ranking.

    Raises:
        InvalidInputError: the numbers of queries differ, a query has no relevant id, or k is below 1.
    """
    if len(found) != len(grades) or k < 1:
        raise InvalidInputError(f"there are {len(found)} rankings for {len(grades)} queries, and k is {k}")
    discounts = 1 / np.log2(np.arange(2, k + 2))
    values = np.empty(len(found), np.float32)
    for row, (ranking, relevant) in enumerate(zip(found, grades, strict=True)):
        gains = [2.0 ** relevant.get(item, 0.0) - 1 for item in ranking[:k]]
        ideal = sorted((2.0**grade - 1 for grade in relevant.values()), reverse=True)[:k]
        best = float(ideal @ discounts[: len(ideal)]) if ideal else 0.0
        if best <= 0:
            raise InvalidInputError(
                f"query {row} has no relevant item, so its ranking cannot be measured; leave it out"
            )
        values[row] = float(gains @ discounts[: len(gains)]) / best
    return values


def bootstrap(each: FloatArray | Sequence[float], seed: int = 0) -> Estimate:
    """Estimate the mean of (q,) values of queries, with a 95% percentile bootstrap interval over 1,000 resamples.

    The interval of a single query is its own value.

    Raises:
        InvalidInputError: there are no queries.
    """
    if not len(each):
        raise InvalidInputError("cannot average over no queries; give at least one")
    values = np.asarray(each, np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        return Estimate(mean, mean, mean)
    from scipy.stats import bootstrap as resample  # imported here because loading it takes half a second

    interval = resample(
        (values,), np.mean, n_resamples=_RESAMPLES, batch=max(_RESAMPLED_VALUES // len(values), 1),
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Estimate(mean, float(interval.low), float(interval.high))


def paired_difference(ours: FloatArray, theirs: FloatArray, seed: int = 0) -> Estimate:
    """Estimate the mean of `ours - theirs` over the queries for which neither is NaN.

    Both values of a query are resampled together, so that differences between queries do not widen the interval.
    """
    differences = ours - theirs
    return bootstrap(differences[np.isfinite(differences)], seed)


def by_segment(each: FloatArray, values: Sequence[object], seed: int = 0) -> list[Segment]:
    """Average (q,) values over the queries of each segment, worst segment first.

    Args:
        each: (q,) metric of each query.
        values: payload field of the item of each query. A query whose field is a list belongs to a segment for each
            element; a query without a value belongs to the segment "(none)".
        seed: random seed of the bootstrap.
    """
    members: dict[str, list[int]] = {}
    for query, value in enumerate(values):
        for name in values_of(value) or ["(none)"]:
            members.setdefault(name, []).append(query)
    segments = [Segment(name, len(rows), bootstrap(each[rows], seed)) for name, rows in members.items()]
    return sorted(segments, key=lambda segment: (segment.recall.mean, -segment.queries, segment.value))


def agreement(found: Sequence[Sequence[int]], own: Sequence[int], values: Sequence[object]) -> FloatArray:
    """Measure how well the first ten results of each query agree with its item in a payload field.

    For a field with single values, the measure is the share of the ten results with the value of the query's item. For
    a field of lists, it is nDCG@10, where a result is relevant if it shares an element with the query's item.

    Args:
        found: rows of the catalog found for each query, without the query's own row.
        own: row of the catalog that each query is.
        values: the field of every row of the catalog.

    Returns:
        (q,) float32 from 0 to 1; NaN for a query whose item has no value.
    """
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    result = np.full(len(own), np.nan, np.float32)
    for query, (row, rows) in enumerate(zip(own, found, strict=True)):
        query_values = set(values_of(values[row]))
        if query_values:
            weights = discounts if isinstance(values[row], (list, tuple)) else np.ones(_TOP)
            shared = np.array([bool(query_values & set(values_of(values[other]))) for other in rows[:_TOP]], np.float64)
            result[query] = shared @ weights[: len(shared)] / weights.sum()
    return result


def values_of(value: object) -> list[str]:
    """Return the values of a payload field as text: none, one, or the elements of a list."""
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value)]


def pareto_front(points: Iterable[T], cost: Callable[[T], float], gains: Callable[[T], Sequence[float]]) -> list[T]:
    """Select the points that no other point of at most their cost equals or exceeds in every gain.

    Args:
        points: the points. Of points that are equal in cost and gains, the first is kept.
        cost: cost of a point; lower is better.
        gains: gains of a point, as many for each; higher is better, and -inf stands for an unknown one.

    Returns:
        The selected points, cheapest first.
    """
    front: list[tuple[T, Sequence[float]]] = []
    rated = [(cost(point), gains(point), point) for point in points]
    for _, gain, point in sorted(rated, key=lambda entry: (entry[0], [-value for value in entry[1]])):
        if not any(all(a >= b for a, b in zip(other, gain, strict=True)) for _, other in front):
            front.append((point, gain))
    return [point for point, _ in front]
