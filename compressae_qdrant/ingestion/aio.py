"""ingest() and sync() for an `AsyncQdrantIndex`: the same code in a thread, its calls on the caller's event loop.

Encoding takes a core for seconds, so it has no place on an event loop anyway.
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

    Cancelled, it begins no further request, waits for those under way, and is resumed as `ingest` is.

    Args:
        source: what to read.
        model: encodes the embeddings.
        index: an index of that model's codes.
        **settings: those of `ingest`.
    """
    return await _in_thread(index, lambda blocking: ingest(source, model, blocking, **settings))


async def sync_async(source: Source, model: CompresSAE, index: AsyncQdrantIndex, **settings: Any) -> SyncReport:
    """`sync` of an async index; arguments as of `ingest_async`."""
    return await _in_thread(index, lambda blocking: sync(source, model, blocking, **settings))


async def _in_thread(index: AsyncQdrantIndex, work: Callable[[CodeIndex], T]) -> T:
    blocking = BlockingIndex(index, asyncio.get_running_loop())
    running = asyncio.ensure_future(asyncio.to_thread(work, blocking))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        blocking.stop()
        await asyncio.wait([running])
        raise
