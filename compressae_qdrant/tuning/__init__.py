"""Search for settings (k, latents, index datatype, query plan) that fit a byte budget or a target recall."""

from .chart import draw_front
from .measurement import Sample, TargetCatalog
from .points import Goal, SearchSpace, TrialPoint, choose, front
from .study import TuneResult, tune

__all__ = [
    "Goal", "Sample", "SearchSpace", "TargetCatalog", "TrialPoint", "TuneResult", "choose", "draw_front", "front",
    "tune",
]  # fmt: skip
