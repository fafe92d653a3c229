"""Drift monitoring: measures, baselines stored with models, monitoring of an index, reports and their history."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes, TrainConfig, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import (
    ConfigError,
    InvalidInputError,
    ModelFileError,
    ModelMismatchError,
    SourceError,
)
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.model.baseline import Baseline
from compressae_qdrant.model.observation import pool_recalls
from compressae_qdrant.monitoring import (
    Tolerances,
    append_report,
    check,
    make_baseline,
    observe,
    observe_index,
    plot_history,
    read_history,
)
from compressae_qdrant.monitoring.latent_use import Use, dead, hot, posting_mass, psi

from .support.shell import Shell

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def foreign() -> FloatArray:
    """(300, 24) items in directions that the model was not trained on."""
    x = np.random.default_rng(9).normal(size=(300, 24)) * np.array([1.0] * 4 + [0.05] * 20)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def fresh() -> FloatArray:
    """(300, 24) new items around the centres of `embeddings`."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 24))
    random = np.random.default_rng(77)
    x = centres[random.integers(0, 40, 300)] + 0.5 * random.normal(size=(300, 24))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def _use(*counts: int, items: int) -> Use:
    return Use(items, np.array(counts))


def test_latent_use_does_not_count_padding() -> None:
    use = Use.of(np.array([[0, 2], [2, -1]], np.int32), 4)
    assert use.items == 2
    assert use.counts.tolist() == [1, 0, 2, 0]


def test_psi_is_the_sum_of_both_relative_entropies() -> None:
    from scipy.stats import entropy

    a, b = _use(3, 9, 0, 40, items=20), _use(30, 20, 10, 40, items=50)
    p, q = a.counts + 0.5, b.counts + 0.5
    assert psi(a, b) == pytest.approx(float(entropy(p, q) + entropy(q, p)))
    assert psi(a, a) == 0


def test_posting_mass_of_small_samples_has_no_bias() -> None:
    random = np.random.default_rng(0)
    supports = np.stack([1 + random.permutation(29)[:4] for _ in range(400)]).astype(np.int32)
    supports[:, 0] = 0  # all items use one latent
    population = Use.of(supports, 30)
    truth = float(((population.counts / 400) ** 2).sum())
    estimates = [posting_mass(Use.of(supports[random.integers(400, size=8)], 30)) for _ in range(4000)]
    assert np.mean(estimates) == pytest.approx(truth, abs=0.01)
    assert np.mean([((Use.of(supports[random.integers(400, size=8)], 30).counts / 8) ** 2).sum() for _ in range(400)])\
        > truth + 0.2  # fmt: skip


def test_dead_and_hot_latents_exclude_what_chance_explains() -> None:
    reference = _use(1000, 500, 20, 100, items=1000)
    now = _use(0, 260, 0, 400, items=500)
    assert dead(now, reference).tolist() == [0, 2]  # 10 uses of latent 2 were expected
    assert hot(now, reference).tolist() == [3]
    assert hot(reference, reference).size == dead(reference, reference).size == 0
    assert dead(_use(0, 0, 0, 0, items=4), reference).size == 0  # 4 items are too few to expect any latent


def test_training_makes_a_baseline_of_held_out_items(model: CompresSAE, embeddings: FloatArray) -> None:
    baseline = model.baseline
    assert baseline is not None
    assert (len(baseline), baseline.pools, baseline.recalls.shape) == (60, (50,), (1, 60))
    assert np.isfinite(baseline.recalls).sum() == 50
    x_hat = model.decode(model.encode(embeddings))
    losses = 1 - (embeddings * x_hat).sum(axis=1) / np.linalg.norm(x_hat, axis=1)
    assert np.isclose(baseline.losses[:, None], losses, atol=1e-5).any(axis=1).all()
    tiny = TrainConfig(latents=32, k=4, steps=1, rounds=0, encoder_steps=0, held_out=0)
    assert train(embeddings, tiny).baseline is None


