"""The strongest items of every latent, and how often it is used, from a stream of codes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..codes import SparseCodes

__all__ = ["StrongestItems", "Used"]

Strong = tuple[float, int, Any]
"""|value|, minus the row number (the earlier item wins a tie), and what is kept of the item."""


class Used(NamedTuple):
    """How one latent is used."""

    latent: int
    sign: int
    """The one that carries most of the squares of its values."""
    items: int
    """Items that use it with this sign."""
    opposed: int
    """Items that use it with the other."""
    strength: float
    """Mean |value| of those of this sign."""
    strongest: list[tuple[float, Any]]
    """|value| and item, best first."""


class StrongestItems:
    """Keeps the `keep` strongest items for each sign of each latent. Memory is bounded by `2 h keep` items, however
    many are added."""

    def __init__(self, latents: int, keep: int) -> None:
        self._latents = latents
        self._keep = keep
        # Side j is latent j with positive values, side h + j with negative ones.
        self._heaps: list[list[Strong]] = [[] for _ in range(2 * latents)]
        self._least = np.zeros(2 * latents, np.float32)
        """What a value must exceed to get into each heap: 0 until the heap is full."""
        self._count = np.zeros(2 * latents, np.int64)
        self._sum = np.zeros(2 * latents)
        self._squares = np.zeros(2 * latents)
        self._rows = 0

    @property
    def rows(self) -> int:
        """Items seen."""
        return self._rows

    def add(self, codes: SparseCodes, items: Sequence[Any]) -> None:
        """Take in the codes of a batch; `items` are kept for those that are strong in something."""
        row, column = np.nonzero(codes.values)
        values = codes.values[row, column]
        sides = codes.indices[row, column].astype(np.int64) + self._latents * (values < 0)
        size = np.abs(values)
        self._count += np.bincount(sides, minlength=2 * self._latents)
        self._sum += np.bincount(sides, size, 2 * self._latents)
        self._squares += np.bincount(sides, np.square(size, dtype=np.float64), 2 * self._latents)
        fits = np.flatnonzero(size > self._least[sides])
        for side, value, at in zip(sides[fits].tolist(), size[fits].tolist(), row[fits].tolist(), strict=True):
            heap = self._heaps[side]
            strong = (value, -(self._rows + at), items[at])
            if len(heap) < self._keep:
                heapq.heappush(heap, strong)
            elif value > heap[0][0]:
                heapq.heapreplace(heap, strong)
            if len(heap) == self._keep:
                self._least[side] = heap[0][0]
        self._rows += len(codes)

    def used(self) -> list[Used]:
        """The latents that are used, ascending."""
        squares: npt.NDArray[np.float64] = self._squares.reshape(2, -1)
        found = []
        for latent in np.flatnonzero(squares.sum(axis=0)).tolist():
            sign = 1 if squares[0, latent] >= squares[1, latent] else -1
            side, other = (latent, latent + self._latents)[::sign]
            best = [(value, item) for value, _, item in sorted(self._heaps[side], key=lambda s: s[:2], reverse=True)]
            found.append(
                Used(
                    latent=latent,
                    sign=sign,
                    items=int(self._count[side]),
                    opposed=int(self._count[other]),
                    strength=float(self._sum[side] / self._count[side]),
                    strongest=best,
                )
            )
        return found
