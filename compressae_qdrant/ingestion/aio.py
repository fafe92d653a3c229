"""ingest() and sync() for an `AsyncQdrantIndex`: the same code runs in a thread, its requests on the event loop.

Encoding keeps a core busy for seconds, so it must not run on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from ..index import AsyncQdrantIndex
from ..index.protocol import CodeIndex
from ..index.qdrant.blocking import BlockingIndex
from ..model.compressae import CompresSAE
from ..sources import Source
from .ingest import IngestReport, ingest
from .sync import SyncReport, sync

__all__ = ["ingest_async", "sync_async"]

T = TypeVar("T")


async def ingest_async(source: Source, model: CompresSAE, index: AsyncQdrantIndex, **settings: Any) -> IngestReport:
    """`ingest` into an async index. `on_batch` is called in the thread that encodes.

    When cancelled, it starts no further request and waits for the running ones. It can be resumed as `ingest` can.

    Args:
        source: the catalog.
        model: encodes the embeddings.
        index: an index for codes of this model.
        **settings: keyword arguments of `ingest`.
    """
    return await _in_thread(index, lambda blocking: ingest(source, model, blocking, **settings))


async def sync_async(source: Source, model: CompresSAE, index: AsyncQdrantIndex, **settings: Any) -> SyncReport:
    """`sync` into an async index; arguments as in `ingest_async`, settings as in `sync`."""
    return await _in_thread(index, lambda blocking: sync(source, model, blocking, **settings))


async def _in_thread(index: AsyncQdrantIndex, work: Callable[[CodeIndex], T]) -> T:
    blocking = BlockingIndex(index, asyncio.get_running_loop())
    task = asyncio.ensure_future(asyncio.to_thread(work, blocking))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        blocking.stop()
        await asyncio.wait([task])
        raise
