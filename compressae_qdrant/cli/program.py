"""The whole command line: importing the modules of commands registers them."""

from . import ab, concepts, evaluate, monitor, operations
from .commands import app

__all__ = ["ab", "app", "concepts", "evaluate", "monitor", "operations"]
