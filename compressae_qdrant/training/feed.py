"""Batches in the GPU's memory before it asks for them: from resident rows, or streamed through pinned memory."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..kernels.dispatch import Fused
from .data import TrainingData

__all__ = ["Feed", "make_feed"]

_LOG = logging.getLogger(__name__)
_RESIDENT_SHARE: Final = 0.5
"""Of the free memory that the rows may take; the rest is for dense codes and products."""
_BLOCK_ROWS: Final = 262_144
_THREADS: Final = 8
"""That gather rows from a memory map; one alone moves about 5 GB/s."""


class Feed(Protocol):
    """A source of batches."""

    def fill(self, position: int, out: Tensor) -> None:
        """Write the unit rows of `TrainingData.batch(position, len(out))` to (b, d) float `out`."""


def make_feed(data: TrainingData, device: torch.device, operations: Fused) -> Feed:
    """The feed for a device; what was chosen on a GPU is logged with the reason."""
    if device.type != "cuda":
        return _Direct(data)
    dtype = torch.float16 if data.rows.dtype == np.float16 else torch.float32
    wanted = data.rows.size * dtype.itemsize
    free = torch.cuda.mem_get_info(device)[0]
    resident = wanted < _RESIDENT_SHARE * free
    _LOG.info(
        "embeddings take %.1f GB of %.1f GB free on %s: %s",
        wanted / 1e9, free / 1e9, device, "they stay there" if resident else "batches are streamed",
    )  # fmt: skip
    return _Resident(data, device, dtype, operations) if resident else _Streamed(data, device, operations)


class _Direct:
    """Straight from the array."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def fill(self, position: int, out: Tensor) -> None:
        out.copy_(self._data.batch(position, len(out)))


class _Resident:
    """All rows on the device, as they are stored; a kernel gathers and scales those of a batch."""

    def __init__(self, data: TrainingData, device: torch.device, dtype: torch.dtype, operations: Fused) -> None:
        self._data, self._device, self._operations = data, device, operations
        self._rows = torch.empty(data.rows.shape, dtype=dtype, device=device)
        for start in range(0, len(data.rows), _BLOCK_ROWS):
            block = np.ascontiguousarray(data.rows[start : start + _BLOCK_ROWS])
            self._rows[start : start + len(block)].copy_(torch.from_numpy(block))
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


class _Streamed:
    """Two pinned buffers: threads gather the next batch into one while the other is copied and the GPU computes."""

    def __init__(self, data: TrainingData, device: torch.device, operations: Fused) -> None:
        self._data, self._operations = data, operations
        self._copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._workers = ThreadPoolExecutor(_THREADS)
        self._ahead = ThreadPoolExecutor(1)
        self._identity = torch.empty(0, dtype=torch.int64)
        self._pinned: list[Tensor] = []
        self._landing: list[Tensor] = []
        self._free: list[torch.cuda.Event] = []
        self._prepared: tuple[int, int, Future[None]] | None = None
        self._last = 0

    def fill(self, position: int, out: Tensor) -> None:
        size = len(out)
        if not self._pinned or len(self._pinned[0]) != size:
            self._allocate(size, out)
        if self._prepared is None or self._prepared[0] != position:
            if self._prepared is not None:
                self._prepared[2].result()
            self._prepared = (position, 0, self._ahead.submit(self._gather, position, size, 0))
        _, slot, ready = self._prepared
        ready.result()
        self._copies.wait_stream(torch.cuda.current_stream(out.device))
        with torch.cuda.stream(self._copies):
            self._landing[slot].copy_(self._pinned[slot], non_blocking=True)
            self._free[slot].record(self._copies)
        torch.cuda.current_stream(out.device).wait_stream(self._copies)
        self._operations.gather_unit_rows(self._landing[slot], self._identity, out)
        following = position + (position - self._last if position > self._last else size)
        self._last = position
        other = 1 - slot
        self._prepared = (following, other, self._ahead.submit(self._gather, following, size, other))

    def _allocate(self, size: int, out: Tensor) -> None:
        shape = (size, self._data.dim)
        dtype = torch.float16 if self._data.rows.dtype == np.float16 else torch.float32
        self._pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
        self._landing = [torch.empty(shape, dtype=dtype, device=out.device) for _ in range(2)]
        self._free = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        self._identity = torch.arange(size, device=out.device)
        self._prepared = None

    def _gather(self, position: int, size: int, slot: int) -> None:
        """Copy a batch's rows to pinned memory, once the previous copy from there is done."""
        self._free[slot].synchronize()
        target = self._pinned[slot].numpy()
        spans = self._data.spans(position, size)
        picked = np.concatenate([self._data.order(epoch)[start:stop] for epoch, start, stop in spans])
        parts = np.array_split(np.arange(size), _THREADS)

        def copy(part: npt.NDArray[np.int64]) -> None:
            if len(part):
                target[part[0] : part[-1] + 1] = self._data.rows[picked[part]]

        list(self._workers.map(copy, parts))
