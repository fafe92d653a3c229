"""A collection as a source: its alias is switched, or it is recreated, while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, QdrantIndex, ingest, sync
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import SourceError
from compressae_qdrant.ingestion.migrate import add_codes
from compressae_qdrant.sources import QdrantSource
from compressae_qdrant.sources import qdrant as source_module
from compressae_qdrant.sources.spread import SpreadSample

DENSE = models.VectorParams(size=24, distance=models.Distance.COSINE)


@pytest.fixture
def client(embeddings: FloatArray) -> Iterator[QdrantClient]:
    """Collections "old" and "new" with items 0..399 and 200..599, and the alias "live" of "old"."""
    local = QdrantClient(":memory:")
    for name, first in (("old", 0), ("new", 200)):
        local.create_collection(name, vectors_config=DENSE)
        _fill(local, name, embeddings, range(first, first + 400))
    _switch(local, "old")
    yield local
    local.close()


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_PAGE", 50)


def _fill(client: QdrantClient, name: str, embeddings: FloatArray, ids: range) -> None:
    client.upsert(name, [models.PointStruct(id=n, vector=embeddings[n].tolist(), payload={"n": n}) for n in ids])


def _switch(client: QdrantClient, name: str) -> None:
    create = models.CreateAlias(collection_name=name, alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


def _after(items: int, change: Callable[[], None]) -> Callable[[Any], None]:
    """Make a change once so many rows were read."""

    def on_batch(batch: Any) -> None:
        if batch.start < items <= batch.stop:
            change()

    return on_batch


def test_a_source_reads_one_collection_while_its_alias_is_switched(
    client: QdrantClient, model: CompresSAE, tmp_path: Path
) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        assert sync(QdrantSource(client, "live"), model, index, batch_size=100).added == 400
        source = QdrantSource(client, "live")
        assert source.collection == "old"
        with pytest.raises(SourceError, match=r"alias 'live' was switched to 'new' while collection 'old' was read"):
            sync(source, model, index, batch_size=100, on_batch=_after(200, lambda: _switch(client, "new")))
        assert sorted(item for ids in index.scan() for item in ids) == list(range(400))  # nothing mixed or deleted
        report = sync(QdrantSource(client, "live"), model, index, batch_size=100)
        assert (report.added, report.unchanged, report.deleted) == (200, 200, 200)


def test_a_removed_alias_is_noticed(client: QdrantClient, model: CompresSAE, tmp_path: Path) -> None:
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="live"))

    def remove() -> None:
        client.update_collection_aliases([delete])

    with EdgeIndex.create(tmp_path / "index", model) as index, pytest.raises(SourceError, match="no longer exists"):
        ingest(QdrantSource(client, "live"), model, index, batch_size=100, on_batch=_after(200, remove))


@pytest.mark.parametrize(
    ("kept", "complaint"),
    [
        (range(0), r"had 400 points when reading began; .* it has 0 now"),
        (range(200), r"had 400 points when reading began; .* it has 200 now"),
        (range(200, 600), r"and \d+ of \d+ sampled ones are gone\. It was recreated or emptied"),
    ],
)
def test_nothing_is_deleted_if_the_source_was_recreated(
    kept: range, complaint: str, client: QdrantClient, model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    def recreate() -> None:
        client.delete_collection("old")
        client.create_collection("old", vectors_config=DENSE)
        if len(kept):
            _fill(client, "old", embeddings, kept)

    with EdgeIndex.create(tmp_path / "index", model) as index:
        sync(QdrantSource(client, "old"), model, index, batch_size=100)
        with pytest.raises(SourceError, match=complaint):
            sync(QdrantSource(client, "old"), model, index, batch_size=100, on_batch=_after(200, recreate))
        assert {item for ids in index.scan() for item in ids} >= set(range(400))


def test_a_source_recreated_with_other_vectors_is_noticed(
    client: QdrantClient, model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    """The same ids, embedded anew: the count says nothing, so the vectors of a sample are compared."""

    def embed_anew(items: int) -> Callable[[], None]:
        return lambda: _fill(client, "old", embeddings[::-1].copy(), range(items))

    with EdgeIndex.create(tmp_path / "index", model) as index:
        sync(QdrantSource(client, "old"), model, index, batch_size=100, on_batch=_after(200, embed_anew(30)))
        with pytest.raises(SourceError, match=r"\d+ of \d+ sampled points of collection 'old' have another vector"):
            sync(QdrantSource(client, "old"), model, index, batch_size=100, on_batch=_after(200, embed_anew(400)))
        assert sorted(item for ids in index.scan() for item in ids) == list(range(400))


def test_a_recreated_index_as_source_is_told_by_its_identity(
    client: QdrantClient, model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    def fill() -> None:
        index = QdrantIndex.create(client, "codes", model, IndexSettings(keep_dense=True))
        index.upsert(range(400), model.encode(embeddings[:400]), None, embeddings[:400])

    def recreate() -> None:
        client.delete_collection("codes")
        fill()

    fill()
    with EdgeIndex.create(tmp_path / "index", model) as index:
        source = QdrantSource(client, "codes", "dense")
        with pytest.raises(SourceError, match="collection 'codes' was recreated while it was read"):
            sync(source, model, index, batch_size=100, on_batch=_after(200, recreate))


def test_reading_looks_at_the_collection_meanwhile(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_CHECK_SECONDS", 0.0)
    batches = QdrantSource(client, "live").batches(50)
    next(batches)
    _switch(client, "new")
    with pytest.raises(SourceError, match="alias 'live' was switched"):
        next(batches)


def test_a_few_deletions_meanwhile_are_no_fault(
    client: QdrantClient, model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    def change() -> None:
        client.delete("old", [1, 399])
        _fill(client, "old", embeddings, range(500, 510))

    with EdgeIndex.create(tmp_path / "index", model) as index:
        sync(QdrantSource(client, "old"), model, index, batch_size=100)
        report = sync(QdrantSource(client, "old"), model, index, batch_size=100, on_batch=_after(100, change))
        assert (report.added, report.deleted) == (10, 1)


def test_codes_in_place_of_unusable_vectors_change_nothing(client: QdrantClient, model: CompresSAE) -> None:
    several = models.VectorParams(
        size=24, distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )  # fmt: skip
    narrow = models.VectorParams(size=7, distance=models.Distance.COSINE)
    client.create_collection("items", vectors_config={"tokens": several, "narrow": narrow})
    point = models.PointStruct(id=1, vector={"tokens": [[0.1] * 24] * 3, "narrow": [0.1] * 7})
    client.upsert("items", [point])
    for vector, complaint in (("tokens", "is a multivector"), ("narrow", "7 dimensions"), ("none", "no dense vector")):
        with pytest.raises(SourceError, match=complaint):
            add_codes(client, "items", vector, model, on_error="skip")
    config = client.get_collection("items").config
    assert not config.params.sparse_vectors
    assert not config.metadata


def test_codes_in_place_by_an_alias(client: QdrantClient, model: CompresSAE) -> None:
    assert add_codes(client, "live", None, model).encoded == 400
    _switch(client, "new")
    assert QdrantIndex.open(client, "old", model).count() == 400
    assert not client.get_collection("new").config.metadata


def test_a_sample_is_spread_and_bounded() -> None:
    sample = SpreadSample()
    for start in range(0, 100_000, 700):
        sample.add(range(start, start + 700))
    values = sample.all()
    assert len(values) <= 272
    steps = [later - earlier for earlier, later in zip(sample.values, sample.values[1:], strict=False)]
    assert set(steps) == {sample.stride}
    assert 100_000 - sample.values[-1] <= sample.stride + 700
    assert values[-1] == max(values) == sample.seen - 1
    few = SpreadSample()
    few.add([])
    few.add("abc")
    assert few.all() == ["a", "b", "c"]