def test_a_baseline_is_saved_with_its_model(model: CompresSAE, embeddings: FloatArray, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    loaded = CompresSAE.load(tmp_path / "m").baseline
    assert loaded is not None
    assert model.baseline is not None
    assert np.array_equal(loaded.supports, model.baseline.supports)
    assert np.array_equal(loaded.losses, model.baseline.losses)
    assert np.allclose(loaded.recalls, model.baseline.recalls, atol=1e-3, equal_nan=True)
    file = tmp_path / "m" / "baseline.safetensors"
    content = file.read_bytes()
    file.unlink()
    assert CompresSAE.load(tmp_path / "m").baseline is None  # like a model saved by an older version
    file.write_bytes(content[:-100])
    with pytest.raises(ModelFileError, match="not a readable baseline"):
        CompresSAE.load(tmp_path / "m")
    other = train(embeddings, TrainConfig(latents=32, k=4, steps=1, rounds=0, encoder_steps=0, held_out=60))
    other.save(tmp_path / "other")
    file.write_bytes((tmp_path / "other" / "baseline.safetensors").read_bytes())
    assert CompresSAE.load(tmp_path / "m").baseline is None  # as after a save that was interrupted
    with pytest.raises(ModelMismatchError, match="make one"):
        check(model, observe(model, embeddings), Baseline.load(file))
    other.baseline = None
    other.save(tmp_path / "other")
    assert not (tmp_path / "other" / "baseline.safetensors").exists()


def test_items_like_the_training_items_pass_and_others_drift(
    model: CompresSAE, fresh: FloatArray, foreign: FloatArray, embeddings: FloatArray
) -> None:
    assert model.baseline is not None
    report = check(model, observe(model, fresh), model.baseline)
    assert set(report.checks) == {"cosine_loss", "psi", "posting_mass", "dead_latents", "hot_latents", "recall"}
    assert (report.drifted, report.reasons, report.left_out) == (False, [], {})
    report = check(model, observe(model, foreign), model.baseline)
    assert {"cosine_loss", "psi", "posting_mass", "hot_latents"} <= set(report.reasons)
    assert report.hot_latents
    lax = Tolerances(errors=1e9)
    assert not check(model, observe(model, foreign), model.baseline, lax).drifted
    with pytest.raises(InvalidInputError, match="at least 50"):
        check(model, observe(model, fresh[:49]), model.baseline)
    for wrong in ({"loss": -1.0}, {"errors": float("nan")}):
        with pytest.raises(ConfigError, match="tolerance"):
            Tolerances(**wrong)


def test_segments_are_compared_with_the_same_segment(model: CompresSAE, fresh: FloatArray, foreign: FloatArray) -> None:
    """A segment that was always hard to encode is not drift; a new segment that is hard to encode is."""
    both = np.concatenate([fresh[:150], foreign[:150]])
    names = ["easy"] * 150 + ["hard"] * 150
    baseline = make_baseline(model, both, source="both", segments=names, field="kind")
    again = np.concatenate([fresh[150:], foreign[150:]])
    report = check(model, observe(model, again, names), baseline)
    assert not report.drifted
    assert report.segments["hard"].baseline == "both, kind hard"
    assert report.segments["hard"].checks["cosine_loss"].value > 2 * report.segments["easy"].checks["cosine_loss"].value
    mixed = ["easy"] * 150 + ["new"] * 140 + ["few"] * 10
    report = check(model, observe(model, again, mixed), baseline)
    assert set(report.segments) == {"easy", "new"}
    assert "new: cosine_loss" in report.reasons
    assert "psi" not in report.segments["new"].checks
    assert "not in the baseline" in report.segments["new"].left_out["latents"]
    rare = make_baseline(model, both, source="both", segments=["easy"] * 260 + ["new"] * 40, field="kind")
    part = check(model, observe(model, again, mixed), rare).segments["new"]
    assert part.checks == {}
    assert part.left_out["everything"].startswith("the baseline has only 40 of its items")
    assert model.baseline is not None
    with pytest.raises(ConfigError, match="--make-baseline --segment"):
        check(model, observe(model, again, mixed), model.baseline)


def test_items_without_a_segment_are_in_none(model: CompresSAE, fresh: FloatArray) -> None:
    """An empty text is a value like any other; None means no segment."""
    baseline = make_baseline(model, fresh, source="x", segments=[""] * 60 + [None] * 240, field="kind")
    assert len(baseline.of_segment("") or ()) == 60


def test_a_segment_of_few_queries_has_no_recall(model: CompresSAE, fresh: FloatArray, tmp_path: Path) -> None:
    """A single value has no standard error, and NaN is not valid JSON."""
    names = ["most"] * 240 + ["rare"] * 60
    baseline = make_baseline(model, fresh, source="x", segments=names, field="kind")
    recalls = baseline.recalls.copy()
    recalls[:, np.flatnonzero(np.isfinite(recalls[-1, 240:]))[1:] + 240] = np.nan
    one = dataclasses.replace(baseline, recalls=recalls)
    report = check(model, observe(model, fresh, names), one)
    assert "recall" in report.segments["most"].checks
    assert report.segments["rare"].left_out["recall"] == "the spot check drew fewer than 5 of its items"
    append_report(tmp_path / "history.jsonl", report, model=model.fingerprint, source="x", time=NOW)


def test_recall_of_an_item_is_measured_in_its_own_pool(model: CompresSAE, embeddings: FloatArray) -> None:
    observation = observe(model, embeddings[:130])
    recalls = pool_recalls(model, observation, 60, 200, seed=1)
    assert np.isfinite(recalls).sum() == 120  # two pools of 60; ten items are in neither
    order = np.random.default_rng([1, 60]).permutation(130)
    pool, item = order[:60], order[0]
    exact = [row for row in np.argsort(-embeddings[pool] @ embeddings[item]) if pool[row] != item][:10]
    x_hat = model.decode(observation.codes)
    coded = [row for row in np.argsort(-x_hat[pool] @ embeddings[item]) if pool[row] != item][:10]
    assert recalls[item] == pytest.approx(len(set(exact) & set(coded)) / 10)


def test_measures_available_from_an_index(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray, tmp_path: Path
) -> None:
    assert model.baseline is not None
    from_embeddings = observe(model, embeddings)
    assert from_embeddings.losses is not None
    observation = observe_index(model, index, 1000, field="group")
    grouped = make_baseline(model, embeddings, source="all", segments=[str(i % 3) for i in range(600)], field="group")
    assert observation.losses is not None
    assert observation.segments is not None
    assert np.allclose(np.sort(observation.losses), np.sort(from_embeddings.losses), atol=1e-5)
    assert Use.of(observation.supports, 96).counts.tolist() == Use.of(from_embeddings.supports, 96).counts.tolist()
    report = check(model, observation, grouped)
    assert "keep_dense" in report.left_out["recall"]
    assert set(report.segments) == {"0", "1", "2"}
    assert len(observe_index(model, index, 100)) == 100

    def stored_index(settings: IndexSettings, name: str) -> CodeIndex:
        index = EdgeIndex.create(tmp_path / name, model, settings)
        codes = model.encode(embeddings, scale=settings.scale)
        index.upsert(range(len(codes)), codes, dense=embeddings if settings.keep_dense else None)
        return index

    with stored_index(IndexSettings(scale="reconstruction"), "unit") as unit:
        report = check(model, observe_index(model, unit, 1000), model.baseline)
    assert "the loss cannot be computed" in report.left_out["cosine_loss"]
    assert {"psi", "posting_mass"} <= set(report.checks)
    with stored_index(IndexSettings(scale="reconstruction", keep_dense=True), "dense") as dense:
        observation = observe_index(model, dense, 1000)
    assert observation.losses is not None
    assert np.allclose(
        np.sort(observation.losses), np.sort(from_embeddings.losses), atol=2e-3
    )  # embeddings are float16
    assert "recall" in check(model, observation, model.baseline).checks


def test_padding_of_stored_codes_is_not_counted(model: CompresSAE, tmp_path: Path) -> None:
    with EdgeIndex.create(tmp_path / "i", model) as index:
        index.upsert([1], SparseCodes([[0, 5, 7, 8, 9, 10]], [[0.5, 0.5, 0, 0, 0, 0]], 96, "projection"))
        observation = observe_index(model, index, 10)
    assert sorted(observation.supports[0].tolist()) == [-1, -1, -1, -1, 0, 5]


def test_a_history_survives_a_kill(model: CompresSAE, fresh: FloatArray, foreign: FloatArray, tmp_path: Path) -> None:
    assert model.baseline is not None
    path = tmp_path / "deep" / "monitor.jsonl"
    for items in (fresh, foreign):
        report = check(model, observe(model, items), model.baseline)
        append_report(path, report, model=model.fingerprint, source="x", time=NOW)
    with path.open("a") as file:
        file.write('{"time": "2026-01-03T')  # killed while writing
    assert [len(read_history(path)[0]), read_history(path)[1]] == [2, 1]
    append_report(path, report, model=model.fingerprint, source="x", time=NOW)
    entries, broken = read_history(path)
    assert ([entry["drifted"] for entry in entries], broken) == ([False, True, True], 1)
    assert entries[0]["checks"]["psi"]["drifted"] is False
    plot_history(entries, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SourceError, match="no reports to plot"):
        plot_history([], tmp_path / "m.png")
    path.write_text("[1]\n")
    with pytest.raises(SourceError, match="line 1 "):
        read_history(path)


def test_the_command(shell: Shell, tmp_path: Path, model: CompresSAE, fresh: FloatArray, foreign: FloatArray) -> None:
    for name, rows in (("fresh", fresh), ("foreign", foreign)):
        lines = [json.dumps({"id": n, "embedding": x.tolist(), "kind": name}) for n, x in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    model.save("model")
    report = shell.json("monitor fresh.jsonl --model model --history h.jsonl")
    assert (report["drifted"], report["model"], report["reasons"]) == (False, model.fingerprint, [])
    code, out, _ = shell("monitor foreign.jsonl --model model --history h.jsonl --plot h.png")
    assert code == 1
    assert "DRIFT" in out
    assert "300 items compared with items held out of the training: drift: cosine_loss" in out
    assert "The model encodes these items worse. Train a model on a catalog that includes them" in out
    assert len(Path("h.jsonl").read_text().splitlines()) == 2
    assert Path("h.png").exists()
    code, out, _ = shell("monitor foreign.jsonl --model model --json --tolerance errors=1e9")
    assert code == 0
    for path in Path("model").glob("baseline*"):
        path.unlink()
    code, _, err = shell("monitor fresh.jsonl --model model")
    assert code == 2
    assert "--make-baseline" in err
    made = shell.json("monitor foreign.jsonl --model model --make-baseline --segment kind")
    assert (made["items"], made["segments"]) == (300, 1)
    report = shell.json("monitor foreign.jsonl --model model --segment kind")
    assert (report["drifted"], list(report["segments"])) == (False, ["foreign"])
    shell("ingest foreign.jsonl --model model --index index")
    report = shell.json("monitor --index index --model model")
    assert (report["drifted"], list(report["left_out"])) == (False, ["recall"])
    for wrong, message in (
        ("--model model", "either a source"),
        ("fresh.jsonl --index index --model model", "either a source"),
        ("fresh.jsonl --model model --plot p.png", "--history"),
        ("fresh.jsonl --model model --segment id", "by 'id'"),
        ("fresh.jsonl --model model --tolerance loss", "--tolerance"),
        ("fresh.jsonl --model model --tolerance colour=1", "colour"),
        ("--index index --model model --make-baseline", "--make-baseline needs embeddings, not --index"),
    ):
        code, _, err = shell(f"monitor {wrong}")
        assert code == 2
        assert message in err
