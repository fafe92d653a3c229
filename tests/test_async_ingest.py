"""Ingestion and sync into an async index: run_async result as the sync index, without blocking the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, QdrantIndex, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.index.qdrant.blocking import BlockingIndex
from compressae_qdrant.ingestion.aio import ingest_async, sync_async
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

from .support.sink import Sink, serving


@pytest.fixture
def catalog(tmp_path: Path, embeddings: FloatArray) -> Path:
    np.save(tmp_path / "x.npy", embeddings[:200])
    return tmp_path / "x.npy"


def test_async_ingest_and_sync_give_the_same_index(catalog: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    with QdrantIndex.create(QdrantClient(":memory:"), "items", model, owns_client=True) as index:
        ingest(open_source(catalog), model, index, batch_size=64)
        expected = [record.values.tobytes() for record in index.retrieve(range(200))]

    async def run_async() -> list[bytes]:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        report = await ingest_async(open_source(catalog), model, index, batch_size=64)
        assert (report.items, await index.count()) == (200, 200)
        np.save(catalog, embeddings[:190])
        synced = await sync_async(open_source(catalog), model, index)
        assert (synced.changed, synced.deleted) == (190, 10)
        np.save(catalog, embeddings[:200])
        assert (await sync_async(open_source(catalog), model, index)).added == 10
        values = [record.values.tobytes() for record in await index.retrieve(range(200))]
        await client.close()
        return values

    assert asyncio.run(run_async()) == expected


def test_a_blocking_index_is_a_code_index(catalog: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    (plan,) = QueryPlanner(model).plans(embeddings[0], search_settings(limit=3))

    def use(index: CodeIndex) -> list[Any]:
        with index:
            index.upsert(range(50), model.encode(embeddings[:50]))
            index.delete([49])
            index.flush()
            pages = [len(page) for page in index.scan(20)]
            return [index.search(plan)[0].id, index.search_batch([plan])[0][0].id, index.info().items, index.count(),
                    index.latents, index.journal, index.parallel_upserts, pages]  # fmt: skip

    async def run() -> list[Any]:
        client = AsyncQdrantClient(":memory:")
        index = BlockingIndex(await AsyncQdrantIndex.create(client, "items", model), asyncio.get_running_loop())
        result = await asyncio.to_thread(use, index)
        await client.close()
        return result

    assert asyncio.run(run()) == [0, 0, 49, 49, 96, None, 1, [20, 20, 9]]


def test_a_cancelled_ingestion_stops_and_is_resumed(catalog: Path, tmp_path: Path, model: CompresSAE) -> None:
    sink = Sink()

    async def run(port: int) -> None:
        client = AsyncQdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
        index = await AsyncQdrantIndex.create(client, "items", model)
        task: asyncio.Task[Any]

        def cancel_at_the_second_batch(batch: Any) -> None:
            if batch.start == 20:
                loop.call_soon_threadsafe(task.cancel)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()

        loop = asyncio.get_running_loop()
        settings = {"journal": tmp_path / "journal", "batch_size": 20}
        task = asyncio.ensure_future(
            ingest_async(open_source(catalog), model, index, on_batch=cancel_at_the_second_batch, **settings)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(sink.points) < 200
        report = await ingest_async(open_source(catalog), model, index, **settings)
        assert report.rows == 200
        await client.close()

    with serving(sink) as port:
        asyncio.run(run(port))
    assert sorted(sink.points) == list(range(200))
