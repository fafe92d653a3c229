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
from compressae_qdrant.search.defaults import default_plan
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

SCORINGS: list[Any] = ["asymmetric", "reconstructed", "sparse"]


def _vectors(model: CompresSAE, codes: SparseCodes, x: FloatArray, rows: Any, scoring: str) -> FloatArray:
    atoms = model.atoms.detach().numpy()
    if scoring == "asymmetric":
        return similarity.asymmetric(atoms, x[rows])
    return similarity.sparse(codes[rows]) if scoring == "sparse" else similarity.reconstructed(atoms, codes[rows])


def _assert_same(a: list[Hit], b: list[Hit]) -> None:
    """Equal to rounding: a product of several queries is summed in another order than that of one."""
    assert [(hit.id, hit.payload) for hit in a] == [(hit.id, hit.payload) for hit in b]
    np.testing.assert_allclose([hit.score for hit in a], [hit.score for hit in b], atol=1e-6)


def test_a_first_stage_by_the_querys_own_code_scores_what_it_finds_alike(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, index)
    everything = {hit.id: hit.score for hit in retriever.search(embeddings[3], 600, exact=True)}
    hits = retriever.search(embeddings[3], 50, prefetch=600, first_stage_latents=0)
    assert len(hits) == 50
    np.testing.assert_allclose([hit.score for hit in hits], [everything[hit.id] for hit in hits], atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("settings", [{"prefetch": 600}, {"exact": True}, {"prefetch": 600, "first_stage_latents": 96}])
def test_enough_candidates_give_the_exhaustive_ranking(
    model: CompresSAE, index: EdgeIndex, codes: SparseCodes, embeddings: FloatArray, scoring: Any, settings: Any
) -> None:
    retriever = Retriever(model, index)
    rows = [3, 77, 401]
    _, scores = similarity.top(codes, _vectors(model, codes, embeddings, rows, scoring), 5)
    for row, wanted in zip(rows, scores, strict=True):
        hits = retriever.search(embeddings[row], 5, scoring=scoring, **settings)
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_rescoring_here_agrees_with_the_engine(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, scoring: Any
) -> None:
    retriever = Retriever(model, index)
    inside, outside = (
        retriever.search_batch(embeddings[:20], 10, scoring=scoring, prefetch=60, rescore_in_engine=where)
        for where in (True, False)
    )
    for a, b in zip(inside, outside, strict=True):
        np.testing.assert_allclose([hit.score for hit in a], [hit.score for hit in b], atol=1e-5)
        assert {hit.id for hit in a[:-1]} <= {hit.id for hit in b}


def test_scores_are_products_with_the_reconstruction(
    model: CompresSAE, index: EdgeIndex, codes: SparseCodes, embeddings: FloatArray
) -> None:
    decoded = model.decode(codes)
    for hit in Retriever(model, index).search(5 * embeddings[9], 4):  # the query's norm doesn't matter
        assert isinstance(hit.id, int)
        assert hit.score == pytest.approx(float(decoded[hit.id] @ embeddings[9]), abs=1e-5)
        assert hit.payload == {"group": hit.id % 3}


def test_the_query_is_coded_as_asked(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    """Items that the encoder coded, asked in the paper's fast mode: the cosine of two codes of the encoder."""
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


def test_batches_are_single_searches(model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(model, index)
    for batched, x in zip(retriever.search_batch(embeddings[:5], 3), embeddings[:5], strict=True):
        _assert_same(batched, retriever.search(x, 3))
    assert retriever.search_batch([], 3) == retriever.search_batch(embeddings[:0], 3) == []


def test_filters_restrict_and_payloads_can_be_left_out(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    wanted = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=1))])
    hits = Retriever(model, index).search(embeddings[0], 20, filter=wanted, with_payload=False)
    assert len(hits) == 20
    assert {int(hit.id) % 3 for hit in hits} == {1}
    assert all(hit.payload == {} for hit in hits)


