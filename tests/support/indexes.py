"""Indexes of every engine for tests that must give the same results on each."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, QdrantIndex
from compressae_qdrant.index.protocol import CodeIndex

LOCAL_ENGINES: Final = ("edge", "local")
"""The embedded engine, and the local mode of the client."""
_URL: Final = os.environ.get("QDRANT_URL")
ENGINES: Final = (*LOCAL_ENGINES, *(("server-rest", "server-grpc") if _URL else ()))
"""These, and the server that QDRANT_URL names (gRPC at QDRANT_GRPC_PORT, 6334), if it does."""


@contextmanager
def create_on(
    engine: str, directory: Path, model: CompresSAE, settings: IndexSettings = IndexSettings()  # noqa: B008 (frozen)
) -> Iterator[CodeIndex]:  # fmt: skip
    """A new index on one of `ENGINES`, deleted or closed afterwards. The embedded engine keeps it in `directory`."""
    if engine == "edge":
        with EdgeIndex.create(directory / "index", model, settings) as embedded:
            yield embedded
        return
    client = QdrantClient(":memory:")
    if engine != "local":
        client = QdrantClient(
            _URL, grpc_port=int(os.environ.get("QDRANT_GRPC_PORT", "6334")), prefer_grpc=engine == "server-grpc",
            check_compatibility=False,
        )  # fmt: skip
    name = f"test-{uuid.uuid4().hex}"
    with QdrantIndex.create(client, name, model, settings, owns_client=True) as index:
        try:
            yield index
        finally:
            client.delete_collection(name)
