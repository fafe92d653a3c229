"""A bounded sample of a stream, spread evenly over what has been seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["SpreadSample"]

_SIZE: Final = 256
_LATEST: Final = 16


@dataclass
class SpreadSample:
    """Every `stride`-th value of a stream and the latest ones. The stride doubles so that at most 256 are kept."""

    values: list[Any] = field(default_factory=list)
    latest: list[Any] = field(default_factory=list)
    stride: int = 1
    seen: int = 0
    """Values seen so far."""

    def add(self, values: Sequence[Any]) -> None:
        """See the next values of the stream."""
        if not len(values):
            return
        self.values += values[-self.seen % self.stride :: self.stride]
        self.seen += len(values)
        while len(self.values) > _SIZE:
            self.values = self.values[::2]
            self.stride *= 2
        self.latest = [*values[-_LATEST:]]

    def all(self) -> list[Any]:
        """The sampled values, each once."""
        return list(dict.fromkeys([*self.values, *self.latest]))
