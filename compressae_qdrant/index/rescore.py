"""Rescoring of candidates in this process, for plans that the engine does not rescore."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..scoring import EmbeddingQuery, QueryVector
from ..telemetry import timed
from .manifest import VECTOR_NAME
from .plan import QueryPlan
from .results import Hit

__all__ = ["StoredCode", "Vectors", "above_minimum", "asked_for", "rescore", "scored"]

Point = TypeVar("Point", bound="_ScoredPoint")
Vectors: TypeAlias = tuple[npt.NDArray[np.int32] | None, FloatArray | None, FloatArray | None]
"""Indices and values of a code, and an embedding, as far as they were read."""


class StoredCode(Protocol):
    """The code of a candidate as an engine returns it."""

    @property
    def indices(self) -> Sequence[int]: ...
    @property
    def values(self) -> Sequence[float]: ...


class _ScoredPoint(Protocol):
    """A point that an engine found."""

    @property
    def score(self) -> float: ...
    @property
    def vector(self) -> Any: ...


def above_minimum(hits: list[Hit], plan: QueryPlan) -> list[Hit]:
    """The hits whose score reaches the minimum of the plan."""
    return hits if plan.min_score is None else [hit for hit in hits if hit.score >= plan.min_score]


def asked_for(plan: QueryPlan, vectors: Vectors) -> Vectors:
    """What a hit keeps of the vectors that were read: no code that was read for rescoring alone."""
    return vectors if plan.with_codes else (None, None, vectors[2])


def scored(points: Sequence[Point], plan: QueryPlan) -> list[tuple[Point, float]]:
    """Points with their scores, best first: by the engine, or by their codes if the plan rescores in this process."""
    if not plan.is_rescored_here:
        return [(point, point.score) for point in points]
    codes = [(point.vector or {}).get(VECTOR_NAME) for point in points]
    return [(points[row], score) for row, score in rescore(codes, plan)]


@timed("compressae.search.rescoring.duration")
def rescore(candidates: Sequence[StoredCode | None], plan: QueryPlan) -> list[tuple[int, float]]:
    """Rank candidates by the dot product of their stored codes with the rescoring of a plan, in float32.

    Args:
        candidates: codes in the order of the first stage, which those of equal score keep. Candidates without a code
            are left out.
        plan: what ranks them.

    Returns:
        Positions of the plan's hits in `candidates` and their scores, best first.
    """
    assert plan.rescoring is not None
    # A code of the embedded engine makes a new list at each access.
    read = [(row, code.indices, code.values) for row, code in enumerate(candidates) if code is not None]
    coded = [each for each in read if len(each[1])]
    if not coded:
        return []
    codes = _Codes([indices for _, indices, _ in coded], [values for _, _, values in coded])
    scores = codes.products(plan.rescoring)
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        scores[codes.products(plan.first_stage) < plan.score_threshold] = -np.inf
    order = np.argsort(-scores, kind="stable")[plan.offset : plan.offset + plan.limit]
    return [
        (coded[row][0], score)
        for row, score in zip(order.tolist(), scores[order].tolist(), strict=True)
        if score != -np.inf
    ]


class _Codes:
    """Codes of any lengths, one after the other."""

    def __init__(self, indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]]) -> None:
        lengths = np.fromiter(map(len, indices), np.intp, len(indices))
        self._starts = np.cumsum(lengths) - lengths
        self._indices: npt.NDArray[np.int32] = np.fromiter(chain.from_iterable(indices), np.int32, int(lengths.sum()))
        self._values: FloatArray = np.fromiter(chain.from_iterable(values), np.float32, int(lengths.sum()))

    def products(self, query: QueryVector | EmbeddingQuery) -> FloatArray:
        """(n,) dot products with a query."""
        return np.add.reduceat(query.at(self._indices) * self._values, self._starts)