def test_similar_items_leave_the_item_out(model: CompresSAE, index: EdgeIndex, codes: SparseCodes) -> None:
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


def test_kept_embeddings_give_exact_cosines(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
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
        for wrong in ({"dense_candidates": 3}, {"dense_candidates": 9, "scoring": "sparse"}):
            with pytest.raises(InvalidInputError, match="dense_candidates"):
                retriever.search(embeddings[9], 5, **wrong)


def test_sync_and_async_answer_alike(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model)
    index.upsert(range(60), codes[:60])
    retriever = Retriever(model, index)
    wanted = retriever.search(embeddings[5], 4), retriever.search_batch(embeddings[:2], 3), retriever.similar_to(7, 3)

    async def ask() -> Any:
        other = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model)
        await other.upsert(range(60), codes[:60])
        slow = _Counted(other)
        plans_of_a_burst = AsyncRetriever(model, slow)
        slow.items = 1 << 20
        await asyncio.gather(*(plans_of_a_burst.search(x, 2) for x in embeddings[:5]))
        assert slow.candidates == [400] * 5
        slow.items, slow.most = 60, 0
        asking = AsyncRetriever(model, slow, in_flight=2)
        with pytest.raises(IndexNotFoundError, match="item 9999"):
            await asking.similar_to(9999)
        burst = await asyncio.gather(*(asking.search(x, 2) for x in embeddings[:9]))
        assert [hits[0].id for hits in burst] == [retriever.search(x, 2)[0].id for x in embeddings[:9]]
        assert slow.most == 2
        found = await asking.search(embeddings[5], 4), await asking.search_batch(embeddings[:2], 3)
        assert await asking.search_batch([]) == []
        return *found, await asking.similar_to(7, 3)

    assert asyncio.run(ask()) == wanted
    with pytest.raises(ModelMismatchError, match="holds codes of model"):
        AsyncRetriever(CompresSAE(ModelConfig(24, 96, 6), seed=5), index)  # type: ignore[arg-type]  # refused before
    with pytest.raises(InvalidInputError, match="in_flight is 0"):
        AsyncRetriever(model, index, in_flight=0)  # type: ignore[arg-type]  # refused before


class _Counted:
    """An async index that notes how many searches are under way at once."""

    def __init__(self, index: AsyncQdrantIndex) -> None:
        self._index, self._now, self.most = index, 0, 0
        self.fingerprint, self.settings = index.fingerprint, index.settings
        self.retrieve, self.search_batch = index.retrieve, index.search_batch
        self.items, self.candidates = 60, list[int]()

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        await asyncio.sleep(0.01)
        return self.items

    async def search(self, plan: QueryPlan) -> list[Hit]:
        self.candidates.append(plan.prefetch)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0.001)
        try:
            return await self._index.search(plan)
        finally:
            self._now -= 1


