"""check(): compare a batch of items with the baseline of its model, measure by measure.

A measure has drifted if it is beyond its threshold: the value expected for a batch of this size, plus the larger of a
tolerance (smaller changes do not matter) and 4 standard errors (smaller changes may be chance). Mean losses and recalls
use the standard error of a difference of means (Welch). For latent use, the expected value and the error come from 100
permutations: the items of batch and baseline are pooled and split at random into sets of the two sizes. If both come
from one distribution, all splits are equally likely, so the test assumes nothing about the distribution of latents or
the number of items (Pitman, "Significance tests which may be applied to samples from any populations", 1937).
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
_MIN_QUERIES: Final = 5
"""Minimum number of queries of a segment, in the batch and in the baseline, for comparing their mean recalls."""
_MAX_LISTED: Final = 20
"""Maximum number of hot or dead latents that a report lists; the checks count all of them."""


@dataclass(frozen=True)
class Tolerances:
    """Changes that do not count as drift, even if they are significant.

    In small batches the standard errors are larger than these tolerances, and decide instead.
    """

    loss: float = 0.1
    """Increase of the mean cosine loss, relative to the baseline."""
    psi: float = 0.1
    """Population stability index above the value expected without drift. 0.1 is the usual limit for a change (Siddiqi,
    Credit Risk Scorecards, 2006)."""
    posting_mass: float = 0.1
    """Increase of the posting mass, relative to the baseline: queries read postings longer by this share."""
    latents: float = 0.005
    """Increase of the number of dead latents, and of hot latents, as a share of all latents."""
    recall: float = 0.02
    """Decrease of recall@10 in the spot check."""
    errors: float = 4.0
    """Standard errors within which a change counts as chance. A normal measure exceeds 4 in one batch of 30,000."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"tolerance {name} is {value}; give a finite number of at least 0")


@dataclass(frozen=True)
class Check:
    """One measure of a batch, compared with the baseline."""

    value: float
    expected: float
    """Value expected for a batch of this size without drift."""
    threshold: float
    """Limit for drift: a larger value has drifted; for recall, a smaller one."""
    drifted: bool


@dataclass(frozen=True)
class Report:
    """Result of the comparison of a batch, or of one segment of it, with the baseline."""

    items: int
    checks: dict[str, Check]
    """Check of each measure by name: cosine_loss, psi, posting_mass, dead_latents, hot_latents, recall."""
    left_out: dict[str, str]
    """Reason for each measure that is not available."""
    hot_latents: list[int]
    """Numbers of the latents used far more than expected, at most 20; the largest deviation first."""
    dead_latents: list[int]
    """Numbers of the unused latents, at most 20; the largest expected use first."""
    segments: dict[str, Report] = field(default_factory=dict)
    baseline: str = ""
    """Source of the baseline that the batch was compared with."""

    @property
    def drifted(self) -> bool:
        """Whether any measure has drifted, in the batch or in a segment."""
        return bool(self.reasons)

    @property
    def reasons(self) -> list[str]:
        """Names of the measures that have drifted; those of segments are written `segment: measure`."""
        own = [name for name, check in self.checks.items() if check.drifted]
        return own + [f"{name}: {reason}" for name, part in self.segments.items() for reason in part.reasons]


