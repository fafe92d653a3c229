"""The three places an index can live in, each as a factory of empty indexes for one test."""

from __future__ import annotations

import gc
import os
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            return QdrantClient(url=self.url, grpc_port=self.grpc_port, prefer_grpc=grpc, api_key=key)


def server() -> Iterator[Server]:
    """The server of QDRANT_URL (gRPC at QDRANT_GRPC_PORT, 6334), or a container for the session; or a visible skip.

    With CI_REQUIRE_SERVER=1 a missing server is a failure.
    """
    if url := os.environ.get("QDRANT_URL"):
        yield Server(url, int(os.environ.get("QDRANT_GRPC_PORT", "6334")))
        return
    with container() as started:
        yield started.server()


@dataclass(frozen=True)
class Started:
    """A container of the server that a test may stop and start."""

    container: DockerContainer
    ports: tuple[int, int] | None

    def server(self) -> Server:
        """Where it listens."""
        rest, grpc = self.ports or tuple(int(self.container.get_exposed_port(port)) for port in (6333, 6334))
        return Server(f"http://{self.container.get_container_host_ip()}:{rest}", grpc)

    def restart(self) -> None:
        """Stop it hard and start it again, on the same ports if they were fixed."""
        wrapped = self.container.get_wrapped_container()
        wrapped.kill()
        wrapped.start()


@contextmanager
def container(environment: Mapping[str, str] | None = None, *, fixed_ports: bool = False) -> Iterator[Started]:
    """A server of its own for one test, or a visible skip; a failure with CI_REQUIRE_SERVER=1."""
    ports = _free_ports() if fixed_ports else None
    started = _start_container(environment or {}, ports)
    if isinstance(started, str):
        if os.environ.get("CI_REQUIRE_SERVER") == "1":
            pytest.fail(started)
        pytest.skip(started)
    try:
        yield Started(started, ports)
    finally:
        started.stop()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("", 0))
        two.bind(("", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])


def _start_container(environment: Mapping[str, str], ports: tuple[int, int] | None) -> DockerContainer | str:
    """A running server that is ready, or why there is none."""
    # Whoever starts it stops it; the helper that testcontainers would start for that needs an image of its own.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    with warnings.catch_warnings():
        # Without a daemon, the Docker client drops its socket unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            container = DockerContainer(IMAGE)
            if ports is None:
                container.with_exposed_ports(6333, 6334)
            else:
                container.with_bind_ports(6333, ports[0]).with_bind_ports(6334, ports[1])
            for name, value in environment.items():
                container.with_env(name, value)
            container.waiting_for(HttpWaitStrategy(6333, "/readyz").for_status_code(200))
            return container.start()
        except (docker.errors.DockerException, requests.exceptions.RequestException, TimeoutError, OSError) as exc:
            reason = f"QDRANT_URL is not set, and Docker can't run {IMAGE} ({type(exc).__name__})"
        gc.collect()
    return f"no Qdrant server: {reason}"
