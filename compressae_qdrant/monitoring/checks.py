"""check(): a batch against the baseline; every measure beside what chance gives for so many items.

A measure has drifted if it is beyond its threshold: what is expected of so many items, plus the larger of a tolerance
(less than that is not worth an alarm) and 4 standard errors (less than that is chance). Mean losses and recalls have
the usual standard error of a difference (Welch). For measures of latent use, expectation and error are those of 100
permutations: items of batch and baseline pooled and dealt anew into sets of the two sizes. If both are of one kind, all
dealings are equally likely, so nothing needs assuming of how latents are spread or how many items there are (Pitman,
"Significance tests which may be applied to samples from any populations", 1937).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, SupportsFloat

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, InvalidInputError, ModelMismatchError
from ..model.baseline import Baseline
from ..model.compressae import CompresSAE
from ..model.observation import MIN_ITEMS, QUERIES, Observation, pool_recalls
from .latent_use import Use, dead, hot, posting_mass, use_measures

__all__ = ["Check", "Report", "Tolerances", "check"]

_PERMUTATIONS: Final = 100
_LEAST_QUERIES: Final = 5
"""Of a segment, on either side, before their mean recall and its error say something."""
_NAMED: Final = 20
"""Latents named in a report; their number is given in full."""


@dataclass(frozen=True)
class Tolerances:
    """What is not worth an alarm, however sure it is. In small batches chance is more than that, and counts instead."""

    loss: float = 0.1
    """Rise of the mean cosine loss, as a share of the baseline's."""
    psi: float = 0.1
    """Stability index beyond what samples of the same give; 0.1 is where its inventors begin to speak of a change."""
    posting_mass: float = 0.1
    """Rise, as a share of the baseline's: queries would walk so much longer postings."""
    latents: float = 0.005
    """Dead latents, and hot latents, as a share of all."""
    recall: float = 0.02
    """Fall of recall@10 in the spot check."""
    errors: float = 4.0
    """Standard errors that are taken for chance: one batch in 30,000 is beyond 4 for a normal measure."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"tolerance {name} is {value}; it must be a number of at least 0")


@dataclass(frozen=True)
class Check:
    """One measure of a batch."""

    value: float
    expected: float
    """Of a batch of this size from the baseline's items."""
    threshold: float
    """Beyond it the measure has drifted; above, or below for recall."""
    drifted: bool


@dataclass(frozen=True)
class Report:
    """What the monitor found in one batch, or in one segment of it."""

    items: int
    checks: dict[str, Check]
    """By measure: cosine_loss, psi, posting_mass, dead_latents, hot_latents, recall."""
    left_out: dict[str, str]
    """Measures that can't be had, and why."""
    hot_latents: list[int]
    """The most surprisingly frequent latents, at most 20."""
    dead_latents: list[int]
    """The most missed latents, at most 20."""
    segments: dict[str, Report] = field(default_factory=dict)
    baseline: str = ""
    """What it was compared with."""

    @property
    def drifted(self) -> bool:
        """Whether any measure has, here or in a segment."""
        return bool(self.reasons)

    @property
    def reasons(self) -> list[str]:
        """Names of the measures that have drifted; those of a segment as `segment: measure`."""
        own = [name for name, check in self.checks.items() if check.drifted]
        return own + [f"{name}: {reason}" for name, part in self.segments.items() for reason in part.reasons]


