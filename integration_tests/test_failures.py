"""Failures of real servers: API keys, restarts, broken connections, a lost node of a cluster."""

from __future__ import annotations

import re
import threading
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, Retriever, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, IngestError
from compressae_qdrant.index.retry import RetryPolicy
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.alias_retriever import AliasRetriever
from compressae_qdrant.sources import Batch
from tests.support.fault_proxy import faulty

from .containers import Server, cluster, container

DIM, ITEMS = 24, 20_000
PATIENT = RetryPolicy(attempts=20, first_seconds=0.5, longest_seconds=5)


@pytest.fixture(scope="module")
def model() -> CompresSAE:
    return CompresSAE(ModelConfig(DIM, 96, 6), seed=0)


@pytest.fixture(scope="module")
def x() -> FloatArray:
    return np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, x: FloatArray) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "x.npy"
    np.save(path, x)
    return path


def _assert_all_in(index: QdrantIndex, model: CompresSAE, x: FloatArray, every: int = 97) -> None:
    assert index.count() == len(x)
    rows = range(0, len(x), every)
    wanted = model.encode(x[::every], scale="projection")
    records = index.retrieve(rows)
    assert [record.id for record in records] == list(rows)
    for number, record in enumerate(records):
        indices, values = wanted.row(number)
        np.testing.assert_array_equal(record.indices, indices)
        np.testing.assert_array_equal(record.values, values)


@pytest.mark.parametrize("grpc", [False, True])
def test_keys(model: CompresSAE, catalog: Path, x: FloatArray, grpc: bool) -> None:
    keys = {"QDRANT__SERVICE__API_KEY": "key-that-writes", "QDRANT__SERVICE__READ_ONLY_API_KEY": "key-that-reads"}
    with container(keys) as started:
        where = started.server()
        writer, reader, stranger = (
            where.client(grpc=grpc, key=key) for key in ("key-that-writes", "key-that-reads", "key-of-a-stranger")
        )
        index = QdrantIndex.create(writer, "items", model)
        index.upsert(range(100), model.encode(x[:100]))
        seen = QdrantIndex.open(reader, "items", model)
        assert Retriever(model, seen).search(x[3], 1)[0].id == 3
        create = models.CreateAlias(collection_name="items", alias_name="live")
        writer.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        assert AliasRetriever(reader, "live", [model]).search(x[3], 1)[0].id == 3
        with pytest.raises(CodeIndexError, match="check the API key") as to_delete:
            seen.delete([3])
        with pytest.raises(CodeIndexError, match="check the API key") as to_write:
            seen.upsert([3], model.encode(x[:1]))
        with pytest.raises(CodeIndexError, match="check the API key") as to_open:
            QdrantIndex.open(stranger, "items")
        assert not [caught for caught in (to_delete, to_write, to_open) if "key-" in str(caught.value)]
        assert index.count() == 100
        for client in (writer, reader, stranger):
            client.close()


@pytest.mark.parametrize("grpc", [False, True])
def test_a_restart_in_the_middle_of_an_ingestion(model: CompresSAE, catalog: Path, x: FloatArray, grpc: bool) -> None:
    with container(fixed_ports=True) as started:
        client = started.server().client(grpc=grpc, timeout=10)
        index = QdrantIndex.create(client, "items", model)
        starting = threading.Thread(target=started.start)

        def restart_once(batch: Batch) -> None:
            if batch.start == 4_000:  # other requests are under way
                started.kill()
                starting.start()

        report = ingest(open_source(catalog), model, index, batch_size=200, method="encoder", retry=PATIENT,
                        on_batch=restart_once)  # fmt: skip
        starting.join()
        assert report.items == ITEMS
        assert index.count() == ITEMS
        wanted = model.encode(x[::500], "encoder", scale="projection")
        for row, record in enumerate(index.retrieve(range(0, ITEMS, 500))):
            np.testing.assert_array_equal(record.values, wanted.values[row])
        client.close()


