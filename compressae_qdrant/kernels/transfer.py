"""Rows on their way to a GPU and results on their way back, through pinned memory, while it computes.

On a CPU the same calls copy at once, so that what is built on them can be tested anywhere.
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
"""That gather rows from a memory map; one alone moves about 5 GB/s."""


def host_dtype(rows: npt.NDArray[np.generic]) -> torch.dtype:
    """What rows are copied as: float16 as it is, all else as float32."""
    return torch.float16 if rows.dtype == np.float16 else torch.float32


class Upload:
    """Pieces of a matrix in a device's memory, one ahead of what is used.

    Two pinned buffers and two on the device: threads gather a piece into one while the other is copied by a stream of
    its own. Call `request`, `take`, queue what reads the piece, `request` the next, and then queue what takes long.

    Args:
        rows: (n, d) array or memory map.
        size: rows of a piece at most.
        device: where they go.
    """

    def __init__(self, rows: npt.NDArray[np.generic], size: int, device: torch.device) -> None:
        shape, dtype = (size, rows.shape[1]), host_dtype(rows)
        self._rows, self._device = rows, device
        on_gpu = device.type == "cuda"
        self._pinned = [torch.empty(shape, dtype=dtype, pin_memory=on_gpu) for _ in range(2)]
        self._landing = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
        self._copies: Any = None
        if on_gpu:
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # What the allocator handed out may still be read by kernels of this stream, and what it takes back may
            # still be written by that one.
            self._copies.wait_stream(torch.cuda.current_stream(device))
            for landing in self._landing:
                landing.record_stream(self._copies)
        self._landed: list[Any] = [_event() if on_gpu else None for _ in range(2)]
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
        """Begin to bring rows. What reads the piece taken before must have been queued."""
        assert self._pending is None
        if self._copies is not None:
            self._read[1 - self._slot].record(torch.cuda.current_stream(self._device))
        self._pending = self._ahead.submit(self._bring, picked, self._slot)

    def take(self) -> Tensor:
        """(m, d) the rows that were requested, float16 or float32; to be read before the next `request`."""
        assert self._pending is not None
        size = self._pending.result()
        slot, self._slot, self._pending = self._slot, 1 - self._slot, None
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_event(self._landed[slot])
        return self._landing[slot][:size]

    @torch.inference_mode()  # whatever mode the buffers were made in
    def _bring(self, picked: slice | npt.NDArray[np.int64], slot: int) -> int:
        if self._copies is not None:
            self._landed[slot].synchronize()  # the copy before last has left the pinned buffer
        size = self._gather(picked, self._pinned[slot].numpy())
        target, source = self._landing[slot][:size], self._pinned[slot][:size]
        if self._copies is None:
            target.copy_(source)
            return size
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._read[slot])
            target.copy_(source, non_blocking=True)
            self._landed[slot].record(self._copies)
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
    """Tensors of one batch after another, in host memory a batch later."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._slots: list[list[Tensor]] = [[], []]
        self._waiting: tuple[list[Tensor], Any] | None = None

    def put(self, *tensors: Tensor) -> list[npt.NDArray[Any]] | None:
        """Begin to copy tensors; gives those of the call before, which are valid until the next call."""
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
        return None if before is None else _arrived(*before)

    def last(self) -> list[npt.NDArray[Any]]:
        """Those of the last call."""
        assert self._waiting is not None
        waiting, self._waiting = self._waiting, None
        return _arrived(*waiting)


def _event() -> Any:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def _arrived(buffers: list[Tensor], event: Any) -> list[npt.NDArray[Any]]:
    if event is not None:
        event.synchronize()
    return [buffer.numpy() for buffer in buffers]
