"""AsyncQdrantIndex: `QdrantIndex` for an `AsyncQdrantClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, models

from ...checks import check_sequence
from ...codes import SparseCodes
from ..manifest import Manifest
from ..plan import QueryPlan
from ..protocol import CodeModel, ScrollOptions
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from ..settings import IndexSettings
from .base import CollectionIndex
from .calls import Call, run_call_async
from .client import Transport
from .connection import Connection
from .creation import adopt_steps, create_steps, open_steps
from .steps import (
    count_steps,
    delete_steps,
    drop_steps,
    follow_async,
    optimise_steps,
    page_steps,
    read_steps,
    scroll_steps,
    upsert_steps,
    verify_steps,
    watched_steps,
)

__all__ = ["AsyncQdrantIndex"]

T = TypeVar("T")


class AsyncQdrantIndex(CollectionIndex):
    """`QdrantIndex` for an `AsyncQdrantClient`: the same methods, awaited."""

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        manifest: Manifest,
        model: CodeModel | None = None,
        owns_client: bool = False,
    ) -> None:
        super().__init__(client.init_options, collection, manifest, model)
        self._connection = Connection(client)
        self._owns_client = owns_client

    @classmethod
    async def create(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    ) -> Self:
        """See `QdrantIndex.create`."""
        steps = create_steps(collection, Manifest.of(model, settings), local=_is_local(client))
        manifest = await follow_async(steps, lambda call: run_call_async(client, collection, call))
        return cls(client, collection, manifest, model)

    @classmethod
    async def adopt(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    ) -> Self:
        """See `QdrantIndex.adopt`."""
        steps = adopt_steps(collection, Manifest.of(model, settings, adopted=True), local=_is_local(client))
        target, manifest = await follow_async(steps, lambda call: run_call_async(client, collection, call))
        return cls(client, target, manifest, model)

    @classmethod
    async def open(cls, client: AsyncQdrantClient, collection: str, model: CodeModel | None = None) -> Self:
        """See `QdrantIndex.open`."""
        steps = open_steps(collection, model, local=_is_local(client))
        target, manifest = await follow_async(steps, lambda call: run_call_async(client, collection, call))
        return cls(client, target, manifest, model)

    async def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """See `QdrantIndex.upsert`."""
        await follow_async(upsert_steps(self._requests, ids, codes, payloads, dense, hashes), self._run)

    async def verify(self) -> None:
        """See `QdrantIndex.verify`."""
        await follow_async(verify_steps(self._requests, self._watch), self._run)

    async def delete(self, ids: Sequence[ItemId]) -> None:
        """See `QdrantIndex.delete`."""
        call = self._requests.delete(ids)
        if call is not None:
            await self._run(call)

    async def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """See `QdrantIndex.delete_by_filter`."""
        return await follow_async(delete_steps(self._requests, filter, all_items=all_items), self._run)

    async def drop(self, *, aliases: bool = False) -> None:
        """See `QdrantIndex.drop`. The client stays open."""
        await follow_async(drop_steps(self._requests, self._collection, aliases=aliases), self._run)

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """See `QdrantIndex.count`."""
        return await follow_async(count_steps(self._requests, filter, exact=exact), self._run)

    async def info(self) -> IndexInfo:
        """See `QdrantIndex.info`."""
        return await self._run(self._requests.info(await self.count()))

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """See `QdrantIndex.search`."""
        return (await self._run(self._requests.search([plan])))[0]

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """See `QdrantIndex.search_batch`."""
        check_sequence("plans", plans)
        return await self._run(self._requests.search(plans)) if len(plans) else []

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """See `QdrantIndex.retrieve`."""
        return await follow_async(read_steps(self._requests.retrieve, ids), self._run)

    async def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """See `QdrantIndex.hashes`."""
        return await follow_async(read_steps(self._requests.hashes, ids), self._run)

    async def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """See `QdrantIndex.page`."""
        return await follow_async(page_steps(self._requests, size, offset), self._run)

    async def scan(self, size: int = 4096) -> AsyncIterator[list[ItemId]]:
        """See `QdrantIndex.scan`."""
        offset: Any = None
        while True:
            ids, offset = await self.page(size, offset)
            if ids:
                yield ids
            if offset is None:
                return

    async def scroll(
        self, size: int = 1024, offset: Any = None, **options: Unpack[ScrollOptions]
    ) -> tuple[list[Record], Any]:
        """See `QdrantIndex.scroll`."""
        return await follow_async(scroll_steps(self._requests, size, offset, options), self._run)

    async def scan_records(self, size: int = 1024, **options: Unpack[ScrollOptions]) -> AsyncIterator[list[Record]]:
        """See `QdrantIndex.scan_records`."""
        offset: Any = None
        while True:
            records, offset = await self.scroll(size, offset, **options)
            if records:
                yield records
            if offset is None:
                return

    async def optimize(self, patience: float | None = None) -> None:
        """See `QdrantIndex.optimize`."""
        await follow_async(optimise_steps(self._requests, self._collection, patience), self._run)

    async def close(self) -> None:
        """Close the client if this index owns it."""
        if self._owns_client:
            await self._connection.client.close()

    async def _run(self, call: Call[T]) -> T:
        return await follow_async(
            watched_steps(self._requests, self._watch, call),
            lambda each: run_call_async(self._connection.client, self._collection, each),
        )


def _is_local(client: AsyncQdrantClient) -> bool:
    return Transport.of(client.init_options).kind == "local"
