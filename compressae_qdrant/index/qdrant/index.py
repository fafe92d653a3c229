"""QdrantIndex and AsyncQdrantIndex: codes in a collection of a Qdrant server.

Both only make the calls of `requests` and follow `steps`.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from ...codes import SparseCodes
from ...telemetry import operation
from ..manifest import Described, Manifest
from ..plan import QueryPlan
from ..protocol import CodeModel, all_pages
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from ..settings import IndexSettings, ShardKey
from .calls import Call, Transport
from .errors import client_errors
from .requests import Requests
from .steps import (
    adopting,
    creating,
    follow,
    follow_async,
    opening,
    until_optimised,
    upserting,
)

__all__ = ["AsyncQdrantIndex", "QdrantIndex", "run_call"]

T = TypeVar("T")

_PARALLEL_UPSERTS: Final = 4
_PATIENCE_SECONDS: Final = 3600.0
"""Without any change: one large segment may take that long."""


class _Collection(Described):
    """What the sync and the async index have in common: everything but the talking."""

    def __init__(self, options: Mapping[str, Any], collection: str, manifest: Manifest) -> None:
        self._collection = collection
        self._manifest = manifest
        self._transport = Transport.of(options)
        self._requests = Requests(collection, manifest, self._transport)

    @property
    def collection(self) -> str:
        """Name of the collection itself, also where it was opened by an alias."""
        return self._collection

    @property
    def parallel_upserts(self) -> int:
        """4 on a server; 1 in the client's local mode, which runs in this process."""
        return 1 if self._transport.kind == "local" else _PARALLEL_UPSERTS

    def of_shard(self, shard_key: ShardKey) -> Self:
        """This index seen through one shard key: writes, searches, counts and scans are of that part alone.

        Raises:
            ConfigError: the collection has no such shard key.
        """
        part = copy.copy(self)
        part._requests = self._requests.of_shard(shard_key)
        return part

    def only_new(self) -> Self:
        """This index, but `upsert` leaves items that are there as they are: for filling it beside someone who writes
        newer ones (Qdrant 1.17 or newer; an older one replaces them)."""
        part = copy.copy(self)
        part._requests = self._requests.only_new()
        return part

    @property
    def journal(self) -> Path | None:
        """None: a server has no place for an ingestion's notes; give `ingest` a file."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._collection!r}, model={self.fingerprint!r})"


class QdrantIndex(_Collection):
    """Codes in a collection of a Qdrant server (1.15.5 or newer). Make one by `create` or `open`.

    The client brings address, key, TLS, timeouts and the choice of REST or gRPC. It stays the caller's: `close` closes
    it only if told so at `create` or `open`.
    """

    def __init__(self, client: QdrantClient, collection: str, manifest: Manifest, owns_client: bool = False) -> None:
        super().__init__(client.init_options, collection, manifest)
        self._client = client
        self._owns_client = owns_client

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        *,
        owns_client: bool = False,
    ) -> Self:
        """Make an empty collection for the codes of `model`, whole or not at all.

        Raises:
            IndexExistsError: there is a collection of this name.
            IndexUnavailableError: the server can't be reached.
            CodeIndexError: the server refuses.
        """
        manifest = Manifest.of(model, settings)
        follow(creating(collection, manifest), lambda call: run_call(client, collection, call))
        return cls(client, collection, manifest, owns_client)

    @classmethod
    def adopt(
        cls,
        client: QdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        *,
        owns_client: bool = False,
    ) -> Self:
        """Add a vector for the codes of `model` to a collection that is there, beside its own (Qdrant 1.18 or newer).

        Its points, payloads and other vectors stay whose they are: `upsert` only gives codes to points that are there,
        without payloads, and `delete` is refused. Done again, it opens what was adopted before.

        Raises:
            IndexNotFoundError: there is no such collection.
            ModelMismatchError: it has the codes of another model.
            CodeIndexError: the server refuses, or the collection is an index of this package.
        """
        manifest = Manifest.of(model, settings, adopted=True)
        follow(adopting(collection, manifest), lambda call: run_call(client, collection, call))
        return cls(client, collection, manifest, owns_client)

    @classmethod
    def open(
        cls, client: QdrantClient, collection: str, model: CodeModel | None = None, *, owns_client: bool = False
    ) -> Self:
        """Open a collection, by its name or an alias; with `model`, only if it holds the codes of that model.

        An alias is followed once, here: later switches don't concern this index. `AliasRetriever` follows them.

        Raises:
            IndexNotFoundError: there is none, or it was not made by this package.
            ModelMismatchError: it holds the codes of another model.
            IndexUnavailableError: the server can't be reached.
        """
        found, manifest = follow(opening(collection, model), lambda call: run_call(client, collection, call))
        return cls(client, found, manifest, owns_client)

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items. All of the batch is checked before any of it is sent.

        Raises:
            InvalidInputError: ids, codes or payloads are unusable; see `points.check_batch`.
        """
        follow(upserting(self._requests, ids, codes, payloads, dense, hashes), self._run)

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Remove items; ids that are not there are ignored."""
        self._run(self._requests.delete(ids))

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match; not `exact` is the server's estimate."""
        return self._run(self._requests.count(filter, exact=exact))

    def info(self) -> IndexInfo:
        """Size, state and settings. A server doesn't tell bytes."""
        return self._run(self._requests.info(self.count()))

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first, in one call."""
        return self._run(self._requests.search([plan]))[0]

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order, in one call."""
        return self._run(self._requests.search(plans)) if plans else []

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order asked for; those that are not there are left out."""
        return self._run(self._requests.retrieve(ids))

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" where an item was stored without one, None where there is no such item."""
        return self._run(self._requests.hashes(ids))

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset; None is the first, and after the last."""
        return self._run(self._requests.scan(size, offset))

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""
        return all_pages(self.page, size)

    def optimize(self, patience: float = _PATIENCE_SECONDS) -> None:
        """Wait until the server's optimisers have nothing left to do. It is logged every ten seconds what they are at.

        Raises:
            CodeIndexError: they failed, or have come no further for `patience` seconds.
        """
        follow(until_optimised(self._requests, self._collection, patience), self._run)

    def flush(self) -> None:
        """Nothing is left to do: every upsert waits until the server has it in its log."""

    def close(self) -> None:
        """Close the client if this index owns it."""
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        return run_call(self._client, self._collection, call)


class AsyncQdrantIndex(_Collection):
    """`QdrantIndex` for an `AsyncQdrantClient`: the same methods, awaited."""

    def __init__(self, client: AsyncQdrantClient, collection: str, manifest: Manifest) -> None:
        super().__init__(client.init_options, collection, manifest)
        self._client = client

    @classmethod
    async def create(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    ) -> Self:
        """See `QdrantIndex.create`."""
        manifest = Manifest.of(model, settings)
        await follow_async(creating(collection, manifest), lambda call: _run_async(client, collection, call))
        return cls(client, collection, manifest)

    @classmethod
    async def adopt(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    ) -> Self:
        """See `QdrantIndex.adopt`."""
        manifest = Manifest.of(model, settings, adopted=True)
        await follow_async(adopting(collection, manifest), lambda call: _run_async(client, collection, call))
        return cls(client, collection, manifest)

    @classmethod
    async def open(cls, client: AsyncQdrantClient, collection: str, model: CodeModel | None = None) -> Self:
        """See `QdrantIndex.open`."""
        steps = opening(collection, model)
        found, manifest = await follow_async(steps, lambda call: _run_async(client, collection, call))
        return cls(client, found, manifest)

    async def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """See `QdrantIndex.upsert`."""
        await follow_async(upserting(self._requests, ids, codes, payloads, dense, hashes), self._run)

    async def delete(self, ids: Sequence[ItemId]) -> None:
        """See `QdrantIndex.delete`."""
        await self._run(self._requests.delete(ids))

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """See `QdrantIndex.count`."""
        return await self._run(self._requests.count(filter, exact=exact))

    async def info(self) -> IndexInfo:
        """See `QdrantIndex.info`."""
        return await self._run(self._requests.info(await self.count()))

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """See `QdrantIndex.search`."""
        return (await self._run(self._requests.search([plan])))[0]

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """See `QdrantIndex.search_batch`."""
        return await self._run(self._requests.search(plans)) if plans else []

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """See `QdrantIndex.retrieve`."""
        return await self._run(self._requests.retrieve(ids))

    async def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """See `QdrantIndex.hashes`."""
        return await self._run(self._requests.hashes(ids))

    async def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """See `QdrantIndex.page`."""
        return await self._run(self._requests.scan(size, offset))

    async def scan(self, size: int = 4096) -> AsyncIterator[list[ItemId]]:
        """See `QdrantIndex.scan`."""
        offset: Any = None
        while True:
            found, offset = await self.page(size, offset)
            if found:
                yield found
            if offset is None:
                return

    async def optimize(self, patience: float = _PATIENCE_SECONDS) -> None:
        """See `QdrantIndex.optimize`."""
        await follow_async(until_optimised(self._requests, self._collection, patience), self._run)

    async def _run(self, call: Call[T]) -> T:
        return await _run_async(self._client, self._collection, call)


def run_call(client: QdrantClient, collection: str, call: Call[T]) -> T:
    with operation("qdrant", call.doing.split()[0], collection), client_errors(call.doing, collection):
        answer: Any = attrgetter(call.method)(client)(**call.arguments)
    return call.parse(answer)


async def _run_async(client: AsyncQdrantClient, collection: str, call: Call[T]) -> T:
    with operation("qdrant", call.doing.split()[0], collection), client_errors(call.doing, collection):
        answer: Any = await attrgetter(call.method)(client)(**call.arguments)
    return call.parse(answer)
