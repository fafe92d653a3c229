"""Calibration: plans are measured on the engine, stored with the model, and chosen by a target recall."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    Retriever,
)
from compressae_qdrant.capacity import load_constants
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, InvalidInputError, ModelFileError, ModelMismatchError
from compressae_qdrant.evaluation.calibrate import calibrate
from compressae_qdrant.evaluation.calibrate_graph import graph_plans
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.metrics import recall
from compressae_qdrant.model.calibration import CALIBRATION_FILE, CalibratedPlan, Calibration, PlanRecall
from compressae_qdrant.search.defaults import graph_sizes
from compressae_qdrant.search.settings import search_settings
from compressae_qdrant.vectors import exact_neighbours

from .support.shell import Shell

GRID: dict[str, Any] = {
    "limits": (5, 20),
    "first_stage_latents": (4, 12, 40, 96),
    "prefetch": (5, 20, 60, 200),
    "queries": 150,
    "navigation": None,
}


def plan(first_stage_latents: int, prefetch: int, ms: float, **lows: float) -> CalibratedPlan:
    recall = {int(limit[1:]): PlanRecall(low + 0.01, low) for limit, low in lows.items()}
    return CalibratedPlan(first_stage_latents, prefetch, 100.0, ms, recall)


EXAMPLE = Calibration(
    "m-0", 1000, 50, False, "a stopwatch",
    (plan(8, 10, 1.0, n10=0.7), plan(16, 50, 2.0, n10=0.8, n50=0.6), plan(16, 80, 3.0, n10=0.9, n50=0.75),
     plan(64, 90, 4.0, n10=0.95, n50=0.9)),
)  # fmt: skip


@pytest.fixture
def own_model(tmp_path: Path, model: CompresSAE) -> CompresSAE:
    """Return a copy of the model that a test may calibrate."""
    model.save(tmp_path / "model")
    return CompresSAE.load(tmp_path / "model")


@pytest.fixture(params=[False, True], ids=["codes", "keep_dense"])
def built_index(
    request: pytest.FixtureRequest, tmp_path: Path, own_model: CompresSAE, embeddings: FloatArray
) -> Iterator[EdgeIndex]:
    settings = IndexSettings(datatype="float32", keep_dense=request.param, navigation=None)
    with EdgeIndex.create(tmp_path / "index", own_model, settings) as index:
        index.upsert(range(600), own_model.encode(embeddings), dense=embeddings if request.param else None)
        index.optimize()
        yield index


def test_choose_returns_the_cheapest_plan_that_reaches_the_target() -> None:
    def choose(target: float, limit: int, keep_dense: bool = False) -> tuple[int, int]:
        chosen = EXAMPLE.choose(target, limit, keep_dense=keep_dense)
        return chosen.first_stage_latents, chosen.prefetch

    assert EXAMPLE.limits == [10, 50]
    assert choose(0.7, 10) == (8, 10)
    assert choose(0.71, 10) == (16, 50)
    assert choose(0.7, 3) == (8, 10)  # the smallest measured limit decides
    assert choose(0.7, 11) == (16, 80)  # both neighbouring limits decide
    assert choose(0.85, 50) == (64, 90)
    assert choose(0.6, 75) == (16, 75)  # the same number of candidates for each hit as with 50
    with pytest.raises(InvalidInputError, match=r"with 20 hits no plan reliably reaches more than 0\.900 \(0\.910 on"):
        EXAMPLE.choose(0.91, 20)
    with_embeddings = dataclasses.replace(EXAMPLE, keep_dense=True)
    assert with_embeddings.choose(0.7, 10, keep_dense=True) == EXAMPLE.plans[0]
    assert choose(0.7, 10, keep_dense=True) == (8, 10)
    with pytest.raises(ConfigError, match="was calibrated for searches that embeddings rescore"):
        with_embeddings.choose(0.7, 10)


def test_choose_takes_the_first_stages_that_a_search_can_take() -> None:
    by_graph = dataclasses.replace(plan(0, 40, 0.5, n10=0.8, n50=0.7), first_stage="graph", navigation_ef=64)
    both = dataclasses.replace(EXAMPLE, plans=(by_graph, *EXAMPLE.plans))
    assert both.choose(0.75, 10) is not None
    assert both.choose(0.75, 10).first_stage == "graph"
    assert both.choose(0.75, 10, first_stages=["codes"]) == EXAMPLE.plans[1]
    assert both.choose(0.85, 10).first_stage == "codes"  # the graph's plan does not reach it
    scaled = both.choose(0.6, 75, first_stages=["graph"])
    assert (scaled.prefetch, scaled.navigation_ef) == (60, 96)
    with pytest.raises(InvalidInputError, match=r"more than 0\.800 \(0\.810 on average, by graph, ef=64 and 40 cand"):
        both.choose(0.9, 10, first_stages=["graph"])
    with pytest.raises(ConfigError, match="has no plans by graph for 10 hits; run `compressae calibrate` again"):
        EXAMPLE.choose(0.7, 10, first_stages=["graph"])


@pytest.mark.parametrize("dense", [False, True], ids=["codes", "keep_dense"])
def test_plans_of_the_graph_are_measured_and_taken(
    tmp_path: Path, own_model: CompresSAE, embeddings: FloatArray, dense: bool
) -> None:
    grid = {name: value for name, value in GRID.items() if name != "navigation"} | {"queries": 80}
    with EdgeIndex.create(tmp_path / "index", own_model, IndexSettings(keep_dense=dense)) as index:
        index.upsert(range(600), own_model.encode(embeddings), dense=embeddings if dense else None)
        index.optimize()
        timed = calibrate(own_model, embeddings, index, seed=4, **grid)
        assert {each.first_stage for each in timed.plans} == {"codes", "graph"}
        assert [each.ms for each in timed.plans] == sorted(each.ms for each in timed.plans)
        planned = calibrate(own_model, embeddings, keep_dense=dense, items=10**8, seed=4, **grid)
        assert planned.plans[0].first_stage == "graph"  # which does not walk 10^8 items
        own = np.sort(np.random.default_rng(4).choice(600, 80, replace=False))
        truth = exact_neighbours(embeddings[own], embeddings, 20, own).tolist()
        retriever = Retriever(own_model, index)
        for entry in (each for each in planned.plans if each.first_stage == "graph"):
            assert entry.navigation_ef is not None
            hits = retriever.search_batch(
                embeddings[own], 6, first_stage="graph", prefetch=entry.prefetch + 1,
                navigation_ef=max(entry.navigation_ef, entry.prefetch + 1),
                dense_candidates=entry.prefetch + 1 if dense else None,
            )  # fmt: skip
            rows = [[hit.id for hit in batch if hit.id != row][:5] for batch, row in zip(hits, own, strict=True)]
            assert float(recall(rows, truth, 5).mean()) == pytest.approx(entry.recall[5].mean, abs=0.03)
        own_model.calibration = planned
        for stage, expected in (("auto", "graph"), ("graph", "graph"), ("codes", "codes")):
            (hit,) = retriever.search(embeddings[0], 1, target_recall=0.3, first_stage=stage)  # type: ignore[arg-type]
            assert hit.explain().first_stage == expected
        with pytest.raises(InvalidInputError, match="target_recall chooses a plan of one first stage"):
            retriever.search(embeddings[0], 1, target_recall=0.3, first_stage="both")
    plain = IndexSettings(keep_dense=dense, navigation=None)
    with EdgeIndex.create(tmp_path / "plain", own_model, plain) as index:
        index.upsert(range(600), own_model.encode(embeddings), dense=embeddings if dense else None)
        (hit,) = Retriever(own_model, index).search(embeddings[0], 1, target_recall=0.3)
        assert hit.explain().first_stage == "codes"
        with pytest.raises(ConfigError, match="no navigation vectors"):
            Retriever(own_model, index).search(embeddings[0], 1, target_recall=0.3, first_stage="graph")


@pytest.mark.parametrize("dense", [False, True], ids=["codes", "keep_dense"])
def test_default_candidates_are_tried_with_more_and_fewer_nodes(
    own_model: CompresSAE, embeddings: FloatArray, dense: bool
) -> None:
    own = np.arange(0, 600, 10)
    truth = exact_neighbours(embeddings[own], embeddings, 20, own)
    plans = graph_plans(
        own_model, own_model.encode(embeddings), embeddings, own, truth, [5, 20], [20, 400], NavigationSettings(),
        keep_dense=dense, index=None, items=600, constants=load_constants(),
    )  # fmt: skip
    few, many = graph_sizes(5, keep_dense=dense), graph_sizes(20, keep_dense=dense)
    assert {plan.prefetch for plan in plans} == {few.candidates, 20, many.candidates}  # 400 are too many
    nodes = {few.ef // 2, few.ef, 2 * few.ef, 4 * few.ef}
    assert {plan.navigation_ef for plan in plans if plan.prefetch == few.candidates} == nodes
    assert {tuple(plan.recall) for plan in plans if plan.prefetch < 20} <= {(5,)}


def test_plans_of_a_large_catalog_get_more_nodes_than_its_sample_needs(
    own_model: CompresSAE, embeddings: FloatArray
) -> None:
    own = np.arange(0, 600, 10)
    truth = exact_neighbours(embeddings[own], embeddings, 5, own)
    measure = partial(
        graph_plans, own_model, own_model.encode(embeddings), embeddings, own, truth, [5], [], NavigationSettings(),
        keep_dense=False, index=None, constants=load_constants(),
    )  # fmt: skip
    small, large = measure(items=600), measure(items=1 << 20)
    assert [plan.navigation_ef for plan in large] == [round(1.5 * (plan.navigation_ef or 0)) for plan in small]
    assert [plan.recall for plan in large] == [plan.recall for plan in small]
    assert all(more.ms > less.ms for more, less in zip(large, small, strict=True))


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    assert Calibration.load(tmp_path, "m-0") is None
    by_graph = dataclasses.replace(plan(0, 40, 0.5, n10=0.8, n50=0.7), first_stage="graph", navigation_ef=64)
    both = dataclasses.replace(EXAMPLE, plans=(by_graph, *EXAMPLE.plans))
    both.save(tmp_path)
    assert Calibration.load(tmp_path, "m-0") == both
    with pytest.raises(ModelMismatchError, match="belongs to model 'm-0' but the model here is 'm-1'"):
        Calibration.load(tmp_path, "m-1")
    for text in (
        "{}",
        "[]",
        "nonsense",
        (tmp_path / CALIBRATION_FILE).read_text().replace('"format": 1', '"format": 9'),
    ):
        (tmp_path / CALIBRATION_FILE).write_text(text)
        with pytest.raises(ModelFileError, match="is not a calibration that this version reads"):
            Calibration.load(tmp_path, "m-0")


def test_measured_recall_equals_the_recall_of_searches(
    own_model: CompresSAE, embeddings: FloatArray, built_index: EdgeIndex
) -> None:
    dense = built_index.settings.keep_dense
    timed = calibrate(own_model, embeddings, built_index, seed=4, **{**GRID, "queries": 30})
    assert (timed.fingerprint, timed.items, timed.queries) == (own_model.fingerprint, 600, 30)
    assert timed.keep_dense == dense
    assert timed.times.startswith("measured on ")
    assert min(entry.ms for entry in timed.plans) > 0
    calibration = calibrate(own_model, embeddings, keep_dense=dense, items=6_000_000, seed=4, **{**GRID, "queries": 60})
    own = np.sort(np.random.default_rng(4).choice(600, 60, replace=False))
    truth = exact_neighbours(embeddings[own], embeddings, 20, own).tolist()
    retriever = Retriever(own_model, built_index)
    assert len(calibration.plans) > 3
    for entry in calibration.plans:
        for limit, known in entry.recall.items():
            rows = []
            for row in own.tolist():
                others = models.Filter(must_not=[models.HasIdCondition(has_id=[row])])
                hits = retriever.search(
                    embeddings[row],
                    limit,
                    first_stage_latents=entry.first_stage_latents,
                    prefetch=entry.prefetch,
                    filter=others,
                )
                rows.append([hit.id for hit in hits])
            assert float(recall(rows, truth, limit).mean()) == pytest.approx(known.mean, abs=0.002)
            assert known.low < known.mean or known.mean == 1


def test_every_plan_is_better_than_all_cheaper_ones(own_model: CompresSAE, embeddings: FloatArray) -> None:
    calibration = calibrate(own_model, embeddings, seed=4, **GRID)
    costs = [entry.ms for entry in calibration.plans]
    assert costs == sorted(costs)
    for n, entry in enumerate(calibration.plans):
        for cheaper in calibration.plans[:n]:
            assert any(limit not in cheaper.recall or known.low > cheaper.recall[limit].low
                       for limit, known in entry.recall.items())  # fmt: skip
    assert calibration.times.startswith("capacity constants")
    best = max(entry.recall[5].mean for entry in calibration.plans if 5 in entry.recall)
    exhaustive = next(entry for entry in calibration.plans if entry.first_stage_latents == 96 or entry.prefetch == 200)
    assert exhaustive.recall[5].mean == pytest.approx(best, abs=0.02)
    with_embeddings = calibrate(own_model, embeddings, seed=4, keep_dense=True, **GRID)
    assert max(entry.recall[5].mean for entry in with_embeddings.plans) > best + 0.05
    larger = calibrate(own_model, embeddings, seed=4, items=6_000_000, **GRID)
    assert larger.items == 6_000_000
    assert min(entry.ms for entry in larger.plans) > 10 * min(costs)
    assert {entry.first_stage_latents for entry in larger.plans} >= {4}


def test_a_search_reaches_its_target_recall(
    own_model: CompresSAE, embeddings: FloatArray, built_index: EdgeIndex
) -> None:
    retriever = Retriever(own_model, built_index)
    with pytest.raises(ConfigError, match=r"not calibrated, so no plan is known for target_recall=0\.5; run"):
        retriever.search(embeddings[0], 5, target_recall=0.5)
    dense = built_index.settings.keep_dense
    own_model.calibration = calibrate(own_model, embeddings, items=60_000, seed=4, keep_dense=dense, **GRID)
    calibration_rows = set(np.random.default_rng(4).choice(600, 150, replace=False).tolist())
    own = np.array([row for row in range(600) if row not in calibration_rows])
    truth = exact_neighbours(embeddings[own], embeddings, 20, own).tolist()
    sizes = []
    best = max(entry.recall[20].low for entry in own_model.calibration.plans if 20 in entry.recall)
    for target in (0.3, 0.5, best):
        hits = retriever.search_batch(embeddings[own], 20, target_recall=target)
        rows = [[hit.id for hit in batch if hit.id != row] for batch, row in zip(hits, own, strict=True)]
        assert float(recall(rows, truth, 19).mean()) > target - 0.03
        (planned,) = retriever._queries._planner.plans(embeddings[0], search_settings(limit=20, target_recall=target))
        assert planned.first_stage is not None
        sizes.append((planned.prefetch, len(planned.first_stage)))
        expected = own_model.calibration.choose(target, 20, keep_dense=dense)
        assert (len(planned.first_stage), planned.prefetch) == (expected.first_stage_latents, expected.prefetch)
    assert len(set(sizes)) > 1
    assert retriever.similar_to(3, 5, target_recall=0.5)
    if not dense:
        with pytest.raises(InvalidInputError, match=r"target_recall is 0\.999, but with 5 hits no plan reliably"):
            retriever.search(embeddings[0], 5, target_recall=0.999)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"target_recall": 0.0}, "target_recall is 0.0; it must be above 0"),
        ({"target_recall": 1.5}, "target_recall is 1.5; it must be above 0"),
        ({"target_recall": 0.9, "prefetch": 50}, "and prefetch given too"),
        ({"target_recall": 0.9, "navigation_ef": 50}, "and navigation_ef given too"),
        ({"target_recall": 0.9, "exact": True, "first_stage_latents": 3}, "and first_stage_latents, exact given too"),
        ({"target_recall": 0.9, "scoring": "sparse"}, "and scoring given too"),
        ({"target_recall": 0.9, "within": "+3"}, "and within given too"),
        ({"target_recall": 0.9, "concepts": {"+3": 0.5}}, "and concepts given too"),
    ],
)
def test_a_target_excludes_other_plan_options(settings: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        search_settings(**settings)


def test_invalid_calibrations_are_refused(tmp_path: Path, own_model: CompresSAE, embeddings: FloatArray) -> None:
    with pytest.raises(InvalidInputError, match="there are 20 items; a limit of 20 needs at least 22"):
        calibrate(own_model, embeddings[:20], **GRID)
    with pytest.raises(InvalidInputError, match="must be given, and at least 1"):
        calibrate(own_model, embeddings, **{**GRID, "limits": (0, 5)})
    with pytest.raises(InvalidInputError, match="every row is to be avoided"):
        calibrate(own_model, embeddings, **GRID, avoid=range(600))
    with (
        EdgeIndex.create(tmp_path / "empty", own_model) as empty,
        pytest.raises(InvalidInputError, match="the index is empty"),
    ):
        calibrate(own_model, embeddings, empty, **GRID)
    other = own_model.with_k(5, embeddings)
    with (
        EdgeIndex.create(tmp_path / "other", other) as index,
        pytest.raises(ModelMismatchError, match="the index was built by model"),
    ):
        calibrate(own_model, embeddings, index, **GRID)


def test_a_calibration_is_saved_with_its_model(tmp_path: Path, own_model: CompresSAE, embeddings: FloatArray) -> None:
    calibration = dataclasses.replace(EXAMPLE, fingerprint=own_model.fingerprint)
    calibration.save(tmp_path / "model")
    assert own_model.calibration == calibration
    file = tmp_path / "model" / CALIBRATION_FILE
    # As older versions wrote it.
    text = file.read_text().replace(', "first_stage": "codes", "navigation_ef": null', "")
    assert "graph" not in text
    assert '"codes"' not in text
    file.write_text(text.replace("first_stage_latents", "first_stage"))
    assert CompresSAE.load(tmp_path / "model").calibration == calibration
    own_model.save(tmp_path / "copy")
    assert CompresSAE.load(tmp_path / "copy").calibration == calibration
    own_model.save(tmp_path / "model")
    assert (tmp_path / "model" / CALIBRATION_FILE).exists()
    other = own_model.with_k(5, embeddings)
    assert other.calibration is None
    other.save(tmp_path / "copy")  # a different model is not kept
    assert not (tmp_path / "copy" / CALIBRATION_FILE).exists()


async def _async_search(model: CompresSAE, embeddings: FloatArray) -> list[Any]:
    index = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model)
    await index.upsert(range(60), model.encode(embeddings[:60]))
    return list(await AsyncRetriever(model, index).search(embeddings[0], 5, target_recall=0.6))


def test_async_searches_accept_a_target(own_model: CompresSAE, embeddings: FloatArray) -> None:
    import asyncio

    own_model.calibration = dataclasses.replace(EXAMPLE, fingerprint=own_model.fingerprint)
    hits = asyncio.run(_async_search(own_model, embeddings))
    assert len(hits) == 5
    assert hits[0].id == 0


@pytest.mark.usefixtures("catalog", "own_model")
def test_the_command_line_calibrates_and_searches(shell: Shell, tmp_path: Path) -> None:
    shell.json("ingest catalog.npy --model model --index index")
    code, _, err = shell("search 3 --like --model model --index index --target-recall 0.5")
    assert (code, "is not calibrated" in err) == (2, True)
    facts = shell.json("calibrate catalog.npy --model model --index index --queries 60 --limit 5 --limit 20")
    assert (facts["items"], facts["queries"], facts["keep_dense"]) == (600, 60, False)
    assert facts["times"].startswith("measured on")
    assert set(facts["targets"]) == {"5", "20"}
    code, out, err = shell("calibrate catalog.npy --model model --queries 60 --sample 400 --limit 5 --limit 20")
    assert code == 0, err
    assert "600 items, 60 queries, times: capacity constants" in out
    hits = shell.json("search 3 --like --model model --index index --limit 4 --target-recall 0.5")
    assert len(hits) == 4
    (tmp_path / "target.toml").write_text("[search]\ntarget_recall = 0.5\n")
    assert shell.json("search 3 --like --model model --index index --limit 4 --config target.toml") == hits
    code, _, err = shell("search 3 --like --model model --index index --limit 4 --config target.toml --prefetch 40")
    assert code == 0, err
    code, _, err = shell("search 3 --like --model model --index index --prefetch 40 --target-recall 0.5")
    assert (code, "and prefetch given too" in err) == (2, True)
    measured = shell.json("evaluate catalog.npy --model model --index index --queries 30 --target-recall 0.3")
    assert measured["recall"]["10"] > 0.25
