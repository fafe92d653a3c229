"""Estimates of the memory, disk, processors and costs of a catalog, from measured constants."""

from .constants import (
    CodeBytes,
    CodeTimes,
    Constants,
    DenseCosts,
    DiskReads,
    GraphBytes,
    GraphTimes,
    load_constants,
)
from .planner import GIB, Estimate, plan
from .workload import Node, PlannedStage, Prices, Workload

__all__ = [
    "GIB", "CodeBytes", "CodeTimes", "Constants", "DenseCosts", "DiskReads", "Estimate", "GraphBytes", "GraphTimes",
    "Node", "PlannedStage", "Prices", "Workload", "load_constants", "plan",
]  # fmt: skip
