"""Loads whose index loses items: by a journal that no longer fits, or by a collection that is recreated meanwhile."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    CompresSAE,
    EdgeIndex,
    QdrantIndex,
    RetryPolicy,
    ingest,
    open_source,
    sync,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import deploy
from compressae_qdrant.errors import IndexReplacedError, IngestError, VerificationError
from compressae_qdrant.index import create_index, open_index
from compressae_qdrant.index.location import resolved_location
from compressae_qdrant.index.qdrant import steps
from compressae_qdrant.ingestion import ray as ray_module
from compressae_qdrant.ingestion.aio import ingest_async, sync_async
from compressae_qdrant.ingestion.loaded_files import LoadedFiles
from compressae_qdrant.ingestion.prepared import MAX_REQUEST_BYTES
from compressae_qdrant.model.config import ModelConfig

from .support.sink import Sink, serving

WAY_OUT = r"Use restart=True \(--restart\) to load every row again"


@pytest.fixture(scope="module")
def other() -> CompresSAE:
    return CompresSAE(ModelConfig(24, 96, 6), seed=77)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    local = QdrantClient(":memory:")
    yield local
    local.close()


@pytest.fixture
def catalog(tmp_path: Path, embeddings: FloatArray) -> Path:
    np.save(tmp_path / "catalog.npy", embeddings[:300])
    return tmp_path / "catalog.npy"


def _load(
    catalog: Path, model: CompresSAE, index: Any, journal: Path, rows: int | None = None, *, restart: bool = False
) -> int:
    """Load a catalog, up to an interruption after some rows; the items written."""

    def stop(batch: Any) -> None:
        if rows is not None and batch.stop >= rows:
            raise KeyboardInterrupt

    try:
        return ingest(
            open_source(catalog), model, index, journal=journal, batch_size=50, on_batch=stop, restart=restart
        ).items
    except KeyboardInterrupt:
        return rows or 0


@pytest.mark.parametrize("rows", [200, None])
def test_a_journal_whose_items_are_gone_is_refused(
    rows: int | None, client: QdrantClient, model: CompresSAE, catalog: Path, tmp_path: Path
) -> None:
    index, journal = QdrantIndex.create(client, "items", model), tmp_path / "journal"
    _load(catalog, model, index, journal, rows)
    index.delete(range(150, 180))  # as after the restoration of an older snapshot
    says = f"journal {journal} says that the rows before {rows or 300} are in the index, but"
    with pytest.raises(
        IngestError, match=rf"{says} .*(sampled items are not in|holds 270 items, and it held 300).*{WAY_OUT}"
    ):
        _load(catalog, model, index, journal)
    index.upsert(range(1000, 1400), model.encode(np.ones((400, 24))))  # as many items, but others
    with pytest.raises(IngestError, match=rf"{says} \d+ of \d+ sampled items are not in the index.*{WAY_OUT}"):
        _load(catalog, model, index, journal)
    report = ingest(open_source(catalog), model, index, journal=journal, trust_journal=True)
    assert (report.resumed_from, report.items) == (rows or 300, 300 - (rows or 300))
    assert _load(catalog, model, index, journal) == 0  # what is gone on purpose is not asked for again
    assert _load(catalog, model, index, journal, restart=True) == 300
    assert len(index.retrieve(range(300))) == 300
    assert _load(catalog, model, index, journal) == 0


def test_a_journal_of_an_empty_index_starts_anew_and_says_so(
    client: QdrantClient, model: CompresSAE, catalog: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = QdrantIndex.create(client, "items", model)
    _load(catalog, model, index, tmp_path / "journal")
    index.delete(range(300))
    with caplog.at_level(logging.WARNING):
        assert _load(catalog, model, index, tmp_path / "journal") == 300
    assert "says that the rows before 300 are in the index, but the index is empty; every row is loaded" in caplog.text


def test_a_journal_of_another_index_of_the_same_name_is_refused(
    client: QdrantClient, model: CompresSAE, catalog: Path, tmp_path: Path
) -> None:
    _load(catalog, model, QdrantIndex.create(client, "items", model), tmp_path / "journal", 200)
    client.delete_collection("items")
    index = QdrantIndex.create(client, "items", model)
    _load(catalog, model, index, tmp_path / "elsewhere")
    with pytest.raises(IngestError, match=f"but the index was created again since.*{WAY_OUT}"):
        _load(catalog, model, index, tmp_path / "journal")


def test_a_journal_of_an_embedded_index_is_compared_too(model: CompresSAE, catalog: Path, tmp_path: Path) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        _load(catalog, model, index, index.journal)
        index.delete([5])
        with pytest.raises(IngestError, match=f"holds 299 items, and it held 300.*{WAY_OUT}"):
            _load(catalog, model, index, index.journal)


def _recreate(client: QdrantClient, model: CompresSAE | None) -> None:
    client.delete_collection("items")
    if model is None:
        client.create_collection("items", vectors_config=models.VectorParams(size=24, distance=models.Distance.DOT))
    else:
        QdrantIndex.create(client, "items", model).upsert([7000], model.encode(np.ones((1, 24))))


def _once_after(rows: int, change: Callable[[], None]) -> Callable[[Any], None]:
    def on_batch(batch: Any) -> None:
        if batch.start < rows <= batch.stop:
            change()

    return on_batch


@pytest.mark.parametrize("load", [ingest, sync])
@pytest.mark.parametrize("successor", ["same", "other", "dense"])
def test_a_load_into_a_collection_that_is_recreated_stops(
    load: Callable[..., Any], successor: str, client: QdrantClient, model: CompresSAE, other: CompresSAE, catalog: Path
) -> None:
    """The end of the load checks too, for loads whose calls did not."""
    index = QdrantIndex.create(client, "items", model)
    becomes = {"same": model, "other": other, "dense": None}[successor]
    change = _once_after(100, lambda: _recreate(client, becomes))
    with pytest.raises(IngestError, match=r"created again after it was opened: .* run the same command again"):
        load(open_source(catalog), model, index, batch_size=50, on_batch=change, retry=RetryPolicy(attempts=1))
    if becomes is not None:  # sync deletes nothing from the other index
        assert QdrantIndex.open(client, "items").hashes([7000]) != [None]


def test_the_journal_of_a_load_that_was_cut_off_is_not_advanced(
    client: QdrantClient, model: CompresSAE, catalog: Path, tmp_path: Path
) -> None:
    index = QdrantIndex.create(client, "items", model)
    _load(catalog, model, index, tmp_path / "journal", 50)
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(IngestError, match="another index of the same model"):
        ingest(open_source(catalog), model, index, journal=tmp_path / "journal", batch_size=50,
               on_batch=_once_after(150, lambda: _recreate(client, model)))  # fmt: skip
    assert (tmp_path / "journal").read_bytes() == before
    with pytest.raises(IngestError, match=f"created again since.*{WAY_OUT}"):
        _load(catalog, model, QdrantIndex.open(client, "items", model), tmp_path / "journal")


@pytest.mark.parametrize("load", [ingest_async, sync_async])
def test_an_async_load_stops_too(load: Callable[..., Any], model: CompresSAE, catalog: Path) -> None:
    async def run() -> None:
        local = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(local, "items", model)
        loop = asyncio.get_running_loop()

        async def recreate() -> None:
            await local.delete_collection("items")
            await AsyncQdrantIndex.create(local, "items", model)

        change = _once_after(100, lambda: asyncio.run_coroutine_threadsafe(recreate(), loop).result())
        with pytest.raises(IngestError, match="another index of the same model"):
            await load(open_source(catalog), model, index, batch_size=50, on_batch=change)
        await local.close()

    asyncio.run(run())


@pytest.mark.parametrize("load", [ingest, sync])
def test_a_load_into_a_directory_that_is_replaced_stops(
    load: Callable[..., Any], model: CompresSAE, catalog: Path, tmp_path: Path
) -> None:
    index = EdgeIndex.create(tmp_path / "index", model)

    def replace() -> None:
        shutil.rmtree(tmp_path / "index")
        EdgeIndex.create(tmp_path / "index", model).close()

    with index, pytest.raises(IngestError, match="was deleted, moved or replaced after it was opened"):
        load(open_source(catalog), model, index, batch_size=50, on_batch=_once_after(100, replace))
    with EdgeIndex.open(tmp_path / "index", model) as left:
        assert left.count() == 0


def test_a_load_by_an_alias_writes_to_one_collection(
    client: QdrantClient, model: CompresSAE, catalog: Path, tmp_path: Path
) -> None:
    for name in ("old", "new"):
        QdrantIndex.create(client, name, model)
    _switch(client, "old")
    for load in (ingest, sync):
        index = QdrantIndex.open(client, "live", model)
        load(open_source(catalog), model, index, batch_size=50,
             on_batch=_once_after(100, lambda: _switch(client, "new")))  # fmt: skip
        assert (client.count("old").count, client.count("new").count) == (300, 0)
        _switch(client, "old")


def _switch(client: QdrantClient, name: str, alias: str = "live") -> None:
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


def test_a_deployment_does_not_switch_an_alias_that_was_switched_meanwhile(
    client: QdrantClient, model: CompresSAE, catalog: Path
) -> None:
    for name in ("one", "two"):
        client.create_collection(name, vectors_config={})
    _switch(client, "one", "shop")
    with pytest.raises(VerificationError, match="alias 'shop' was switched from 'one' to 'two' while collection"):
        deploy(open_source(catalog), model, client, "shop", queries=5,
               on_batch=lambda _: _switch(client, "two", "shop"))  # fmt: skip
    assert client.get_collection("two")


def test_the_writers_of_a_ray_job_write_to_one_collection(
    model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    row = ray_module._batch_row("file") | {"items": 1, "ids": "[1]", "payloads": "[{}]", "ends": "[1, 1]"}
    codes = model.encode(embeddings[:1])
    row |= {"indices": codes.indices.tobytes(), "values": codes.values.tobytes(), "model": model.fingerprint}
    sink = Sink()
    with serving(sink) as port:
        location = f"http://127.0.0.1:{port}/items"
        with create_index(location, model) as index:
            assert resolved_location(f"http://127.0.0.1:{port}/alias", index) == location
            settings = (location, index.identity, str(tmp_path / "model"), RetryPolicy(attempts=1), MAX_REQUEST_BYTES)
            assert ray_module._BatchWriter(*settings)(row)["error"] == b""
            refused = ray_module._BatchWriter(*settings)(row | {"model": "m-other"})
            assert b"ModelMismatchError" in refused["error"]
            sink.config = None
            create_index(location, model).close()
            assert b"IndexReplacedError" in ray_module._BatchWriter(*settings)(row)["error"]
            with pytest.raises(IndexReplacedError):
                LoadedFiles(None, model.fingerprint, index, RetryPolicy(attempts=1)).finish()
    with create_index(str(tmp_path / "index"), model) as edge:
        assert resolved_location("index", edge) == "index"


def test_the_journal_of_a_ray_job_is_compared(
    model: CompresSAE, embeddings: FloatArray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, journal, retry = tmp_path / "a.parquet", tmp_path / "journal", RetryPolicy(attempts=1)
    file.write_text("rows")
    with create_index(str(tmp_path / "index"), model) as index:
        index.upsert(range(10), model.encode(embeddings[:10]))
        loaded = LoadedFiles(journal, model.fingerprint, index, retry)
        loaded.note([0, 9])
        loaded.add(str(file))
        assert LoadedFiles(journal, model.fingerprint, index, retry).contains(str(file))
        index.delete([9])
        with pytest.raises(IngestError, match=r"but 1 of 2 sampled items are not in the index.*Delete the journal"):
            LoadedFiles(journal, model.fingerprint, index, retry)
        index.upsert([9], model.encode(embeddings[9:10]))
        loaded.finish()
        index.delete([4])
        with pytest.raises(IngestError, match=r"holds 9 items, and it held 10.*Delete the journal"):
            LoadedFiles(journal, model.fingerprint, index, retry)
        index.delete(range(10))
        assert not LoadedFiles(journal, model.fingerprint, index, retry).contains(str(file))
        assert "1 files are in the index, but the index is empty; every file is loaded again" in caplog.text
    with open_index(str(tmp_path / "index")) as index:
        assert index.identity is not None


def test_a_long_load_looks_at_each_call(
    client: QdrantClient, model: CompresSAE, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_VERIFY_SECONDS", 0.0)
    index = QdrantIndex.create(client, "items", model)
    rows: list[int] = []

    def change(batch: Any) -> None:
        rows.append(batch.stop)
        if batch.stop == 100:
            _recreate(client, model)

    with pytest.raises(IngestError, match=r"upload failed at rows 100-149: .*another index of the same model"):
        ingest(open_source(catalog), model, index, batch_size=50, on_batch=change)
    assert rows[-1] == 100
