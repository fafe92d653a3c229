from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from compressae_qdrant import CompresSAE
from compressae_qdrant.model.config import ModelConfig

os.environ["LANGSMITH_TRACING"] = "false"
NO_SERVER = "needs a Qdrant server; set QDRANT_URL"


@pytest.fixture(scope="session")
def model() -> CompresSAE:
    """A model for the suites' embeddings of 6 dimensions. Its codes are as long as these, so they are exact."""
    return CompresSAE(ModelConfig(dim=6, latents=24, k=6)).eval()


@pytest.fixture
def collection() -> str:
    """A name for a collection."""
    return f"conformance-{uuid.uuid4().hex}"


@pytest.fixture
def local() -> Iterator[QdrantClient]:
    """A client in its local mode."""
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
async def local_async() -> AsyncIterator[AsyncQdrantClient]:
    """An async client in its local mode."""
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


@pytest.fixture
def server(collection: str) -> Iterator[QdrantClient]:
    """A client of the server of QDRANT_URL; the collection is deleted after the test."""
    if "QDRANT_URL" not in os.environ:
        pytest.skip(NO_SERVER)
    client = QdrantClient(os.environ["QDRANT_URL"], api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)
    yield client
    client.delete_collection(collection)
    client.close()
