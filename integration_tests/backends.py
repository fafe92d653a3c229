"""The three kinds of backends, each as a factory of empty indexes for one test."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qdrant_client import QdrantClient

from compressae_qdrant import EdgeIndex, IndexSettings, QdrantIndex
from compressae_qdrant.index.protocol import CodeIndex, CodeModel

from .containers import Server, container

Create = Callable[[CodeModel, IndexSettings], CodeIndex]


@contextmanager
def edge(folder: Path) -> Iterator[Create]:
    """A factory of embedded indexes in a directory."""
    with ExitStack() as opened:
        yield lambda model, settings: opened.enter_context(EdgeIndex.create(folder / uuid.uuid4().hex, model, settings))


@contextmanager
def on_client(client: QdrantClient) -> Iterator[Create]:
    """A factory of collections of a client, which are deleted at the end."""
    prefix = f"test-{uuid.uuid4().hex}"
    numbers = itertools.count()

    def create(model: CodeModel, settings: IndexSettings) -> CodeIndex:
        return QdrantIndex.create(client, f"{prefix}-{next(numbers)}", model, settings)

    try:
        yield create
    finally:
        remove(client, prefix)
        client.close()


def remove(client: QdrantClient, prefix: str) -> None:
    """Delete every collection whose name begins with a prefix, with its aliases."""
    for each in client.get_collections().collections:
        if each.name.startswith(prefix):
            client.delete_collection(each.name)


def server() -> Iterator[Server]:
    """The server of QDRANT_URL (gRPC at QDRANT_GRPC_PORT, 6334), or a container for the session, or a skip.

    With CI_REQUIRE_SERVER=1 a missing server is a failure.
    """
    if url := os.environ.get("QDRANT_URL"):
        yield Server(url.rstrip("/"), int(os.environ.get("QDRANT_GRPC_PORT", "6334")))
        return
    with container() as started:
        yield started.server()
