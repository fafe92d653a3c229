"""Searches by the graph of navigation vectors, and what is refused, on the embedded engine and the local mode."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from compressae_qdrant import EdgeIndex, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray, SparseCodes
from compressae_qdrant.errors import CodeIndexError, ConfigError, InvalidInputError, ModelMismatchError
from compressae_qdrant.index import CodeIndex
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.qdrant.creation import create_steps
from compressae_qdrant.index.settings import NavigationDatatype, NavigationSettings
from compressae_qdrant.model import CompresSAE
from compressae_qdrant.model.projection import Projection
from compressae_qdrant.scoring import asymmetric, score
from compressae_qdrant.search.costs import shipped_costs
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import SearchOptions, search_settings

from .support.indexes import ENGINES, create_on

N, D = 300, 24
"""Items and dimensions of the fixtures `items` and `navigator`."""


@pytest.fixture(params=ENGINES)
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> Iterator[CodeIndex]:
    settings = IndexSettings(navigation=NavigationSettings(dim=16, bits=4, m=8))
    with create_on(request.param, tmp_path, navigator, settings) as index:
        index.upsert(range(N), navigator.encode(items), [{"group": i % 10} for i in range(N)])
        index.optimize()
        yield index


def _exhaustive(model: CompresSAE, codes: SparseCodes, query: FloatArray, limit: int) -> list[int]:
    scores = codes.to_csr() @ (model.atoms.detach().numpy() @ query)
    return [int(row) for row in np.argsort(-scores, kind="stable")[:limit]]


@pytest.mark.parametrize("options", [{"first_stage": "graph"}, {"first_stage": "both"}])
def test_the_graph_finds_what_every_item_scored_finds(
    filled: CodeIndex, navigator: CompresSAE, items: FloatArray, options: SearchOptions
) -> None:
    retriever, codes = Retriever(navigator, filled), navigator.encode(items)
    options = {**options, "prefetch": 60}
    found = [
        len({hit.id for hit in retriever.search(items[row], 5, **options)}
            & set(_exhaustive(navigator, codes, items[row], 5)))
        for row in range(0, 60, 3)
    ]  # fmt: skip
    assert np.mean(found) / 5 > 0.97
    one, batch = retriever.search(items[7], 5, **options), retriever.search_batch(items[6:8], 5, **options)
    assert [hit.id for hit in one] == [hit.id for hit in batch[1]]
    assert 9 not in {hit.id for hit in retriever.similar_to(9, 3, **options)}
    explanation = one[0].explain()
    assert explanation.first_stage == options["first_stage"]
    assert sum(share.share for share in explanation.shares) == pytest.approx(one[0].score, abs=1e-4)


def test_the_graph_respects_filters(filled: CodeIndex, navigator: CompresSAE, items: FloatArray) -> None:
    retriever = Retriever(navigator, filled)
    condition = models.FieldCondition(key="group", match=models.MatchValue(value=4))
    hits = retriever.search(items[0], 10, first_stage="graph", filter=models.Filter(must=[condition]))
    assert len(hits) == 10
    assert {int(hit.id) % 10 for hit in hits} == {4}


@pytest.mark.parametrize(("fields", "payload_m"), [({}, None), ({"group": "integer"}, None), ({"group": "integer"}, 0)])
def test_filters_of_many_items_walk_the_graph_and_find_as_much(
    fields: dict[str, Any], payload_m: int | None, tmp_path: Path, navigator: CompresSAE, items: FloatArray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where few items match a filter, the engine compares all of them; here the limit is lower than a tenth of them."""
    monkeypatch.setattr(NavigationSettings, "full_scan_kb", 1)
    rows = np.tile(items, (4, 1)) + np.random.default_rng(5).normal(size=(4 * N, D)) * 0.1
    rows = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    codes = navigator.encode(rows)
    settings = IndexSettings(
        navigation=NavigationSettings(m=6, ef_construct=64, payload_m=payload_m), payload_fields=fields
    )
    with EdgeIndex.create(tmp_path / "index", navigator, settings) as index:
        index.upsert(range(len(rows)), codes, [{"group": i % 10} for i in range(len(rows))])
        index.optimize()
        retriever = Retriever(navigator, index)
        third = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=3))])
        matching = np.arange(3, len(rows), 10)
        found = []
        for row in range(0, 60, 3):
            scores = codes[matching].to_csr() @ (navigator.atoms.detach().numpy() @ rows[row])
            best = set(matching[np.argsort(-scores, kind="stable")[:5]].tolist())
            hits = retriever.search(rows[row], 5, filter=third, first_stage="graph")
            assert {int(hit.id) % 10 for hit in hits} == {3}
            found.append(len({hit.id for hit in hits} & best))
        assert np.mean(found) / 5 > 0.9


