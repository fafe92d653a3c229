"""Watching a model in service: is it still good enough for what comes in?"""

from .checking import Check, Report, Tolerances, check
from .history import append_report, plot_history, read_history
from .making import make_baseline
from .observing import Observation, observe, observe_index, sample_source

__all__ = [
    "Check",
    "Observation",
    "Report",
    "Tolerances",
    "append_report",
    "check",
    "make_baseline",
    "observe",
    "observe_index",
    "plot_history",
    "read_history",
    "sample_source",
]
