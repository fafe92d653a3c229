"""Codes and collections that are not what they were taken for: of another model, replaced, recreated or incomplete."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    QdrantIndex,
    Retriever,
    SparseCodes,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import (
    CodeIndexError,
    ConfigError,
    IncompleteIndexError,
    IndexExistsError,
    IndexReplacedError,
    IndexUnavailableError,
    InvalidInputError,
    ModelMismatchError,
)
from compressae_qdrant.index.edge.files import DirectoryLock
from compressae_qdrant.index.qdrant import creation, steps
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.alias_retriever import AliasRetriever

from .support.sink import Sink, serving, serving_grpc

FIELDS = IndexSettings(tenant_field="shop", payload_fields={"n": "integer"})


@pytest.fixture(scope="module")
def other() -> CompresSAE:
    """A model with the shape of `model` and other weights."""
    return CompresSAE(ModelConfig(24, 96, 6), seed=77)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    local = QdrantClient(":memory:")
    yield local
    local.close()


def test_codes_carry_the_fingerprint_of_their_model(
    model: CompresSAE, other: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    codes = model.encode(embeddings[:9])
    codes.save(tmp_path / "codes.safetensors")
    table = codes.to_arrow(range(9))
    kept = [
        codes, codes[2:5], codes[[1, 3]], SparseCodes.concatenate([codes[:4], codes[4:]]),
        SparseCodes.load(tmp_path / "codes.safetensors"), SparseCodes.from_arrow(table),
        SparseCodes.from_arrow(table.replace_schema_metadata(None), 96, "projection", model.fingerprint),
    ]  # fmt: skip
    assert {each.fingerprint for each in kept} == {model.fingerprint}
    foreign, by_hand = other.encode(embeddings[:9]), SparseCodes(codes.indices, codes.values, 96, codes.scale)
    assert (foreign.fingerprint, by_hand.fingerprint) == (other.fingerprint, None)
    assert by_hand == codes
    for mixed in (foreign, by_hand):
        with pytest.raises(InvalidInputError, match=r"can't concatenate codes of 2 kinds .*fingerprint"):
            SparseCodes.concatenate([codes, mixed])
    with pytest.raises(ModelMismatchError, match=f"made by model '{other.fingerprint}', not by '{model.fingerprint}'"):
        model.decode(foreign)
    np.testing.assert_array_equal(model.decode(by_hand), model.decode(codes))


def test_codes_of_another_model_are_refused(
    model: CompresSAE, other: CompresSAE, embeddings: FloatArray, client: QdrantClient, tmp_path: Path
) -> None:
    foreign = other.encode(embeddings[:3])
    by_hand = SparseCodes(foreign.indices, foreign.values, foreign.latents)
    complaint = f"made by model '{other.fingerprint}' but the index holds codes of model '{model.fingerprint}'"
    with EdgeIndex.create(tmp_path / "index", model) as edge:
        for index in (edge, QdrantIndex.create(client, "items", model)):
            with pytest.raises(ModelMismatchError, match=complaint):
                index.upsert([1, 2, 3], foreign)
            assert index.count() == 0
            index.upsert([1, 2, 3], by_hand)
            assert index.count() == 3

    async def same() -> None:
        local = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(local, "items", model)
        with pytest.raises(ModelMismatchError, match=complaint):
            await index.upsert([1, 2, 3], foreign)
        await local.close()

    asyncio.run(same())


@pytest.fixture
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_VERIFY_SECONDS", 0.0)


def _to(port: int, **options: Any) -> QdrantClient:
    return QdrantClient(host="127.0.0.1", port=port, check_compatibility=False, **options)


def _recreated(client: QdrantClient, model: CompresSAE | None) -> None:
    """Delete the collection "items", and create it again for a model, or as one of dense vectors."""
    client.delete_collection("items")
    if model is None:
        client.create_collection("items", vectors_config=models.VectorParams(size=24, distance=models.Distance.DOT))
    else:
        QdrantIndex.create(client, "items", model)


@pytest.mark.usefixtures("_always_look")
@pytest.mark.parametrize("successor", ["same", "other", "dense", "none"])
def test_a_recreated_collection_is_noticed(
    successor: str, client: QdrantClient, model: CompresSAE, other: CompresSAE, codes: SparseCodes,
    embeddings: FloatArray,
) -> None:  # fmt: skip
    index = QdrantIndex.create(client, "items", model)
    index.upsert(range(50), codes[:50])
    retriever = Retriever(model, index)
    assert len(retriever.search(embeddings[0], 5)) == 5
    index.verify()
    if successor == "none":
        client.delete_collection("items")
        complaint = "the collection was deleted after it was opened"
    else:
        _recreated(client, {"same": model, "other": other, "dense": None}[successor])
        complaint = {
            "same": "another index of the same model", "other": f"codes of model '{other.fingerprint}', not of",
            "dense": "a collection without codes of this package",
        }[successor]  # fmt: skip
    calls: list[Callable[[], object]] = [
        index.verify, index.count, lambda: index.upsert([1], codes[:1]), lambda: index.delete([1]),
        lambda: index.hashes([1]), lambda: retriever.search(embeddings[0], 5), lambda: next(index.scan()),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(IndexReplacedError, match=complaint):
            call()


@pytest.mark.usefixtures("_always_look")
def test_an_async_retriever_notices_a_recreated_collection(model: CompresSAE, embeddings: FloatArray) -> None:
    async def run() -> None:
        local = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(local, "items", model)
        await index.upsert(range(50), model.encode(embeddings[:50]))
        retriever = AsyncRetriever(model, index)
        assert len(await retriever.search(embeddings[0], 5)) == 5
        await local.delete_collection("items")
        await AsyncQdrantIndex.create(local, "items", model)
        for call in (index.verify(), retriever.search(embeddings[0], 5)):
            with pytest.raises(IndexReplacedError, match="another index of the same model"):
                await call
        await local.close()

    asyncio.run(run())


@pytest.mark.usefixtures("_always_look")
def test_a_retriever_of_an_alias_opens_the_recreated_collection(
    client: QdrantClient, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    QdrantIndex.create(client, "items", model).upsert(range(50), codes[:50])
    create = models.CreateAlias(collection_name="items", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    retriever = AliasRetriever(client, "live", [model], refresh_seconds=3600)
    assert retriever.search(embeddings[0], 1)[0].id == 0
    _recreated(client, model)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    QdrantIndex.open(client, "items", model).upsert(range(100, 150), codes[:50])
    assert retriever.search(embeddings[0], 1)[0].id == 100


def test_looks_are_rare(model: CompresSAE) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_to(port), "items", model, owns_client=True) as index:
        sink.calls.clear()
        for _ in range(20):
            index.count()
        assert len(sink.calls) == 20


def test_an_index_without_identity_is_opened(model: CompresSAE, codes: SparseCodes, tmp_path: Path) -> None:
    sink = Sink()
    with serving(sink) as port:
        QdrantIndex.create(_to(port), "items", model, owns_client=True).close()
        assert sink.config is not None
        del sink.config["metadata"]["compressae"]["identity"]
        with QdrantIndex.open(_to(port), "items", model, owns_client=True) as index:
            assert index.identity is None
            index.verify()
            sink.config = None
            with pytest.raises(IndexReplacedError, match="the collection was deleted after it was opened"):
                index.verify()
            QdrantIndex.create(_to(port), "items", model, owns_client=True).close()
            with pytest.raises(IndexReplacedError, match="another index of the same model"):
                index.verify()
    EdgeIndex.create(tmp_path / "index", model).close()
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    del manifest["identity"]
    (tmp_path / "index" / "index.json").write_text(json.dumps(manifest))
    with EdgeIndex.open(tmp_path / "index", model) as edge:
        assert edge.identity is None
        edge.upsert([1], codes[:1])


def test_a_deleted_or_moved_directory_is_noticed(model: CompresSAE, codes: SparseCodes, tmp_path: Path) -> None:
    for replace in (shutil.rmtree, lambda path: path.rename(tmp_path / "moved")):
        index = EdgeIndex.create(tmp_path / "index", model)
        index.upsert(range(5), codes[:5])
        replace(tmp_path / "index")
        with pytest.raises(IndexReplacedError, match="was deleted, moved or replaced after it was opened"):
            index.upsert([6], codes[:1])
        EdgeIndex.create(tmp_path / "index", model).close()
        for call in (index.flush, index.count, index.verify):
            with pytest.raises(IndexReplacedError, match="so what is written here is lost; open it again"):
                call()
        index.close()
        shutil.rmtree(tmp_path / "index")


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_pauses")
def test_lost_answers_do_not_fail_a_creation(model: CompresSAE) -> None:
    settings = IndexSettings(tenant_field="shop", payload_fields={"n": "integer"}, shard_keys=["eu", 7])
    sink = Sink()
    with serving(sink) as port:
        sink.deaf_to = [("PUT", "items"), ("PUT", "shards"), ("PUT", "index"), ("PUT", "index")]
        created = QdrantIndex.create(_to(port), "items", model, settings, owns_client=True)
        assert not sink.deaf_to
        assert (sorted(sink.fields), sink.shard_keys) == (["n", "shop"], ["eu", 7])
        with QdrantIndex.open(_to(port), "items", model, owns_client=True) as opened:
            assert opened.identity == created.identity is not None
        created.close()


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize("step", ["shards", "index"])
def test_an_interrupted_creation_is_completed_by_the_next(step: str, model: CompresSAE, other: CompresSAE) -> None:
    settings = IndexSettings(tenant_field="shop", payload_fields={"n": "integer"}, shard_keys=["eu", 7])
    sink = Sink()
    with serving(sink) as port, serving_grpc(sink) as grpc_port:
        client = _to(port)
        sink.down = {("PUT", step)}
        with pytest.raises(IndexUnavailableError, match="creation of collection 'items' is not completed; repeat it"):
            QdrantIndex.create(client, "items", model, settings)
        sink.down.clear()
        lacking = "the shard key 'eu', the shard key 7, " if step == "shards" else ""
        lacking += "the index of payload field 'n', the index of payload field 'shop'"
        for each in (client, _to(port, grpc_port=grpc_port, prefer_grpc=True)):
            with pytest.raises(IncompleteIndexError, match=f"was not completed: it lacks {lacking}; create it again"):
                QdrantIndex.open(each, "items", model)
        with pytest.raises(IndexExistsError, match="cannot be completed with these settings"):
            QdrantIndex.create(client, "items", model, FIELDS)
        with pytest.raises(IndexExistsError, match="already exists; open it"):
            QdrantIndex.create(client, "items", other, settings)
        begun = sink.config
        created = QdrantIndex.create(client, "items", model, settings)
        assert sink.config is begun
        for each in (client, _to(port, grpc_port=grpc_port, prefer_grpc=True)):
            opened = QdrantIndex.open(each, "items", model)
            assert opened.identity == created.identity is not None
        with pytest.raises(IndexExistsError, match="already exists; open it"):
            QdrantIndex.create(client, "items", model, settings)
        del sink.fields["n"]

        async def complete() -> None:
            local = AsyncQdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
            with pytest.raises(IncompleteIndexError, match="the index of payload field 'n'"):
                await AsyncQdrantIndex.open(local, "items", model)
            await AsyncQdrantIndex.create(local, "items", model, settings)
            await local.close()

        asyncio.run(complete())
        assert "n" in sink.fields


@pytest.mark.usefixtures("_no_pauses")
def test_a_refused_step_leaves_no_collection(model: CompresSAE) -> None:
    sink = Sink()
    with serving(sink) as port:
        sink.shard_keys = []
        sink.refuses = {("PUT", "index")}
        with pytest.raises(CodeIndexError, match="index field 'n' of collection 'items'"):
            QdrantIndex.create(_to(port), "items", model, FIELDS)
        assert sink.config is None


def test_an_embedded_index_completes_its_payload_indexes(model: CompresSAE, tmp_path: Path) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    EdgeIndex.create(tmp_path / "promising", model, FIELDS).close()
    shutil.copy(tmp_path / "promising" / "index.json", tmp_path / "index" / "index.json")
    with EdgeIndex.open(tmp_path / "index", model) as index:
        assert set(index._shard.info().payload_schema) == {"n", "shop"}
    EdgeIndex.create(tmp_path / "dense", model, IndexSettings(keep_dense=True)).close()
    shutil.copy(tmp_path / "dense" / "index.json", tmp_path / "index" / "index.json")
    with pytest.raises(CodeIndexError, match="its manifest promises the vectors 'dense', which its shard does not"):
        EdgeIndex.open(tmp_path / "index", model)


def test_leftovers_of_killed_creations_are_removed(model: CompresSAE, tmp_path: Path) -> None:
    old, new, running, foreign = (tmp_path / f".{name}.tmp" for name in
                                  ("index.0123abcd", "index.00000000", "index.11111111", "other.0123abcd"))  # fmt: skip
    for folder in (old, new, running, foreign):
        (folder / "shard").mkdir(parents=True)
    lock = DirectoryLock(running / "lock", "running")
    for folder in (old, running, foreign):
        os.utime(folder, (0, 0))
    EdgeIndex.create(tmp_path / "index", model).close()
    assert [folder.exists() for folder in (old, new, running, foreign)] == [False, True, True, True]
    lock.release()


def test_adoption_indexes_the_tenant_field(model: CompresSAE, other: CompresSAE) -> None:
    sink = Sink()
    with serving(sink) as port:
        client = _to(port)
        dense = models.VectorParams(size=24, distance=models.Distance.COSINE)
        client.create_collection("items", vectors_config={"text": dense})
        sink.fields = {"shop": "integer"}
        with pytest.raises(CodeIndexError, match=r"payload field 'shop' .* has an index of type integer"):
            QdrantIndex.adopt(client, "items", model, FIELDS)
        assert sink.config is not None
        assert not sink.config.get("metadata")
        sink.fields = {"shop": "keyword"}
        index = QdrantIndex.adopt(client, "items", model, FIELDS)
        assert sink.fields["shop"]["is_tenant"] is True
        assert sink.fields["n"] == "integer"
        again = QdrantIndex.adopt(client, "items", model)
        assert again.identity == index.identity is not None
        assert again.settings.tenant_field == "shop"
        assert QdrantIndex.open(client, "items", model).settings == again.settings
        with pytest.raises(ConfigError, match="has codes at scale 'projection', but the settings have 'code'"):
            QdrantIndex.adopt(client, "items", model, IndexSettings(scale="code"))
        with pytest.raises(ConfigError, match="which has its own keep_dense, shards; omit"):
            QdrantIndex.adopt(client, "items", model, IndexSettings(keep_dense=True, shards=2))
        sink.fields = {}
        with pytest.raises(IncompleteIndexError, match="adopt it again \\(compressae migrate --in-place\\)"):
            QdrantIndex.open(client, "items", model)
        sink.ignores = {("PUT", "index")}
        with pytest.raises(IncompleteIndexError, match="still lacks the index of payload field"):
            QdrantIndex.adopt(client, "items", model)
