"""Operations on a catalog in service: deploy and rollback by alias, migrate, sync, tenants, commands, async."""

from __future__ import annotations

import asyncio
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    Hit,
    IndexSettings,
    QdrantIndex,
    Retriever,
    open_source,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import collection_of, deploy, drop_previous, rollback
from compressae_qdrant.errors import IndexNotFoundError, ModelMismatchError
from compressae_qdrant.ingestion.aio import ingest_async, sync_async
from compressae_qdrant.ingestion.migrate import add_codes
from compressae_qdrant.ingestion.sync import sync
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.alias_retriever import AliasRetriever
from compressae_qdrant.sources import QdrantSource
from tests.support.shell import Shell

from .backends import remove
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


def test_deploy_rollback_and_drop(client: QdrantClient, name: str, catalog: Path, x: FloatArray) -> None:
    old, new = _model(0), _model(1)
    first = deploy(open_source(catalog), old, client, name, min_recall=0.1)
    live = AliasRetriever(client, name, [old, new], refresh_seconds=0)
    before = [hit.id for hit in live.search(x[5], 5)]
    second = deploy(open_source(catalog), new, client, name, live_model=old, min_recall=0.1, tolerance=0.9)
    assert (second.items, second.previous, live.search(x[5], 1)[0].id) == (400, first.collection, 5)
    assert live.collection == second.collection == collection_of(client, name)
    rollback(client, name)
    assert [hit.id for hit in live.search(x[5], 5)] == before
    assert drop_previous(client, name) == second.collection


def test_each_query_during_a_switch_uses_one_index(
    client: QdrantClient, name: str, catalog: Path, x: FloatArray
) -> None:
    old, new = _model(0), _model(1)
    deploy(open_source(catalog), old, client, name, min_recall=0.1)
    second = deploy(open_source(catalog), new, client, name, min_recall=0.1)
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


def test_codes_in_place(client: QdrantClient, name: str, x: FloatArray) -> None:
    params = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config={"text": params}, metadata={"theirs": 1})
    points = [models.PointStruct(id=n, vector={"text": row.tolist()}, payload={"_id": "x", "n": n})
              for n, row in enumerate(x)]  # fmt: skip
    client.upsert(name, points, wait=True)
    model = _model(0)
    assert (add_codes(client, name, "text", model, batch_size=100).encoded, client.count(name).count) == (400, 400)
    index = QdrantIndex.open(client, name, model)
    assert index.retrieve([9])[0].payload == {"_id": "x", "n": 9}
    assert Retriever(model, index).search(x[9], 1)[0].id == 9
    assert client.get_collection(name).config.metadata["theirs"] == 1  # type: ignore[index]  # it was given
    assert add_codes(client, name, "text", model).encoded == 0
    client.upsert(name, [points[7]], wait=True)  # as a whole, so without its code
    assert [record.id for record in index.retrieve([6, 7])] == [6]
    assert add_codes(client, name, "text", model).encoded == 1
    if not isinstance(client._client, QdrantLocal):  # which raises a KeyError
        index.upsert([3, 10**9], model.encode(x[:2]))  # a deleted point is skipped
    assert client.count(name).count == 400


def test_only_new_leaves_existing_items_unchanged(client: QdrantClient, name: str, x: FloatArray) -> None:
    model = _model(0)
    index = QdrantIndex.create(client, name, model)
    index.upsert([1], model.encode(x[:1]), [{"by": "someone else"}])
    index.only_new().upsert([1, 2], model.encode(x[1:3]), [{"by": "us"}, {"by": "us"}])
    assert [record.payload["by"] for record in index.retrieve([1, 2])] == ["someone else", "us"]


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_a_tenant_finds_its_own_items_only(client: QdrantClient, name: str, x: FloatArray) -> None:
    model = _model(0)
    index = QdrantIndex.create(client, name, model, IndexSettings(tenant_field="shop"))
    index.upsert(range(len(x)), model.encode(x), [{"shop": "ab"[n % 2]} for n in range(len(x))])
    mine = Retriever(model, index, tenant="a")
    assert {int(hit.id) % 2 for hit in mine.search(x[1], 50)} == {0}
    with pytest.raises(IndexNotFoundError):
        mine.similar_to(1)
    if not isinstance(client._client, QdrantLocal):
        schema = client.get_collection(name).payload_schema["shop"]
        assert schema.params is not None
        assert schema.params.is_tenant is True  # type: ignore[union-attr]  # of a keyword


