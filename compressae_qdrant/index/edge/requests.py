"""Requests to the embedded engine, and items and hits from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe

from ...scoring import QueryVector
from ..ids import ID_FIELD, item_id, public_payload
from ..manifest import DENSE_NAME, VECTOR_NAME
from ..plan import QueryPlan
from ..points import CodePoint, rescore
from ..results import Hit, Record
from .filters import edge_filter

__all__ = ["hits", "query", "record", "vectors"]


def vectors(point: CodePoint) -> dict[str, Any]:
    """The named vectors of a point to store."""
    code: dict[str, Any] = {VECTOR_NAME: qe.SparseVector(point.indices, point.values)}
    return code if point.dense is None else code | {DENSE_NAME: point.dense}


def _vector(query: QueryVector) -> qe.SparseVector:
    return qe.SparseVector(np.asarray(query.indices).tolist(), np.asarray(query.values).tolist())


def query(plan: QueryPlan) -> qe.QueryRequest:
    """The request that runs a checked plan."""
    first = qe.Query.Nearest(_vector(plan.first_stage), using=VECTOR_NAME)
    filter = None if plan.filter is None else edge_filter(plan.filter)
    payload: Any = True if plan.with_payload else [ID_FIELD]
    if plan.rescoring is None:
        return qe.QueryRequest(limit=plan.limit, query=first, filter=filter, with_payload=payload)
    if not plan.rescore_in_engine:
        return qe.QueryRequest(
            limit=plan.prefetch, query=first, filter=filter, with_payload=payload, with_vector=[VECTOR_NAME]
        )
    # Recommendation with one positive vector and the sum of scores is the dot product with the stored float32 values,
    # whatever the index's datatype. A Nearest query would score by the quantised index again (77 ms instead of 8).
    rescoring = qe.RecommendQuery(positives=[_vector(plan.rescoring)], negatives=[])
    second = qe.Query.RecommendSumScores(rescoring, using=VECTOR_NAME)
    candidates = qe.Prefetch(limit=plan.prefetch, query=first, filter=filter)
    if plan.score_threshold is not None:
        exact = qe.RecommendQuery(positives=[_vector(plan.first_stage)], negatives=[])
        candidates = qe.Prefetch(
            limit=plan.prefetch, query=qe.Query.RecommendSumScores(exact, using=VECTOR_NAME), prefetches=[candidates],
            score_threshold=plan.score_threshold,
        )  # fmt: skip
    if plan.dense is None:
        return qe.QueryRequest(limit=plan.limit, query=second, prefetches=[candidates], with_payload=payload)
    return qe.QueryRequest(
        limit=plan.limit,
        query=qe.Query.Nearest(plan.dense.tolist(), using=DENSE_NAME),
        prefetches=[qe.Prefetch(limit=plan.dense_candidates, query=second, prefetches=[candidates])],
        with_payload=payload,
    )


def hits(plan: QueryPlan, found: Sequence[qe.ScoredPoint]) -> list[Hit]:
    """The hits of a plan, best first."""
    if plan.rescoring is not None and not plan.rescore_in_engine:
        return rescore([record(point) for point in found], plan)
    return [
        Hit(item_id(point.id, point.payload), point.score, public_payload(point.payload), plan.origin)
        for point in found
    ]


def record(point: qe.ScoredPoint | qe.Record) -> Record:
    """The stored item of a point that was read with its vectors."""
    vector: Any = point.vector
    code = vector[VECTOR_NAME]
    return Record(
        id=item_id(point.id, point.payload),
        indices=np.array(code.indices, np.int32),
        values=np.array(code.values, np.float32),
        dense=np.array(vector[DENSE_NAME], np.float32) if DENSE_NAME in vector else None,
        payload=public_payload(point.payload),
    )
