"""Training batches from an array: checked rows of unit norm, in a seeded order that can be entered at any position."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InvalidInputError
from ..vectors import check_embeddings, unit_rows

__all__ = ["TrainingData"]

_SCAN_ROWS: Final = 8_192
_SCAN_THREADS: Final = 8
_MIN_ROWS: Final = 16


class TrainingData:
    """The rows of an embedding matrix, split into training and held-out rows.

    Args:
        X: (n, d) array or memory map of any float type; rows are read when needed, never copied as a whole.
        held_out: rows to set aside for validation, at most a fifth of all.
        seed: random seed of the split and the order.
        device: device of the batches.

    Raises:
        InvalidInputError: there are too few rows, or a row is zero, NaN or infinite. All rows are checked.
    """

    def __init__(self, X: npt.ArrayLike, held_out: int, seed: int, device: torch.device) -> None:
        self._rows = check_embeddings(X, None, "")
        n = len(self._rows)
        if n < _MIN_ROWS:
            raise InvalidInputError(f"there are {n} embeddings to train on; at least {_MIN_ROWS} are required")
        with ThreadPoolExecutor(min(_SCAN_THREADS, os.cpu_count() or 1)) as threads:
            for _ in threads.map(self._scan, range(0, n, _SCAN_ROWS)):  # raises the error of the first bad block
                pass
        self._seed = seed
        self._device = device
        shuffled = np.random.default_rng([seed, 0]).permutation(n)
        split = min(held_out, n // 5)
        self._held_out = np.sort(shuffled[:split])
        self._train = np.sort(shuffled[split:])
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, shuffled)

    def _scan(self, start: int) -> None:
        unit_rows(self._rows[start : start + _SCAN_ROWS], start)

    @property
    def dim(self) -> int:
        """Dimension d of the embeddings."""
        return int(self._rows.shape[1])

    def __len__(self) -> int:
        """Number of training rows."""
        return len(self._train)

    @property
    def rows(self) -> npt.NDArray[np.floating]:
        """(n, d) all rows as they are stored, including the held-out ones."""
        return self._rows

    def batch(self, position: int, size: int) -> Tensor:
        """(size, d) float32 unit rows at a position in the endless sequence of seeded shuffles of the training rows."""
        return self._gather(
            np.concatenate([self.order(e)[start:stop] for e, start, stop in self.spans(position, size)])
        )

    def spans(self, position: int, size: int) -> list[tuple[int, int, int]]:
        """The batch at a position as parts of shuffles: the number of the shuffle, and start and stop in it."""
        parts = []
        end = position + size
        while position < end:
            epoch, start = divmod(position, len(self._train))
            stop = min(start + end - position, len(self._train))
            parts.append((epoch, start, stop))
            position += stop - start
        return parts

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """(len(self),) row numbers of a shuffle, in order."""
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng([self._seed, 2, epoch]).permutation(self._train)
            self._order = (epoch, order)  # one assignment, because threads that prepare batches read it
        return order

    def sample(self, size: int, salt: int) -> Tensor:
        """(at most size, d) distinct random training rows; `salt` gives each purpose its own sample."""
        order = np.random.default_rng([self._seed, 1, salt]).permutation(self._train)
        return self._gather(order[:size])

    def held_out(self) -> Tensor:
        """The held-out rows, or a sample of the training rows if none are held out."""
        return self._gather(self._held_out) if len(self._held_out) else self.sample(1000, salt=0)

    def _gather(self, picked: npt.NDArray[np.int64]) -> Tensor:
        # In ascending order, so that a memory map is read sequentially.
        order = np.argsort(picked, kind="stable")
        rows = np.empty((len(picked), self.dim), np.float32)
        rows[order] = unit_rows(self._rows[picked[order]])
        return torch.from_numpy(rows).to(self._device)