def check(
    model: CompresSAE,
    observation: Observation,
    baseline: Baseline,
    tolerances: Tolerances = Tolerances(),
    *,
    seed: int = 0,
) -> Report:
    """Compare a batch with the baseline of its model.

    If the observation has segments, each segment of at least 50 items is also compared, with the same segment of the
    baseline if the baseline has at least 50 items of it. The loss and recall of a segment that is not in the baseline
    are compared with the whole baseline.

    Args:
        model: the model of the baseline.
        observation: the batch.
        baseline: what the batch is compared with.
        tolerances: changes that do not count as drift.
        seed: random seed of the permutations and of the spot check's queries.

    Raises:
        ModelMismatchError: the baseline belongs to another model.
        ConfigError: the observation has segments, but the baseline was made without segments.
        InvalidInputError: the observation has fewer than 50 items.
    """
    if baseline.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"the baseline belongs to model {baseline.fingerprint!r}, not to {model.fingerprint!r}; make one with "
            "compressae monitor --make-baseline"
        )
    if len(observation) < MIN_ITEMS:
        raise InvalidInputError(
            f"{len(observation)} items are too few to detect drift; collect at least {MIN_ITEMS} items"
        )
    if observation.segments is not None and baseline.labels is None:
        raise ConfigError(
            "the baseline has no segments to compare with; make one with segments, from items that the model was not "
            "trained on: compressae monitor --make-baseline --segment FIELD"
        )
    recalls, pool = None, 0
    if observation.embeddings is not None:
        pool = max(n for n, size in enumerate(baseline.pools) if size <= len(observation))
        recalls = pool_recalls(model, observation, baseline.pools[pool], QUERIES, seed=seed)
    supports = observation.supports
    random = np.random.default_rng(seed)

    def compare(rows: npt.NDArray[np.int64], against: Baseline, *, with_latents: bool) -> Report:
        checks: dict[str, Check] = {}
        left_out: dict[str, str] = {}
        if observation.losses is None:
            left_out["cosine_loss"] = observation.missing
        else:
            checks["cosine_loss"] = _loss(observation.losses[rows], against, tolerances)
        if with_latents:
            checks |= _use_checks(supports[rows], against, tolerances, random)
        else:
            left_out["latents"] = "the segment is not in the baseline, so its latent use cannot be compared"
        if recalls is None:
            left_out["recall"] = observation.missing
        elif min(np.isfinite(values).sum() for values in (recalls[rows], against.recalls[pool])) >= _MIN_QUERIES:
            checks["recall"] = _recall(recalls[rows], against.recalls[pool], tolerances)
        else:
            left_out["recall"] = f"the spot check drew fewer than {_MIN_QUERIES} of its items"
        use, reference = Use.of(supports[rows], model.latents), Use.of(against.supports, model.latents)
        hot_latents, dead_latents = (
            find(use, reference)[:_MAX_LISTED].tolist() if with_latents else [] for find in (hot, dead)
        )
        return Report(len(rows), checks, left_out, hot_latents, dead_latents, baseline=against.source)

    report = compare(np.arange(len(observation)), baseline, with_latents=True)
    for name, rows in _by_segment(observation.segments).items():
        own = baseline.of_segment(name)
        if own is None:
            report.segments[name] = compare(rows, baseline, with_latents=False)
        elif len(own) >= MIN_ITEMS:
            report.segments[name] = compare(rows, own, with_latents=True)
        else:
            reason = f"the baseline has only {len(own)} of its items; {MIN_ITEMS} are needed"
            report.segments[name] = Report(len(rows), {}, {"everything": reason}, [], [], baseline=own.source)
    return report


def _by_segment(segments: Sequence[str | None] | None) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each segment with enough items to compare, the largest segment first."""
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(segments or ()):
        if name is not None:
            rows_of.setdefault(name, []).append(row)
    large = sorted((item for item in rows_of.items() if len(item[1]) >= MIN_ITEMS), key=lambda item: -len(item[1]))
    return {name: np.array(rows, np.int64) for name, rows in large}


def _loss(losses: npt.NDArray[np.float32], against: Baseline, tolerances: Tolerances) -> Check:
    expected = float(against.losses.mean())
    return _above(losses.mean(), expected, _error(losses, against.losses), tolerances.loss * expected, tolerances)


def _recall(recalls: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], tolerances: Tolerances) -> Check:
    batch, baseline = (values[np.isfinite(values)] for values in (recalls, reference))
    value, expected = float(batch.mean()), float(baseline.mean())
    threshold = expected - max(tolerances.recall, tolerances.errors * _error(batch, baseline))
    return Check(value, expected, threshold, value < threshold)


def _error(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Standard error of the difference of two means, each of at least two values."""
    return math.sqrt(float(a.var(ddof=1)) / len(a) + float(b.var(ddof=1)) / len(b))


def _use_checks(
    supports: npt.NDArray[np.int32], against: Baseline, tolerances: Tolerances, random: np.random.Generator
) -> dict[str, Check]:
    use, reference = Use.of(supports, against.latents), Use.of(against.supports, against.latents)
    measured, reference_mass = use_measures(use, reference), posting_mass(reference)
    pooled = np.concatenate([supports, against.supports])
    total = use.counts + reference.counts
    smaller = min(use.items, reference.items)
    permuted: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(_PERMUTATIONS):
        few = Use.of(pooled[random.permutation(len(pooled))[:smaller]], against.latents)
        many = Use(len(pooled) - smaller, total - few.counts)
        batch, rest = (few, many) if smaller == use.items else (many, few)
        for name, value in use_measures(batch, rest).items():
            permuted[name].append(value - posting_mass(rest) + reference_mass if name == "posting_mass" else value)
    allowed = {
        "psi": tolerances.psi,
        "posting_mass": tolerances.posting_mass * reference_mass,
        "dead_latents": tolerances.latents * against.latents,
        "hot_latents": tolerances.latents * against.latents,
    }
    return {
        name: _above(value, np.mean(permuted[name]), np.std(permuted[name], ddof=1), allowed[name], tolerances)
        for name, value in measured.items()
    }


def _above(
    value: SupportsFloat, expected: SupportsFloat, error: SupportsFloat, allowed: float, tolerances: Tolerances
) -> Check:
    threshold = float(expected) + max(allowed, tolerances.errors * float(error))
    return Check(float(value), float(expected), threshold, float(value) > threshold)
