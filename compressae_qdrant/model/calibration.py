"""Calibration: recall and cost of query plans on one catalog, from which a target recall chooses the plan.

Made by `evaluation.calibrate` or `compressae calibrate`, and kept as `calibration.json` in the model's directory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from ..errors import ConfigError, InvalidInputError, ModelFileError, ModelMismatchError
from ..files import write_text

__all__ = ["CALIBRATION_FILE", "CalibratedPlan", "Calibration", "PlanRecall", "PlannedStage"]

PlannedStage = Literal["codes", "graph"]
"""What finds the candidates of a calibrated plan."""

CALIBRATION_FILE: Final = "calibration.json"
"""Name of the file in a model's directory."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class PlanRecall:
    """Recall of a plan at one limit, against exact dense search."""

    mean: float
    """Mean over the queries."""
    low: float
    """Lower bound of that mean, with 95% confidence."""


@dataclass(frozen=True)
class CalibratedPlan:
    """A query plan, with its measured recall and cost."""

    first_stage_latents: int
    """Latents that search for candidates; 0 where the graph does."""
    prefetch: int
    """Candidates that are rescored."""
    postings: float
    """Postings that the first stage reads for a query, on average."""
    ms: float
    """Milliseconds that a query takes on one core."""
    recall: Mapping[int, PlanRecall]
    """Recall@limit of a search for `limit` hits, by limit."""
    first_stage: PlannedStage = "codes"
    """What finds the candidates."""
    navigation_ef: int | None = None
    """Nodes that the search of the graph keeps; None where codes find the candidates."""


@dataclass(frozen=True)
class Calibration:
    """The plans on the Pareto front of cost and recall on one catalog, cheapest first."""

    fingerprint: str
    """Fingerprint of the model."""
    items: int
    """Items of the catalog that times and nodes apply to. For another size the recall of a plan is about the same, but
    a different plan may be the cheapest; a much larger one needs more nodes of the graph."""
    queries: int
    """Queries that recall is averaged over."""
    keep_dense: bool
    """Whether stored embeddings rescored the best candidates."""
    times: str
    """Where the milliseconds come from, as text for people."""
    plans: tuple[CalibratedPlan, ...]

    @property
    def limits(self) -> list[int]:
        """The limits at which recall was measured, ascending."""
        return sorted({limit for plan in self.plans for limit in plan.recall})

    def choose(
        self,
        target: float,
        limit: int,
        *,
        keep_dense: bool = False,
        first_stages: Collection[PlannedStage] = ("codes", "graph"),
    ) -> CalibratedPlan:
        """Choose the cheapest plan that reaches a recall at a limit.

        A plan reaches the target if the lower bound of its recall does, at the measured limits on both sides of
        `limit`. Beyond the largest measured limit, the number of candidates grows in proportion to `limit`.

        Args:
            target: recall@limit to reach.
            limit: hits of the search.
            keep_dense: whether stored embeddings will rescore the best candidates.
            first_stages: first stages that the search can take.

        Returns:
            The plan, with the candidates and the ef for this limit.

        Raises:
            InvalidInputError: no plan reaches the target; the message gives the best recall that one does.
            ConfigError: the calibration measured searches that embeddings rescore, and this search has none; or it has
                no plans of these first stages.
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
            if plan.first_stage not in first_stages or not judged <= set(plan.recall):
                continue
            low = min(plan.recall[n].low for n in judged)
            if low >= target:
                return _scaled(plan, max(limit / limits[-1], 1.0))
            if low > best_low:
                best, best_low = plan, low
        if best is None:
            raise ConfigError(
                f"the calibration of model {self.fingerprint!r} has no plans by {' or '.join(sorted(first_stages))} "
                f"for {limit} hits; run `compressae calibrate` again, or leave first_stage out"
            )
        mean = min(best.recall[n].mean for n in judged)
        how = f"ef={best.navigation_ef}" if best.first_stage == "graph" else f"{best.first_stage_latents} latents"
        raise InvalidInputError(
            f"target_recall is {target:g}, but with {limit} hits no plan reliably reaches more than {best_low:.3f} "
            f"({mean:.3f} on average, by {best.first_stage}, {how} and {best.prefetch} candidates); lower it, "
            "keep the embeddings (keep_dense), or train with a larger k"
        )

    def save(self, directory: Path) -> None:
        """Write `calibration.json` to a model's directory, in one step."""
        plans = [
            {**asdict(plan), "recall": {str(limit): [recall.mean, recall.low] for limit, recall in plan.recall.items()}}
            for plan in self.plans
        ]
        head = {"format": _FORMAT, **asdict(self)}
        head.pop("plans")
        rows = ",\n ".join(json.dumps(plan) for plan in plans)
        write_text(directory / CALIBRATION_FILE, f'{json.dumps(head)[:-1]}, "plans": [\n {rows}\n]}}\n')

    @classmethod
    def load(cls, directory: Path, fingerprint: str) -> Self | None:
        """Read the calibration of a model; None if its directory has none.

        Raises:
            ModelFileError: the file is damaged or of another version.
            ModelMismatchError: the calibration belongs to another model.
        """
        path = directory / CALIBRATION_FILE
        try:
            calibration = cls._parsed(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
            raise ModelFileError(
                f"{path} is not a calibration that this version reads ({type(exc).__name__}: {exc}); "
                "run `compressae calibrate` again"
            ) from exc
        if calibration.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"{path} belongs to model {calibration.fingerprint!r} but the model here is {fingerprint!r}; "
                "run `compressae calibrate` again"
            )
        return calibration

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
    recall = {int(limit): PlanRecall(float(mean), float(low)) for limit, (mean, low) in data["recall"].items()}
    return CalibratedPlan(
        int(data["first_stage_latents"] if "first_stage_latents" in data else data["first_stage"]),  # its former name
        int(data["prefetch"]),
        float(data["postings"]),
        float(data["ms"]),
        recall,
        _stage(data),
        None if data.get("navigation_ef") is None else int(data["navigation_ef"]),
    )


def _stage(data: dict[str, Any]) -> PlannedStage:
    """The first stage of a plan; files of older versions have plans by codes alone."""
    stage = data.get("first_stage")
    if "first_stage_latents" not in data or stage in (None, "codes"):
        return "codes"
    if stage != "graph":
        raise ValueError(f"first_stage {stage!r}")
    return "graph"


def _scaled(plan: CalibratedPlan, factor: float) -> CalibratedPlan:
    """A plan with so many times the candidates."""
    prefetch = math.ceil(plan.prefetch * factor)
    ef = None if plan.navigation_ef is None else math.ceil(plan.navigation_ef * factor)
    return replace(plan, prefetch=prefetch, navigation_ef=ef)
