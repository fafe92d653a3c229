"""A sync view of an async index: code in a thread uses it as a `CodeIndex` while the event loop keeps running."""

from __future__ import annotations

import asyncio
import threading
from typing import Final, TypeVar

from .async_index import AsyncQdrantIndex
from .calls import Call
from .operations import SyncOperations

__all__ = ["BlockingIndex"]

T = TypeVar("T")

_STOPPED: Final = "the task that started this work was cancelled"


class BlockingIndex(SyncOperations):
    """A `CodeIndex` whose calls run on the event loop of an `AsyncQdrantIndex`. Use it in any thread except the loop's.

    Args:
        index: the async index.
        loop: the event loop that its client belongs to.
    """

    def __init__(self, index: AsyncQdrantIndex, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(index._connection.client.init_options, index.collection, index._manifest)
        self._requests = index._requests  # of the index's shard key, where it has one
        self._index = index
        self._loop = loop
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make every further call raise `asyncio.CancelledError`."""
        self._stopped.set()

    def _run(self, call: Call[T]) -> T:
        if self._stopped.is_set():
            raise asyncio.CancelledError(_STOPPED)
        return asyncio.run_coroutine_threadsafe(self._index._run(call), self._loop).result()
