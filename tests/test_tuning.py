"""Tuning: goals, which trials run, and resuming after an interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, IndexSettings, train
from compressae_qdrant.capacity import load_constants
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, InvalidInputError
from compressae_qdrant.model.history import Record
from compressae_qdrant.tuning import (
    Goal,
    Sample,
    SearchSpace,
    TargetCatalog,
    TrialPoint,
    TuneResult,
    choose,
    front,
    tune,
)
from compressae_qdrant.tuning.settings_file import Settings

SPACE = SearchSpace(
    latents=(64, 128), k=(4, 8), datatypes=("uint8",), first_stage_latents=(16, 64), prefetch=(2, 5), steps=8, rounds=2
)
SERVED = TargetCatalog(1_000_000, load_constants())
ROOMY = Goal(budget=1000, depth=10)


def point(bytes: float, recall: float, ms: float = 1.0, **more: Any) -> TrialPoint:
    plain = TrialPoint(128, 8, 8, "uint8", "codes", 64, 50, bytes, recall, ms)
    return dataclasses.replace(plain, **more)


def search(
    embeddings: FloatArray, work: Path, goal: Goal = ROOMY, space: SearchSpace = SPACE, **more: Any
) -> TuneResult:
    return tune(embeddings, work, goal, SERVED, space, queries=50, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, embeddings: FloatArray) -> TuneResult:
    return search(embeddings, tmp_path_factory.mktemp("whole"))


def test_every_setting_is_measured(whole: TuneResult) -> None:
    assert (whole.trainings, whole.stopped, whole.left) == (4, 0, 0)
    settings = {(p.latents, p.k, p.datatype, p.first_stage, p.first_stage_latents, p.prefetch) for p in whole.points}
    assert len(settings) == len(whole.points)
    assert {p.k for p in whole.points} == {4, 6, 8, 12}
    assert len(whole.points) == 2 * 4 * 1 * ((2 + 1) * 2 + 1)
    graph = [p for p in whole.points if p.first_stage == "graph"]
    assert len(graph) == 2 * 4 * (2 + 1)  # with each factor and by the default plan
    assert {p.prefetch for p in graph} == {16, 20, 50}
    assert {p.first_stage_latents for p in graph} == {None}
    assert len({p.bytes for p in graph}) == 1  # codes are on disk, whatever their length
    many, few = ([p.recall for p in graph if p.prefetch == prefetch] for prefetch in (50, 20))
    assert np.mean(many) >= np.mean(few)
    assert all(0 < p.recall <= 1 and p.bytes > 0 and p.ms > 0 for p in whole.points)
    wide = [p for p in whole.points if p.first_stage_latents == 64 and p.prefetch == 50]
    by_k = {p.k: p.recall for p in wide if p.latents == 128}
    assert by_k[12] > by_k[4] + 0.02


def test_a_budget_is_respected_and_used(whole: TuneResult) -> None:
    sizes = sorted({p.bytes for p in whole.points})
    for budget in (sizes[0], np.median(sizes), sizes[-1] + 1):
        chosen = choose(whole.points, Goal(budget=float(budget), depth=10))
        assert chosen.bytes <= budget
        assert chosen.recall >= max(p.recall for p in whole.points if p.bytes <= budget) - 0.002
    with pytest.raises(ConfigError, match=r"no setting fits 1 bytes per item; the smallest that was tried takes \d+"):
        choose(whole.points, Goal(budget=1, depth=10))


def test_a_target_recall_takes_the_fewest_bytes() -> None:
    points = [point(50, 0.80), point(60, 0.90, ms=9), point(60.3, 0.905, ms=2), point(90, 0.95)]
    assert choose(points, Goal(recall=0.9)) == points[2]
    assert choose(points, Goal(recall=0.91)) == points[3]
    with pytest.raises(ConfigError, match=r"no setting reaches recall@100 0.99; the best that was tried is 0.950"):
        choose(points, Goal(recall=0.99))
    with pytest.raises(ConfigError, match="no settings were measured"):
        choose([], Goal(recall=0.99))


def test_the_fastest_plan_of_equal_recall_is_taken() -> None:
    points = [point(50, 0.9000, ms=9), point(55, 0.8985, ms=2), point(50, 0.88, ms=1)]
    assert choose(points, Goal(budget=60)) == points[1]


def test_recall_rises_along_the_front() -> None:
    random = np.random.default_rng(0)
    points = [point(float(b), float(r)) for b, r in random.random((200, 2))]
    best = front(points)
    assert all(a.bytes < b.bytes and a.recall < b.recall for a, b in pairwise(best))
    for each in points:
        assert any(b.bytes <= each.bytes and b.recall >= each.recall for b in best)


@pytest.mark.parametrize("when", ["training k=8, h=64", "measuring k=8, h=64"])
def test_an_interrupted_search_goes_on(
    tmp_path: Path, embeddings: FloatArray, whole: TuneResult, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    trained: list[tuple[int | None, int, bool]] = []

    def noting(items: FloatArray, config: Any, *, checkpoint: Path, **more: Any) -> CompresSAE:
        trained.append((config.latents, config.k, checkpoint.exists()))
        return plain(items, config, checkpoint=checkpoint, **more)

    plain: Callable[..., CompresSAE] = train
    monkeypatch.setattr("compressae_qdrant.tuning.study.train", noting)
    space = dataclasses.replace(SPACE, latents=(64,))

    def interrupt(doing: str, share: float) -> None:
        if doing == when and share > 0.6:  # the first of two trials is done, and the first validation of the second
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(embeddings, tmp_path, space=space, progress=interrupt)
    went_on = search(embeddings, tmp_path, space=space)
    assert (went_on.trainings, went_on.stopped, went_on.left) == (2, 0, 0)
    assert sorted(went_on.points, key=repr) == sorted((p for p in whole.points if p.latents == 64), key=repr)
    # The interrupted one twice, the second time from its checkpoint if training had not ended.
    assert trained == [(64, 4, False), (64, 8, False), (64, 8, when.startswith("training"))]
    assert search(embeddings, tmp_path, space=space).points == went_on.points
    assert len(trained) == 3


def test_trials_left_when_time_runs_out_are_reported(tmp_path: Path, embeddings: FloatArray) -> None:
    space = dataclasses.replace(SPACE, latents=(64,), first_stage_latents=(64,), prefetch=(5,))
    assert search(embeddings, tmp_path, space=space, minutes=0).left == 2
    assert search(embeddings, tmp_path, space=space).left == 0


def test_another_search_is_not_mixed_in(tmp_path: Path, embeddings: FloatArray) -> None:
    search(embeddings, tmp_path, minutes=0)
    for change in ({"goal": Goal(budget=900, depth=10)}, {"embeddings": embeddings[::-1].copy()}, {"seed": 4}):
        settings: dict[str, Any] = {"embeddings": embeddings, "goal": ROOMY, **change}
        with pytest.raises(ConfigError, match="the search of other data or settings"):
            search(work=tmp_path, **settings)


class FakeTraining:
    """Trains nothing, and reports a loss of its own for each h and k."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: dict[tuple[int, int], float], recall: float) -> None:
        self.begun: list[tuple[int, int]] = []
        self.losses, self.recall = losses, recall
        monkeypatch.setattr("compressae_qdrant.tuning.study.train", self.train)
        monkeypatch.setattr("compressae_qdrant.tuning.study.measure", self.measure)

    def train(self, items: FloatArray, config: Any, *, checkpoint: Path, on_record: Callable[[Record], None]) -> Any:
        self.begun.append((config.latents, config.k))
        checkpoint.write_bytes(b"")
        on_record(Record("autoencoder", 8, 8192, 0.0, 0.0, self.losses[config.latents, config.k], 0, 0.0))
        return None

    def measure(self, *_: Any) -> list[TrialPoint]:
        return [point(20.0, self.recall)]


