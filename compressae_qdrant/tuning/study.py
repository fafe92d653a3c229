"""tune(): short trainings of every size, each measured in every way, the hopeless ones stopped early.

The study is an Optuna one in a journal file, so that an interrupted search goes on: with its next training, or within
the one that was interrupted, from that one's checkpoint. The pairs of h and k are few and each takes long, so all
of them are tried, the smallest index first, instead of being sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..capacity import Workload
from ..errors import ConfigError, MissingExtraError
from ..model.history import Record
from ..training import TrainConfig, train
from .measurement import Sample, Served, measure
from .points import Goal, Point, Space

if TYPE_CHECKING:
    import optuna

__all__ = ["TuneResult", "tune"]

_MOST: Final = 1 << 24
_BATCH: Final = 1024
_VALIDATIONS: Final = 4
"""Of the autoencoder phase."""
_MARGIN: Final = 0.02
"""A training is stopped if its loss is more than this share above one that takes no more bytes."""

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of all that is done, in 0..1."""


@dataclass(frozen=True)
class TuneResult:
    """What a search found."""

    points: list[Point]
    trainings: int
    """That were finished and measured."""
    stopped: int
    """That were stopped early, or never begun: another takes no more bytes and is better already."""
    left: int
    """That are still to be tried, as time ran out."""


