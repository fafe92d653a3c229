"""Requests to the embedded engine, and items and hits from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe

from ...scoring import QueryVector
from ..ids import ITEM_FIELDS, item_id, public_payload
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..plan import QueryPlan
from ..points import CodePoint, rescore
from ..results import Hit, Record
from .filters import edge_filter

__all__ = ["hits", "query", "record", "vectors"]


def vectors(point: CodePoint) -> dict[str, Any]:
    """The named vectors of a point to store."""
    named: dict[str, Any] = {VECTOR_NAME: qe.SparseVector(point.indices, point.values)}
    if point.dense is not None:
        named[DENSE_NAME] = point.dense
    if point.navigation is not None:
        named[NAVIGATION_NAME] = point.navigation
    return named


def _vector(query: QueryVector) -> qe.SparseVector:
    return qe.SparseVector(np.asarray(query.indices).tolist(), np.asarray(query.values).tolist())


def query(plan: QueryPlan, *, old_ids: bool = False) -> qe.QueryRequest:
    """The request that runs a checked plan; `old_ids` as in `ids.point_id`."""
    payload: Any = True if plan.with_payload else list(ITEM_FIELDS)
    stages = _first_stages(plan, old_ids)
    if plan.rescoring is None or not plan.rescore_in_engine:
        (stage,) = stages
        return qe.QueryRequest(
            limit=plan.limit if plan.rescoring is None else plan.prefetch,
            query=stage.query,
            filter=stage.filter,
            params=stage.params,
            with_payload=payload,
            with_vector=plan.rescoring is not None and [VECTOR_NAME],
        )
    rescoring = _exact(plan.rescoring)
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        stages = [
            qe.Prefetch(
                limit=plan.prefetch, query=_exact(plan.first_stage), prefetches=stages,
                score_threshold=plan.score_threshold,
            )
        ]  # fmt: skip
    if plan.dense is None:
        return qe.QueryRequest(limit=plan.limit, query=rescoring, prefetches=stages, with_payload=payload)
    if plan.dense_candidates < plan.prefetch:
        stages = [qe.Prefetch(limit=plan.dense_candidates, query=rescoring, prefetches=stages)]
    dense = qe.Query.Nearest(plan.dense.tolist(), using=DENSE_NAME)
    return qe.QueryRequest(limit=plan.limit, query=dense, prefetches=stages, with_payload=payload)


def _first_stages(plan: QueryPlan, old_ids: bool) -> list[qe.Prefetch]:
    """The searches for candidates: by the inverted index, by the graph, or both."""
    filter = None if plan.filter is None else edge_filter(plan.filter, old_ids=old_ids)
    stages = []
    if plan.first_stage is not None:
        codes = qe.Query.Nearest(_vector(plan.first_stage), using=VECTOR_NAME)
        stages.append(qe.Prefetch(limit=plan.prefetch, query=codes, filter=filter))
    if plan.navigation is not None:
        graph = qe.Query.Nearest(plan.navigation.tolist(), using=NAVIGATION_NAME)
        # Without this the engine rescores by the vectors on disk, which codes do better.
        params = qe.SearchParams(hnsw_ef=plan.navigation_ef, quantization=qe.QuantizationSearchParams(rescore=False))
        stages.append(qe.Prefetch(limit=plan.prefetch, query=graph, filter=filter, params=params))
    return stages


def _exact(query: QueryVector) -> Any:
    """A query scored against the stored float32 values, whatever the datatype of the index.

    Recommendation with one positive vector and the sum of scores is the dot product with the stored vector. A Nearest
    query would score by the quantised index again (77 ms instead of 8 for 1,000 candidates).
    """
    return qe.Query.RecommendSumScores(qe.RecommendQuery(positives=[_vector(query)], negatives=[]), using=VECTOR_NAME)


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
