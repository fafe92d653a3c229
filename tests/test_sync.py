"""sync() and the Qdrant source, on the embedded engine and the client's local mode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, QdrantIndex, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import IndexNotFoundError, IngestError, InvalidInputError, SourceError
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.ingestion.sync import sync
from compressae_qdrant.sources import QdrantSource, sample_embeddings

from .support.indexes import ENGINES, create_on


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path: Path, model: CompresSAE) -> Iterator[CodeIndex]:
    with create_on(request.param, tmp_path, model) as index:
        yield index


def _write(path: Path, rows: dict[str, tuple[FloatArray, int]]) -> Path:
    table = [{"id": id, "embedding": x.tolist(), "n": n} for id, (x, n) in rows.items()]
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def test_only_new_and_changed_items_are_written(
    target: CodeIndex, tmp_path: Path, model: CompresSAE, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"i{n}": (x, n) for n, x in enumerate(embeddings)}
    path = _write(tmp_path / "catalog.parquet", rows)
    first = sync(open_source(path), model, target, batch_size=100)
    assert (first.added, first.changed, first.unchanged, first.deleted) == (600, 0, 0, 0)
    again = sync(open_source(path), model, target, batch_size=64)
    assert (again.added, again.changed, again.unchanged, again.deleted) == (0, 0, 600, 0)
    for n in range(6):
        rows[f"i{n}"] = (embeddings[n + 100], n)  # another embedding
        rows[f"i{n + 10}"] = (embeddings[n + 10], -1)  # another payload
        rows[f"new{n}"] = (embeddings[n], n)
        del rows[f"i{n + 300}"]
    touched: list[Any] = []
    upsert = target.upsert

    def recording(ids: Sequence[Any], *rest: Any) -> None:
        touched.extend(ids)
        upsert(ids, *rest)

    monkeypatch.setattr(target, "upsert", recording)
    report = sync(open_source(_write(path, rows)), model, target, batch_size=100)
    assert (report.added, report.changed, report.unchanged, report.deleted) == (6, 12, 582, 6)
    assert sorted(touched) == sorted(
        f"{kind}{n + off}" for n in range(6) for kind, off in (("i", 0), ("i", 10), ("new", 0))
    )
    assert target.count() == 600
    (changed,) = target.retrieve(["i3"])
    np.testing.assert_array_equal(changed.indices, model.encode(embeddings[103]).indices[0])
    assert target.retrieve(["i12"])[0].payload == {"n": -1}
    assert {item for page in target.scan(50) for item in page} == set(rows)


def test_items_without_hashes_are_changed_once(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    np.save(tmp_path / "x.npy", embeddings[:50])
    with EdgeIndex.create(tmp_path / "index", model) as index:
        ingest(open_source(tmp_path / "x.npy"), model, index)
        assert sync(open_source(tmp_path / "x.npy"), model, index).changed == 50
        assert sync(open_source(tmp_path / "x.npy"), model, index).unchanged == 50
        assert sync(open_source(tmp_path / "x.npy"), model, index, atoms_per_step=1).changed == 50


def test_a_repeated_id_in_a_batch_is_refused(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    rows = [{"id": 1, "embedding": embeddings[0].tolist(), "t": text} for text in ("old", "new")]
    file = tmp_path / "items.jsonl"
    with EdgeIndex.create(tmp_path / "index", model) as index:
        for some in (rows[:1], rows, rows):
            file.write_text("\n".join(map(json.dumps, some)))
            if len(some) == 1:
                sync(open_source(file), model, index)
                continue
            with pytest.raises(IngestError, match="item id 1 is in the batch twice"):
                sync(open_source(file), model, index)
        assert index.retrieve([1])[0].payload == {"t": "old"}


def test_nothing_is_deleted_if_rows_were_skipped(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    rows = embeddings[:20].copy()
    np.save(tmp_path / "x.npy", rows)
    with EdgeIndex.create(tmp_path / "index", model) as index:
        sync(open_source(tmp_path / "x.npy"), model, index)
        rows[3] = np.nan
        np.save(tmp_path / "y.npy", rows)
        broken = open_source(tmp_path / "y.npy", on_error="skip")
        with pytest.raises(SourceError, match=r"1 rows of the source could not be read;.*nothing was deleted"):
            sync(broken, model, index)
        assert index.count() == 20
        assert sync(broken, model, index, delete=False).unchanged == 19


def test_the_hash_is_not_visible_and_cannot_be_set(model: CompresSAE, tmp_path: Path, embeddings: FloatArray) -> None:
    np.save(tmp_path / "x.npy", embeddings[:5])
    with EdgeIndex.create(tmp_path / "index", model) as index:
        sync(open_source(tmp_path / "x.npy"), model, index)
        assert index.retrieve([0])[0].payload == {}
        assert [bool(hash) for hash in index.hashes([0, 4])] == [True, True]
        assert index.hashes(["no such item"]) == [None]
        with pytest.raises(InvalidInputError, match="'__compressae_content', which is reserved"):
            index.upsert([0], model.encode(embeddings[:1]), [{"__compressae_content": "x"}])


def _dense(named: bool, embeddings: FloatArray) -> QdrantClient:
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=24, distance=models.Distance.COSINE)
    client.create_collection("dense", vectors_config={"text": params} if named else params)
    points = [
        models.PointStruct(id=n, vector={"text": x.tolist()} if named else x.tolist(), payload={"n": n})
        for n, x in enumerate(embeddings)
    ]
    client.upsert("dense", points)
    return client


@pytest.mark.parametrize("named", [True, False])
def test_a_collection_is_a_source(named: bool, tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    client = _dense(named, embeddings)
    source = QdrantSource(client, "dense", "text" if named else None)
    assert (source.dim, source.rows, source.seekable) == (24, 600, False)
    np.testing.assert_allclose(sample_embeddings(source, 600), embeddings, atol=1e-6)
    assert [batch.ids for batch in source.batches(100, 550)] == [list(range(550, 600))]
    with EdgeIndex.create(tmp_path / "index", model) as index:
        report = sync(source, model, index)
        assert (report.added, index.count()) == (600, 600)
        (record,) = index.retrieve([77])
        assert record.payload == {"n": 77}
    with pytest.raises(SourceError, match="no dense vector 'image'"):
        QdrantSource(client, "dense", "image")
    with pytest.raises(IndexNotFoundError):
        QdrantSource(client, "nothing")
    client.close()


def test_foreign_fields_with_reserved_names_are_kept(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    """Another application's payload may use the names that this package reserves."""
    client = _dense(False, embeddings[:3])
    client.set_payload("dense", {"_id": "theirs", "_content": "a text"}, [1])
    (batch,) = QdrantSource(client, "dense").batches(10)
    assert (batch.ids, batch.payloads[1]) == ([0, 1, 2], {"n": 1, "_id": "theirs", "_content": "a text"})
    with EdgeIndex.create(tmp_path / "index", model) as index:
        assert sync(QdrantSource(client, "dense"), model, index).added == 3
        (record,) = index.retrieve([1])
        assert record.payload == {"n": 1, "_id": "theirs", "_content": "a text"}
        assert sync(QdrantSource(client, "dense"), model, index).unchanged == 3
        index.upsert([1], model.encode(embeddings[1:2]), [{"_id": "theirs", "_content": "a text"}])
        (record,) = index.retrieve([1])
        assert record.payload == {"_id": "theirs", "_content": "a text"}
        assert index.hashes([1]) == [""]
    settings = IndexSettings(keep_dense=True)
    QdrantIndex.create(client, "ours", model, settings).upsert(
        ["a"], model.encode(embeddings[:1]), None, embeddings[:1]
    )
    assert next(QdrantSource(client, "ours", "dense").batches(10)).ids == ["a"]
    client.close()


