"""Training batches on the device: from rows in its memory, or streamed to it through pinned memory."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels import torch_reference
from ..kernels.dispatch import Fused, fused
from ..kernels.transfer import Upload, host_dtype
from .data import TrainingData

__all__ = ["BatchSource", "make_batch_source"]

_LOG = logging.getLogger(__name__)
_RESIDENT_SHARE: Final = 0.5
"""Share of the free memory that the rows may take; the rest is for dense codes and products."""
_BLOCK_ROWS: Final = 65_536
"""Rows that are copied to the GPU at a time."""


class BatchSource(Protocol):
    """Training batches on the device that trains."""

    def fill(self, position: int, out: Tensor) -> None:
        """Write the unit rows of `TrainingData.batch(position, len(out))` to (b, d) float `out`."""

    def batch(self, position: int, size: int) -> Tensor:
        """The same rows in a new (size, d) float32 tensor."""


def make_batch_source(data: TrainingData, device: torch.device, operations: Fused | None = None) -> BatchSource:
    """The batch source for a device. On a GPU the choice is logged, with the reason.

    Args:
        data: the rows.
        device: device that trains.
        operations: the fused kernels or their torch reference; by default the kernels, if the device can run them.
    """
    if device.type != "cuda":
        return _ArrayBatches(data)
    kernels: Fused = operations or fused(device) or torch_reference
    needed = data.rows.size * host_dtype(data.rows).itemsize
    free = torch.cuda.mem_get_info(device)[0]
    resident = needed < _RESIDENT_SHARE * free
    _LOG.info(
        "embeddings need %.1f GB, and %.1f GB are free on %s: %s",
        needed / 1e9, free / 1e9, device, "all are copied to the GPU" if resident else "batches are streamed",
    )  # fmt: skip
    return _ResidentBatches(data, device, kernels) if resident else _StreamedBatches(data, device, kernels)


class _ArrayBatches:
    """Batches read from the array, normalised on the CPU."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def fill(self, position: int, out: Tensor) -> None:
        out.copy_(self._data.batch(position, len(out)))

    def batch(self, position: int, size: int) -> Tensor:
        return self._data.batch(position, size)


class _GpuBatches(ABC):
    """Batches that a kernel scales to unit norm on the GPU."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        self._data, self._device, self._operations = data, device, operations

    @abstractmethod
    def fill(self, position: int, out: Tensor) -> None: ...

    def batch(self, position: int, size: int) -> Tensor:
        out = torch.empty((size, self._data.dim), device=self._device)
        self.fill(position, out)
        return out


class _ResidentBatches(_GpuBatches):
    """All rows are on the device as they are stored; a kernel gathers and scales those of a batch."""

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
        parts = [self._order(epoch)[start:stop] for epoch, start, stop in self._data.spans(position, len(out))]
        order = parts[0] if len(parts) == 1 else torch.cat(parts)
        self._operations.gather_unit_rows(self._rows, order, out)

    def _order(self, epoch: int) -> Tensor:
        """The order of an epoch, on the device. A thread shuffles the next epoch meanwhile."""
        if epoch not in self._orders:
            ready = self._next if self._next is not None and self._next_epoch == epoch else None
            order = self._data.order(epoch) if ready is None else ready.result()
            for old in [known for known in self._orders if known < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = torch.from_numpy(order).to(self._device)
            self._next, self._next_epoch = self._worker.submit(self._data.order, epoch + 1), epoch + 1
        return self._orders[epoch]


class _StreamedBatches(_GpuBatches):
    """One batch is copied while the GPU computes on the one before."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        super().__init__(data, device, operations)
        self._upload: Upload | None = None
        self._identity = torch.empty(0, dtype=torch.int64)
        self._requested: tuple[int, int] | None = None
        self._last = (0, 0)

    def fill(self, position: int, out: Tensor) -> None:
        size = len(out)
        if self._requested is not None and self._requested != (position, size):
            self._take()  # a batch that was requested ahead and is not needed
        if self._upload is None or size > len(self._identity):
            self._upload = Upload(self._data.rows, size, self._device)
            self._identity = torch.arange(size, device=self._device)
        if self._requested is None:
            self._request(position, size)
        self._operations.gather_unit_rows(self._take(), self._identity[:size], out)
        before, before_size = self._last
        regular = before_size == size and position > before
        self._last = (position, size)
        self._request(2 * position - before if regular else position + size, size)

    def _request(self, position: int, size: int) -> None:
        assert self._upload is not None
        spans = self._data.spans(position, size)
        self._upload.request(np.concatenate([self._data.order(epoch)[start:stop] for epoch, start, stop in spans]))
        self._requested = (position, size)

    def _take(self) -> Tensor:
        assert self._upload is not None
        self._requested = None
        return self._upload.take()
