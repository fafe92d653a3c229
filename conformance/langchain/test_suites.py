"""LangChain's published suites for vector stores and retrievers, unmodified."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from qdrant_client import AsyncQdrantClient, QdrantClient

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, EdgeIndex, IndexSettings, QdrantIndex
from compressae_qdrant.integrations.langchain import CompresSAERetriever, CompresSAEVectorStore

EMBEDDING = VectorStoreIntegrationTests.get_embeddings()


class TestEmbedded(VectorStoreIntegrationTests):
    """On an embedded index; async methods use threads."""

    @pytest.fixture
    def vectorstore(self, model: CompresSAE, tmp_path: Path) -> Iterator[VectorStore]:
        with EdgeIndex.create(tmp_path / "index", model) as index:
            yield CompresSAEVectorStore(model, index, EMBEDDING)


class TestEmbeddedKeepingEmbeddings(VectorStoreIntegrationTests):
    """The same with embeddings on disk, and all fields of a payload as metadata."""

    @pytest.fixture
    def vectorstore(self, model: CompresSAE, tmp_path: Path) -> Iterator[VectorStore]:
        with EdgeIndex.create(
            tmp_path / "index", model, IndexSettings(keep_dense=True, scale="reconstruction")
        ) as index:
            yield CompresSAEVectorStore(model, index, EMBEDDING, content_key="title", metadata_key=None)


class TestLocalMode(VectorStoreIntegrationTests):
    """In the client's local mode; async methods use threads."""

    @pytest.fixture
    def vectorstore(self, model: CompresSAE, local: QdrantClient, collection: str) -> VectorStore:
        return CompresSAEVectorStore(model, QdrantIndex.create(local, collection, model), EMBEDDING)


class TestAsyncClient(VectorStoreIntegrationTests):
    """On an async client, which has no sync methods."""

    @property
    def has_sync(self) -> bool:
        return False

    @pytest.fixture
    async def vectorstore(  # type: ignore[override]  # a fixture, which pytest awaits
        self, model: CompresSAE, local_async: AsyncQdrantClient, collection: str
    ) -> VectorStore:
        index = await AsyncQdrantIndex.create(local_async, collection, model)
        return CompresSAEVectorStore(model, None, EMBEDDING, async_index=index)


class TestServer(VectorStoreIntegrationTests):
    """On a server; async methods use an async client that the store makes."""

    @pytest.fixture
    async def vectorstore(  # type: ignore[override]  # a fixture, which pytest awaits
        self, model: CompresSAE, server: QdrantClient, collection: str
    ) -> AsyncIterator[VectorStore]:
        store = CompresSAEVectorStore(model, QdrantIndex.create(server, collection, model), EMBEDDING)
        yield store
        await store.aclose()


class TestRetriever(RetrieversIntegrationTests):
    """The retriever on an embedded index."""

    @pytest.fixture(autouse=True)
    def _store(self, model: CompresSAE, tmp_path: Path) -> Iterator[None]:
        with EdgeIndex.create(tmp_path / "index", model) as index:
            self._made = CompresSAEVectorStore(model, index, EMBEDDING)
            self._made.add_texts([f"document {number}" for number in range(8)])
            yield

    @property
    def retriever_constructor(self) -> type[CompresSAERetriever]:
        return CompresSAERetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self._made}

    @property
    def retriever_query_example(self) -> str:
        return "document 3"
