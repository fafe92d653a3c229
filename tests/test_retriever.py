from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    QdrantIndex,
    Retriever,
    SparseCodes,
)
from compressae_qdrant import (
    scoring as similarity,
)
from compressae_qdrant.capacity import Workload
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import (
    DimensionError,
    IndexNotFoundError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
)
from compressae_qdrant.index import Hit
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.defaults import default_plan, graph_sizes
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

SCORINGS: list[Any] = ["asymmetric", "reconstructed", "sparse"]


def _vectors(model: CompresSAE, codes: SparseCodes, x: FloatArray, rows: Any, scoring: str) -> FloatArray:
    atoms = model.atoms.detach().numpy()
    if scoring == "asymmetric":
        return similarity.asymmetric(atoms, x[rows])
    return similarity.sparse(codes[rows]) if scoring == "sparse" else similarity.reconstructed(atoms, codes[rows])


def _assert_same(a: list[Hit], b: list[Hit]) -> None:
    """Assert equality up to rounding, because products of one query and of several are summed in different orders."""
    assert [(hit.id, hit.payload) for hit in a] == [(hit.id, hit.payload) for hit in b]
    np.testing.assert_allclose([hit.score for hit in a], [hit.score for hit in b], atol=1e-6)


def test_a_first_stage_by_the_query_code_does_not_change_scores(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, index)
    exhaustive = {hit.id: hit.score for hit in retriever.search(embeddings[3], 600, exact=True)}
    hits = retriever.search(embeddings[3], 50, prefetch=600, first_stage_latents=0)
    assert len(hits) == 50
    np.testing.assert_allclose([hit.score for hit in hits], [exhaustive[hit.id] for hit in hits], atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("settings", [{"prefetch": 600}, {"exact": True}, {"prefetch": 600, "first_stage_latents": 96}])
def test_enough_candidates_give_the_exhaustive_ranking(
    model: CompresSAE, index: EdgeIndex, codes: SparseCodes, embeddings: FloatArray, scoring: Any, settings: Any
) -> None:
    retriever = Retriever(model, index)
    rows = [3, 77, 401]
    _, scores = similarity.top(codes, _vectors(model, codes, embeddings, rows, scoring), 5)
    for row, expected in zip(rows, scores, strict=True):
        hits = retriever.search(embeddings[row], 5, scoring=scoring, **settings)
        np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_rescoring_in_process_equals_rescoring_in_the_engine(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, scoring: Any
) -> None:
    retriever = Retriever(model, index)
    inside, outside = (
        retriever.search_batch(embeddings[:20], 10, scoring=scoring, prefetch=60, rescore_in_engine=in_engine)
        for in_engine in (True, False)
    )
    for a, b in zip(inside, outside, strict=True):
        np.testing.assert_allclose([hit.score for hit in a], [hit.score for hit in b], atol=1e-5)
        assert {hit.id for hit in a[:-1]} <= {hit.id for hit in b}


def test_scores_are_products_with_the_reconstruction(
    model: CompresSAE, index: EdgeIndex, codes: SparseCodes, embeddings: FloatArray
) -> None:
    decoded = model.decode(codes)
    for hit in Retriever(model, index).search(5 * embeddings[9], 4):  # the norm of the query has no effect
        assert isinstance(hit.id, int)
        assert hit.score == pytest.approx(float(decoded[hit.id] @ embeddings[9]), abs=1e-5)
        assert hit.payload == {"group": hit.id % 3}


def test_query_method_selects_the_encoding_of_the_query(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    """In the paper's fast mode, the score is the cosine of two codes of the encoder."""
    coded = model.encode(embeddings, "encoder", scale="code")
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(scale="code")) as index:
        index.upsert(range(len(coded)), coded)
        retriever = Retriever(model, index)
        hits = retriever.search(embeddings[3], 20, scoring="sparse", exact=True, query_method="encoder")
        other = retriever.search(embeddings[3], 20, scoring="sparse", exact=True)
    cosines = similarity.score(coded, similarity.sparse(coded[3:4]))[0]
    assert hits[0].id == 3
    np.testing.assert_allclose([hit.score for hit in hits], [cosines[int(hit.id)] for hit in hits], atol=1e-5)
    assert other[0].score < hits[0].score


def test_a_batch_equals_single_searches(model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(model, index)
    for batched, x in zip(retriever.search_batch(embeddings[:5], 3), embeddings[:5], strict=True):
        _assert_same(batched, retriever.search(x, 3))
    assert retriever.search_batch([], 3) == retriever.search_batch(embeddings[:0], 3) == []


def test_filters_restrict_hits_and_payloads_are_optional(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    group_1 = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=1))])
    hits = Retriever(model, index).search(embeddings[0], 20, filter=group_1, with_payload=False)
    assert len(hits) == 20
    assert {int(hit.id) % 3 for hit in hits} == {1}
    assert all(hit.payload == {} for hit in hits)