def test_trainings_that_cannot_win_are_stopped(
    tmp_path: Path, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smallest index first: k=4 of 64 and of 128 latents, then k=8 of both."""
    losses = {(64, 4): 0.30, (128, 4): 0.20, (64, 8): 0.25, (128, 8): 0.199}
    fake = FakeTraining(monkeypatch, losses, 0.5)
    found = search(embeddings, tmp_path)
    assert len(fake.begun) == 4
    assert (found.trainings, found.stopped, found.left) == (3, 1, 0)
    assert not (tmp_path / "64-8.checkpoint").exists()


def test_trials_larger_than_a_sufficient_one_are_not_started(
    tmp_path: Path, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTraining(monkeypatch, dict.fromkeys([(64, 4), (128, 4), (64, 8), (128, 8)], 0.1), 0.9)
    found = search(embeddings, tmp_path, Goal(recall=0.8, depth=10))
    assert len(fake.begun) == 1
    assert (found.trainings, found.stopped) == (1, 3)


def test_settings_that_cannot_fit_are_not_tried(tmp_path: Path, embeddings: FloatArray, whole: TuneResult) -> None:
    least = min(p.bytes for p in whole.points)
    with pytest.raises(ConfigError, match="no pair of k"):
        search(embeddings, tmp_path, Goal(budget=least * 0.9, depth=10))
    with pytest.raises(ConfigError, match="no pair of k"):
        search(embeddings, tmp_path, space=dataclasses.replace(SPACE, latents=(512,)))


def test_settings_that_fit_with_the_smallest_datatype_are_tried(
    tmp_path: Path, embeddings: FloatArray, whole: TuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTraining(monkeypatch, dict.fromkeys([(64, 4), (128, 4)], 0.1), 0.5)
    budget = Goal(budget=1.01 * max(p.bytes for p in whole.points if p.trained_k == 4), depth=10)
    wide = dataclasses.replace(SPACE, k=(4,), datatypes=("float32", "uint8"))
    assert search(embeddings, tmp_path, budget, wide).trainings == 2


def test_queries_are_no_items(embeddings: FloatArray) -> None:
    sample = Sample.of(embeddings, 50, 10)
    assert (len(sample.items), len(sample.queries)) == (550, 50)
    assert not (sample.queries @ sample.items.T > 1 - 1e-6).any()
    with pytest.raises(InvalidInputError, match="too small"):
        Sample.of(embeddings[:80], 50, 10)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Goal(), "give one of the two"),
        (lambda: Goal(budget=100, recall=0.9), "give one of the two"),
        (lambda: Goal(budget=0), "must be positive"),
        (lambda: Goal(recall=1.5), r"must be in \(0, 1\]"),
        (lambda: SearchSpace(k=()), "k to try"),
        (lambda: SearchSpace(datatypes=("int4",)), "datatypes to try"),  # type: ignore[arg-type]
        (lambda: SearchSpace(first_stages=("tree",)), "first stages to try"),  # type: ignore[arg-type]
    ],
)
def test_invalid_goals_and_spaces_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


def test_settings_survive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    settings = point(100, 0.9).settings()
    settings.write(file, "two\nlines")
    assert file.read_text().startswith("# two\n# lines\n\n[train]\nlatents = 128\n")
    assert Settings.read(file) == settings
    assert IndexSettings(**settings.index).navigation is None
    graph = point(100, 0.9, first_stage="graph", first_stage_latents=None).settings()
    assert IndexSettings(**graph.index).navigation is not None
    assert dict(graph.search) == {"first_stage": "graph", "prefetch": 50}
    lines = file.read_text().replace('first_stage = "codes"\n', "").replace("first_stage_latents", "first_stage")
    file.write_text(lines)  # as version 0.1 wrote it
    assert Settings.read(file).search == {"first_stage_latents": 64, "prefetch": 50}
    assert Settings.read(None) == Settings()
    for text, complaint in (
        ("[train]\nlatent = 3\n", "has no setting latent"), ("[serve]\nx = 1\n", "its sections must be"),
        ("k = 3\n", "its sections must be"), ("[train\n", "is not a TOML file"),
        ('[train]\nk = "many"\n', r"\[train\]: k is 'many'; it must be a whole number"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            Settings.read(file)
    file.write_text('[index]\nshards = 6\ntenant_field = "shop"\npayload_fields = { section = "keyword" }\n')
    made = IndexSettings(**Settings.read(file).index)
    assert (made.shards, made.tenant_field, made.payload_fields) == (6, "shop", {"section": "keyword"})
    file.write_text('[index]\nshards = "six"\n')
    with pytest.raises(ConfigError, match=r"\[index\]: shards is 'six'; it must be a whole number"):
        Settings.read(file)
