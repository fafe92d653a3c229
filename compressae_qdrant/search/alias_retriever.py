"""Retrievers that follow an alias, and have a model for whatever it points to.

Every query goes to a collection by its own name, whose fingerprint was checked against the model that plans the query,
so none meets a collection of another model, not in the middle of a switch either. Where the alias points is looked up
at most every `refresh_seconds`, and at once when the collection is gone.
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
from ..index.results import Hit, ItemId
from ..model.compressae import CompresSAE
from .planner import SearchOptions
from .retriever import AsyncRetriever, Query, Retriever

__all__ = ["AliasRetriever", "AsyncAliasRetriever"]

T = TypeVar("T")
Index = TypeVar("Index", QdrantIndex, AsyncQdrantIndex)
Asked = TypeVar("Asked", Retriever, AsyncRetriever)


class _Following(Generic[Index, Asked]):
    """What both have in common: everything but the waiting."""

    def __init__(
        self, alias: str, models: Sequence[CompresSAE], refresh_seconds: float,
        retriever: Callable[[CompresSAE, Index], Asked],
    ) -> None:  # fmt: skip
        self._alias, self._refresh_seconds = alias, refresh_seconds
        self._make: Callable[[CompresSAE, Index], Asked] = retriever
        self._models: Mapping[str, CompresSAE] = {model.fingerprint: model for model in models}
        self._found: tuple[str, Asked] | None = None
        self._stale_at = 0.0

    @property
    def collection(self) -> str | None:
        """The collection that queries go to."""
        return None if self._found is None else self._found[0]

    def _known(self) -> Asked | None:
        """The retriever of where the alias pointed lately; None if that is to be looked up."""
        return self._found[1] if self._found is not None and time.monotonic() < self._stale_at else None

    def _take(self, index: Index) -> Asked:
        """The retriever of what the alias was found to point to."""
        if index.collection == self._alias:
            raise IndexNotFoundError(
                f"there is no alias {self._alias!r} but a collection of that name; deploy under another"
            )
        if index.fingerprint not in self._models:
            raise ModelMismatchError(
                f"alias {self._alias!r} points to codes of model {index.fingerprint!r}, but there are only "
                f"{', '.join(map(repr, self._models))}; give its model too"
            )
        if self._found is None or self._found[0] != index.collection:
            self._found = index.collection, self._make(self._models[index.fingerprint], index)
        self._stale_at = time.monotonic() + self._refresh_seconds
        return self._found[1]


class AliasRetriever(_Following[QdrantIndex, Retriever]):
    """A `Retriever` that follows an alias, as `deploy` keeps it.

    Args:
        client: to the server; a read-only key is enough.
        alias: the alias.
        models: every model that may be live, the old and the new one during a switch.
        embedder: needed for text queries only.
        tenant: the one tenant whose items are seen; see `Retriever`.
        refresh_seconds: how long a switch may go unnoticed.

    Raises:
        IndexNotFoundError: there is no such alias.
        ModelMismatchError: it points to a collection of none of the models.
    """

    def __init__(
        self, client: QdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0,
    ) -> None:  # fmt: skip
        super().__init__(
            alias, models, refresh_seconds, lambda model, index: Retriever(model, index, embedder, tenant=tenant)
        )
        self._client = client
        self._look_up()

    def search(self, query: Query, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        return self._ask(lambda retriever: retriever.search(query, limit, **settings))

    def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **settings: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        return self._ask(lambda retriever: retriever.search_batch(queries, limit, **settings))

    def similar_to(self, id: ItemId, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        return self._ask(lambda retriever: retriever.similar_to(id, limit, **settings))

    def _look_up(self) -> Retriever:
        return self._take(QdrantIndex.open(self._client, self._alias))

    def _ask(self, call: Callable[[Retriever], T]) -> T:
        retriever = self._known() or self._look_up()
        try:
            return call(retriever)
        except IndexNotFoundError:
            again = self._look_up()
            if again is retriever:
                raise
            return call(again)


class AsyncAliasRetriever(_Following[AsyncQdrantIndex, AsyncRetriever]):
    """`AliasRetriever` for an `AsyncQdrantClient`: the same methods, awaited. Make one by `open`."""

    def __init__(
        self, client: AsyncQdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0, in_flight: int = 16,
    ) -> None:  # fmt: skip
        super().__init__(
            alias, models, refresh_seconds,
            lambda model, index: AsyncRetriever(model, index, embedder, tenant=tenant, in_flight=in_flight),
        )  # fmt: skip
        self._client = client
        self._looking_up = asyncio.Lock()

    @classmethod
    async def open(
        cls, client: AsyncQdrantClient, alias: str, models: Sequence[CompresSAE], embedder: Embedder | None = None, *,
        tenant: str | None = None, refresh_seconds: float = 5.0, in_flight: int = 16,
    ) -> Self:  # fmt: skip
        """Arguments and errors of `AliasRetriever`; `in_flight` as of `AsyncRetriever`."""
        made = cls(client, alias, models, embedder, tenant=tenant, refresh_seconds=refresh_seconds, in_flight=in_flight)
        await made._look_up()
        return made

    async def search(self, query: Query, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        return await self._ask(lambda retriever: retriever.search(query, limit, **settings))

    async def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **settings: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        return await self._ask(lambda retriever: retriever.search_batch(queries, limit, **settings))

    async def similar_to(self, id: ItemId, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        return await self._ask(lambda retriever: retriever.similar_to(id, limit, **settings))

    async def _look_up(self) -> AsyncRetriever:
        return self._take(await AsyncQdrantIndex.open(self._client, self._alias))

    async def _ask(self, call: Callable[[AsyncRetriever], Awaitable[T]]) -> T:
        async with self._looking_up:  # a burst looks it up once
            retriever = self._known() or await self._look_up()
        try:
            return await call(retriever)
        except IndexNotFoundError:
            again = await self._look_up()
            if again is retriever:
                raise
            return await call(again)
