"""Calibration: what each query plan of a model finds and costs on one catalog, so that a wanted recall picks the plan.

Made by `calibrating.calibrate` or `compressae calibrate`, and kept as `calibration.json` in the model's directory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError, InvalidInputError, ModelFileError, ModelMismatchError
from ..files import write_text

__all__ = ["CALIBRATION_FILE", "CalibratedPlan", "Calibration", "Found"]

CALIBRATION_FILE: Final = "calibration.json"
"""Its name in the directory of a model."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class Found:
    """Recall of a plan at one limit, against exact dense search."""

    mean: float
    """Over the queries."""
    low: float
    """What the mean of all queries is at least, with 95% confidence."""


@dataclass(frozen=True)
class CalibratedPlan:
    """One way to search."""

    first_stage_latents: int
    """Latents that search for candidates."""
    prefetch: int
    """Candidates that are rescored."""
    postings: float
    """That the first stage walks, a query."""
    ms: float
    """A query of one core."""
    recall: Mapping[int, Found]
    """By limit: recall@limit of a search for so many hits."""


@dataclass(frozen=True)
class Calibration:
    """Plans that no cheaper one equals at every limit, cheapest first, on one catalog."""

    fingerprint: str
    """Of the model."""
    items: int
    """Of the catalog that the times are for. With others the plans find about as much, but another may be cheapest."""
    queries: int
    """That recall is a mean over."""
    keep_dense: bool
    """Whether embeddings rescored the last candidates."""
    times: str
    """Where the milliseconds come from, for people."""
    plans: tuple[CalibratedPlan, ...]

    @property
    def limits(self) -> list[int]:
        """Limits that recall was measured at, ascending."""
        return sorted({limit for plan in self.plans for limit in plan.recall})

    def choose(self, target: float, limit: int, *, keep_dense: bool = False) -> tuple[int, int]:
        """First stage and prefetch of the cheapest plan that reaches a recall at a limit.

        Reached means that the lower bounds of its recall are no less, at the measured limits on both sides of `limit`.
        Beyond the largest one, its plans serve with as many candidates a hit.

        Args:
            target: recall@limit.
            limit: hits of the search.
            keep_dense: whether embeddings will rescore the last candidates.

        Raises:
            InvalidInputError: no plan reaches it; the message says what the best one does.
            ConfigError: it was measured with embeddings, but there are none.
        """
        if self.keep_dense and not keep_dense:
            raise ConfigError(
                f"model {self.fingerprint!r} was calibrated for searches that embeddings rescore, and this one has "
                "none; run `compressae calibrate` again without --keep-dense, or with the index that is searched"
            )
        limits = self.limits
        judged = {max((n for n in limits if n <= limit), default=limits[0]),
                  min((n for n in limits if n >= limit), default=limits[-1])}  # fmt: skip
        best, best_low = None, -1.0
        for plan in self.plans:
            if not judged <= set(plan.recall):
                continue
            low = min(plan.recall[n].low for n in judged)
            if low >= target:
                beyond = max(limit / limits[-1], 1.0)
                return plan.first_stage_latents, math.ceil(plan.prefetch * beyond)
            if low > best_low:
                best, best_low = plan, low
        assert best is not None  # every limit that there is has a plan
        mean = min(best.recall[n].mean for n in judged)
        raise InvalidInputError(
            f"target_recall is {target:g}, but with {limit} hits no plan surely reaches more than {best_low:.3f} "
            f"({mean:.3f} on average, {best.first_stage_latents} latents and {best.prefetch} candidates): lower it, "
            "keep the embeddings (keep_dense), or train with a larger k"
        )

    def save(self, directory: Path) -> None:
        """Write `calibration.json` to a model's directory, in one step."""
        plans = [
            {**asdict(plan), "recall": {str(limit): [found.mean, found.low] for limit, found in plan.recall.items()}}
            for plan in self.plans
        ]
        head = {"format": _FORMAT, **asdict(self)}
        head.pop("plans")
        rows = ",\n ".join(json.dumps(plan) for plan in plans)
        write_text(directory / CALIBRATION_FILE, f'{json.dumps(head)[:-1]}, "plans": [\n {rows}\n]}}\n')

    @classmethod
    def load(cls, directory: Path, fingerprint: str) -> Self | None:
        """Read what `save` wrote for the model of that fingerprint; None if there is nothing.

        Raises:
            ModelFileError: the file is damaged or of another version.
            ModelMismatchError: it is of another model.
        """
        path = directory / CALIBRATION_FILE
        try:
            found = cls._parsed(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
            raise ModelFileError(
                f"{path} is no calibration of this version ({type(exc).__name__}: {exc}); run `compressae calibrate` "
                "again"
            ) from exc
        if found.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"{path} is of model {found.fingerprint!r} but the model is {fingerprint!r}; run `compressae "
                "calibrate` again"
            )
        return found

    @classmethod
    def _parsed(cls, data: dict[str, Any]) -> Self:
        plans = tuple(_plan(plan) for plan in data["plans"])
        if data["format"] != _FORMAT or not any(plan.recall for plan in plans):
            raise ValueError(f"format {data['format']!r} with {len(plans)} plans")
        return cls(
            str(data["fingerprint"]), int(data["items"]), int(data["queries"]), bool(data["keep_dense"]),
            str(data["times"]), plans,
        )  # fmt: skip


def _plan(data: dict[str, Any]) -> CalibratedPlan:
    recall = {int(limit): Found(float(mean), float(low)) for limit, (mean, low) in data["recall"].items()}
    return CalibratedPlan(
        int(data["first_stage_latents"] if "first_stage_latents" in data else data["first_stage"]),
        int(data["prefetch"]),
        float(data["postings"]),
        float(data["ms"]),
        recall,
    )