def test_similar_to_excludes_the_item(model: CompresSAE, index: EdgeIndex, codes: SparseCodes) -> None:
    retriever = Retriever(model, index)
    hits = retriever.similar_to(42, 6)
    assert len(hits) == 6
    assert 42 not in [hit.id for hit in hits]
    decoded = model.decode(codes)
    query = decoded[42] / np.linalg.norm(decoded[42])
    assert hits[0].score == pytest.approx(float(np.delete(decoded @ query, 42).max()), abs=1e-4)
    assert len(retriever.similar_to(42, 6, prefetch=6)) == 6
    with pytest.raises(InvalidInputError, match="prefetch is 5 but limit is 6"):
        retriever.similar_to(42, 6, prefetch=5)
    with pytest.raises(IndexNotFoundError, match="item 9999 is not in the index"):
        retriever.similar_to(9999)


def test_stored_embeddings_give_exact_cosines(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    with EdgeIndex.create(tmp_path / "dense", model, IndexSettings(keep_dense=True)) as index:
        index.upsert(range(600), model.encode(embeddings), dense=embeddings)
        index.optimize()
        retriever = Retriever(model, index)
        truth = embeddings @ embeddings[9]
        best = np.argsort(-truth)[:5]
        hits = retriever.search(embeddings[9], 5, prefetch=600, dense_candidates=600)
        assert [hit.id for hit in hits] == best.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], truth[best], atol=2e-3)
        assert [hit.id for hit in retriever.similar_to(9, 4, prefetch=600, dense_candidates=600)] == best[1:].tolist()
        by_codes = retriever.search(embeddings[9], 5, dense_candidates=0)
        assert [hit.score for hit in by_codes] != [hit.score for hit in hits]
        assert retriever.search(embeddings[9], 5, scoring="sparse")
        for invalid in ({"dense_candidates": 3}, {"dense_candidates": 9, "scoring": "sparse"}):
            with pytest.raises(InvalidInputError, match="dense_candidates"):
                retriever.search(embeddings[9], 5, **invalid)


def test_sync_and_async_retrievers_return_equal_hits(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model)
    index.upsert(range(60), codes[:60])
    retriever = Retriever(model, index)
    expected = retriever.search(embeddings[5], 4), retriever.search_batch(embeddings[:2], 3), retriever.similar_to(7, 3)

    async def run() -> Any:
        other = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model)
        await other.upsert(range(60), codes[:60])
        counting = _CountingIndex(other)
        burst_retriever = AsyncRetriever(model, counting)
        counting.items = 1 << 20
        await asyncio.gather(*(burst_retriever.search(x, 2, first_stage="codes") for x in embeddings[:5]))
        assert counting.candidates == [400] * 5
        counting.items, counting.max_running = 60, 0
        limited = AsyncRetriever(model, counting, in_flight=2)
        with pytest.raises(IndexNotFoundError, match="item 9999"):
            await limited.similar_to(9999)
        burst = await asyncio.gather(*(limited.search(x, 2) for x in embeddings[:9]))
        assert [hits[0].id for hits in burst] == [retriever.search(x, 2)[0].id for x in embeddings[:9]]
        assert counting.max_running == 2
        hits = await limited.search(embeddings[5], 4), await limited.search_batch(embeddings[:2], 3)
        assert await limited.search_batch([]) == []
        return *hits, await limited.similar_to(7, 3)

    assert asyncio.run(run()) == expected
    with pytest.raises(ModelMismatchError, match="holds codes of model"):
        AsyncRetriever(CompresSAE(ModelConfig(24, 96, 6), seed=5), index)  # type: ignore[arg-type]  # raises before it uses the index
    with pytest.raises(InvalidInputError, match="in_flight is 0"):
        AsyncRetriever(model, index, in_flight=0)  # type: ignore[arg-type]  # raises before it uses the index