def test_one_percent_of_5_000_items_changed_added_and_deleted(
    tmp_path: Path, model: CompresSAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly these items are written or deleted."""
    x = np.random.default_rng(0).normal(size=(5_050, 24)).astype(np.float32)

    def catalog(ids: Any, rows: FloatArray) -> Path:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 24)
        pq.write_table(pa.table({"id": pa.array(ids), "embedding": vectors}), tmp_path / "catalog.parquet")
        return tmp_path / "catalog.parquet"

    with EdgeIndex.create(tmp_path / "index", model) as index:
        ids = np.arange(5_000)
        assert sync(open_source(catalog(ids, x[:5_000])), model, index, method="encoder").added == 5_000
        changed, gone, new = range(1_000, 1_050), range(3_000, 3_050), range(5_000, 5_050)
        x[list(changed)] *= -1
        left = np.concatenate([np.delete(ids, list(gone)), list(new)])
        written, deleted = list[Any](), list[Any]()
        upsert, delete = index.upsert, index.delete

        def recording(ids: Sequence[Any], *rest: Any) -> None:
            written.extend(ids)
            upsert(ids, *rest)

        def recording_deletes(ids: Sequence[Any]) -> None:
            deleted.extend(ids)
            delete(ids)

        monkeypatch.setattr(index, "upsert", recording)
        monkeypatch.setattr(index, "delete", recording_deletes)
        report = sync(open_source(catalog(left, x[left])), model, index, method="encoder")
        assert (report.added, report.changed, report.unchanged, report.deleted) == (50, 50, 4_900, 50)
        assert sorted(written) == [*changed, *new]
        assert sorted(deleted) == list(gone)
        assert sorted(item for page in index.scan() for item in page) == left.tolist()
        wanted = model.encode(x[list(changed)], "encoder")
        for row, record in enumerate(index.retrieve(changed)):
            np.testing.assert_array_equal(record.values, wanted.values[row])
