"""What a journal says about the items in an index, compared with the index.

A journal can be wrong about its index: the index was restored from an older snapshot, emptied or recreated, or items
were deleted. A load that trusted it would end well and leave items out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from ..errors import CodeIndexError
from ..index.protocol import CodeIndex
from ..index.retry import RetryPolicy
from ..sources.spread import SpreadSample

__all__ = ["Confirmed", "Counter"]

_COUNT_SHARE: Final = 0.02
"""Share of a load's time that exact counts of a large collection may take."""


@dataclass
class Confirmed:
    """Evidence of the items that a journal confirms."""

    identity: str = ""
    """Identity of the index; empty if it has none or the journal is of version 0.1."""
    items: int | None = None
    """Items that were in the index at some time before the last entry; None if unknown."""
    sample: SpreadSample = field(default_factory=SpreadSample)
    """Ids of some of the items, spread over those written, and of the latest."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Confirmed:
        """Read what `dataclasses.asdict` gave."""
        return cls(**{**data, "sample": SpreadSample(**data["sample"])})

    def add(self, ids: Sequence[Any]) -> None:
        """Note items that are in the index."""
        self.sample.add(ids)

    def lost(self, index: CodeIndex, count: int, retry: RetryPolicy) -> str:
        """How the index differs from what was noted of it; empty if it does not.

        Args:
            index: the index.
            count: its items now.
            retry: how to retry when a server fails.
        """
        if self.identity and self.identity != index.identity:
            return "the index was created again since"
        if self.items is not None and count < self.items:
            return f"the index holds {count:,} items, and it held {self.items:,}"
        noted = self.sample.all()
        missing = sum(found is None for found in retry.run(partial(index.hashes, noted))) if noted else 0
        return f"{missing} of {len(noted)} sampled items are not in the index" if missing else ""


class Counter:
    """Counts the items of an index exactly, as often as the time that it takes allows."""

    def __init__(self, index: CodeIndex) -> None:
        self._index = index
        self._next = 0.0

    def count(self) -> int | None:
        """The number of items; None if it is too early to count again, or the index fails to report it."""
        started = time.monotonic()
        if started < self._next:
            return None
        try:
            items = self._index.count()
        except CodeIndexError:
            return None
        self._next = time.monotonic() + (time.monotonic() - started) / _COUNT_SHARE
        return items
