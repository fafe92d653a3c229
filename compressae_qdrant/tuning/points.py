"""The goal of a search, the settings to try, the measured settings, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, get_args

from ..capacity import PlannedStage
from ..errors import ConfigError
from ..index.settings import Datatype
from ..metrics import pareto_front
from .settings_file import Settings

__all__ = ["Goal", "SearchSpace", "TrialPoint", "choose", "front"]

_EQUAL_RECALL: Final = 0.002
"""Recalls this close count as equal: half of a typical 95% interval over 300 queries is wider."""
_EQUAL_BYTES: Final = 1.01
"""Sizes within this factor count as equal."""


@dataclass(frozen=True)
class Goal:
    """A byte budget or a target recall, exactly one of the two."""

    budget: float | None = None
    """Maximum bytes per item in memory."""
    recall: float | None = None
    """Minimum recall@`depth`."""
    depth: int = 100
    """Hits of each search, and the k of recall@k."""

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.recall is None):
            raise ConfigError("a goal is either a budget in bytes per item or a target recall; give one of the two")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"the budget is {self.budget} bytes per item; it must be positive")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise ConfigError(f"the target recall is {self.recall}; it must be in (0, 1]")
        if self.depth < 1:
            raise ConfigError(f"depth is {self.depth}; it must be at least 1")


@dataclass(frozen=True)
class SearchSpace:
    """The settings to try: each pair of `latents` and `k` is trained, and measured with all other settings."""

    latents: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Latents (h); pairs with less than 4 k or more than half the items of the sample are skipped."""
    k: tuple[int, ...] = (8, 16, 30, 60)
    """Non-zeros that the dictionary is trained for; it is also measured with 1.5 times as many."""
    first_stages: tuple[PlannedStage, ...] = ("graph", "codes")
    """What finds the candidates; what the other one needs is then not in memory."""
    datatypes: tuple[Datatype, ...] = ("uint8", "float16", "float32")
    """Datatypes of index values."""
    first_stage_latents: tuple[int, ...] = (256, 512, 1024)
    """Latents of a first stage by codes, at most h."""
    prefetch: tuple[int, ...] = (2, 3, 5, 10)
    """Candidates per hit."""
    steps: int = 200
    """Training steps of the autoencoder: enough to compare settings, too few for a final model."""
    rounds: int = 6
    """Rounds of dictionary refinement."""

    def __post_init__(self) -> None:
        for name in ("latents", "k", "first_stage_latents", "prefetch"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"{name} to try are {values}; give at least one value, each at least 1")
        unknown = set(self.datatypes) - set(get_args(Datatype))
        if unknown or not self.datatypes:
            raise ConfigError(f"datatypes to try are {self.datatypes}; each is one of {', '.join(get_args(Datatype))}")
        if not self.first_stages or set(self.first_stages) - set(get_args(PlannedStage)):
            raise ConfigError(
                f"first stages to try are {self.first_stages}; each is one of {', '.join(get_args(PlannedStage))}"
            )
        if self.steps < 0 or self.rounds < 0:
            raise ConfigError(f"steps is {self.steps} and rounds {self.rounds}; both must be at least 0")

    def lengths(self, k: int) -> tuple[int, ...]:
        """Numbers of non-zeros to measure a dictionary with that was trained for k (see `CompresSAE.with_k`)."""
        return (k, k + k // 2) if k > 1 else (k,)


@dataclass(frozen=True)
class TrialPoint:
    """One combination of settings, measured on the sample."""

    latents: int
    trained_k: int
    """Non-zeros that the dictionary was trained for."""
    k: int
    """Non-zeros of the codes."""
    datatype: Datatype
    first_stage: PlannedStage
    """What finds the candidates: the graph of navigation vectors, or the inverted index of the codes."""
    first_stage_latents: int | None
    """Latents of a first stage by codes; None if the graph finds the candidates."""
    prefetch: int
    """Candidates that are rescored."""
    bytes: float
    """Bytes per item in memory for the whole catalog, as `capacity.plan` estimates."""
    recall: float
    """Mean recall on the sample, over queries that were left out of the training."""
    ms: float
    """Median latency of a query on the whole catalog in ms, as `capacity.plan` estimates."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Create a point from its JSON form."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """JSON form of the point."""
        return asdict(self)

    def settings(self) -> Settings:
        """The settings for training, ingestion and searches."""
        latents = {} if self.first_stage_latents is None else {"first_stage_latents": self.first_stage_latents}
        return Settings(
            train={"latents": self.latents, "k": self.k},
            index={"datatype": self.datatype, "navigation": self.first_stage == "graph"},
            search={"first_stage": self.first_stage, **latents, "prefetch": self.prefetch},
        )


def front(points: Sequence[TrialPoint]) -> list[TrialPoint]:
    """The Pareto front of recall against bytes, by bytes; among equal points the fastest."""
    fastest_first = sorted(points, key=lambda point: point.ms)
    return pareto_front(fastest_first, cost=lambda point: point.bytes, gains=lambda point: [point.recall])


def choose(points: Sequence[TrialPoint], goal: Goal) -> TrialPoint:
    """Choose the point that meets a goal best.

    Within a budget, it is the fastest point whose recall is within 0.002 of the best. For a target recall, it is the
    fastest point whose size is within 1% of the smallest.

    Raises:
        ConfigError: no point meets the goal; the message names the nearest one.
    """
    if not points:
        raise ConfigError("no settings were measured in the given time; run tune again with more minutes")
    if goal.budget is not None:
        within = [point for point in points if point.bytes <= goal.budget]
        if not within:
            smallest = min(points, key=lambda point: point.bytes)
            raise ConfigError(
                f"no setting fits {goal.budget:g} bytes per item; the smallest that was tried takes "
                f"{smallest.bytes:.0f} (k={smallest.k}, h={smallest.latents}): raise the budget or try a smaller k"
            )
        best = max(point.recall for point in within)
        return min((p for p in within if p.recall >= best - _EQUAL_RECALL), key=lambda p: (p.ms, p.bytes))
    assert goal.recall is not None
    good = [point for point in points if point.recall >= goal.recall]
    if not good:
        top = max(points, key=lambda point: point.recall)
        raise ConfigError(
            f"no setting reaches recall@{goal.depth} {goal.recall:g}; the best that was tried is {top.recall:.3f} "
            f"(k={top.k}, h={top.latents}, {top.bytes:.0f} bytes): lower the target or try a larger k"
        )
    least_bytes = min(point.bytes for point in good)
    return min((p for p in good if p.bytes <= least_bytes * _EQUAL_BYTES), key=lambda p: (p.ms, p.bytes))
