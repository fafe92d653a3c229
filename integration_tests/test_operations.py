"""What keeps a catalog in service: deploy and rollback by alias, migrate, sync, keys, restarts, async."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    QdrantIndex,
    Retriever,
    open_source,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import collection_of, deploy, drop_previous, rollback
from compressae_qdrant.following import AliasRetriever
from compressae_qdrant.model import ModelConfig
from compressae_qdrant.sources import QdrantSource
from compressae_qdrant.syncing import sync

from .containers import Server

DIM = 24


@pytest.fixture(scope="module")
def x() -> FloatArray:
    random = np.random.default_rng(0)
    centres = random.normal(size=(30, DIM))
    return np.asarray(centres[random.integers(0, 30, 400)] + 0.4 * random.normal(size=(400, DIM)), np.float32)


def _model(seed: int) -> CompresSAE:
    return CompresSAE(ModelConfig(DIM, 96, 6), seed=seed)


@pytest.fixture
def catalog(tmp_path: Path, x: FloatArray) -> Path:
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


@pytest.fixture
def name(client: QdrantClient) -> Iterator[str]:
    """A free name; every collection that begins with it is removed at the end."""
    prefix = f"test-{uuid.uuid4().hex}"
    yield prefix
    for each in client.get_collections().collections:
        if each.name.startswith(prefix):
            client.delete_collection(each.name)


def test_deploy_rollback_and_drop(client: QdrantClient, name: str, catalog: Path, x: FloatArray) -> None:
    old, new = _model(0), _model(1)
    first = deploy(open_source(catalog), old, client, name, least_recall=0.1)
    live = AliasRetriever(client, name, [old, new], refresh_seconds=0)
    before = [hit.id for hit in live.search(x[5], 5)]
    second = deploy(open_source(catalog), new, client, name, live_model=old, least_recall=0.1, tolerance=0.9)
    assert (second.items, second.previous, live.search(x[5], 1)[0].id) == (400, first.collection, 5)
    assert live.collection == second.collection == collection_of(client, name)
    rollback(client, name)
    assert [hit.id for hit in live.search(x[5], 5)] == before
    assert drop_previous(client, name) == second.collection


def test_queries_during_a_switch_see_one_whole_index(
    client: QdrantClient, name: str, catalog: Path, x: FloatArray
) -> None:
    old, new = _model(0), _model(1)
    deploy(open_source(catalog), old, client, name, least_recall=0.1)
    second = deploy(open_source(catalog), new, client, name, least_recall=0.1)
    wanted = {
        tuple(
            hit.id for hit in Retriever(model, QdrantIndex.open(client, f"{name}-{model.fingerprint}")).search(x[7], 5)
        )
        for model in (old, new)
    }
    live = AliasRetriever(client, name, [old, new], refresh_seconds=0)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            rollback(client, name)

    flipping = threading.Thread(target=flip)
    flipping.start()
    try:
        seen = {tuple(hit.id for hit in live.search(x[7], 5)) for _ in range(60)}
    finally:
        stop.set()
        flipping.join()
    assert seen <= wanted
    assert second.items == 400


def test_migrate_then_sync(client: QdrantClient, name: str, x: FloatArray) -> None:
    params = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    client.create_collection(f"{name}-dense", vectors_config={"text": params})
    points = [models.PointStruct(id=n, vector={"text": row.tolist()}, payload={"n": n}) for n, row in enumerate(x)]
    client.upsert(f"{name}-dense", points, wait=True)
    source, model = QdrantSource(client, f"{name}-dense", "text"), _model(0)
    index = QdrantIndex.create(client, f"{name}-codes", model)
    assert sync(source, model, index, batch_size=100).added == 400
    assert index.retrieve([9])[0].payload == {"n": 9}
    client.delete(f"{name}-dense", models.PointIdsList(points=[1, 2, 3]), wait=True)
    client.upsert(f"{name}-dense", [models.PointStruct(id=7, vector={"text": (-x[7]).tolist()})], wait=True)
    report = sync(source, model, index, batch_size=100)
    assert (report.added, report.changed, report.unchanged, report.deleted) == (0, 1, 396, 3)
    assert index.count() == 397


@pytest.mark.parametrize("grpc", [False, True])
def test_async_on_a_server(server: Server, x: FloatArray, grpc: bool) -> None:
    model, name = _model(0), f"test-{uuid.uuid4().hex}"

    async def ask() -> list[list[int | str]]:
        client = server.async_client(grpc=grpc)
        try:
            index = await AsyncQdrantIndex.create(client, name, model)
            await index.upsert(range(len(x)), model.encode(x))
            retriever = AsyncRetriever(model, index, in_flight=4)
            found = await asyncio.gather(*(retriever.search(row, 3) for row in x[:40]))
            return [[hit.id for hit in hits] for hits in found]
        finally:
            await client.delete_collection(name)
            await client.close()

    assert [hits[0] for hits in asyncio.run(ask())] == list(range(40))