def test_small_indexes_are_searched_by_codes_and_large_ones_by_the_graph(
    filled: CodeIndex, navigator: CompresSAE, items: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = Retriever(navigator, filled)
    assert retriever.search(items[0])[0].explain().first_stage == "codes"
    costs = shipped_costs()
    small = dataclasses.replace(costs, graph=dataclasses.replace(costs.graph, smallest=N, fixed=0.0, rescoring=0.0))
    monkeypatch.setattr("compressae_qdrant.search.planner.shipped_costs", lambda: small)
    assert retriever.search(items[0])[0].explain().first_stage == "graph"
    needs_codes: tuple[SearchOptions, ...] = (
        {"exact": True}, {"scoring": "sparse"}, {"first_stage_latents": 20}, {"concepts": {"+3": 0.2}},
        {"within": "+3"}, {"first_stage": "codes"},
    )  # fmt: skip
    for options in needs_codes:
        assert all(hit.explain().first_stage == "codes" for hit in retriever.search(items[0], **options)), options


def test_filters_that_the_graph_may_miss_are_searched_by_codes(navigator: CompresSAE, items: FloatArray) -> None:
    """In a large index, fields whose values have no links of their own."""
    settings = IndexSettings(
        payload_fields={"colour": "keyword", "words": "text"}, tenant_field="shop", navigation=NavigationSettings()
    )
    assert settings.linked_fields == {"colour", "shop"}
    assert IndexSettings(tenant_field="shop", navigation=NavigationSettings(payload_m=0)).linked_fields == set()
    assert IndexSettings(tenant_field="shop", navigation=None).linked_fields == set()
    planner = QueryPlanner(navigator, False, D, navigator.projection_fingerprint, settings.linked_fields)

    def on(*keys: str) -> models.Filter:
        return models.Filter(
            must=[models.Filter(should=[models.FieldCondition(key=key, match=models.MatchValue(value="a"))])
                  for key in keys]
        )  # fmt: skip

    def first_stage(items_of_index: int, **options: Any) -> bool:
        (plan,) = planner.plans(items[:1], search_settings(**options), items_of_index)
        return plan.first_stage is None

    large = 10**8
    assert first_stage(large)
    assert first_stage(large, filter=on("colour", "shop"))
    for missed in (on("size"), on("colour", "size"), on("words")):
        assert not first_stage(large, filter=missed)
        assert first_stage(large, filter=missed, first_stage="graph")
    (plan,) = planner.plans(items[:1], search_settings(filter=on("size"), first_stage="auto"), 200_000)
    assert plan.first_stage is None  # the engine compares all items if less than a tenth of them match


@pytest.mark.parametrize(("datatype", "error"), [("float16", 1e-3), ("turbo8", 0.01), ("turbo4", 0.15)])
def test_embeddings_rescore_the_candidates_of_the_graph(
    datatype: Any, error: float, tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> None:
    settings = IndexSettings(keep_dense=True, dense_datatype=datatype)
    assert IndexSettings(keep_dense=datatype) == settings  # the name alone stands for both
    with EdgeIndex.create(tmp_path / "index", navigator, settings) as index:
        index.upsert(range(N), navigator.encode(items), dense=items)
        index.optimize()
        hits = Retriever(navigator, index).search(items[3], 5, first_stage="graph", prefetch=100)
        assert [hit.score for hit in hits] == pytest.approx(
            [float(items[int(hit.id)] @ items[3]) for hit in hits], abs=error
        )
        assert hits[0].id == 3
        if datatype == "float16":
            assert [hit.id for hit in hits] == np.argsort(-(items @ items[3]))[:5].tolist()


def test_embeddings_rank_the_graph_without_a_query_vector_of_codes(
    tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> None:
    planner = QueryPlanner(navigator, keep_dense=True, navigation_dim=16, projection=navigator.projection_fingerprint)
    (plan,) = planner.plans(items[:1], search_settings(5, first_stage="graph"))
    assert plan.rescoring is None
    (plan,) = planner.plans(items[:1], search_settings(5, first_stage="graph", dense_candidates=20))
    assert plan.rescoring is not None  # by which the 20 are chosen
    settings = IndexSettings(keep_dense=True, navigation=NavigationSettings(dim=16, bits=4))
    with EdgeIndex.create(tmp_path / "index", navigator, settings) as index:
        codes = navigator.encode(items)
        index.upsert(range(N), codes, dense=items)
        index.optimize()
        hit = Retriever(navigator, index).search(items[3], 1, first_stage="graph")[0]
        explanation = hit.explain()
        estimated = score(codes[3:4], asymmetric(navigator.atoms.detach().numpy(), items[3:4]))[0, 0]
        assert sum(share.share for share in explanation.shares) == pytest.approx(float(estimated), abs=1e-4)
        assert explanation.score == pytest.approx(1, abs=1e-3)
        assert explanation.remainder == pytest.approx(1 - float(estimated), abs=1e-3)


def test_the_sizes_of_plans_by_the_graph(navigator: CompresSAE, items: FloatArray) -> None:
    def plan(*, keep_dense: bool = False, dim: int = D, **settings: Any) -> tuple[int, int, int]:
        planner = QueryPlanner(navigator, keep_dense, dim, navigator.projection_fingerprint)
        (one,) = planner.plans(items[:1], search_settings(**{"limit": 10, "first_stage": "graph", **settings}))
        return one.prefetch, one.navigation_candidates, one.dense_candidates

    assert plan() == (16, 200, 0)
    assert plan(text="red shoes") == (100, 375, 0)  # the fusion takes as many hits of each ranking
    assert plan(text="red shoes", code_weight=0) == (16, 200, 0)
    assert plan(keep_dense=True) == (30, 225, 30)
    assert plan(keep_dense=True, prefetch=40) == (40, 225, 40)
    assert plan(keep_dense=True, dense_candidates=30) == (
        30,
        200,
        30,
    )  # nothing is left to choose
    assert plan(keep_dense=True, dense_candidates=100) == (100, 375, 100)
    assert plan(keep_dense=True, dense_candidates=50, prefetch=50) == (50, 250, 50)
    assert plan(dim=16) == (60, 200, 0)  # navigation vectors of fewer dimensions are coarser
    assert plan(keep_dense=True, dim=16) == (90, 225, 90)


@pytest.mark.parametrize(
    ("options", "here"),
    [
        ({}, True), ({"limit": 34}, False), ({"prefetch": 40}, True), ({"prefetch": 41}, False),
        ({"rescore_in_engine": True}, False), ({"limit": 100, "rescore_in_engine": False}, True),
        ({"text": "red shoes"}, False), ({"first_stage": "codes"}, False), ({"scoring": "reconstructed"}, True),
    ],
)  # fmt: skip
def test_few_candidates_are_ranked_in_this_process(
    options: dict[str, Any], here: bool, filled: CodeIndex, navigator: CompresSAE, items: FloatArray
) -> None:
    planner = QueryPlanner(navigator, False, D, navigator.projection_fingerprint)
    (plan,) = planner.plans(items[:1], search_settings(**{"limit": 10, "first_stage": "graph", **options}))
    assert plan.is_rescored_here is here
    if "text" in options:
        return
    found, other = (
        Retriever(navigator, filled).search(items[5], **{"first_stage": "graph", **options, "rescore_in_engine": where})
        for where in (True, False)
    )
    assert [hit.id for hit in found] == [hit.id for hit in other]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in other], abs=1e-5)
    assert [hit.payload for hit in found] == [hit.payload for hit in other]
    one, two = found[0].explain(), other[0].explain()
    assert [share.latent for share in one.shares] == [share.latent for share in two.shares]


def test_stored_navigation_vectors_order_the_nodes_again(
    tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> None:
    """One bit says little about a vector, so few of its nearest nodes are the right ones, but all of them are near."""
    codes = navigator.encode(items)
    with EdgeIndex.create(
        tmp_path / "index", navigator, IndexSettings(navigation=NavigationSettings(dim=16, bits=1))
    ) as index:
        index.upsert(range(N), codes)
        index.optimize()
        retriever = Retriever(navigator, index)

        def found(**options: Any) -> float:
            shares = []
            for row in range(40):
                hits = {hit.id for hit in retriever.search(items[row], 5, first_stage="graph", prefetch=8, **options)}
                shares.append(len(hits & set(_exhaustive(navigator, codes, items[row], 5))) / 5)
            return float(np.mean(shares))

        assert found(navigation_candidates=80) > found(navigation_candidates=0) + 0.1


def test_navigation_vectors_of_four_bits_find_the_same(
    tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> None:
    datatypes: tuple[NavigationDatatype, ...] = ("float16", "turbo4")
    found = {}
    for datatype in datatypes:
        settings = IndexSettings(navigation=NavigationSettings(datatype=datatype))
        with EdgeIndex.create(tmp_path / datatype, navigator, settings) as index:
            index.upsert(range(N), navigator.encode(items))
            index.optimize()
            stored = index.settings.navigation
            assert stored is not None
            assert stored.datatype == datatype
            hits = Retriever(navigator, index).search_batch(items[:40], 5, first_stage="graph")
            found[datatype] = [{hit.id for hit in each} for each in hits]
        config = json.loads((tmp_path / datatype / "shard" / "edge_config.json").read_bytes())
        assert config["vectors"]["navigation"]["datatype"] == datatype
    shared = [len(one & other) for one, other in zip(found["float16"], found["turbo4"], strict=True)]
    assert np.mean(shared) > 4.5


def test_an_index_without_navigation_says_so(tmp_path: Path, navigator: CompresSAE, items: FloatArray) -> None:
    with EdgeIndex.create(tmp_path / "index", navigator, IndexSettings(navigation=None)) as index:
        index.upsert(range(9), navigator.encode(items[:9]))
        assert index.settings.memory == "pinned"
        assert index.projection is None
        with pytest.raises(ConfigError, match=r"no navigation vectors.*first_stage='codes'.*NavigationSettings"):
            Retriever(navigator, index).search(items[0], first_stage="graph")
    with EdgeIndex.open(tmp_path / "index", navigator) as index:
        assert index.projection is None


def test_another_projection_is_refused_for_the_graph_only(
    tmp_path: Path, navigator: CompresSAE, items: FloatArray
) -> None:
    other = CompresSAE(navigator.config)
    other.load_state_dict(navigator.state_dict())
    other.projection = Projection.fit(items[:50])
    assert other.fingerprint == navigator.fingerprint
    with EdgeIndex.create(tmp_path / "index", navigator) as index:
        index.upsert(range(9), navigator.encode(items[:9]))
        retriever = Retriever(other, index)
        assert retriever.search(items[0], 3)
        with pytest.raises(ModelMismatchError, match="load the model with which the index was created"):
            retriever.search(items[0], first_stage="graph")
    with EdgeIndex.open(tmp_path / "index", other) as index, pytest.raises(ModelMismatchError, match="projection"):
        index.upsert([1], other.encode(items[:1]))
    with EdgeIndex.open(tmp_path / "index") as index, pytest.raises(ConfigError, match="open the index with its model"):
        index.upsert([1], other.encode(items[:1]))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"dim": 0}, "dim is 0; it must be at least 1"),
        ({"bits": 3}, "bits are 3; they must be one of 1, 1.5, 2, 4"),
        ({"m": 1}, "m is 1; it must be from 2 to 128"),
        ({"ef_construct": 1}, "ef_construct is 1"),
        ({"memory": "hot"}, "memory is 'hot'"),
        ({"payload_m": -1}, "payload_m is -1; it must be at least 0"),
        ({"datatype": "turbo8"}, "navigation datatype is 'turbo8'; it must be one of float16, turbo4"),
    ],
)
def test_bad_navigation_settings_are_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        NavigationSettings(**settings)
    with pytest.raises(ConfigError, match=complaint):
        IndexSettings(navigation=settings)  # type: ignore[arg-type]  # as JSON and TOML give it