def test_an_index_opened_by_an_alias_stays_with_its_collection(
    client: QdrantClient, name: str, catalog: Path, x: FloatArray
) -> None:
    old, new = _model(0), _model(1)
    first = deploy(open_source(catalog), old, client, name, min_recall=0.1)
    opened = QdrantIndex.open(client, name, old)
    second = deploy(open_source(catalog), new, client, name, min_recall=0.1)
    assert (opened.collection, opened.count()) == (first.collection, 400)
    assert QdrantIndex.open(client, name, new).collection == second.collection
    with pytest.raises(ModelMismatchError):
        QdrantIndex.open(client, name, old)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize("grpc", [False, True])
def test_the_commands_on_a_server(
    server: Server, catalog: Path, x: FloatArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], grpc: bool,
) -> None:  # fmt: skip
    if grpc:
        server.require_grpc()
    shell, name = Shell(monkeypatch, capsys), f"test-{uuid.uuid4().hex}"
    for seed in (0, 1):
        _model(seed).save(tmp_path / f"model-{seed}")
    root = server.location(grpc=grpc)
    model = f"--model {tmp_path}/model-0"
    try:
        line = f"{catalog} {model} --index {root}/{name} --journal {tmp_path}/journal"
        assert shell.json(f"ingest {line}")["in_index"] == 400
        np.save(catalog, x[:390])
        assert shell.json(f"sync {catalog} {model} --index {root}/{name}")["deleted"] == 10
        found = shell.json(f"search 5 --like {model} --index {root}/{name} --limit 3")
        assert len(found) == 3
        deployed = [shell.json(f"deploy {catalog} --model {tmp_path}/model-{seed} --alias {root}/{name}-live "
                               "--min-recall 0.1")["collection"] for seed in (0, 1)]  # fmt: skip
        back = shell.json(f"rollback --alias {root}/{name}-live")
        assert [back["live"], back["previous"]] == deployed
        assert shell.json(f"rollback --alias {root}/{name}-live --drop-previous")["dropped"] == deployed[1]
        assert shell.json(f"info --index {root}/{name}-live")["index"]["items"] == 390
    finally:
        client = server.client(grpc=grpc)
        remove(client, name)
        client.close()


@pytest.mark.parametrize("grpc", [False, True])
def test_async_on_a_server(server: Server, x: FloatArray, catalog: Path, grpc: bool) -> None:
    if grpc:
        server.require_grpc()
    model, name = _model(0), f"test-{uuid.uuid4().hex}"

    async def search() -> list[list[Hit]]:
        client = server.async_client(grpc=grpc)
        try:
            index = await AsyncQdrantIndex.create(client, name, model)
            assert (await ingest_async(open_source(catalog), model, index, batch_size=100)).items == len(x)
            assert (await sync_async(open_source(catalog), model, index)).changed == len(x)
            assert (await sync_async(open_source(catalog), model, index)).unchanged == len(x)
            retriever = AsyncRetriever(model, index, in_flight=4)
            queries = (retriever.search(row, 3, prefetch=len(x), exact=True) for row in x[:40])
            return await asyncio.gather(*queries)
        finally:
            await client.delete_collection(name)
            await client.close()

    scores = _scores(model, x[:40], x)
    for hits, expected in zip(asyncio.run(search()), scores, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(expected)[::-1][:3], atol=2e-5)
        np.testing.assert_allclose([hit.score for hit in hits], expected[[int(hit.id) for hit in hits]], atol=2e-5)


def _scores(model: CompresSAE, queries: FloatArray, items: FloatArray) -> FloatArray:
    """(q, n) scores by brute force: each query's projection on the atoms times each item's stored code."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    atoms = model.atoms.detach().cpu().numpy()
    codes = model.encode(items, scale=IndexSettings.scale).to_csr().toarray()
    return np.asarray(unit @ atoms.T @ codes.T, np.float32)
