from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from . import backends
from .containers import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A Qdrant server; tests that want one skip where there is none."""
    yield from backends.server()


@pytest.fixture(params=["edge", "local", "server-rest", "server-grpc"])
def create(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[backends.Create]:
    """Makes empty indexes, on each backend in turn."""
    with ExitStack() as opened:
        if request.param == "edge":
            yield opened.enter_context(backends.edge(tmp_path))
        elif request.param == "local":
            yield opened.enter_context(backends.on_client(QdrantClient(":memory:")))
        else:
            running: Server = request.getfixturevalue("server")
            client = running.client(grpc=request.param == "server-grpc")
            yield opened.enter_context(backends.on_client(client))


@pytest.fixture(params=["local", "server-rest", "server-grpc"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    """Clients of what has collections and aliases; a test removes what it makes."""
    if request.param == "local":
        made = QdrantClient(":memory:")
    else:
        running: Server = request.getfixturevalue("server")
        made = running.client(grpc=request.param == "server-grpc")
    yield made
    made.close()
