"""The whole command line: importing the modules of commands registers them."""

from . import ab, concepts, monitor, operations
from .commands import app

__all__ = ["ab", "app", "concepts", "monitor", "operations"]
