"""Searches by the graph rank a few candidates in this process: the hits are those that the engine ranks."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from compressae_qdrant import AsyncQdrantIndex, AsyncRetriever, CompresSAE, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.index.results import Hit
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.model.projection import Projection
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

from .backends import Create
from .containers import Server

D, N = 24, 400
GRAPH: dict[str, Any] = {"first_stage": "graph", "dense_candidates": 0}
RED = models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="red"))])

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture(scope="module")
def rows() -> FloatArray:
    """Embeddings whose variance falls from dimension to dimension."""
    x = np.random.default_rng(4).normal(size=(N, D)) * np.linspace(1, 0.2, D)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def graph_model(rows: FloatArray) -> CompresSAE:
    model = CompresSAE(ModelConfig(D, 96, 8), seed=3)
    model.projection = Projection.fit(rows)
    model.measure_latents(model.encode(rows))
    return model


@pytest.fixture
def filled(create: Create, graph_model: CompresSAE, rows: FloatArray) -> CodeIndex:
    index = create(graph_model, IndexSettings(keep_dense=True, payload_fields={"colour": "keyword"}))
    payloads = [{"colour": ("red", "green", "blue")[row % 3], "number": row} for row in range(N)]
    index.upsert(range(N), graph_model.encode(rows), payloads, dense=rows)
    index.optimize()
    return index


def _assert_equal(found: list[Hit], expected: list[Hit]) -> None:
    _assert_equal_fields(found, expected)
    for one, other in zip(found, expected, strict=True):
        assert [share.latent for share in one.explain().shares] == [share.latent for share in other.explain().shares]


def _assert_equal_fields(found: list[Hit], expected: list[Hit]) -> None:
    assert found
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert [hit.payload for hit in found] == [hit.payload for hit in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("indices", "values", "dense"):
            mine, its = getattr(one, name), getattr(other, name)
            assert (mine is None) == (its is None)
            np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"offset": 5}, {"score_threshold": 0.3}, {"score_threshold": 0.3, "offset": 2}, {"with_codes": True},
        {"with_dense": True}, {"with_codes": True, "with_dense": True, "with_payload": False}, {"filter": RED},
        {"prefetch": 40, "navigation_ef": 60}, {"navigation_candidates": 0}, {"scoring": "reconstructed"},
    ],
    ids=lambda options: ",".join(options) or "plain",
)  # fmt: skip
def test_hits_are_those_that_the_engine_ranks(
    filled: CodeIndex, graph_model: CompresSAE, rows: FloatArray, options: dict[str, Any]
) -> None:
    settings = search_settings(**{"limit": 10, **GRAPH, **options})
    (plan,) = QueryPlanner(graph_model, True, D, graph_model.projection_fingerprint).plans(rows[:1], settings)
    assert plan.is_rescored_here
    retriever = Retriever(graph_model, filled)
    for row in range(3):
        found = retriever.search(rows[row], **GRAPH, **options)
        _assert_equal(found, retriever.search(rows[row], **GRAPH, **options, rescore_in_engine=True))
    batch = retriever.search_batch(rows[:3], **GRAPH, **options)
    for hits, query in zip(batch, rows[:3], strict=True):
        _assert_equal(hits, retriever.search(query, **GRAPH, **options, rescore_in_engine=True))


def test_similar_items_and_groups_are_those_that_the_engine_ranks(filled: CodeIndex, graph_model: CompresSAE) -> None:
    retriever = Retriever(graph_model, filled)
    _assert_equal(retriever.similar_to(7, **GRAPH), retriever.similar_to(7, **GRAPH, rescore_in_engine=True))
    (record,) = retriever.index.retrieve([7])
    query = record.dense
    assert query is not None
    found = retriever.search_groups(query, "colour", 3, group_size=2, **GRAPH)
    expected = retriever.search_groups(query, "colour", 3, group_size=2, **GRAPH, rescore_in_engine=True)
    assert [group.id for group in found] == [group.id for group in expected]
    assert sorted(group.id for group in found) == ["blue", "green", "red"]
    for one, other in zip(found, expected, strict=True):
        _assert_equal(one.hits, other.hits)


@pytest.mark.parametrize("grpc", [False, True], ids=["server-rest", "server-grpc"])
def test_asynchronous_hits_are_those_that_the_engine_ranks(
    server: Server, grpc: bool, graph_model: CompresSAE, rows: FloatArray
) -> None:
    if grpc:
        server.require_grpc()

    async def run() -> None:
        client = server.async_client(grpc=grpc)
        name = f"test-graph-{'grpc' if grpc else 'rest'}"
        if await client.collection_exists(name):
            await client.delete_collection(name)
        try:
            index = await AsyncQdrantIndex.create(client, name, graph_model)
            await index.upsert(range(N), graph_model.encode(rows), [{"number": row} for row in range(N)])
            await index.optimize()
            retriever = AsyncRetriever(graph_model, index)
            for row in range(3):
                found = await retriever.search(rows[row], first_stage="graph", with_codes=True)
                expected = await retriever.search(
                    rows[row], first_stage="graph", with_codes=True, rescore_in_engine=True
                )
                _assert_equal_fields(found, expected)
            found = await retriever.similar_to(7, first_stage="graph")
            expected = await retriever.similar_to(7, first_stage="graph", rescore_in_engine=True)
            _assert_equal_fields(found, expected)
        finally:
            await client.delete_collection(name)
            await client.close()

    asyncio.run(run())