class _CountingIndex:
    """An async index that records the maximum number of concurrent searches, and the candidates of each."""

    def __init__(self, index: AsyncQdrantIndex) -> None:
        self._index, self._running, self.max_running = index, 0, 0
        self.fingerprint, self.settings, self.projection = index.fingerprint, index.settings, index.projection
        self.retrieve, self.search_batch = index.retrieve, index.search_batch
        self.items, self.candidates = 60, list[int]()

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        await asyncio.sleep(0.01)
        return self.items

    async def search(self, plan: QueryPlan) -> list[Hit]:
        self.candidates.append(plan.prefetch)
        self._running += 1
        self.max_running = max(self.max_running, self._running)
        await asyncio.sleep(0.001)
        try:
            return await self._index.search(plan)
        finally:
            self._running -= 1


def test_text_queries_are_embedded(model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    def embed(texts: Sequence[str], /) -> FloatArray:
        return embeddings[[int(text) for text in texts]]

    retriever = Retriever(model, index, embed)
    assert retriever.search("17", 3) == retriever.search(embeddings[17], 3)
    _assert_same(retriever.search_batch(["17", "18"], 3)[1], retriever.search(embeddings[18], 3))
    with pytest.raises(MissingExtraError, match="no embedder"):
        Retriever(model, index).search("17")


def test_embedding_does_not_block_the_event_loop(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    resumed = threading.Event()

    def embed(texts: Sequence[str], /) -> FloatArray:
        assert resumed.wait(20), "the event loop was blocked"
        return embeddings[[int(text) for text in texts]]

    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        await index.upsert(range(20), codes[:20])
        retriever = AsyncRetriever(model, index, embed)
        searching = asyncio.gather(retriever.search("17", 3), retriever.search_batch(["17"], 3))
        asyncio.get_running_loop().call_soon(resumed.set)
        one, (same,) = await searching
        assert one == same == await retriever.search(embeddings[17], 3)
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": 10, "prefetch": 5}, "prefetch is 5 but limit is 10"),
        ({"scoring": "explain"}, "scoring is 'explain'; it must be one of asymmetric, reconstructed, sparse"),
        ({"query_method": "magic"}, "query_method is 'magic'"),
        ({"first_stage_latents": -1}, "first_stage_latents is -1"),
        ({"colour": 1}, "no setting colour; it has limit"),
    ],
)
def test_invalid_settings_are_refused(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, settings: Any, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Retriever(model, index).search(embeddings[0], **settings)


def test_default_candidates(model: CompresSAE, embeddings: FloatArray) -> None:
    codes_only, kept = QueryPlanner(model), QueryPlanner(model, keep_dense=True)

    def plan(planner: QueryPlanner, **settings: Any) -> tuple[int, int]:
        (planned,) = planner.plans(embeddings[0], search_settings(**settings))
        return planned.prefetch, planned.dense_candidates

    assert plan(codes_only, limit=10) == (100, 0)
    assert plan(codes_only, limit=100) == (300, 0)
    assert plan(kept, limit=10) == (100, 30)
    assert plan(kept, limit=100) == (400, 300)
    assert plan(kept, limit=100, dense_candidates=0) == (300, 0)
    assert plan(kept, limit=100, scoring="sparse") == (300, 0)
    assert plan(kept, limit=100, prefetch=120) == (300, 300)
    assert plan(codes_only, limit=100, exact=True) == (300, 0)


@pytest.mark.parametrize(
    ("items", "limit", "k", "keep_dense", "expected"),
    [
        (0, 10, 6, False, (1280, 100)), (65_536, 100, 32, False, (1280, 300)), (262_144, 100, 32, False, (640, 600)),
        (1 << 20, 10, 32, False, (320, 400)), (1 << 20, 100, 32, True, (320, 1600)), (10**9, 10, 8, False, (64, 2000)),
        (9, 100, 33, False, (1280, 400)), (9, 100, 64, False, (1280, 500)), (9, 100, 64, True, (1280, 600)),
    ],
)  # fmt: skip
def test_default_plans_depend_on_the_catalog_and_the_codes(
    items: int, limit: int, k: int, keep_dense: bool, expected: tuple[int, int]
) -> None:
    assert default_plan(items, limit, k, keep_dense=keep_dense) == expected
    workload = Workload(items=max(items, 1), dim=24, k=k, limit=limit, keep_dense=keep_dense)
    assert workload.plan == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"limit": 10}, (16, 200, 200)), ({"limit": 100}, (120, 450, 450)), ({"limit": 40}, (48, 200, 200)),
        ({"limit": 10, "prefetch": 300}, (300, 1125, 1125)), ({"limit": 10, "ef": 64}, (16, 64, 64)),
        ({"limit": 10, "ef": 9}, (16, 16, 0)), ({"limit": 10, "compared": 0}, (16, 200, 0)),
        ({"limit": 10, "compared": 400}, (16, 400, 400)), ({"limit": 10, "compared": 12}, (16, 200, 0)),
        ({"limit": 10, "keep_dense": True}, (30, 225, 225)), ({"limit": 100, "keep_dense": True}, (180, 900, 900)),
        ({"limit": 10, "keep_dense": True, "compared": 0}, (30, 225, 0)),
        ({"limit": 10, "prefetch": 20, "at_least": 30}, (30, 200, 200)),
        ({"limit": 10, "fine": False}, (60, 200, 200)), ({"limit": 100, "fine": False}, (180, 405, 405)),
        ({"limit": 10, "fine": False, "keep_dense": True}, (90, 225, 225)),
        ({"limit": 100, "fine": False, "keep_dense": True}, (400, 900, 900)),
        ({"limit": 10, "items": 65_536}, (16, 200, 200)), ({"limit": 10, "items": 1 << 20}, (16, 300, 300)),
        ({"limit": 100, "items": 1 << 24, "keep_dense": True}, (180, 1800, 1800)),
        ({"limit": 10, "items": 1 << 30, "ef": 200}, (16, 200, 200)),
    ],
)  # fmt: skip
def test_the_sizes_of_a_search_by_the_graph(given: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert graph_sizes(**given) == expected


class _IndexOfSize:
    """An index that reports a given number of items, and records counts and plans."""

    def __init__(self, index: EdgeIndex, items: int) -> None:
        self._index, self.items, self.counts, self.plans = index, items, 0, list[QueryPlan]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        assert (filter, exact) == (None, False)
        self.counts += 1
        return self.items

    def search(self, plan: QueryPlan) -> list[Hit]:
        self.plans.append(plan)
        return self._index.search(plan)


def test_the_default_plan_follows_the_size_of_the_index(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counted = _IndexOfSize(index, 0)
    retriever = Retriever(model, counted)
    retriever.search(embeddings[0])
    retriever.search(embeddings[0])
    assert [plan.prefetch for plan in counted.plans] == [100, 100]
    assert counted.counts == 1
    counted.items = 1 << 20
    now += 11  # the size of an empty index is requested again soon
    retriever.search(embeddings[0], first_stage="codes")
    retriever.search(embeddings[0], prefetch=70, first_stage="codes")
    retriever.search(embeddings[0], exact=True)
    retriever.search(embeddings[0])
    assert [plan.prefetch for plan in counted.plans[2:]] == [400, 70, 100, 16]
    assert [plan.navigation is None for plan in counted.plans[2:]] == [True, True, True, False]
    assert counted.counts == 2
    now += 601
    counted.items = 1 << 22
    retriever.search(embeddings[0], first_stage="codes")
    assert (counted.plans[-1].prefetch, counted.counts) == (800, 3)


def test_invalid_queries_are_refused(model: CompresSAE, index: EdgeIndex) -> None:
    retriever = Retriever(model, index)
    with pytest.raises(DimensionError, match="3 dimensions but model"):
        retriever.search([1, 2, 3])
    with pytest.raises(InvalidInputError, match="all zero"):
        retriever.search(np.zeros(24))
    with pytest.raises(InvalidInputError, match="rows have 1 to 2 dimensions"):
        retriever.search_batch([[1.0], [1.0, 2.0]])


def test_an_index_of_another_model_is_refused(index: EdgeIndex) -> None:
    other = CompresSAE(ModelConfig(24, 96, 6), seed=9)
    with pytest.raises(ModelMismatchError, match=f"{index.fingerprint}.*{other.fingerprint}"):
        Retriever(other, index)
