"""Embedded indexes in forked processes.

The engine's threads do not exist in a forked child: a search there would wait for them forever, and closing the shard
would write to the parent's files. A child therefore abandons the indexes that its parent had open. It keeps no lock and
never calls the engine.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final, Protocol

__all__ = ["abandon_in_children"]


class _Abandonable(Protocol):
    def abandon(self) -> None:
        """Give up everything that belongs to the parent process."""


_OPEN: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def abandon_in_children(index: _Abandonable) -> None:
    """Call `index.abandon()` in every process that is forked while `index` exists."""
    _OPEN.add(index)


def _abandon_all() -> None:
    for index in list(_OPEN):
        index.abandon()


os.register_at_fork(after_in_child=_abandon_all)
