"""Requests to the embedded engine, and items and hits from its answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe

from ...scoring import QueryVector
from ..ids import ITEM_FIELDS, item_id, public_payload
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..plan import ACORN_SHARE, QueryPlan
from ..points import CodePoint
from ..reads import vectors_to_read
from ..rescore import Vectors, above_minimum, asked_for, scored
from ..results import Hit, Record
from ..text import TextSearch
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
    indices = _all_latents(len(query)) if query.is_whole else np.asarray(query.indices).tolist()
    return qe.SparseVector(indices, np.asarray(query.values).tolist())


@functools.lru_cache(maxsize=8)
def _all_latents(count: int) -> list[int]:
    return list(range(count))


def query(plan: QueryPlan, *, old_ids: bool = False) -> qe.QueryRequest:
    """The request that runs a checked plan; `old_ids` as in `ids.point_id`."""
    read: dict[str, Any] = {
        "with_payload": True if plan.with_payload else list(ITEM_FIELDS), "with_vector": vectors_to_read(plan) or False,
    }  # fmt: skip
    page: dict[str, Any] = {"limit": plan.limit, "offset": plan.offset, "score_threshold": plan.engine_threshold}
    if plan.text is not None:
        return qe.QueryRequest(**_fused(plan, plan.text, old_ids), **page, **read)
    stages = _first_stages(plan, old_ids)
    if not plan.has_second_stage or plan.is_rescored_here:
        (stage,) = stages
        page = {"limit": plan.prefetch} if plan.has_second_stage else page
        return qe.QueryRequest(query=stage.query, filter=stage.filter, params=stage.params, **page, **read)
    return qe.QueryRequest(**_ranking(plan, stages), **page, **read)


def _fused(plan: QueryPlan, text: TextSearch, old_ids: bool) -> dict[str, Any]:
    """The rankings by codes and by words as prefetches, and their fusion as the query."""
    filter = None if plan.filter is None else edge_filter(plan.filter, old_ids=old_ids)
    words = [qe.TextQuery(name, text.text) for name in text.fields]
    rankings = [qe.Prefetch(limit=text.candidates, query=query, filter=filter) for query in words]
    if text.code_weight:
        codes = _ranking(plan, _first_stages(plan, old_ids))
        rankings.insert(0, qe.Prefetch(limit=text.candidates, **codes))
    elif len(words) == 1:
        return {"query": words[0], "filter": filter}
    fusion: Any = qe.Fusion.Dbsf() if text.fusion == "dbsf" else qe.Fusion.Rrf(k=text.k, weights=text.engine_weights)
    return {"query": fusion, "prefetches": rankings}


def _ranking(plan: QueryPlan, stages: list[qe.Prefetch]) -> dict[str, Any]:
    """The stages after the first, as a query and its prefetches."""
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        stages = [
            qe.Prefetch(
                limit=plan.prefetch, query=_exact(plan.first_stage), prefetches=stages,
                score_threshold=plan.score_threshold,
            )
        ]  # fmt: skip
    if plan.dense is None or plan.dense_candidates < plan.prefetch:
        by_codes: dict[str, Any] = {"query": _exact(plan.engine_rescoring), "prefetches": stages}
        if plan.dense is None:
            return by_codes
        stages = [qe.Prefetch(limit=plan.dense_candidates, **by_codes)]
    dense = qe.Query.Nearest(plan.dense.tolist(), using=DENSE_NAME)
    return {"query": dense, "prefetches": stages}


def _first_stages(plan: QueryPlan, old_ids: bool) -> list[qe.Prefetch]:
    """The searches for candidates: by the inverted index, by the graph, or both."""
    filter = None if plan.filter is None else edge_filter(plan.filter, old_ids=old_ids)
    stages = []
    if plan.first_stage is not None:
        codes = qe.Query.Nearest(_vector(plan.first_stage), using=VECTOR_NAME)
        stages.append(qe.Prefetch(limit=plan.prefetch, query=codes, filter=filter))
    if plan.navigation is not None:
        graph = qe.Query.Nearest(plan.navigation.tolist(), using=NAVIGATION_NAME)
        stored = qe.QuantizationSearchParams(rescore=plan.navigation_candidates > 0, oversampling=plan.oversampling)
        acorn = None if filter is None else qe.AcornSearchParams(enable=True, max_selectivity=ACORN_SHARE)
        params = qe.SearchParams(hnsw_ef=plan.navigation_ef, quantization=stored, acorn=acorn)
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
    made = [
        Hit(item_id(point, payload := point.payload), score, public_payload(payload), plan.origin,
            *(asked_for(plan, _vectors(point)) if plan.with_codes or plan.with_dense else ()))
        for point, score in scored(found, plan)
    ]  # fmt: skip
    return above_minimum(made, plan)


def record(point: qe.ScoredPoint | qe.Record) -> Record:
    """The stored item of a point, with the vectors that were read."""
    (indices, values, dense), payload = _vectors(point), point.payload
    return Record(
        id=item_id(point, payload),
        indices=np.empty(0, np.int32) if indices is None else indices,
        values=np.empty(0, np.float32) if values is None else values,
        dense=dense,
        payload=public_payload(payload),
    )


def _vectors(point: qe.ScoredPoint | qe.Record) -> Vectors:
    """Indices and values of a point's code, and its embedding, as far as they were read."""
    vector: Any = point.vector or {}
    code, dense = vector.get(VECTOR_NAME), vector.get(DENSE_NAME)
    return (
        None if code is None else np.array(code.indices, np.int32),
        None if code is None else np.array(code.values, np.float32),
        None if dense is None else np.array(dense, np.float32),
    )
