"""One index for sync and for async callers, as frameworks with both kinds of methods need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..codes import SparseCodes
from ..errors import ConfigError
from ..index import AsyncQdrantIndex, QdrantIndex
from ..index.plan import QueryPlan
from ..index.protocol import AsyncCodeIndex, CodeIndex
from ..index.results import Hit, ItemId, Payload, Record
from ..index.settings import IndexSettings
from ..model.compressae import CompresSAE
from ..search import AsyncRetriever, Retriever

if TYPE_CHECKING:
    from qdrant_client import models

_ONLY_ASYNC = "there is only an async index here; await the async method, or pass an index too"

__all__ = ["AsyncSide", "IndexPair", "ThreadedIndex", "WritableAsyncIndex"]

T = TypeVar("T")


class WritableAsyncIndex(AsyncCodeIndex, Protocol):
    """An async index that can be written to, as `AsyncQdrantIndex` is."""

    async def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Insert or replace items; see `CodeIndex.upsert`."""

    async def delete(self, ids: Sequence[ItemId]) -> None:
        """Delete items; see `CodeIndex.delete`."""

    async def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """Delete the items that match a filter; see `CodeIndex.delete_by_filter`."""


class ThreadedIndex:
    """A sync index whose calls are made in threads, so that they do not block the event loop.

    It serves indexes that run in this process, which have no connection to await.

    Args:
        index: an embedded index, or one in the client's local mode, whose calls are made one at a time.
    """

    def __init__(self, index: CodeIndex) -> None:
        self._index = index
        self._guard: Lock | nullcontext[None] = Lock() if isinstance(index, QdrantIndex) else nullcontext()

    @property
    def fingerprint(self) -> str:
        """See `CodeIndex.fingerprint`."""
        return self._index.fingerprint

    @property
    def settings(self) -> IndexSettings:
        """See `CodeIndex.settings`."""
        return self._index.settings

    @property
    def projection(self) -> str | None:
        """See `CodeIndex.projection`."""
        return self._index.projection

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """See `CodeIndex.count`."""
        return await self._call(lambda: self._index.count(filter, exact=exact))

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """See `CodeIndex.search`."""
        return await self._call(lambda: self._index.search(plan))

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """See `CodeIndex.search_batch`."""
        return await self._call(lambda: self._index.search_batch(plans))

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """See `CodeIndex.retrieve`."""
        return await self._call(lambda: self._index.retrieve(ids))

    async def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Insert or replace items and flush them; see `CodeIndex.upsert`."""

        def write() -> None:
            self._index.upsert(ids, codes, payloads, dense)
            self._index.flush()

        await self._call(write)

    async def delete(self, ids: Sequence[ItemId]) -> None:
        """Delete items and flush the deletion; see `CodeIndex.delete`."""

        def write() -> None:
            self._index.delete(ids)
            self._index.flush()

        await self._call(write)

    async def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """Delete the items that match a filter and flush the deletion; see `CodeIndex.delete_by_filter`."""

        def write() -> int:
            deleted = self._index.delete_by_filter(filter, all_items=all_items)
            self._index.flush()
            return deleted

        return await self._call(write)

    async def _call(self, call: Callable[[], T]) -> T:
        def guarded() -> T:
            with self._guard:
                return call()

        return await asyncio.to_thread(guarded)


@dataclass(frozen=True)
class AsyncSide:
    """An index and its retriever for one event loop."""

    index: WritableAsyncIndex
    retriever: AsyncRetriever


class IndexPair:
    """One index for sync and for async callers. The async side of an index on a server awaits the network; that of an
    embedded index or of the client's local mode works in threads.

    Args:
        model: the model of the codes.
        index: the index; None if there are only async callers.
        async_index: the same index on an async client. By default it is made from `index` when it is first needed,
            with the client options of that index, for each event loop.

    Raises:
        ConfigError: there is neither of the two.
        ModelMismatchError: the index holds another model's codes.
    """

    def __init__(self, model: CompresSAE, index: CodeIndex | None, async_index: AsyncQdrantIndex | None = None) -> None:
        either = index or async_index
        if either is None:
            raise ConfigError("there is neither an index nor an async_index; pass at least one of them")
        self.model: Final = model
        self.settings: Final = either.settings
        self._given = async_index
        self._retriever = None if index is None else Retriever(model, index)
        self._index = index
        self._sides: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncSide] = WeakKeyDictionary()
        if async_index is not None:
            AsyncRetriever(model, async_index)  # checks that the index is the model's

    @property
    def index(self) -> CodeIndex:
        """The index for sync callers.

        Raises:
            ConfigError: there is only an async index.
        """
        if self._index is None:
            raise ConfigError(_ONLY_ASYNC)
        return self._index

    @property
    def retriever(self) -> Retriever:
        """The retriever for sync callers.

        Raises:
            ConfigError: there is only an async index.
        """
        if self._retriever is None:
            raise ConfigError(_ONLY_ASYNC)
        return self._retriever

    def async_side(self) -> AsyncSide:
        """The index and the retriever for the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._sides:
            index: WritableAsyncIndex
            if self._given is not None:
                index = self._given
            elif isinstance(self._index, QdrantIndex) and not self._index.is_local:
                index = self._index.to_async()
            else:
                index = ThreadedIndex(self.index)
            self._sides[loop] = AsyncSide(index, AsyncRetriever(self.model, index))
        return self._sides[loop]

    async def close_async(self) -> None:
        """Close the connections that this object made for the running event loop."""
        side = self._sides.pop(asyncio.get_running_loop(), None)
        if side is not None and isinstance(side.index, AsyncQdrantIndex):
            await side.index.close()
