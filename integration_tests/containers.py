"""Qdrant servers in containers, alone or as a cluster. Tests are skipped without Docker."""

from __future__ import annotations

import gc
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import docker.errors
import httpx
import pytest
import requests.exceptions
from qdrant_client import AsyncQdrantClient, QdrantClient
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy

IMAGE: Final = "qdrant/qdrant:v1.19.0"
"""Image of the server that the tests start; the only place that pins it."""

_REST, _GRPC, _PEERS = 6333, 6334, 6335
_JOIN_SECONDS: Final = 60


@dataclass(frozen=True)
class Server:
    """Addresses of a server."""

    url: str
    grpc_port: int

    def require_grpc(self) -> None:
        """Skip the test if gRPC cannot be reached; fail with CI_REQUIRE_SERVER=1."""
        host = urlsplit(self.url).hostname or ""
        try:
            socket.create_connection((host, self.grpc_port), timeout=5).close()
        except OSError as exc:
            reason = f"gRPC can't be reached at {host}:{self.grpc_port} ({exc}); name its port by QDRANT_GRPC_PORT"
            _unavailable(reason, required=os.environ.get("CI_REQUIRE_SERVER") == "1")

    def client(self, *, grpc: bool, key: str | None = None, timeout: int = 60) -> QdrantClient:
        """A client by REST or gRPC. The default of `key` is QDRANT_API_KEY, if it is set."""
        with _insecure():
            return QdrantClient(**self._options(grpc, key, timeout))

    def location(self, *, grpc: bool) -> str:
        """A location without its `/collection`."""
        where = urlsplit(self.url)
        if not grpc:
            return self.url
        return f"{'grpcs' if where.scheme == 'https' else 'grpc'}://{where.hostname}:{self.grpc_port}"

    def async_client(self, *, grpc: bool = False) -> AsyncQdrantClient:
        """An async client by REST or gRPC."""
        with _insecure():
            return AsyncQdrantClient(**self._options(grpc, None, 60))

    def _options(self, grpc: bool, key: str | None, timeout: int) -> dict[str, Any]:
        return {
            "url": self.url, "grpc_port": self.grpc_port, "prefer_grpc": grpc, "timeout": timeout,
            "api_key": key or os.environ.get("QDRANT_API_KEY") or None, "check_compatibility": False,
        }  # fmt: skip


@contextmanager
def _insecure() -> Iterator[None]:
    """Ignore the client's warning about a key over plain HTTP, which the tests use on this machine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        yield


@dataclass(frozen=True)
class Started:
    """A server in a container that a test may stop and start."""

    container: DockerContainer
    ports: tuple[int, int] | None

    def server(self) -> Server:
        """Addresses of the server."""
        rest, grpc = self.ports or tuple(int(self.container.get_exposed_port(port)) for port in (_REST, _GRPC))
        return Server(f"http://{self.container.get_container_host_ip()}:{rest}", grpc)

    def kill(self) -> None:
        """Kill the server, as if its machine failed."""
        self.container.get_wrapped_container().kill()

    def start(self) -> None:
        """Restart the server with its disk, on the same ports if they were fixed, and wait until it is ready."""
        self.container.get_wrapped_container().start()
        _until(lambda: httpx.get(f"{self.server().url}/readyz").status_code == httpx.codes.OK, "it isn't ready")


@contextmanager
def container(
    environment: Mapping[str, str] | None = None, *, fixed_ports: bool = False, image: str = IMAGE
) -> Iterator[Started]:
    """A server for one test, or a skip; a failure with CI_REQUIRE_SERVER=1."""
    with ExitStack() as stack:
        yield _entered(stack, environment or {}, fixed_ports, image, None, "", None)


@contextmanager
def cluster(*, image: str = IMAGE, nodes: int = 3) -> Iterator[list[Started]]:
    """Nodes of one cluster in their own network. The others join the first."""
    with ExitStack() as stack:
        network = tried("make a network", lambda: stack.enter_context(Network()))
        started = []
        for number in range(nodes):
            join = "" if number == 0 else f"--bootstrap http://node0:{_PEERS} "
            command = f"./qdrant {join}--uri http://node{number}:{_PEERS}"
            enabled = {"QDRANT__CLUSTER__ENABLED": "true"}
            started.append(_entered(stack, enabled, True, image, network, command, f"node{number}"))
        if image == IMAGE:
            url = started[0].server().url
            _until(lambda: len(httpx.get(f"{url}/cluster").json()["result"]["peers"]) == nodes, "nodes are missing")
        yield started


def tried(aim: str, action: Callable[[], Any]) -> Any:
    """The result of `action`, or a skip if Docker cannot do it."""
    with warnings.catch_warnings():
        # Without a daemon, the Docker client drops its sockets unclosed. They live until the error is gone.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return action()
        except (docker.errors.DockerException, requests.exceptions.RequestException, TimeoutError, OSError) as exc:
            failed = type(exc).__name__
        gc.collect()
    # QDRANT_URL names a server, so only tests that start their own servers are skipped.
    required = os.environ.get("CI_REQUIRE_SERVER") == "1" and not os.environ.get("QDRANT_URL")
    return _unavailable(f"no Qdrant server: Docker can't {aim} ({failed})", required=required)


def _entered(
    stack: ExitStack, environment: Mapping[str, str], fixed_ports: bool, image: str, network: Network | None,
    command: str, alias: str | None,
) -> Started:  # fmt: skip
    """A server that is ready; the exit stack stops it."""
    # The exit stack stops it. The clean-up container of testcontainers would need another image.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    ports = _free_ports() if fixed_ports else None

    def started() -> DockerContainer:
        made = DockerContainer(image)
        if ports is None:
            made.with_exposed_ports(_REST, _GRPC)
        else:
            made.with_bind_ports(_REST, ports[0]).with_bind_ports(_GRPC, ports[1])
        for name, value in environment.items():
            made.with_env(name, value)
        if network is not None and alias is not None:
            made.with_network(network).with_network_aliases(alias)
        if command:
            made.with_command(command)
        made.waiting_for(HttpWaitStrategy(_REST, "/readyz").for_status_code(httpx.codes.OK))
        stack.callback(_stop, made)
        made.start()
        return made

    return Started(tried(f"run {image}", started), ports)


def _stop(made: DockerContainer) -> None:
    if made._container is not None:
        made.stop()


def _unavailable(reason: str, *, required: bool) -> NoReturn:
    if required:
        pytest.fail(reason)
    pytest.skip(reason)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("", 0))
        two.bind(("", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])


def _until(true: Any, complaint: str) -> None:
    """Wait until a condition holds; errors of the condition are retried."""
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        try:
            if true():
                return
        except (httpx.HTTPError, KeyError, ValueError):
            pass
        if time.monotonic() > deadline:
            pytest.fail(f"{complaint} after {_JOIN_SECONDS} s")
        time.sleep(0.2)
