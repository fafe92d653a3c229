"""Query plans as requests of qdrant-client, and the call that sends them: by REST, by gRPC, or to the local mode.

Most of a request is one query vector of thousands of numbers. The client's own methods check and convert them one by
one, which takes longer than the search on the server (`scripts/bench_client.py`).
Here vectors stay NumPy arrays in the models of a request until they are written to the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from qdrant_client import grpc, models

from ...scoring import QueryVector
from ..ids import ITEM_FIELDS
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..plan import ACORN_SHARE, QueryPlan
from ..reads import vectors_to_read
from ..results import Hit
from ..settings import ShardKey
from ..text import TextSearch
from .answers import PointReader
from .calls import Call
from .target import Target
from .wire import grpc_query, rest_queries

__all__ = ["search_call"]

VectorMaker: TypeAlias = Callable[[QueryVector], models.SparseVector]


def search_call(target: Target, plans: Sequence[QueryPlan], reader: PointReader) -> Call[list[list[Hit]]]:
    """Run checked plans, whose filters name point ids, in one call; their hits come in order."""
    kind = target.transport.kind
    requests = [_request(plan, target.shard_key, _lists if kind == "local" else _arrays) for plan in plans]
    send = {"grpc": _grpc_call, "rest": _rest_call, "local": _local_call}[kind]
    return send(target, requests, plans, reader)


def _rest_call(
    target: Target, requests: Sequence[models.QueryRequest], plans: Sequence[QueryPlan], reader: PointReader
) -> Call[list[list[Hit]]]:
    body = cast("models.QueryRequestBatch", rest_queries(requests))
    return Call(
        "search",
        lambda client: client.http.search_api.query_batch_points(
            collection_name=target.collection, query_request_batch=body
        ),
        lambda answer: [
            reader.hits(plan, result.points) for plan, result in zip(plans, answer.result or [], strict=True)
        ],
    )


def _grpc_call(
    target: Target, requests: Sequence[models.QueryRequest], plans: Sequence[QueryPlan], reader: PointReader
) -> Call[list[list[Hit]]]:
    batch = grpc.QueryBatchPoints(
        collection_name=target.collection, query_points=[grpc_query(request, target.collection) for request in requests]
    )
    return Call(
        "search",
        lambda client: client.grpc_points.QueryBatch(request=batch, timeout=target.transport.timeout),
        lambda answer: [
            reader.grpc_hits(plan, result.result) for plan, result in zip(plans, answer.result, strict=True)
        ],
    )


def _local_call(
    target: Target, requests: Sequence[models.QueryRequest], plans: Sequence[QueryPlan], reader: PointReader
) -> Call[list[list[Hit]]]:
    # The local mode scores every item, and warns about parameters of a graph.
    requests = [request.model_copy(update={"params": None}) for request in requests]
    return Call(
        "search",
        lambda client: client.query_batch_points(collection_name=target.collection, requests=requests),
        lambda answers: [reader.hits(plan, answer.points) for plan, answer in zip(plans, answers, strict=True)],
    )


def _request(plan: QueryPlan, shard_key: ShardKey | None, vector: VectorMaker) -> models.QueryRequest:
    """The request that runs a checked plan, on one shard key or on all; `vector` makes its sparse vectors."""
    read: dict[str, Any] = {
        "with_payload": True if plan.with_payload else list(ITEM_FIELDS), "with_vector": vectors_to_read(plan) or None,
        "shard_key": shard_key,
    }  # fmt: skip
    page: dict[str, Any] = {
        "limit": plan.limit, "offset": plan.offset or None, "score_threshold": plan.engine_threshold,
    }  # fmt: skip
    if plan.text is not None:
        return models.QueryRequest(**_fused(plan, plan.text, vector), **page, **read)
    stages = _first_stages(plan, vector)
    if not plan.has_second_stage or plan.is_rescored_here:
        (stage,) = stages
        page = {"limit": plan.prefetch} if plan.has_second_stage else page
        return models.QueryRequest(
            query=stage.query, using=stage.using, filter=stage.filter, params=stage.params, **page, **read
        )
    return models.QueryRequest(**_ranking(plan, stages, vector), **page, **read)


def _fused(plan: QueryPlan, text: TextSearch, vector: VectorMaker) -> dict[str, Any]:
    """The rankings by codes and by words as prefetches, and their fusion as the query.

    The fusion is the root of the request: in a prefetch, every shard would fuse its own rankings.
    """
    query = models.TextQuery(text=text.text)
    rankings = [
        models.Prefetch(query=query, using=name, filter=plan.filter, limit=text.candidates) for name in text.fields
    ]
    if text.code_weight:
        codes = _ranking(plan, _first_stages(plan, vector), vector)
        rankings.insert(0, models.Prefetch(limit=text.candidates, **codes))
    elif len(rankings) == 1:
        return {"query": query, "using": rankings[0].using, "filter": plan.filter}
    if text.fusion == "dbsf":
        return {"query": models.FusionQuery(fusion=models.Fusion.DBSF), "prefetch": rankings}
    return {"query": models.RrfQuery(rrf=models.Rrf(k=text.k, weights=text.engine_weights)), "prefetch": rankings}


def _ranking(plan: QueryPlan, stages: list[models.Prefetch], vector: VectorMaker) -> dict[str, Any]:
    """The stages after the first, as a query and its prefetches."""
    if plan.score_threshold is not None:
        assert plan.first_stage is not None
        stages = [
            models.Prefetch(
                prefetch=stages, query=_exact_query(vector(plan.first_stage)), using=VECTOR_NAME, limit=plan.prefetch,
                score_threshold=plan.score_threshold,
            )
        ]  # fmt: skip
    if plan.dense is None or plan.dense_candidates < plan.prefetch:
        by_codes: dict[str, Any] = {
            "prefetch": stages,
            "query": _exact_query(vector(plan.engine_rescoring)),
            "using": VECTOR_NAME,
        }
        if plan.dense is None:
            return by_codes
        stages = [models.Prefetch(**by_codes, limit=plan.dense_candidates)]
    dense = models.NearestQuery(nearest=plan.dense.tolist())
    return {"prefetch": stages, "query": dense, "using": DENSE_NAME}


def _first_stages(plan: QueryPlan, vector: VectorMaker) -> list[models.Prefetch]:
    """The searches for candidates: by the inverted index, by the graph, or both."""
    stages = []
    if plan.first_stage is not None:
        codes = models.NearestQuery(nearest=vector(plan.first_stage))
        stages.append(models.Prefetch(query=codes, using=VECTOR_NAME, filter=plan.filter, limit=plan.prefetch))
    if plan.navigation is not None:
        graph = models.NearestQuery(nearest=plan.navigation.tolist())
        stored = models.QuantizationSearchParams(rescore=plan.navigation_candidates > 0, oversampling=plan.oversampling)
        acorn = None
        if plan.filter is not None:
            acorn = models.AcornSearchParams(enable=True, max_selectivity=ACORN_SHARE)
        params = models.SearchParams(hnsw_ef=plan.navigation_ef, quantization=stored, acorn=acorn)
        stages.append(
            models.Prefetch(query=graph, using=NAVIGATION_NAME, filter=plan.filter, params=params, limit=plan.prefetch)
        )
    return stages


def _exact_query(vector: models.SparseVector) -> models.RecommendQuery:
    """A query scored against the stored float32 values, whatever the datatype of the index.

    Recommendation with one positive vector and the sum of scores is the dot product with the stored vector.
    """
    strategy = models.RecommendStrategy.SUM_SCORES
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[vector], strategy=strategy))


def _lists(query: QueryVector) -> models.SparseVector:
    return models.SparseVector(indices=np.asarray(query.indices).tolist(), values=np.asarray(query.values).tolist())


def _arrays(query: QueryVector) -> models.SparseVector:
    """A vector of NumPy arrays, which the model does not check."""
    return models.SparseVector.model_construct(
        indices=np.asarray(query.indices, np.int32), values=np.asarray(query.values, np.float32)
    )
