"""Query plans as requests of qdrant-client."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import models

from ...scoring import QueryVector
from ..filters import point_filter
from ..ids import ID_FIELD
from ..manifest import DENSE_NAME, VECTOR_NAME
from ..plan import QueryPlan
from ..settings import ShardKey

__all__ = ["query_request"]


def query_request(plan: QueryPlan, shard_key: ShardKey | None) -> models.QueryRequest:
    """The request that runs a checked plan, on one shard key or on all."""
    first = models.NearestQuery(nearest=_vector(plan.first_stage))
    filter = None if plan.filter is None else point_filter(plan.filter)
    payload: dict[str, Any] = {"with_payload": True if plan.with_payload else [ID_FIELD], "shard_key": shard_key}
    common = {"using": VECTOR_NAME, **payload}
    if plan.rescoring is None:
        return models.QueryRequest(query=first, filter=filter, limit=plan.limit, **common)
    if not plan.rescore_in_engine:
        return models.QueryRequest(query=first, filter=filter, limit=plan.prefetch, with_vector=[VECTOR_NAME], **common)
    rescoring = _exact_query(plan.rescoring)
    candidates = models.Prefetch(query=first, using=VECTOR_NAME, filter=filter, limit=plan.prefetch)
    if plan.score_threshold is not None:
        candidates = models.Prefetch(
            prefetch=[candidates], query=_exact_query(plan.first_stage), using=VECTOR_NAME, limit=plan.prefetch,
            score_threshold=plan.score_threshold,
        )  # fmt: skip
    if plan.dense is None:
        return models.QueryRequest(prefetch=[candidates], query=rescoring, limit=plan.limit, **common)
    best = models.Prefetch(prefetch=[candidates], query=rescoring, using=VECTOR_NAME, limit=plan.dense_candidates)
    query = models.NearestQuery(nearest=plan.dense.tolist())
    return models.QueryRequest(prefetch=[best], query=query, using=DENSE_NAME, limit=plan.limit, **payload)


def _exact_query(query: QueryVector) -> models.RecommendQuery:
    """A query scored against the stored float32 values, whatever the datatype of the index.

    Recommendation with one positive vector and the sum of scores is the dot product with the stored vector.
    """
    strategy = models.RecommendStrategy.SUM_SCORES
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[_vector(query)], strategy=strategy))


def _vector(query: QueryVector) -> models.SparseVector:
    return models.SparseVector(indices=np.asarray(query.indices).tolist(), values=np.asarray(query.values).tolist())
