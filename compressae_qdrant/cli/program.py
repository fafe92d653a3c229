"""The whole command line: importing the modules of commands registers them."""

from . import (
    ab,
    calibrate,
    capacity,
    concepts,
    evaluate,
    monitor,
    operations,
    report,
    tune,
)
from .commands import app

__all__ = ["ab", "app", "calibrate", "capacity", "concepts", "evaluate", "monitor", "operations", "report", "tune"]
