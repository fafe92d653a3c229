"""Copies of rows to a GPU and of results back, through pinned memory, while the GPU computes.

On a CPU the same calls copy immediately, so that their users can be tested on any machine.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Download", "Upload", "host_dtype"]

_THREADS: Final = 8
"""Threads that gather rows from a memory map; one thread copies about 5 GB/s."""


def host_dtype(rows: npt.NDArray[np.generic]) -> torch.dtype:
    """Type that rows are copied as: float16 stays float16, all others become float32."""
    return torch.float16 if rows.dtype == np.float16 else torch.float32


class Upload:
    """Copies parts of a matrix to a device, one part ahead of the one in use.

    There are two pinned buffers and two on the device: threads gather a part into one while a separate stream copies
    the other. Call `request` and `take`, queue the work that reads the part, `request` the next, then queue long work.

    Args:
        rows: (n, d) array or memory map.
        size: most rows of a part.
        device: device to copy to.
    """

    def __init__(self, rows: npt.NDArray[np.generic], size: int, device: torch.device) -> None:
        shape, dtype = (size, rows.shape[1]), host_dtype(rows)
        self._rows, self._device = rows, device
        on_gpu = device.type == "cuda"
        self._pinned = [torch.empty(shape, dtype=dtype, pin_memory=on_gpu) for _ in range(2)]
        self._on_device = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
        self._copies: Any = None
        if on_gpu:
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # Kernels of the current stream may still read memory that the allocator reuses for these buffers, and
            # the copy stream may still write to them when they are freed.
            self._copies.wait_stream(torch.cuda.current_stream(device))
            for buffer in self._on_device:
                buffer.record_stream(self._copies)
        self._copied: list[Any] = [_event() if on_gpu else None for _ in range(2)]
        self._read: list[Any] = [_event() if on_gpu else None for _ in range(2)]
        self._workers = ThreadPoolExecutor(_THREADS)
        self._ahead = ThreadPoolExecutor(1)
        self._pending: Future[int] | None = None
        self._slot = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.shutdown(cancel_futures=True)
        self._workers.shutdown()

    def request(self, picked: slice | npt.NDArray[np.int64]) -> None:
        """Start to copy rows. The work that reads the previous part must have been queued."""
        assert self._pending is None
        if self._copies is not None:
            self._read[1 - self._slot].record(torch.cuda.current_stream(self._device))
        self._pending = self._ahead.submit(self._copy_rows, picked, self._slot)

    def take(self) -> Tensor:
        """The (m, d) rows that were requested, float16 or float32. Read them before the next `request`."""
        assert self._pending is not None
        size = self._pending.result()
        slot, self._slot, self._pending = self._slot, 1 - self._slot, None
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied[slot])
        return self._on_device[slot][:size]

    @torch.inference_mode()  # the buffers may have been created in inference mode
    def _copy_rows(self, picked: slice | npt.NDArray[np.int64], slot: int) -> int:
        if self._copies is not None:
            self._copied[slot].synchronize()  # the copy before last has left the pinned buffer
        size = self._gather(picked, self._pinned[slot].numpy())
        target, source = self._on_device[slot][:size], self._pinned[slot][:size]
        if self._copies is None:
            target.copy_(source)
            return size
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._read[slot])
            target.copy_(source, non_blocking=True)
            self._copied[slot].record(self._copies)
        return size

    def _gather(self, picked: slice | npt.NDArray[np.int64], target: npt.NDArray[Any]) -> int:
        where = np.arange(picked.start, picked.stop) if isinstance(picked, slice) else picked
        bounds = [len(where) * part // _THREADS for part in range(_THREADS + 1)]

        def copy(part: int) -> None:
            low, high = bounds[part], bounds[part + 1]
            if low == high:
                return
            if isinstance(picked, slice):
                target[low:high] = self._rows[picked.start + low : picked.start + high]
            else:
                target[low:high] = self._rows[where[low:high]]

        list(self._workers.map(copy, range(_THREADS)))
        return len(where)


class Download:
    """Copies the tensors of each batch to host memory, while the GPU computes the next batch."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._slots: list[list[Tensor]] = [[], []]
        self._waiting: tuple[list[Tensor], Any] | None = None

    def put(self, *tensors: Tensor) -> list[npt.NDArray[Any]] | None:
        """Start to copy tensors, and return those of the previous call, which are valid until the next call."""
        self._slots.reverse()
        buffers = self._slots[0]
        if [(b.shape, b.dtype) for b in buffers] != [(t.shape, t.dtype) for t in tensors]:
            buffers = [torch.empty(t.shape, dtype=t.dtype, pin_memory=self._on_gpu) for t in tensors]
            self._slots[0] = buffers
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=self._on_gpu)
        event = None
        if self._on_gpu:
            event = _event()
            event.record(torch.cuda.current_stream(self._device))
        before, self._waiting = self._waiting, (buffers, event)
        return None if before is None else _wait_for(*before)

    def last(self) -> list[npt.NDArray[Any]]:
        """Return the tensors of the last call."""
        assert self._waiting is not None
        waiting, self._waiting = self._waiting, None
        return _wait_for(*waiting)


def _event() -> Any:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def _wait_for(buffers: list[Tensor], event: Any) -> list[npt.NDArray[Any]]:
    if event is not None:
        event.synchronize()
    return [buffer.numpy() for buffer in buffers]