def test_text_queries_go_through_the_embedder(model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    def embed(texts: Sequence[str], /) -> FloatArray:
        return embeddings[[int(text) for text in texts]]

    retriever = Retriever(model, index, embed)
    assert retriever.search("17", 3) == retriever.search(embeddings[17], 3)
    _assert_same(retriever.search_batch(["17", "18"], 3)[1], retriever.search(embeddings[18], 3))
    with pytest.raises(MissingExtraError, match="no embedder"):
        Retriever(model, index).search("17")


def test_the_event_loop_goes_on_while_a_text_is_embedded(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    went_on = threading.Event()

    def embed(texts: Sequence[str], /) -> FloatArray:
        assert went_on.wait(20), "nothing else was done meanwhile"
        return embeddings[[int(text) for text in texts]]

    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        await index.upsert(range(20), codes[:20])
        retriever = AsyncRetriever(model, index, embed)
        searching = asyncio.gather(retriever.search("17", 3), retriever.search_batch(["17"], 3))
        asyncio.get_running_loop().call_soon(went_on.set)
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
def test_bad_settings_are_named(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, settings: Any, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Retriever(model, index).search(embeddings[0], **settings)


def test_default_plans(model: CompresSAE, embeddings: FloatArray) -> None:
    codes_only, kept = QueryPlanner(model), QueryPlanner(model, keep_dense=True)

    def plan(planner: QueryPlanner, **settings: Any) -> tuple[int, int]:
        (made,) = planner.plans(embeddings[0], search_settings(**settings))
        return made.prefetch, made.dense_candidates

    assert plan(codes_only, limit=10) == (100, 0)
    assert plan(codes_only, limit=100) == (300, 0)
    assert plan(kept, limit=10) == (100, 30)
    assert plan(kept, limit=100) == (400, 300)
    assert plan(kept, limit=100, dense_candidates=0) == (300, 0)
    assert plan(kept, limit=100, scoring="sparse") == (300, 0)
    assert plan(kept, limit=100, prefetch=120) == (300, 300)
    assert plan(codes_only, limit=100, exact=True) == (300, 0)


@pytest.mark.parametrize(
    ("items", "limit", "k", "keep_dense", "wanted"),
    [
        (0, 10, 6, False, (1280, 100)), (65_536, 100, 32, False, (1280, 300)), (262_144, 100, 32, False, (640, 600)),
        (1 << 20, 10, 32, False, (320, 400)), (1 << 20, 100, 32, True, (320, 1600)), (10**9, 10, 8, False, (64, 2000)),
        (9, 100, 33, False, (1280, 400)), (9, 100, 64, False, (1280, 500)), (9, 100, 64, True, (1280, 600)),
    ],
)  # fmt: skip
def test_default_plans_are_of_the_catalog_and_the_codes(
    items: int, limit: int, k: int, keep_dense: bool, wanted: tuple[int, int]
) -> None:
    assert default_plan(items, limit, k, keep_dense=keep_dense) == wanted
    served = Workload(items=max(items, 1), dim=24, k=k, limit=limit, keep_dense=keep_dense)
    assert served.plan == wanted


class _Sized:
    """An index that says it has so many items, and how often it was asked and with what plans."""

    def __init__(self, index: EdgeIndex, items: int) -> None:
        self._index, self.items, self.asked, self.plans = index, items, 0, list[QueryPlan]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        assert (filter, exact) == (None, False)
        self.asked += 1
        return self.items

    def search(self, plan: QueryPlan) -> list[Hit]:
        self.plans.append(plan)
        return self._index.search(plan)


def test_the_default_plan_is_of_the_size_of_the_index(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counted = _Sized(index, 0)
    retriever = Retriever(model, counted)
    retriever.search(embeddings[0])
    retriever.search(embeddings[0])
    assert [plan.prefetch for plan in counted.plans] == [100, 100]
    assert counted.asked == 1
    counted.items = 1 << 20
    now += 11  # an index that was empty is asked again soon
    retriever.search(embeddings[0])
    retriever.search(embeddings[0], prefetch=70)
    retriever.search(embeddings[0], exact=True)
    assert [plan.prefetch for plan in counted.plans[2:]] == [400, 70, 100]
    assert counted.asked == 2
    now += 601
    counted.items = 1 << 22
    retriever.search(embeddings[0])
    assert (counted.plans[-1].prefetch, counted.asked) == (800, 3)


def test_bad_queries_are_named(model: CompresSAE, index: EdgeIndex) -> None:
    retriever = Retriever(model, index)
    with pytest.raises(DimensionError, match="3 dimensions but model"):
        retriever.search([1, 2, 3])
    with pytest.raises(InvalidInputError, match="all zero"):
        retriever.search(np.zeros(24))
    with pytest.raises(InvalidInputError, match="equal length"):
        retriever.search_batch([[1.0], [1.0, 2.0]])


def test_another_models_index_is_refused(index: EdgeIndex) -> None:
    other = CompresSAE(ModelConfig(24, 96, 6), seed=9)
    with pytest.raises(ModelMismatchError, match=f"{index.fingerprint}.*{other.fingerprint}"):
        Retriever(other, index)
