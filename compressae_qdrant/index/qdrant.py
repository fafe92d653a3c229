"""QdrantIndex and AsyncQdrantIndex: codes in a collection of a Qdrant server. Both only run the calls of `requests`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from ..codes import SparseCodes
from ..errors import CodeIndexError, IndexExistsError
from ..telemetry import operation
from .base import CodeModel, Hit, IndexInfo, IndexSettings, ItemId, Payload, QueryPlan, Record
from .manifest import Manifest
from .qdrant_errors import client_errors
from .requests import Call, Requests, Transport, create_call, exists_call, field_calls, manifest_call

__all__ = ["AsyncQdrantIndex", "QdrantIndex"]

T = TypeVar("T")

_POLL_SECONDS: Final = 0.2
_PARALLEL_UPSERTS: Final = 4
_OPTIMISE_SECONDS: Final = 3600.0


class _Collection:
    """What the sync and the async index have in common: everything but the talking."""

    def __init__(self, options: Mapping[str, Any], collection: str, manifest: Manifest) -> None:
        self._collection = collection
        self._manifest = manifest
        self._transport = Transport.of(options)
        self._requests = Requests(collection, manifest, self._transport)

    @property
    def collection(self) -> str:
        """Name of the collection, or of an alias of it."""
        return self._collection

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""
        return self._manifest.fingerprint

    @property
    def latents(self) -> int:
        """h of that model."""
        return self._manifest.latents

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""
        return self._manifest.settings

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
        """Make an empty collection for the codes of `model`. If its payload fields can't be indexed, it is removed.

        Raises:
            IndexExistsError: there is a collection of this name.
            IndexUnavailableError: the server can't be reached.
            CodeIndexError: the server refuses.
        """
        manifest = Manifest.of(model, settings)
        if _run(client, collection, exists_call(collection)):
            raise _exists(collection)
        _run(client, collection, create_call(collection, manifest))
        try:
            for call in field_calls(collection, settings):
                _run(client, collection, call)
        except CodeIndexError:
            client.delete_collection(collection)
            raise
        return cls(client, collection, manifest, owns_client)

    @classmethod
    def open(
        cls, client: QdrantClient, collection: str, model: CodeModel | None = None, *, owns_client: bool = False
    ) -> Self:
        """Open a collection, by its name or an alias; with `model`, only if it holds the codes of that model.

        Raises:
            IndexNotFoundError: there is none, or it was not made by this package.
            ModelMismatchError: it holds the codes of another model.
            IndexUnavailableError: the server can't be reached.
        """
        manifest = _run(client, collection, manifest_call(collection))
        manifest.check_model(model, f"collection {collection!r}")
        return cls(client, collection, manifest, owns_client)

    @property
    def parallel_upserts(self) -> int:
        """4 on a server; 1 in the client's local mode, which runs in this process."""
        return 1 if self._transport.kind == "local" else _PARALLEL_UPSERTS

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
        call = self._requests.upsert(ids, codes, payloads, dense, hashes)
        if call is not None:
            self._run(call)

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Remove items; ids that are not there are ignored."""
        self._run(self._requests.delete(ids))

    def count(self, filter: models.Filter | None = None) -> int:
        """Exact number of items, or of those that match."""
        return self._run(self._requests.count(filter))

    def info(self) -> IndexInfo:
        """Size, state and settings. A server doesn't tell bytes."""
        return self._run(self._requests.info(self.count(), self._collection))

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

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""
        offset: Any = None
        while True:
            found, offset = self._run(self._requests.scan(size, offset))
            if found:
                yield found
            if offset is None:
                return

    def optimize(self, timeout: float = _OPTIMISE_SECONDS) -> None:
        """Wait until the server's optimisers have nothing left to do, for at most `timeout` seconds.

        Raises:
            CodeIndexError: they are still at it by then, or failed.
        """
        deadline = time.monotonic() + timeout
        while not self._run(self._requests.is_optimised()):
            if time.monotonic() > deadline:
                raise _still_busy(self._collection, timeout)
            time.sleep(_POLL_SECONDS)

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
        return _run(self._client, self._collection, call)


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
        if await _run_async(client, collection, exists_call(collection)):
            raise _exists(collection)
        await _run_async(client, collection, create_call(collection, manifest))
        try:
            for call in field_calls(collection, settings):
                await _run_async(client, collection, call)
        except CodeIndexError:
            await client.delete_collection(collection)
            raise
        return cls(client, collection, manifest)

    @classmethod
    async def open(cls, client: AsyncQdrantClient, collection: str, model: CodeModel | None = None) -> Self:
        """See `QdrantIndex.open`."""
        manifest = await _run_async(client, collection, manifest_call(collection))
        manifest.check_model(model, f"collection {collection!r}")
        return cls(client, collection, manifest)

    async def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """See `QdrantIndex.upsert`."""
        call = self._requests.upsert(ids, codes, payloads, dense, hashes)
        if call is not None:
            await self._run(call)

    async def delete(self, ids: Sequence[ItemId]) -> None:
        """See `QdrantIndex.delete`."""
        await self._run(self._requests.delete(ids))

    async def count(self, filter: models.Filter | None = None) -> int:
        """See `QdrantIndex.count`."""
        return await self._run(self._requests.count(filter))

    async def info(self) -> IndexInfo:
        """See `QdrantIndex.info`."""
        return await self._run(self._requests.info(await self.count(), self._collection))

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """See `QdrantIndex.search`."""
        return (await self._run(self._requests.search([plan])))[0]

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """See `QdrantIndex.search_batch`."""
        return await self._run(self._requests.search(plans)) if plans else []

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """See `QdrantIndex.retrieve`."""
        return await self._run(self._requests.retrieve(ids))

    async def optimize(self, timeout: float = _OPTIMISE_SECONDS) -> None:
        """See `QdrantIndex.optimize`."""
        deadline = time.monotonic() + timeout
        while not await self._run(self._requests.is_optimised()):
            if time.monotonic() > deadline:
                raise _still_busy(self._collection, timeout)
            await asyncio.sleep(_POLL_SECONDS)

    async def _run(self, call: Call[T]) -> T:
        return await _run_async(self._client, self._collection, call)


def _run(client: QdrantClient, collection: str, call: Call[T]) -> T:
    with operation("qdrant", call.doing.split()[0], collection), client_errors(call.doing, collection):
        answer: Any = attrgetter(call.method)(client)(**call.arguments)
    return call.parse(answer)


async def _run_async(client: AsyncQdrantClient, collection: str, call: Call[T]) -> T:
    with operation("qdrant", call.doing.split()[0], collection), client_errors(call.doing, collection):
        answer: Any = await attrgetter(call.method)(client)(**call.arguments)
    return call.parse(answer)


def _exists(collection: str) -> IndexExistsError:
    return IndexExistsError(f"there is a collection {collection!r} already; open it, or choose another name")


def _still_busy(collection: str, timeout: float) -> CodeIndexError:
    return CodeIndexError(
        f"the optimisers of collection {collection!r} are still at work after {timeout:g} s; wait longer, or look at "
        "the server's load"
    )
