"""An async index seen from a thread: what is written for `CodeIndex` works on it, while the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ...codes import SparseCodes
from ..manifest import Described
from ..plan import QueryPlan
from ..protocol import all_pages
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from .index import AsyncQdrantIndex

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["BlockingIndex"]

T = TypeVar("T")

_STOPPED: Final = "the task that this work was for has been cancelled"


class BlockingIndex(Described):
    """A `CodeIndex` whose calls run on the event loop of an `AsyncQdrantIndex`. Use it in any thread but the loop's.

    Args:
        index: the async index.
        loop: where its client lives.
    """

    def __init__(self, index: AsyncQdrantIndex, loop: asyncio.AbstractEventLoop) -> None:
        self._index, self._loop, self._manifest = index, loop, index._manifest
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let no further call begin; they raise `asyncio.CancelledError`."""
        self._stopped.set()

    @property
    def parallel_upserts(self) -> int:
        """Upserts that are worth having under way at once."""
        return self._index.parallel_upserts

    @property
    def journal(self) -> Path | None:
        """None, as of every index on a server."""
        return self._index.journal

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """See `CodeIndex.upsert`."""
        self._wait(self._index.upsert(ids, codes, payloads, dense, hashes))

    def delete(self, ids: Sequence[ItemId]) -> None:
        """See `CodeIndex.delete`."""
        self._wait(self._index.delete(ids))

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """See `CodeIndex.count`."""
        return self._wait(self._index.count(filter, exact=exact))

    def info(self) -> IndexInfo:
        """See `CodeIndex.info`."""
        return self._wait(self._index.info())

    def search(self, plan: QueryPlan) -> list[Hit]:
        """See `CodeIndex.search`."""
        return self._wait(self._index.search(plan))

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """See `CodeIndex.search_batch`."""
        return self._wait(self._index.search_batch(plans))

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """See `CodeIndex.retrieve`."""
        return self._wait(self._index.retrieve(ids))

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """See `CodeIndex.hashes`."""
        return self._wait(self._index.hashes(ids))

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """See `CodeIndex.page`."""
        return self._wait(self._index.page(size, offset))

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """See `CodeIndex.scan`."""
        return all_pages(self.page, size)

    def optimize(self) -> None:
        """See `CodeIndex.optimize`."""
        self._wait(self._index.optimize())

    def flush(self) -> None:
        """Nothing is left to do: every upsert waits until the server has it in its log."""

    def close(self) -> None:
        """Nothing: the client is the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if self._stopped.is_set():
            call.close()
            raise asyncio.CancelledError(_STOPPED)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
