"""What is searched, what was found of it, and which of that fits a goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, get_args

from ..errors import ConfigError
from ..index.settings import Datatype
from ..metrics import pareto_front
from .settings_file import Settings

__all__ = ["Goal", "Point", "Space", "choose", "front"]

_EQUAL_RECALL: Final = 0.002
"""Recalls this close count as equal: half of a usual interval over 300 queries is wider."""
_EQUAL_BYTES: Final = 1.01


@dataclass(frozen=True)
class Goal:
    """A budget or a wanted recall; one of the two."""

    budget: float | None = None
    """Bytes an item in memory, at most."""
    recall: float | None = None
    """Recall at `depth`, at least."""
    depth: int = 100
    """Hits asked for, and the k of recall@k."""

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.recall is None):
            raise ConfigError("a goal is a budget of bytes an item or a wanted recall; give one of the two")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"the budget is {self.budget} bytes an item; it must be positive")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise ConfigError(f"the wanted recall is {self.recall}; it must be in (0, 1]")
        if self.depth < 1:
            raise ConfigError(f"depth is {self.depth}; ask for at least 1 hit")


@dataclass(frozen=True)
class Space:
    """What is tried. Every pair of `latents` and `k` is a training; everything else is measured on each of them."""

    latents: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """h; at most half the items of the sample, and at least 4 k."""
    k: tuple[int, ...] = (8, 16, 32, 64)
    """Non-zeros that the dictionary is trained for; it is measured with half as many again too."""
    datatypes: tuple[Datatype, ...] = ("uint8", "float16", "float32")
    first_stage_latents: tuple[int, ...] = (256, 512, 1024)
    prefetch: tuple[int, ...] = (2, 3, 5, 10)
    """Candidates for each hit."""
    steps: int = 200
    """Of the autoencoder: enough to tell settings apart, not enough to be good."""
    rounds: int = 6
    """Of dictionary refinement."""

    def __post_init__(self) -> None:
        for name in ("latents", "k", "first_stage_latents", "prefetch"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"{name} to try are {values}; give at least one, each at least 1")
        unknown = set(self.datatypes) - set(get_args(Datatype))
        if unknown or not self.datatypes:
            raise ConfigError(f"datatypes to try are {self.datatypes}; each is one of {', '.join(get_args(Datatype))}")
        if self.steps < 0 or self.rounds < 0:
            raise ConfigError(f"steps is {self.steps} and rounds {self.rounds}; both must be at least 0")

    def lengths(self, k: int) -> tuple[int, ...]:
        """The numbers of non-zeros that a dictionary trained for k is measured with (see `CompresSAE.with_k`)."""
        return (k, k + k // 2) if k > 1 else (k,)


@dataclass(frozen=True)
class Point:
    """One setting, measured on the sample."""

    latents: int
    trained_k: int
    """Non-zeros that the dictionary was trained for."""
    k: int
    datatype: Datatype
    first_stage_latents: int
    prefetch: int
    bytes: float
    """An item of the whole catalog in memory, as `capacity.plan` says."""
    recall: float
    """On the sample, of queries that nothing was trained on."""
    ms: float
    """p50 on the whole catalog, as `capacity.plan` says."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From what `to_json` gives."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """For a study's storage."""
        return asdict(self)

    def settings(self) -> Settings:
        """For `train`, `ingest` and searches."""
        return Settings(
            train={"latents": self.latents, "k": self.k},
            index={"datatype": self.datatype},
            search={"first_stage_latents": self.first_stage_latents, "prefetch": self.prefetch},
        )


def front(points: Sequence[Point]) -> list[Point]:
    """Points that none of no more bytes equals or beats in recall, by bytes; of equal ones the quickest."""
    quickest_first = sorted(points, key=lambda point: point.ms)
    return pareto_front(quickest_first, lambda point: point.bytes, lambda point: [point.recall])


def choose(points: Sequence[Point], goal: Goal) -> Point:
    """The point that meets a goal best.

    Within a budget, the quickest of those whose recall is as good as the best to 0.002; for a wanted recall, the
    quickest of those that take as little as the smallest to a hundredth.

    Raises:
        ConfigError: none meets it; the message says how near one came.
    """
    if not points:
        raise ConfigError("nothing was measured; give tune more time")
    if goal.budget is not None:
        within = [point for point in points if point.bytes <= goal.budget]
        if not within:
            least = min(points, key=lambda point: point.bytes)
            raise ConfigError(
                f"nothing fits {goal.budget:g} bytes an item; the least that was tried is {least.bytes:.0f} "
                f"(k={least.k}, h={least.latents}): raise the budget or try a smaller k"
            )
        best = max(point.recall for point in within)
        return min((p for p in within if p.recall >= best - _EQUAL_RECALL), key=lambda p: (p.ms, p.bytes))
    assert goal.recall is not None
    good = [point for point in points if point.recall >= goal.recall]
    if not good:
        top = max(points, key=lambda point: point.recall)
        raise ConfigError(
            f"nothing reaches recall@{goal.depth} {goal.recall:g}; the best that was tried is {top.recall:.3f} "
            f"(k={top.k}, h={top.latents}, {top.bytes:.0f} bytes): lower it or try a larger k"
        )
    smallest = min(point.bytes for point in good)
    return min((p for p in good if p.bytes <= smallest * _EQUAL_BYTES), key=lambda p: (p.ms, p.bytes))
