"""What integrations share: documents as payloads, diversity, and an index for sync and for async callers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    CompresSAE,
    ConfigError,
    EdgeIndex,
    IndexSettings,
    IndexUnavailableError,
    InvalidInputError,
    ModelMismatchError,
    QdrantIndex,
    SparseCodes,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.integrations.documents import DocumentFields, NewTexts
from compressae_qdrant.integrations.index_pair import IndexPair, ThreadedIndex
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.diversity import diverse


@pytest.mark.parametrize("fields", [DocumentFields(), DocumentFields("title", None), DocumentFields("a", "b")])
def test_a_document_survives_its_payload(fields: DocumentFields) -> None:
    metadata = {"price": 3, "tags": ["x"], "seller": {"name": "y"}}
    assert fields.document(1, fields.payload("text", metadata)) == ("text", metadata)
    assert fields.document(1, fields.payload("", {})) == ("", {})
    assert fields.document(1, {fields.content: None}) == ("", {})


def test_payloads_that_are_no_documents() -> None:
    with pytest.raises(InvalidInputError, match=r"item 1 has no payload field 'page_content'.* it has no fields"):
        DocumentFields().document(1, {})
    with pytest.raises(InvalidInputError, match="has a int in its payload field 'metadata'"):
        DocumentFields().document(1, {"page_content": "x", "metadata": 4})
    with pytest.raises(InvalidInputError, match="the metadata has a field 'title'"):
        DocumentFields("title", None).payload("x", {"title": "y"})


@pytest.mark.parametrize("metadata", ["meta", None])
def test_filters_on_metadata(metadata: str | None, model: CompresSAE, codes: SparseCodes, tmp_path: Path) -> None:
    fields = DocumentFields("text", metadata)
    payloads = [
        fields.payload("", {"n": row, "x": row // 2 + 0.5, "s": "ab"[row % 2], "b": row % 2 == 1}) for row in range(4)
    ]
    (payloads[0] if metadata is None else payloads[0][metadata])["only"] = 5
    conditions: list[tuple[Any, set[int]]] = [
        ({}, {0, 1, 2, 3}),
        ({"n": 1}, {1}),
        ({"n": 1.0}, {1}),
        ({"x": 0.5}, {0, 1}),
        ({"s": "a", "n": [0, 1, 2]}, {0, 2}),
        ({"b": True}, {1, 3}),
        ({"only": None}, {1, 2, 3}),
        ({"only": (None, 5)}, {0, 1, 2, 3}),
        (models.Filter(must_not=[models.HasIdCondition(has_id=[1])]), {0, 2, 3}),
    ]
    client = QdrantClient(":memory:")
    with EdgeIndex.create(tmp_path / "index", model) as embedded:
        for index in (embedded, QdrantIndex.create(client, "items", model)):
            index.upsert(range(4), codes[:4], payloads)
            for condition, expected in conditions:
                chosen = fields.filter(condition)
                assert {row for row in range(4) if index.count(_and_id(chosen, row))} == expected, condition
    client.close()


def _and_id(condition: models.Filter | None, row: int) -> models.Filter:
    assert condition is not None
    return models.Filter(must=[condition, models.HasIdCondition(has_id=[row])])


def test_unusable_filters_are_refused() -> None:
    fields = DocumentFields()
    assert fields.filter(None) is None
    for condition, complaint in (
        ("n = 1", "the filter is a str"),
        ({"n": {"gt": 1}}, "'metadata.n' is compared with a dict"),
        ({"n": []}, "'metadata.n' is compared with an empty list"),
    ):
        with pytest.raises(InvalidInputError, match=complaint):
            fields.filter(condition)  # type: ignore[arg-type]  # refused at run time


def test_new_texts_get_ids_and_are_written_once() -> None:
    new = NewTexts.of(iter(["a", "b", "c", "d"]), None, ["1", None, "2", "1"])
    assert (new.ids[0], new.ids[2:]) == ("1", ["2", "1"])
    assert len(new.ids[1]) == 36
    batches = list(new.batches(2))
    assert [batch.texts for batch in batches] == [["b", "c"], ["d"]]
    assert [batch.metadatas for batch in batches] == [[{}, {}], [{}]]
    with pytest.raises(InvalidInputError, match="there are 1 metadatas for 2 texts"):
        NewTexts.of(["a", "b"], [{}], None)
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        list(new.batches(0))


def test_diversity_against_its_definition() -> None:
    random = np.random.default_rng(2)
    vectors, query = random.normal(size=(30, 8)).astype(np.float32), random.normal(size=8).astype(np.float32)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    gain = unit @ (query / np.linalg.norm(query))
    for relevance in (0.0, 0.3, 0.5, 1.0):
        chosen: list[int] = []
        for _ in range(10):
            values = {
                row: relevance * gain[row] - (1 - relevance) * max(unit[row] @ unit[other] for other in chosen)
                if chosen
                else gain[row]
                for row in range(30)
                if row not in chosen
            }
            chosen.append(max(values, key=lambda row: values[row]))
        assert diverse(query, vectors, 10, relevance) == chosen
    assert sorted(diverse(query, vectors, 99)) == list(range(30))
    assert diverse(query, vectors[:0], 5) == []
    with pytest.raises(InvalidInputError, match="relevance is 2"):
        diverse(query, vectors, 5, 2)


@pytest.mark.parametrize("kind", ["embedded", "local"])
def test_an_index_in_this_process_is_awaited_in_threads(
    kind: str, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray, tmp_path: Path
) -> None:
    client = QdrantClient(":memory:")
    index: EdgeIndex | QdrantIndex
    settings = IndexSettings(datatype="float32")
    if kind == "embedded":
        index = EdgeIndex.create(tmp_path / "index", model, settings)
    else:
        index = QdrantIndex.create(client, "items", model, settings)
    pair = IndexPair(model, index)

    async def use() -> None:
        side = pair.async_side()
        assert side is pair.async_side()
        assert isinstance(side.index, ThreadedIndex)
        assert (side.index.fingerprint, side.index.projection) == (index.fingerprint, index.projection)
        await asyncio.gather(*(side.index.upsert([row], codes[[row]], [{"row": row}]) for row in range(40)))
        assert await side.index.count() == 40
        hits = await asyncio.gather(*(side.retriever.search(x, 5) for x in embeddings[:20]))
        assert [[hit.id for hit in found] for found in hits] == [
            [hit.id for hit in found] for found in pair.retriever.search_batch(embeddings[:20], 5)
        ]
        assert [found[0].id for found in await side.retriever.search_batch(embeddings[:20], 1)] == list(range(20))
        assert [record.payload for record in await side.index.retrieve([3, 99])] == [{"row": 3}]
        await side.index.delete([0, 1])
        assert pair.index.count() == 38
        below = models.FieldCondition(key="row", range=models.Range(lt=10))
        assert await side.index.delete_by_filter(models.Filter(must=[below])) == 8
        assert pair.index.count() == 30
        await pair.close_async()
        await pair.close_async()

    asyncio.run(use())
    index.close()
    client.close()


def test_an_async_index_is_enough_for_async_callers(model: CompresSAE, codes: SparseCodes) -> None:
    async def use() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        pair = IndexPair(model, None, index)
        assert pair.async_side().index is index
        for use_sync in (lambda: pair.index, lambda: pair.retriever):
            with pytest.raises(ConfigError, match="there is only an async index here"):
                use_sync()
        with pytest.raises(ModelMismatchError):
            IndexPair(CompresSAE(ModelConfig(24, 96, 6), seed=5), None, index)
        await pair.close_async()
        assert await index.count() == 0  # the client was given, and is still open
        await client.close()

    asyncio.run(use())
    with pytest.raises(ConfigError, match="neither an index nor an async_index"):
        IndexPair(model, None)


@pytest.mark.parametrize("grpc", [False, True])
def test_an_index_on_a_server_gets_an_async_client_of_its_options(model: CompresSAE, grpc: bool) -> None:
    client = QdrantClient(
        "http://127.0.0.1:9", grpc_port=9, prefer_grpc=grpc, api_key=None, timeout=3, check_compatibility=False
    )
    manifest = Manifest.of(model, IndexSettings(shard_keys=("eu",)))
    index = QdrantIndex(client, "items", manifest, model=model).of_shard("eu")
    pair = IndexPair(model, index)

    async def use() -> None:
        side = pair.async_side()
        assert isinstance(side.index, AsyncQdrantIndex)
        assert side.index._connection.client.init_options["timeout"] == 3
        assert side.index._requests._target == index._requests._target
        with pytest.raises(IndexUnavailableError):
            await side.index.count()
        own = AsyncQdrantClient(":memory:")
        theirs = index.to_async(own)
        assert theirs._requests._target.transport.kind == "local"
        await theirs.close()
        assert not (await own.get_collections()).collections  # still open
        await pair.close_async()

    asyncio.run(use())
    client.close()


def test_local_mode_has_no_async_client(model: CompresSAE) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(ConfigError, match="whose data an async client does not see"):
        QdrantIndex.create(client, "items", model).to_async()
    client.close()