@pytest.mark.parametrize("seed", range(3))
def test_broken_connections_lose_no_items(server: Server, model: CompresSAE, tmp_path: Path, seed: int) -> None:
    where = urlsplit(server.url)
    if where.scheme != "http" or not where.hostname:
        pytest.skip("the fault proxy passes plain HTTP on, and QDRANT_URL is not that")
    x = np.random.default_rng(seed).normal(size=(600, DIM)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    name = f"test-{uuid.uuid4().hex}"
    direct = server.client(grpc=False)
    index = QdrantIndex.create(direct, name, model)
    quick = RetryPolicy(attempts=4, first_seconds=0.01, longest_seconds=0.05)
    try:
        with faulty(where.port or 6333, seed, 0.3, where.hostname) as (port, struck):
            through = Server(f"http://127.0.0.1:{port}", 0).client(grpc=False, timeout=5)
            for _ in range(30):
                try:
                    target = QdrantIndex(through, name, index._manifest, model=model)
                    ingest(
                        open_source(tmp_path / "x.npy"), model, target, journal=tmp_path / "journal", batch_size=20,
                        retry=quick,
                    )  # fmt: skip
                    break
                except IngestError as exc:
                    stopped = str(exc)
                    assert re.search(r"Rows before \d+ are|failed at rows 0-|All \d+ rows are", stopped)
            through.close()
        assert struck
        _assert_all_in(index, model, x, every=1)
    finally:
        direct.delete_collection(name)
        direct.close()


def test_a_cluster_loses_a_node_during_ingestion_and_search(model: CompresSAE, catalog: Path, x: FloatArray) -> None:
    with cluster() as nodes:
        first, last = nodes[0], nodes[-1]
        client = first.server().client(grpc=False, timeout=10)
        settings = IndexSettings(shards=6, replicas=2)
        index = QdrantIndex.create(client, "items", model, settings)
        index.upsert(range(100), model.encode(x[:100], "encoder", scale="projection"))
        retriever = Retriever(model, index)
        done, wrong, searches = threading.Event(), list[Any](), list[int]()

        def search() -> None:
            number = 0
            while not done.is_set():
                number = (number + 1) % 100
                code = model.encode(x[number : number + 1], "encoder", scale="projection")
                hits = PATIENT.run(lambda code=code: retriever.search(model.decode(code)[0], 5, exact=True))  # type: ignore[misc]  # bound at once
                if number not in [hit.id for hit in hits]:
                    wrong.append(number)
                searches.append(number)

        def lose_a_node(batch: Batch) -> None:
            if batch.start == 4_000:
                last.kill()

        searching = threading.Thread(target=search)
        searching.start()
        try:
            report = ingest(open_source(catalog), model, index, batch_size=200, method="encoder", retry=PATIENT,
                            on_batch=lose_a_node)  # fmt: skip
        finally:
            done.set()
            searching.join()
        assert (report.items, wrong) == (ITEMS, [])
        assert len(searches) > 10
        assert PATIENT.run(index.count) == ITEMS
        last.start()
        PATIENT.run(index.optimize)
        for node in nodes:  # each of them answers for the whole collection
            near = node.server().client(grpc=True, timeout=30)
            seen = PATIENT.run(lambda near=near: QdrantIndex.open(near, "items", model))  # type: ignore[misc]  # bound at once
            assert PATIENT.run(seen.count) == ITEMS
            near.close()
        client.close()


@pytest.mark.parametrize("grpc", [False, True])
def test_shard_keys_keep_items_apart(model: CompresSAE, x: FloatArray, grpc: bool) -> None:
    """Custom sharding needs a cluster, which may have a single node."""
    with cluster(nodes=1) as nodes:
        client: QdrantClient = nodes[0].server().client(grpc=grpc)
        index = QdrantIndex.create(client, "items", model, IndexSettings(shard_keys=["eu", "us"]))
        codes = model.encode(x[:20])
        for key, rows in (("eu", range(10)), ("us", range(10, 20))):
            index.of_shard(key).upsert(rows, codes[list(rows)])
        assert (index.count(), index.of_shard("eu").count()) == (20, 10)
        assert [item for page in index.of_shard("us").scan(4) for item in page] == list(range(10, 20))
        hits = Retriever(model, index.of_shard("eu")).search(x[15], 10)
        assert {hit.id for hit in hits} <= set(range(10))
        index.of_shard("us").delete([10, 11])
        assert index.count() == 18
        client.close()