def check(
    model: CompresSAE,
    seen: Observation,
    baseline: Baseline,
    tolerances: Tolerances = Tolerances(),
    *,
    seed: int = 0,
) -> Report:
    """Compare a batch with the baseline of its model.

    Where the observation has segments, each of at least 50 items is compared too: with the same segment of the
    baseline if that holds 50 of its items. A segment that the baseline doesn't know at all is new; its loss and recall
    are compared with the baseline as a whole.

    Raises:
        ModelMismatchError: the baseline is another model's.
        ConfigError: there are segments, but the baseline was made without: what is usual for one can't be known.
        InvalidInputError: there are fewer than 50 items.
    """
    if baseline.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"the baseline is of model {baseline.fingerprint!r} but model {model.fingerprint!r} was given; make one "
            "by compressae monitor --make-baseline"
        )
    if len(seen) < MIN_ITEMS:
        raise InvalidInputError(
            f"{len(seen)} items say nothing about a drift; collect at least {MIN_ITEMS} before monitoring"
        )
    if seen.segments is not None and baseline.labels is None:
        raise ConfigError(
            "the baseline knows no segments, so what is usual for one can't be told; make one, from items that the "
            "model was not trained on, by compressae monitor --make-baseline --segment FIELD"
        )
    recalls, place = None, 0
    if seen.embeddings is not None:
        place = max(at for at, size in enumerate(baseline.pools) if size <= len(seen))
        recalls = pool_recalls(model, seen, baseline.pools[place], QUERIES, seed=seed)
    supports = seen.supports
    random = np.random.default_rng(seed)

    def compare(rows: npt.NDArray[np.int64], against: Baseline, whole: bool) -> Report:
        checks: dict[str, Check] = {}
        left_out: dict[str, str] = {}
        if seen.losses is None:
            left_out["cosine_loss"] = seen.missing
        else:
            checks["cosine_loss"] = _loss(seen.losses[rows], against, tolerances)
        if whole:
            checks |= _use_checks(supports[rows], against, tolerances, random)
        else:
            left_out["latents"] = "the segment is new; its latents have nothing to be compared with"
        if recalls is None:
            left_out["recall"] = seen.missing
        elif min(np.isfinite(some).sum() for some in (recalls[rows], against.recalls[place])) >= _LEAST_QUERIES:
            checks["recall"] = _recall(recalls[rows], against.recalls[place], tolerances)
        else:
            left_out["recall"] = f"fewer than {_LEAST_QUERIES} of its items were drawn for the spot check"
        use, reference = Use.of(supports[rows], model.latents), Use.of(against.supports, model.latents)
        most_hot, most_dead = (f(use, reference)[:_NAMED].tolist() if whole else [] for f in (hot, dead))
        return Report(len(rows), checks, left_out, most_hot, most_dead, baseline=against.source)

    report = compare(np.arange(len(seen)), baseline, True)
    for name, rows in _by_segment(seen.segments).items():
        own = baseline.of_segment(name)
        if own is None:
            report.segments[name] = compare(rows, baseline, False)
        elif len(own) >= MIN_ITEMS:
            report.segments[name] = compare(rows, own, True)
        else:
            why = f"the baseline holds only {len(own)} of its items; {MIN_ITEMS} are needed"
            report.segments[name] = Report(len(rows), {}, {"everything": why}, [], [], baseline=own.source)
    return report


def _by_segment(segments: Sequence[str | None] | None) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each segment that is large enough, the largest first."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(segments or ()):
        if name is not None:
            rows.setdefault(name, []).append(row)
    large = sorted((item for item in rows.items() if len(item[1]) >= MIN_ITEMS), key=lambda item: -len(item[1]))
    return {name: np.array(found, np.int64) for name, found in large}


def _loss(losses: npt.NDArray[np.float32], against: Baseline, tolerances: Tolerances) -> Check:
    expected = float(against.losses.mean())
    return _above(losses.mean(), expected, _error(losses, against.losses), tolerances.loss * expected, tolerances)


def _recall(recalls: npt.NDArray[np.float32], known: npt.NDArray[np.float32], tolerances: Tolerances) -> Check:
    mine, theirs = (values[np.isfinite(values)] for values in (recalls, known))
    value, expected = float(mine.mean()), float(theirs.mean())
    threshold = expected - max(tolerances.recall, tolerances.errors * _error(mine, theirs))
    return Check(value, expected, threshold, value < threshold)


def _error(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Standard error of the difference of the means of at least two values each."""
    return math.sqrt(float(a.var(ddof=1)) / len(a) + float(b.var(ddof=1)) / len(b))


def _use_checks(
    supports: npt.NDArray[np.int32], against: Baseline, tolerances: Tolerances, random: np.random.Generator
) -> dict[str, Check]:
    use, reference = Use.of(supports, against.latents), Use.of(against.supports, against.latents)
    found, mass = use_measures(use, reference), posting_mass(reference)
    pooled = np.concatenate([supports, against.supports])
    total = use.counts + reference.counts
    fewer = min(use.items, reference.items)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(_PERMUTATIONS):
        few = Use.of(pooled[random.permutation(len(pooled))[:fewer]], against.latents)
        many = Use(len(pooled) - fewer, total - few.counts)
        batch, rest = (few, many) if fewer == use.items else (many, few)
        for name, value in use_measures(batch, rest).items():
            drawn[name].append(value - posting_mass(rest) + mass if name == "posting_mass" else value)
    allowed = {
        "psi": tolerances.psi,
        "posting_mass": tolerances.posting_mass * mass,
        "dead_latents": tolerances.latents * against.latents,
        "hot_latents": tolerances.latents * against.latents,
    }
    return {
        name: _above(value, np.mean(drawn[name]), np.std(drawn[name], ddof=1), allowed[name], tolerances)
        for name, value in found.items()
    }


def _above(
    value: SupportsFloat, expected: SupportsFloat, error: SupportsFloat, allowed: float, tolerances: Tolerances
) -> Check:
    threshold = float(expected) + max(allowed, tolerances.errors * float(error))
    return Check(float(value), float(expected), threshold, float(value) > threshold)
