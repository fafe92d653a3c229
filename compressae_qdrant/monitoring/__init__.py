"""Monitoring: detect when new items differ from the items that a model was trained for."""

from ..model.observation import Observation, make_baseline, observe
from .checks import Check, Report, Tolerances, check
from .history import append_report, plot_history, read_history
from .samples import observe_index, sample_source

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
