"""Offset, score threshold, and codes or embeddings of the hits: the same on every engine and for every first stage."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    Retriever,
    SparseCodes,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.index import Hit, stacked_codes
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.scoring import QueryVector
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import FirstStage, search_settings

from .support.indexes import ENGINES, create_on

KEPT = IndexSettings(keep_dense=True, datatype="float32", navigation=NavigationSettings(dim=24))
WAYS: list[Any] = [
    {"first_stage": "codes"}, {"first_stage": "graph"}, {"first_stage": "both"}, {"dense_candidates": 0},
    {"dense_candidates": 0, "rescore_in_engine": False}, {"scoring": "reconstructed"}, {"scoring": "sparse"},
]  # fmt: skip


@pytest.fixture(scope="module", params=ENGINES)
def filled(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model: CompresSAE,
    codes: SparseCodes,
    embeddings: FloatArray,
) -> Iterator[CodeIndex]:
    """An index of 200 items with a graph and kept embeddings; tests must not change it."""
    with create_on(request.param, tmp_path_factory.mktemp("pages"), model, KEPT) as index:
        index.upsert(range(200), codes[:200], [{"n": n} for n in range(200)], embeddings[:200])
        index.optimize()
        yield index


def _same(some: list[Hit], others: list[Hit]) -> None:
    assert [(hit.id, hit.payload) for hit in some] == [(hit.id, hit.payload) for hit in others]
    np.testing.assert_allclose([hit.score for hit in some], [hit.score for hit in others], atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_pages_are_slices_of_the_ranking(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, way: Any
) -> None:
    retriever = Retriever(model, filled)
    whole = retriever.search(embeddings[3], 30, prefetch=200, **way)
    assert len(whole) == 30
    for offset in (0, 7, 25):
        page = retriever.search(embeddings[3], 5, offset=offset, prefetch=200, **way)
        _same(page, whole[offset : offset + 5])
    batch = retriever.search_batch(embeddings[3:5], 5, offset=7, prefetch=200, **way)
    _same(batch[0], whole[7:12])
    assert retriever.search(embeddings[3], 5, offset=300, **way) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_score_threshold_is_in_the_unit_of_the_scores(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, way: Any
) -> None:
    retriever = Retriever(model, filled)
    whole = retriever.search(embeddings[3], 30, prefetch=200, **way)
    for rank in (0, 4, 29):  # a hit whose score is the threshold itself is kept
        _same(retriever.search(embeddings[3], 30, score_threshold=whole[rank].score, prefetch=200, **way),
              [hit for hit in whole if hit.score >= whole[rank].score])  # fmt: skip
    cut = (whole[9].score + whole[10].score) / 2
    _same(retriever.search(embeddings[3], 5, offset=8, score_threshold=cut, prefetch=200, **way), whole[8:10])
    assert retriever.search(embeddings[3], 5, score_threshold=whole[0].score + 0.01, **way) == []


def test_with_kept_embeddings_the_threshold_is_a_cosine(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray
) -> None:
    cosines = embeddings[:200] @ embeddings[3]
    hits = Retriever(model, filled).search(
        embeddings[3], 200, score_threshold=0.5, prefetch=200, dense_candidates=200, exact=True
    )
    assert {hit.id for hit in hits} == set(np.flatnonzero(cosines >= 0.5).tolist())


@pytest.mark.parametrize("way", WAYS)
def test_hits_carry_codes_and_embeddings_on_request(
    model: CompresSAE, filled: CodeIndex, codes: SparseCodes, embeddings: FloatArray, way: Any
) -> None:
    retriever = Retriever(model, filled)
    if way.get("rescore_in_engine", True):
        hits = retriever.search(embeddings[3], 6, with_codes=True, with_dense=True, **way)
    else:
        hits = retriever.search(embeddings[3], 6, with_codes=True, **way)
        assert all(hit.dense is None for hit in hits)
    rows = [int(hit.id) for hit in hits]
    stacked = stacked_codes(hits, model)
    np.testing.assert_array_equal(stacked.to_csr().toarray(), codes[rows].to_csr().toarray())
    np.testing.assert_allclose(model.decode(stacked), model.decode(codes[rows]), atol=1e-6)
    if hits[0].dense is not None:
        np.testing.assert_allclose(np.array([hit.dense for hit in hits]), embeddings[rows], atol=2e-3)
    copy = pickle.loads(pickle.dumps(hits[0]))
    assert copy == hits[0]
    np.testing.assert_array_equal(copy.values, hits[0].values)
    plain = retriever.search(embeddings[3], 6, **way)
    _same(plain, hits)
    assert all(hit.indices is None and hit.values is None and hit.dense is None for hit in plain)


def test_similar_items_have_pages_too(model: CompresSAE, filled: CodeIndex) -> None:
    retriever = Retriever(model, filled)
    whole = retriever.similar_to(42, 20, prefetch=200)
    assert 42 not in [hit.id for hit in whole]
    for offset in (0, 1, 15):
        _same(retriever.similar_to(42, 5, offset=offset, prefetch=200), whole[offset : offset + 5])
    assert len(retriever.similar_to(42, 5, score_threshold=whole[2].score, prefetch=200)) == 3
    assert retriever.similar_to(42, 5, with_codes=True)[0].indices is not None


def test_the_async_retriever_has_the_same_options(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    async def run() -> None:
        index = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model, KEPT)
        await index.upsert(range(60), codes[:60], dense=embeddings[:60])
        retriever = AsyncRetriever(model, index)
        whole = await retriever.search(embeddings[3], 20, prefetch=60)
        page = await retriever.search(
            embeddings[3], 5, offset=4, score_threshold=whole[6].score, with_codes=True, with_dense=True, prefetch=60
        )
        _same(page, whole[4:7])
        np.testing.assert_array_equal(stacked_codes(page, model).values, codes[[int(hit.id) for hit in page]].values)
        similar = await retriever.similar_to(7, 9)
        _same(await retriever.similar_to(7, 5, offset=2), similar[2:7])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"offset": -1}, "offset is -1; it must be at least 0"),
        ({"offset": 1.5}, "offset is 1.5; it must be a whole number"),
        ({"offset": None}, "offset is None; it must be a whole number"),
        ({"offset": 8, "prefetch": 15}, "prefetch is 15 but limit and offset are 10 and 8"),
        ({"offset": 8, "dense_candidates": 15}, "dense_candidates is 15 but limit and offset are 10 and 8"),
        ({"score_threshold": float("nan")}, "score_threshold is nan; it must be a finite number"),
        ({"score_threshold": "high"}, "score_threshold is 'high'"),
    ],
)
def test_invalid_pages_are_refused(settings: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        search_settings(10, **settings)


def test_embeddings_that_are_not_kept_cannot_be_asked_for(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    with pytest.raises(InvalidInputError, match="with_dense asks for embeddings, but the index keeps none"):
        Retriever(model, index).search(embeddings[0], with_dense=True)


def test_candidates_follow_limit_and_offset(model: CompresSAE, embeddings: FloatArray) -> None:
    planner = QueryPlanner(model, keep_dense=True, navigation_dim=24, projection=model.projection_fingerprint)
    expected: list[tuple[FirstStage, int]] = [("codes", 400), ("graph", 180)]
    for stage, candidates in expected:
        (plan,) = planner.plans(embeddings[0], search_settings(10, offset=90, first_stage=stage))
        assert (plan.limit, plan.offset, plan.prefetch) == (10, 90, candidates)
        assert plan.dense_candidates == (180 if stage == "graph" else 300)


def test_a_plan_checks_its_page() -> None:
    vector = QueryVector(np.array([1], np.int32), np.array([1.0], np.float32))
    for wrong, complaint in (
        ({"offset": -1}, "offset is -1"),
        ({"offset": 5}, "prefetch is 6 but limit and offset are 2 and 5"),
        ({"min_score": float("inf")}, "min_score is inf"),
    ):
        settings: Any = wrong
        with pytest.raises(InvalidInputError, match=complaint):
            QueryPlan(vector, vector, 2, 6, **settings)
