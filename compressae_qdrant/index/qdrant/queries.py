"""Query plans as requests of qdrant-client."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import models

from ...scoring import QueryVector
from ..filters import point_filter
from ..ids import ITEM_FIELDS
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..plan import QueryPlan
from ..points import vectors_to_read
from ..settings import ShardKey

__all__ = ["query_request"]


def query_request(plan: QueryPlan, shard_key: ShardKey | None, old_ids: bool = False) -> models.QueryRequest:
    """The request that runs a checked plan, on one shard key or on all; `old_ids` as in `ids.point_id`."""
    read: dict[str, Any] = {
        "with_payload": True if plan.with_payload else list(ITEM_FIELDS), "with_vector": vectors_to_read(plan) or None,
        "shard_key": shard_key,
    }  # fmt: skip
    page: dict[str, Any] = {
        "limit": plan.limit, "offset": plan.offset or None, "score_threshold": plan.engine_threshold,
    }  # fmt: skip
    stages = _first_stages(plan, old_ids)
    if plan.rescoring is None or not plan.rescore_in_engine:
        (stage,) = stages
        page = page if plan.rescoring is None else {"limit": plan.prefetch}
        return models.QueryRequest(
            query=stage.query, using=stage.using, filter=stage.filter, params=stage.params, **page, **read
        )
    rescoring = _exact_query(plan.rescoring)
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        stages = [
            models.Prefetch(
                prefetch=stages, query=_exact_query(plan.first_stage), using=VECTOR_NAME, limit=plan.prefetch,
                score_threshold=plan.score_threshold,
            )
        ]  # fmt: skip
    if plan.dense is None:
        return models.QueryRequest(prefetch=stages, query=rescoring, using=VECTOR_NAME, **page, **read)
    if plan.dense_candidates < plan.prefetch:
        stages = [models.Prefetch(prefetch=stages, query=rescoring, using=VECTOR_NAME, limit=plan.dense_candidates)]
    dense = models.NearestQuery(nearest=plan.dense.tolist())
    return models.QueryRequest(prefetch=stages, query=dense, using=DENSE_NAME, **page, **read)


def _first_stages(plan: QueryPlan, old_ids: bool) -> list[models.Prefetch]:
    """The searches for candidates: by the inverted index, by the graph, or both."""
    filter = None if plan.filter is None else point_filter(plan.filter, old_ids=old_ids)
    stages = []
    if plan.first_stage is not None:
        codes = models.NearestQuery(nearest=_vector(plan.first_stage))
        stages.append(models.Prefetch(query=codes, using=VECTOR_NAME, filter=filter, limit=plan.prefetch))
    if plan.navigation is not None:
        graph = models.NearestQuery(nearest=plan.navigation.tolist())
        # Without this the engine rescores by the vectors on disk, which codes do better.
        params = models.SearchParams(
            hnsw_ef=plan.navigation_ef, quantization=models.QuantizationSearchParams(rescore=False)
        )
        stages.append(
            models.Prefetch(query=graph, using=NAVIGATION_NAME, filter=filter, params=params, limit=plan.prefetch)
        )
    return stages


def _exact_query(query: QueryVector) -> models.RecommendQuery:
    """A query scored against the stored float32 values, whatever the datatype of the index.

    Recommendation with one positive vector and the sum of scores is the dot product with the stored vector.
    """
    strategy = models.RecommendStrategy.SUM_SCORES
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[_vector(query)], strategy=strategy))


def _vector(query: QueryVector) -> models.SparseVector:
    return models.SparseVector(indices=np.asarray(query.indices).tolist(), values=np.asarray(query.values).tolist())