def tune(
    embeddings: npt.NDArray[np.floating],
    work: Path,
    goal: Goal,
    served: Served,
    space: Space = Space(),  # noqa: B008 (frozen)
    *,
    queries: int = 300,
    seed: int = 0,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> TuneResult:
    """Search settings on a sample of a catalog.

    Args:
        embeddings: (n, d) the sample.
        work: directory of the study; an interrupted search goes on from what is in it.
        goal: what is wanted: sizes beyond a budget aren't tried, nor sizes beyond one that reached a wanted recall.
        served: the catalog that the settings are for.
        space: what to try.
        queries: items of the sample that are left out of training and index, and searched for.
        seed: of the draw and the trainings.
        minutes: after which no further training is begun.
        progress: called often.

    Raises:
        MissingExtraError: Optuna isn't installed (extra `tune`).
        ConfigError: the directory holds the study of other data or settings, or nothing can be tried at all.
        InvalidInputError: the sample is too small or has unusable rows.
    """
    sample = Sample.of(embeddings, queries, goal.depth, seed)
    pairs = _pairs(sample, space, served, goal)
    study = _study(work, _identity(sample, goal, served, space, seed))
    _enqueue(study, pairs)

    def report(doing: str, share: float) -> None:
        if progress is not None:
            progress(doing, min((len(_settled(study)) + share) / len(pairs), 1.0))

    search = _Search(study, sample, work, goal, served, space, seed, report)
    left = len(pairs) - len(_settled(study))
    if left:
        study.optimize(search.attempt, n_trials=left, timeout=None if minutes is None else 60 * minutes)
    settled = _settled(study)
    report(f"{len(settled)} trainings settled", 0)
    measured = [trial.user_attrs["points"] for trial in settled if "points" in trial.user_attrs]
    points = [Point.from_json(point) for each in measured for point in each]
    return TuneResult(points, len(measured), len(settled) - len(measured), len(pairs) - len(settled))


@dataclass(frozen=True)
class _Search:
    """What every training of a search needs."""

    study: optuna.Study
    sample: Sample
    work: Path
    goal: Goal
    served: Served
    space: Space
    seed: int
    report: Progress

    def attempt(self, trial: optuna.Trial) -> float:
        """Train one pair of h and k and measure it; its value is the best recall."""
        import optuna

        latents, k = trial.suggest_int("latents", 1, _MOST), trial.suggest_int("k", 1, _MOST)
        size: float = trial.user_attrs["bytes"]
        if self._reached(size):
            raise optuna.TrialPruned
        name, checkpoint = f"k={k}, h={latents}", self.work / f"{latents}-{k}.checkpoint"
        whole = _VALIDATIONS + self.space.rounds // 2 + 1
        seen = 0

        def on_record(record: Record) -> None:
            nonlocal seen
            seen += 1
            self.report(f"training {name}", seen / whole)
            trial.report(record.pursuit_loss, record.items)
            if self._hopeless(record, size):
                raise optuna.TrialPruned

        self.report(f"training {name}", 0)
        try:
            model = train(self.sample.items, self._config(latents, k), checkpoint=checkpoint, on_record=on_record)
        except optuna.TrialPruned:
            checkpoint.unlink(missing_ok=True)
            raise
        self.report(f"measuring {name}", seen / whole)
        points = measure(model, self.sample, self.space, self.served, self.goal)
        trial.set_user_attr("points", [point.to_json() for point in points])
        return max(point.recall for point in points)

    def _config(self, latents: int, k: int) -> TrainConfig:
        often = max(self.space.steps // _VALIDATIONS, 1)
        return TrainConfig(
            latents=latents, k=k, seed=self.seed, steps=self.space.steps, rounds=self.space.rounds, encoder_steps=0,
            batch_size=_BATCH, validate_every=often, checkpoint_every=often,
        )  # fmt: skip

    def _reached(self, size: float) -> bool:
        """Whether a setting of no more bytes has the wanted recall already."""
        wanted = self.goal.recall
        return wanted is not None and any(
            point["bytes"] <= size and point["recall"] >= wanted
            for trial in _settled(self.study)
            for point in trial.user_attrs.get("points", ())
        )

    def _hopeless(self, record: Record, size: float) -> bool:
        """Whether a training of no more bytes had a clearly lower loss after as many items."""
        return any(
            trial.user_attrs["bytes"] <= size
            and trial.intermediate_values.get(record.items, np.inf) < record.pursuit_loss * (1 - _MARGIN)
            for trial in _settled(self.study)
        )


def _pairs(sample: Sample, space: Space, served: Served, goal: Goal) -> list[tuple[float, int, int]]:
    """Bytes by the smallest datatype, h and k of the trainings, the smallest first; those that can't fit a budget left
    out."""
    pairs = []
    for latents in dict.fromkeys(space.latents):
        for k in dict.fromkeys(space.k):
            if 4 * k <= latents <= len(sample.items) // 2:
                asked = Workload(items=served.items, dim=sample.items.shape[1], k=k, latents=latents)
                size = min(served.cost(replace(asked, datatype=each))[0] for each in space.datatypes)
                if goal.budget is None or size <= goal.budget:
                    pairs.append((size, latents, k))
    if not pairs:
        raise ConfigError(
            f"no pair of k {space.k} and latents {space.latents} suits a sample of {len(sample.items):,} items and the "
            "goal; latents must be at least 4 k and at most half the sample, and the index within the budget"
        )
    return sorted(pairs)


def _study(work: Path, identity: str) -> optuna.Study:
    """The study in a directory, made if it isn't there."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as exc:
        raise MissingExtraError("tuning needs Optuna; pip install 'compressae-qdrant[tune]'") from exc
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # an interruption is none of its business
    work.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(work / "study.journal")))
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise ConfigError(
            f"{work} holds the search of other data or settings; go on with the same, or use another --work"
        )
    study.set_user_attr("identity", identity)
    return study


def _identity(sample: Sample, goal: Goal, served: Served, space: Space, seed: int) -> str:
    """A short text that differs where measured points would."""
    digest = hashlib.sha256(repr((goal, served.items, served.node, space, seed)).encode())
    digest.update(sample.items.tobytes() + sample.queries.tobytes())
    return digest.hexdigest()[:16]


def _enqueue(study: optuna.Study, pairs: Sequence[tuple[float, int, int]]) -> None:
    """Queue every pair that isn't settled, those that an interruption cut off too."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    known = {(trial.user_attrs["latents"], trial.user_attrs["k"]) for trial in [*_settled(study), *waiting]}
    for size, latents, k in pairs:
        if (latents, k) not in known:
            pair = {"latents": latents, "k": k}
            study.enqueue_trial(pair, user_attrs={**pair, "bytes": size})


def _settled(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trainings that were measured or given up."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
