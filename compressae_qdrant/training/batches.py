"""Batches in the GPU's memory before it asks for them: from resident rows, or streamed through pinned memory."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels import torch_reference as twins
from ..kernels.dispatch import Fused, fused
from ..kernels.transfer import Upload, host_dtype
from .data import TrainingData

__all__ = ["Feed", "make_feed"]

_LOG = logging.getLogger(__name__)
_RESIDENT_SHARE: Final = 0.5
"""Of the free memory that the rows may take; the rest is for dense codes and products."""
_BLOCK_ROWS: Final = 65_536


class Feed(Protocol):
    """A source of batches, on the device that trains."""

    def fill(self, position: int, out: Tensor) -> None:
        """Write the unit rows of `TrainingData.batch(position, len(out))` to (b, d) float `out`."""

    def batch(self, position: int, size: int) -> Tensor:
        """(size, d) float32, the same rows in memory of their own."""


def make_feed(data: TrainingData, device: torch.device, operations: Fused | None = None) -> Feed:
    """The feed for a device; what was chosen on a GPU is logged with the reason.

    Args:
        data: the rows.
        device: that trains.
        operations: the fused kernels or their twins; by default whatever the device can use.
    """
    if device.type != "cuda":
        return _Direct(data)
    able: Fused = operations or fused(device) or twins
    wanted = data.rows.size * host_dtype(data.rows).itemsize
    free = torch.cuda.mem_get_info(device)[0]
    resident = wanted < _RESIDENT_SHARE * free
    _LOG.info(
        "embeddings take %.1f GB of %.1f GB free on %s: %s",
        wanted / 1e9, free / 1e9, device, "they stay there" if resident else "batches are streamed",
    )  # fmt: skip
    return _Resident(data, device, able) if resident else _Streamed(data, device, able)


class _Direct:
    """Straight from the array."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def fill(self, position: int, out: Tensor) -> None:
        out.copy_(self._data.batch(position, len(out)))

    def batch(self, position: int, size: int) -> Tensor:
        return self._data.batch(position, size)


class _OnDevice(ABC):
    """Batches that a kernel scales to unit norm where they are."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        self._data, self._device, self._operations = data, device, operations

    @abstractmethod
    def fill(self, position: int, out: Tensor) -> None: ...

    def batch(self, position: int, size: int) -> Tensor:
        out = torch.empty((size, self._data.dim), device=self._device)
        self.fill(position, out)
        return out


class _Resident(_OnDevice):
    """All rows on the device, as they are stored; a kernel gathers and scales those of a batch."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        super().__init__(data, device, operations)
        n = len(data.rows)
        self._rows = torch.empty(data.rows.shape, dtype=host_dtype(data.rows), device=device)
        with Upload(data.rows, min(_BLOCK_ROWS, n), device) as upload:
            for start in range(0, n, _BLOCK_ROWS):
                upload.request(slice(start, min(start + _BLOCK_ROWS, n)))
                self._rows[start : start + _BLOCK_ROWS].copy_(upload.take())
        self._orders: dict[int, Tensor] = {}
        self._next: Future[npt.NDArray[np.int64]] | None = None
        self._next_epoch = -1
        self._worker = ThreadPoolExecutor(1)

    def fill(self, position: int, out: Tensor) -> None:
        pieces = [self._order(epoch)[start:stop] for epoch, start, stop in self._data.spans(position, len(out))]
        order = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        self._operations.gather_unit_rows(self._rows, order, out)

    def _order(self, epoch: int) -> Tensor:
        """The epoch's rows in order, on the device; the next epoch's is shuffled meanwhile."""
        if epoch not in self._orders:
            ready = self._next if self._next is not None and self._next_epoch == epoch else None
            order = self._data.order(epoch) if ready is None else ready.result()
            for old in [known for known in self._orders if known < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = torch.from_numpy(order).to(self._device)
            self._next, self._next_epoch = self._worker.submit(self._data.order, epoch + 1), epoch + 1
        return self._orders[epoch]


class _Streamed(_OnDevice):
    """One batch on its way while the GPU computes on the one before."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        super().__init__(data, device, operations)
        self._upload: Upload | None = None
        self._identity = torch.empty(0, dtype=torch.int64)
        self._requested: tuple[int, int] | None = None
        self._last = (0, 0)

    def fill(self, position: int, out: Tensor) -> None:
        size = len(out)
        if self._requested is not None and self._requested != (position, size):
            self._take()  # nobody wants it
        if self._upload is None or size > len(self._identity):
            self._upload = Upload(self._data.rows, size, self._device)
            self._identity = torch.arange(size, device=self._device)
        if self._requested is None:
            self._request(position, size)
        self._operations.gather_unit_rows(self._take(), self._identity[:size], out)
        before, before_size = self._last
        steady = before_size == size and position > before
        self._last = (position, size)
        self._request(2 * position - before if steady else position + size, size)

    def _request(self, position: int, size: int) -> None:
        assert self._upload is not None
        spans = self._data.spans(position, size)
        self._upload.request(np.concatenate([self._data.order(epoch)[start:stop] for epoch, start, stop in spans]))
        self._requested = (position, size)

    def _take(self) -> Tensor:
        assert self._upload is not None
        self._requested = None
        return self._upload.take()