def test_more_dimensions_than_the_embeddings_have_are_refused(tmp_path: Path, navigator: CompresSAE) -> None:
    settings = IndexSettings(navigation=NavigationSettings(dim=25))
    with pytest.raises(ConfigError, match=r"navigation dim is 25.*at most 24"):
        EdgeIndex.create(tmp_path / "index", navigator, settings)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"first_stage": "trees"}, "first_stage is 'trees'; it must be one of auto, codes, graph, both"),
        ({"first_stage": "graph", "exact": True}, "exact=True scores every item"),
        ({"first_stage": "graph", "concepts": {"+1": 0.3}}, "concepts steer the search"),
        ({"first_stage": "both", "within": "+1"}, "within takes its candidates"),
        ({"first_stage": "both", "scoring": "sparse"}, "sparse scoring"),
        ({"first_stage": "graph", "first_stage_latents": 10}, "first_stage_latents are for codes"),
        ({"navigation_ef": 0}, "navigation_ef is 0"),
        ({"navigation_candidates": -1}, "navigation_candidates is -1"),
        ({"navigation_candidates": 30, "prefetch": 50}, "navigation_candidates is 30 but 50 candidates"),
    ],
)
def test_options_that_contradict_the_graph_are_named(
    tmp_path: Path, navigator: CompresSAE, items: FloatArray, options: Any, complaint: str
) -> None:
    index = EdgeIndex.create(tmp_path / "index", navigator)
    with index, pytest.raises(InvalidInputError, match=complaint):
        Retriever(navigator, index).search(items[0], **options)


def test_a_server_without_navigation_is_told_apart(navigator: CompresSAE) -> None:
    """A server before 1.18 refuses the settings of the quantised vectors."""
    manifest = Manifest.of(navigator, IndexSettings())
    plain = Manifest.of(navigator, IndexSettings(navigation=None))
    for one, complaint in ((manifest, r"unknown field.*Navigation vectors need Qdrant 1\.18"), (plain, "field$")):
        running = create_steps("items", one)
        next(running)
        running.send(False)
        with pytest.raises(CodeIndexError, match=complaint):
            running.throw(CodeIndexError("cannot create collection 'items': unknown field"))


def test_bytes_are_reported(filled: CodeIndex) -> None:
    info = filled.info()
    if info.backend == "edge":
        assert info.navigation_bytes is not None
        assert info.resident_bytes == info.navigation_bytes > N * 16 / 2
    else:
        assert info.navigation_bytes is info.resident_bytes is None
