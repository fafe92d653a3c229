"""AsyncRetriever: the methods of `Retriever`, awaited, on an async index."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Unpack

import numpy.typing as npt

from .. import telemetry
from ..embedders import Embedder
from ..errors import InvalidInputError
from ..index.protocol import AsyncCodeIndex
from ..index.results import Hit, ItemId
from ..model.compressae import CompresSAE
from ..scoring import Explanation
from .explanations import explain_hits, ids_of
from .groups import Group, follow_searches_async, group_steps, groups_options, hits_for_groups
from .queries import ItemCount, Queries, Query, are_texts, counted, others, page_of, timed
from .settings import SearchOptions

__all__ = ["AsyncRetriever"]


class AsyncRetriever:
    """`Retriever` for an `AsyncQdrantIndex`: the same methods, awaited. Texts are embedded in a thread.

    Args:
        model: see `Retriever`.
        index: an async index of the model's codes.
        embedder: see `Retriever`.
        tenant: see `Retriever`.
        in_flight: calls that may wait for the server at once. Further ones queue in this process, so that a burst does
            not overload the server.
    """

    def __init__(
        self,
        model: CompresSAE,
        index: AsyncCodeIndex,
        embedder: Embedder | None = None,
        *,
        tenant: str | None = None,
        in_flight: int = 16,
    ) -> None:
        if in_flight < 1:
            raise InvalidInputError(f"in_flight is {in_flight}; it must be at least 1")
        self.model = model
        self.index = index
        self._queries = Queries(model, index, embedder, tenant)
        self._count = ItemCount()
        self._slots = asyncio.Semaphore(in_flight)
        self._counting = asyncio.Lock()
        self._embedding = asyncio.Lock()

    async def search(self, query: Query, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        with timed("search"):
            vectors = await self._vectors([query])
            (plan,) = self._queries.plans(vectors, limit, options, await self._items())
            async with self._slot():
                return counted(await self.index.search(plan))

    async def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        with timed("search_batch"):
            plans = self._queries.plans(await self._vectors(queries), limit, options, await self._items())
            async with self._slot():
                results = await self.index.search_batch(plans) if plans else []
            return [counted(hits) for hits in results]

    async def search_groups(
        self, query: Query, group_by: str, limit: int = 10, group_size: int = 3, **options: Unpack[SearchOptions]
    ) -> list[Group]:
        """See `Retriever.search_groups`."""
        with timed("search_groups"):
            size = hits_for_groups(limit, group_size)
            vectors = await self._vectors([query])
            (plan,) = self._queries.plans(vectors, size, groups_options(options), await self._items())
            payload = options.get("with_payload", True)
            steps = group_steps(plan, group_by, limit, group_size, with_payload=payload)
            async with self._slot():
                return await follow_searches_async(steps, self.index.search_batch)

    async def similar_to(self, id: ItemId, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        with timed("similar_to"):
            items = await self._items()
            async with self._slot():
                plan = self._queries.plan_similar(id, await self.index.retrieve([id]), limit, options, items)
                hits = await self.index.search(plan)
            return counted(page_of(others(id, hits), limit, options))

    async def explain(self, hits: Sequence[Hit]) -> list[Explanation]:
        """See `Retriever.explain`."""
        async with self._slot():
            return explain_hits(hits, await self.index.retrieve(ids_of(hits)))

    async def _vectors(self, queries: Any) -> Any:
        """The queries with texts embedded in a thread, one call at a time, as an embedder need not be thread-safe."""
        if self._queries.embedder is None or not are_texts([queries] if isinstance(queries, str) else queries):
            return queries
        async with self._embedding:
            return await asyncio.to_thread(self._queries.embed, queries)

    async def _items(self) -> int:
        """About how many items the index holds."""
        async with self._counting:  # the first searches of a burst wait for one answer
            if self._count.is_due():
                self._count.update(await self.index.count(exact=False))
        return self._count.items

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Hold one of the calls in flight."""
        with telemetry.timed("compressae.search.queue.duration"):
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()
