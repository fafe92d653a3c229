"""Rescoring of candidates in this process, for plans that the engine does not rescore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codes import FloatArray
from ..scoring import QueryVector
from ..telemetry import timed
from .plan import QueryPlan
from .results import Hit, Record

__all__ = ["above_minimum", "rescore"]


def above_minimum(hits: list[Hit], plan: QueryPlan) -> list[Hit]:
    """The hits whose score reaches the minimum of the plan."""
    return hits if plan.min_score is None else [hit for hit in hits if hit.score >= plan.min_score]


@timed("compressae.search.rescoring.duration")
def rescore(candidates: Sequence[Record], plan: QueryPlan) -> list[Hit]:
    """The hits of a plan: its candidates by the dot product of their stored codes with its rescoring, in float32.

    Candidates of equal score keep their order.
    """
    assert plan.rescoring is not None
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        strength = _products(candidates, plan.first_stage)
        candidates = [one for one, product in zip(candidates, strength, strict=True) if product >= plan.score_threshold]
    scores = _products(candidates, plan.rescoring)
    best = np.argsort(-scores, kind="stable")[plan.offset : plan.offset + plan.limit]
    hits = [_hit(candidates[i], float(scores[i]), plan) for i in best.tolist()]
    return above_minimum(hits, plan)


def _hit(item: Record, score: float, plan: QueryPlan) -> Hit:
    return Hit(
        item.id, score, item.payload, plan.origin,
        indices=item.indices if plan.with_codes else None, values=item.values if plan.with_codes else None,
        dense=item.dense if plan.with_dense else None,
    )  # fmt: skip


def _products(candidates: Sequence[Record], query: QueryVector) -> FloatArray:
    """(n,) dot products of stored codes with a query-side vector."""
    latents = max([int(query.indices.max()), *(int(one.indices.max(initial=0)) for one in candidates)]) + 1
    dense = np.zeros(latents, np.float32)
    dense[query.indices] = query.values
    return np.array([dense[one.indices] @ one.values for one in candidates], np.float32)
