"""Short trainings of every size, each measured with many settings, the hopeless ones stopped early.

Pairs of latents and k are few and each training takes long, so all of them are tried, the smallest index first,
instead of being sampled. Results are kept in a file after each training, so an interrupted search continues with the
next training, or from the checkpoint of the interrupted one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..capacity import Workload
from ..errors import ConfigError
from ..model.history import Record
from ..training import TrainConfig, train
from .journal import Journal, Trial
from .measurement import Sample, TargetCatalog, measure
from .points import Goal, SearchSpace, TrialPoint

__all__ = ["TuneResult", "tune"]

_BATCH: Final = 1024
_VALIDATIONS: Final = 4
"""Validations in the autoencoder phase of each training."""
_MARGIN: Final = 0.02
"""A training is stopped if its loss exceeds that of an index of no more bytes by this share."""

Progress = Callable[[str, float], None]
"""Called with a description of the current step and the share of the whole search that is done, in 0..1."""


@dataclass(frozen=True)
class TuneResult:
    """Result of a search."""

    points: list[TrialPoint]
    """All measured settings."""
    trainings: int
    """Trainings that were finished and measured."""
    stopped: int
    """Trainings that were stopped early or skipped, because one of no more bytes is better already."""
    left: int
    """Trainings still to be tried when the time was over."""


def tune(
    embeddings: npt.NDArray[np.floating],
    work: Path,
    goal: Goal,
    catalog: TargetCatalog,
    space: SearchSpace = SearchSpace(),  # noqa: B008 (frozen)
    *,
    queries: int = 300,
    seed: int = 0,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> TuneResult:
    """Search settings on a sample of a catalog.

    Args:
        embeddings: (n, d) embeddings of the sample.
        work: directory of results and checkpoints; an interrupted search continues from them.
        goal: the byte budget or the target recall. Sizes beyond the budget, or beyond one that reached the target
            recall, are not tried.
        catalog: the catalog that the settings are for.
        space: the settings to try.
        queries: number of sample items used as queries, and left out of training and index.
        seed: random seed for drawing the queries and for the trainings.
        minutes: time after which no further training begins; None has no limit.
        progress: called several times during each training.

    Raises:
        ConfigError: the directory holds a search of other data or settings, or no pair of latents and k can be tried.
        InvalidInputError: the sample is too small or has unusable rows.
    """
    started = time.monotonic()
    sample = Sample.of(embeddings, queries, goal.depth, seed)
    pairs = _pairs(sample, space, catalog, goal)
    journal = Journal.open(work, _identity(sample, goal, catalog, space, seed))

    def report(step: str, share: float) -> None:
        if progress is not None:
            progress(step, min((len(journal.trials) + share) / len(pairs), 1.0))

    search = _Search(journal, sample, work, goal, catalog, space, seed, report)
    for size, latents, k in pairs:
        if minutes is not None and time.monotonic() - started >= 60 * minutes:
            break
        if not journal.has(latents, k):
            journal.add(search.attempt(latents, k, size))
    report(f"{len(journal.trials)} of {len(pairs)} trainings done", 0)
    measured = [trial for trial in journal.trials if trial.points is not None]
    points = [point for trial in measured for point in trial.points or ()]
    settled = len(journal.trials)
    return TuneResult(points, len(measured), settled - len(measured), len(pairs) - settled)


@dataclass(frozen=True)
class _Search:
    """Everything that the trainings of a search share."""

    journal: Journal
    sample: Sample
    work: Path
    goal: Goal
    catalog: TargetCatalog
    space: SearchSpace
    seed: int
    report: Progress

    def attempt(self, latents: int, k: int, size: float) -> Trial:
        """Train one pair of latents and k, and measure it unless it is hopeless. `size` is in bytes per item."""
        trial = Trial(latents, k, size)
        if self._reached(size):
            return trial
        name, checkpoint = f"k={k}, h={latents}", self.work / f"{latents}-{k}.checkpoint"
        steps = _VALIDATIONS + self.space.rounds // 2 + 1

        def on_record(record: Record) -> None:
            trial.losses[record.items] = record.pursuit_loss
            self.report(f"training {name}", len(trial.losses) / steps)
            if self._hopeless(record, size):
                raise _Stopped

        self.report(f"training {name}", 0)
        try:
            model = train(self.sample.items, self._config(latents, k), checkpoint=checkpoint, on_record=on_record)
        except _Stopped:
            checkpoint.unlink(missing_ok=True)
            return trial
        self.report(f"measuring {name}", len(trial.losses) / steps)
        return replace(trial, points=measure(model, self.sample, self.space, self.catalog, self.goal))

    def _config(self, latents: int, k: int) -> TrainConfig:
        interval = max(self.space.steps // _VALIDATIONS, 1)
        return TrainConfig(
            latents=latents, k=k, seed=self.seed, steps=self.space.steps, rounds=self.space.rounds, encoder_steps=0,
            batch_size=_BATCH, validate_every=interval, checkpoint_every=interval,
        )  # fmt: skip

    def _reached(self, size: float) -> bool:
        """Whether a setting of no more bytes has the target recall already."""
        target = self.goal.recall
        return target is not None and any(
            point.bytes <= size and point.recall >= target
            for trial in self.journal.trials
            for point in trial.points or ()
        )

    def _hopeless(self, record: Record, size: float) -> bool:
        """Whether a training of no more bytes had a clearly lower loss after as many items."""
        return any(
            trial.bytes <= size and trial.losses.get(record.items, np.inf) < record.pursuit_loss * (1 - _MARGIN)
            for trial in self.journal.trials
        )


class _Stopped(Exception):  # noqa: N818 (a signal, not an error)
    """Ends a hopeless training from within its callback."""


def _pairs(sample: Sample, space: SearchSpace, catalog: TargetCatalog, goal: Goal) -> list[tuple[float, int, int]]:
    """Least bytes per item, latents and k of each training within the budget, smallest first."""
    pairs = []
    for latents in dict.fromkeys(space.latents):
        for k in dict.fromkeys(space.k):
            if 4 * k <= latents <= len(sample.items) // 2:
                workload = Workload(items=catalog.items, dim=sample.items.shape[1], k=k, latents=latents)
                size = min(
                    catalog.cost(replace(workload, datatype=datatype, first_stage=stage))[0]
                    for datatype in space.datatypes
                    for stage in space.first_stages
                )
                if goal.budget is None or size <= goal.budget:
                    pairs.append((size, latents, k))
    if not pairs:
        raise ConfigError(
            f"no pair of k {space.k} and latents {space.latents} suits a sample of {len(sample.items):,} items and the "
            "goal; latents must be at least 4 k and at most half the sample, and the index within the budget"
        )
    return sorted(pairs)


def _identity(sample: Sample, goal: Goal, catalog: TargetCatalog, space: SearchSpace, seed: int) -> str:
    """A short hash of everything that measured points depend on."""
    digest = hashlib.sha256(repr((goal, catalog.items, catalog.node, space, seed)).encode())
    digest.update(sample.items.tobytes() + sample.queries.tobytes())
    return digest.hexdigest()[:16]
