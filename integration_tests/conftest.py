from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from . import backends
from .containers import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, and allow time for the first of them to pull the server's image."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
        if here in item.path.parents and _needs_server(item):
            item.add_marker(pytest.mark.server)


def _needs_server(item: pytest.Item) -> bool:
    """Whether a test uses the `server` fixture, or runs a fixture of this file on a server."""
    call = getattr(item, "callspec", None)
    backends = [] if call is None else call.params.values()
    return "server" in getattr(item, "fixturenames", ()) or any(str(each).startswith("server-") for each in backends)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A Qdrant server; tests that need it are skipped if there is none."""
    yield from backends.server()


@pytest.fixture(params=["edge", "local", "server-rest", "server-grpc"])
def create(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[backends.Create]:
    """Creates empty indexes, on each backend in turn."""
    with ExitStack() as opened:
        if request.param == "edge":
            yield opened.enter_context(backends.edge(tmp_path))
        elif request.param == "local":
            yield opened.enter_context(backends.on_client(QdrantClient(":memory:")))
        else:
            client = _of_server(request)
            yield opened.enter_context(backends.on_client(client))


@pytest.fixture(params=["local", "server-rest", "server-grpc"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    """A client of each backend that has collections and aliases; a test removes what it creates."""
    made = QdrantClient(":memory:") if request.param == "local" else _of_server(request)
    yield made
    made.close()


@pytest.fixture
def name(client: QdrantClient) -> Iterator[str]:
    """A name not in use; every collection whose name begins with it is removed after the test."""
    prefix = f"test-{uuid.uuid4().hex}"
    yield prefix
    backends.remove(client, prefix)


def _of_server(request: pytest.FixtureRequest) -> QdrantClient:
    running: Server = request.getfixturevalue("server")
    grpc = request.param == "server-grpc"
    if grpc:
        running.require_grpc()
    return running.client(grpc=grpc)
