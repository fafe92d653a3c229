"""Estimates of the memory, disk, processors and costs of a catalog, from measured constants."""

from .constants import CodeBytes, CodeTimes, Constants, DenseCosts, load_constants
from .planner import GIB, Estimate, Node, Prices, Workload, plan

__all__ = [
    "GIB", "CodeBytes", "CodeTimes", "Constants", "DenseCosts", "Estimate", "Node", "Prices", "Workload",
    "load_constants", "plan",
]  # fmt: skip
