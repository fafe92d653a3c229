"""Independent batches on the cores of a CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

__all__ = ["map_batches"]

T = TypeVar("T")
R = TypeVar("R")


def map_batches(work: Callable[[T], R], batches: Sequence[T], device: torch.device) -> list[R]:
    """Apply a function to batches, and return the results in order.

    On a CPU, as many batches are worked on at a time as PyTorch has threads, each by one thread. PyTorch would run each
    operation of a batch on all threads, and most of these operations are too small for that: the threads spend more
    time waiting for each other than working. Threads that take whole batches do not wait, and two processes share the
    cores of a machine fairly (`scripts/bench_loaders.py`).

    Args:
        work: function of one batch. On a CPU it must be safe to call from several threads.
        batches: the batches.
        device: device of the work. On a GPU the batches are worked on one after the other.

    Raises:
        Exception: what `work` raised, for the first batch that failed. No batch is begun after that.
    """
    threads = min(torch.get_num_threads(), len(batches)) if device.type == "cpu" else 1
    if threads <= 1:
        return [work(batch) for batch in batches]
    shared = _Shared(work, batches)
    workers = [threading.Thread(target=shared.run, daemon=True) for _ in range(threads)]
    before = torch.get_num_threads()
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            shared.ready.acquire()
        # A worker limits itself to one thread, and thereby also the threads that are started later; undo the latter.
        torch.set_num_threads(before)
        for worker in workers:
            worker.join()
    finally:
        shared.stop()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
        torch.set_num_threads(before)
    return shared.results_in_order()


class _Shared(Generic[T, R]):
    """What the workers of one call share: the batches, whose turn it is, and the results."""

    def __init__(self, work: Callable[[T], R], batches: Sequence[T]) -> None:
        self.ready = threading.Semaphore(0)
        self._work, self._batches = work, batches
        self._gradients = torch.is_grad_enabled()
        self._lock = threading.Lock()
        self._next, self._stopped = 0, False
        self._results: dict[int, R] = {}
        self._failures: dict[int, BaseException] = {}

    def run(self) -> None:
        """Take batches until there are none left."""
        torch.set_num_threads(1)
        torch.get_num_threads()  # the first call in a thread adopts the setting of the process, which is 1 now
        self.ready.release()
        with torch.set_grad_enabled(self._gradients):
            while (number := self._take()) is not None:
                try:
                    self._results[number] = self._work(self._batches[number])
                except BaseException as exc:  # noqa: BLE001 (raised again by `results_in_order`)
                    self._failures[number] = exc
                    self.stop()

    def stop(self) -> None:
        """Begin no further batch."""
        with self._lock:
            self._stopped = True

    def results_in_order(self) -> list[R]:
        """The results of all batches, or the failure of the first batch that failed."""
        if self._failures:
            raise self._failures[min(self._failures)]
        return [self._results[number] for number in range(len(self._batches))]

    def _take(self) -> int | None:
        with self._lock:
            if self._stopped or self._next == len(self._batches):
                return None
            self._next += 1
            return self._next - 1
