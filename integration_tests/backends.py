"""The three places an index can live in, each as a factory of empty indexes for one test."""

from __future__ import annotations

import gc
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker.errors
import pytest
import requests.exceptions
from qdrant_client import QdrantClient
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

from compressae_qdrant import EdgeIndex, IndexSettings, QdrantIndex
from compressae_qdrant.index.base import CodeIndex, CodeModel

IMAGE: Final = "qdrant/qdrant:v1.19.0"
"""The server that the tests start, pinned here and nowhere else."""

Create = Callable[[CodeModel, IndexSettings], CodeIndex]


@contextmanager
def edge(folder: Path) -> Iterator[Create]:
    """Embedded shards in a directory."""
    with ExitStack() as opened:
        yield lambda model, settings: opened.enter_context(EdgeIndex.create(folder / uuid.uuid4().hex, model, settings))


@contextmanager
def on_client(client: QdrantClient) -> Iterator[Create]:
    """Collections of a client, removed at the end."""
    made: list[str] = []

    def create(model: CodeModel, settings: IndexSettings) -> CodeIndex:
        made.append(f"test-{uuid.uuid4().hex}")
        return QdrantIndex.create(client, made[-1], model, settings)

    try:
        yield create
    finally:
        for name in made:
            client.delete_collection(name)
        client.close()


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    url: str
    grpc_port: int

    def client(self, *, grpc: bool) -> QdrantClient:
        """A client by REST or gRPC; the key, if the server wants one, comes from QDRANT_API_KEY."""
        key = os.environ.get("QDRANT_API_KEY") or None
        return QdrantClient(url=self.url, grpc_port=self.grpc_port, prefer_grpc=grpc, api_key=key)


def server() -> Iterator[Server]:
    """The server of QDRANT_URL (gRPC at QDRANT_GRPC_PORT, 6334), or a container for the session; or a visible skip.

    With CI_REQUIRE_SERVER=1 a missing server is a failure.
    """
    if url := os.environ.get("QDRANT_URL"):
        yield Server(url, int(os.environ.get("QDRANT_GRPC_PORT", "6334")))
        return
    started = _start_container()
    if isinstance(started, str):
        if os.environ.get("CI_REQUIRE_SERVER") == "1":
            pytest.fail(started)
        pytest.skip(started)
    try:
        rest, grpc = (int(started.get_exposed_port(port)) for port in (6333, 6334))
        yield Server(f"http://{started.get_container_host_ip()}:{rest}", grpc)
    finally:
        started.stop()


def _start_container() -> DockerContainer | str:
    """A running server that is ready, or why there is none."""
    # Whoever starts it stops it; the helper that testcontainers would start for that needs an image of its own.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    with warnings.catch_warnings():
        # Without a daemon, the Docker client drops its socket unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            container = DockerContainer(IMAGE).with_exposed_ports(6333, 6334)
            container.waiting_for(HttpWaitStrategy(6333, "/readyz").for_status_code(200))
            return container.start()
        except (docker.errors.DockerException, requests.exceptions.RequestException, TimeoutError, OSError) as exc:
            reason = f"QDRANT_URL is not set, and Docker can't run {IMAGE} ({type(exc).__name__})"
        gc.collect()
    return f"no Qdrant server: {reason}"
