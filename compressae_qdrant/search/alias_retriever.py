"""Retrievers that follow an alias of a Qdrant server from one collection to the next.

Queries are sent to the collection itself, not to the alias, after its fingerprint has been compared with the model that
plans the query. So a query never reaches codes of another model, not even while the alias is switched. The alias is
resolved at most every `refresh_seconds`, and at once when the collection is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Self, TypeVar, Unpack

import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, QdrantClient

from ..embedders import Embedder
from ..errors import IndexNotFoundError, ModelMismatchError
from ..index import AsyncQdrantIndex, QdrantIndex
from ..index.qdrant.connection import Connection
from ..index.results import Hit, ItemId
from ..model.compressae import CompresSAE
from .async_retriever import AsyncRetriever
from .groups import Group
from .queries import Query
from .retriever import Retriever
from .settings import SearchOptions

__all__ = ["AliasRetriever", "AsyncAliasRetriever"]

T = TypeVar("T")
Index = TypeVar("Index", QdrantIndex, AsyncQdrantIndex)
AnyRetriever = TypeVar("AnyRetriever", Retriever, AsyncRetriever)


class _AliasTarget(Generic[Index, AnyRetriever]):
    """The collection that an alias points to and its retriever; the part that sync and async retrievers share."""

    def __init__(
        self, alias: str, models: Sequence[CompresSAE], refresh_seconds: float,
        retriever: Callable[[CompresSAE, Index], AnyRetriever],
    ) -> None:  # fmt: skip
        self._alias, self._refresh_seconds = alias, refresh_seconds
        self._make: Callable[[CompresSAE, Index], AnyRetriever] = retriever
        self._models: Mapping[str, CompresSAE] = {model.fingerprint: model for model in models}
        self._target: tuple[tuple[str, str | None], AnyRetriever] | None = None
        """Name and identity of the collection, and its retriever."""
        self._expires_at = 0.0

    @property
    def collection(self) -> str | None:
        """Name of the collection that queries are sent to."""
        return None if self._target is None else self._target[0][0]

    def _current(self) -> AnyRetriever | None:
        """The retriever of the last known collection; None if the alias has to be resolved again."""
        return self._target[1] if self._target is not None and time.monotonic() < self._expires_at else None

    def _follow(self, index: Index) -> AnyRetriever:
        """The retriever of the collection that the alias now points to."""
        if index.collection == self._alias:
            raise IndexNotFoundError(f"{self._alias!r} is a collection, not an alias; deploy under another name")
        if index.fingerprint not in self._models:
            raise ModelMismatchError(
                f"alias {self._alias!r} points to codes of model {index.fingerprint!r}, but the models given are "
                f"{', '.join(map(repr, self._models))}; give that model too"
            )
        key = index.collection, index.identity
        if self._target is None or self._target[0] != key:
            self._target = key, self._make(self._models[index.fingerprint], index)
        self._expires_at = time.monotonic() + self._refresh_seconds
        return self._target[1]


class AliasRetriever(_AliasTarget[QdrantIndex, Retriever]):
    """A `Retriever` that follows an alias, such as `deploy` maintains.

    Args:
        client: client of the server; a read-only API key is enough.
        alias: name of the alias.
        models: every model whose collection may be live: the old and the new one during a switch.
        embedder: needed for text queries only.
        tenant: the one tenant whose items are visible; see `Retriever`.
        refresh_seconds: longest time in seconds until a switch of the alias is noticed.

    Raises:
        IndexNotFoundError: there is no such alias.
        ModelMismatchError: the alias points to a collection that none of the models encoded.
    """

    def __init__(
        self, client: QdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0,
    ) -> None:  # fmt: skip
        super().__init__(
            alias, models, refresh_seconds, lambda model, index: Retriever(model, index, embedder, tenant=tenant)
        )
        self._connection = Connection(client)
        self._resolve()

    def search(self, query: Query, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        return self._call(lambda retriever: retriever.search(query, limit, **options))

    def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        return self._call(lambda retriever: retriever.search_batch(queries, limit, **options))

    def search_groups(
        self, query: Query, group_by: str, limit: int = 10, group_size: int = 3, **options: Unpack[SearchOptions]
    ) -> list[Group]:
        """See `Retriever.search_groups`."""
        return self._call(lambda retriever: retriever.search_groups(query, group_by, limit, group_size, **options))

    def similar_to(self, id: ItemId, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        return self._call(lambda retriever: retriever.similar_to(id, limit, **options))

    def _resolve(self) -> Retriever:
        return self._follow(QdrantIndex.open(self._connection.client, self._alias))

    def _call(self, call: Callable[[Retriever], T]) -> T:
        retriever = self._current() or self._resolve()
        try:
            return call(retriever)
        except IndexNotFoundError:
            target = self._resolve()
            if target is retriever:
                raise
            return call(target)


class AsyncAliasRetriever(_AliasTarget[AsyncQdrantIndex, AsyncRetriever]):
    """`AliasRetriever` for an `AsyncQdrantClient`: the same methods, awaited. Created by `open`."""

    def __init__(
        self, client: AsyncQdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0, in_flight: int = 16,
    ) -> None:  # fmt: skip
        super().__init__(
            alias, models, refresh_seconds,
            lambda model, index: AsyncRetriever(model, index, embedder, tenant=tenant, in_flight=in_flight),
        )  # fmt: skip
        self._connection = Connection(client)
        self._resolving = asyncio.Lock()

    @classmethod
    async def open(
        cls, client: AsyncQdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0, in_flight: int = 16,
    ) -> Self:  # fmt: skip
        """Resolve the alias and return its retriever.

        See `AliasRetriever` for arguments and errors, and `AsyncRetriever` for `in_flight`.
        """
        retriever = cls(
            client, alias, models, embedder, tenant=tenant, refresh_seconds=refresh_seconds, in_flight=in_flight
        )
        await retriever._resolve()
        return retriever

    async def search(self, query: Query, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        return await self._call(lambda retriever: retriever.search(query, limit, **options))

    async def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        return await self._call(lambda retriever: retriever.search_batch(queries, limit, **options))

    async def search_groups(
        self, query: Query, group_by: str, limit: int = 10, group_size: int = 3, **options: Unpack[SearchOptions]
    ) -> list[Group]:
        """See `Retriever.search_groups`."""
        return await self._call(
            lambda retriever: retriever.search_groups(query, group_by, limit, group_size, **options)
        )

    async def similar_to(self, id: ItemId, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        return await self._call(lambda retriever: retriever.similar_to(id, limit, **options))

    async def _resolve(self) -> AsyncRetriever:
        return self._follow(await AsyncQdrantIndex.open(self._connection.client, self._alias))

    async def _call(self, call: Callable[[AsyncRetriever], Awaitable[T]]) -> T:
        async with self._resolving:  # the searches of a burst resolve the alias once
            retriever = self._current() or await self._resolve()
        try:
            return await call(retriever)
        except IndexNotFoundError:
            target = await self._resolve()
            if target is retriever:
                raise
            return await call(target)
