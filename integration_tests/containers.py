"""Qdrant servers in containers: one for a session or a test, or a cluster of three. Without Docker, visible skips."""

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
"""The server that the tests start, pinned here and nowhere else."""

_REST, _GRPC, _PEERS = 6333, 6334, 6335
_JOIN_SECONDS: Final = 60


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    url: str
    grpc_port: int

    def require_grpc(self) -> None:
        """A visible skip where only REST can be reached; a failure with CI_REQUIRE_SERVER=1."""
        host = urlsplit(self.url).hostname or ""
        try:
            socket.create_connection((host, self.grpc_port), timeout=5).close()
        except OSError as exc:
            reason = f"gRPC can't be reached at {host}:{self.grpc_port} ({exc}); name its port by QDRANT_GRPC_PORT"
            _unavailable(reason, required=os.environ.get("CI_REQUIRE_SERVER") == "1")

    def client(self, *, grpc: bool, key: str | None = None, timeout: int = 60) -> QdrantClient:
        """A client by REST or gRPC; without `key`, the one of QDRANT_API_KEY is used if there is one."""
        with _insecure():
            return QdrantClient(**self._options(grpc, key, timeout))

    def location(self, *, grpc: bool) -> str:
        """What stands before `/collection` in a location."""
        where = urlsplit(self.url)
        if not grpc:
            return self.url
        return f"{'grpcs' if where.scheme == 'https' else 'grpc'}://{where.hostname}:{self.grpc_port}"

    def async_client(self, *, grpc: bool = False) -> AsyncQdrantClient:
        """The same, awaited."""
        with _insecure():
            return AsyncQdrantClient(**self._options(grpc, None, 60))

    def _options(self, grpc: bool, key: str | None, timeout: int) -> dict[str, Any]:
        return {
            "url": self.url, "grpc_port": self.grpc_port, "prefer_grpc": grpc, "timeout": timeout,
            "api_key": key or os.environ.get("QDRANT_API_KEY") or None, "check_compatibility": False,
        }  # fmt: skip


@contextmanager
def _insecure() -> Iterator[None]:
    """A key over plain HTTP on this machine is what a test wants; the client warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        yield


@dataclass(frozen=True)
class Started:
    """A container of a server that a test may stop and start."""

    container: DockerContainer
    ports: tuple[int, int] | None

    def server(self) -> Server:
        """Where it listens."""
        rest, grpc = self.ports or tuple(int(self.container.get_exposed_port(port)) for port in (_REST, _GRPC))
        return Server(f"http://{self.container.get_container_host_ip()}:{rest}", grpc)

    def kill(self) -> None:
        """Stop it hard, as a machine that fails does."""
        self.container.get_wrapped_container().kill()

    def start(self) -> None:
        """Start it again with what is on its disk, on the same ports if they were fixed; returns when it is ready."""
        self.container.get_wrapped_container().start()
        _until(lambda: httpx.get(f"{self.server().url}/readyz").status_code == httpx.codes.OK, "it isn't ready")


@contextmanager
def container(
    environment: Mapping[str, str] | None = None, *, fixed_ports: bool = False, image: str = IMAGE
) -> Iterator[Started]:
    """A server of its own for one test, or a visible skip; a failure with CI_REQUIRE_SERVER=1."""
    with ExitStack() as stack:
        yield _entered(stack, environment or {}, fixed_ports, image, None, "", None)


@contextmanager
def cluster(*, image: str = IMAGE, nodes: int = 3) -> Iterator[list[Started]]:
    """Nodes of one cluster in a network of their own; the first is the one that the others join."""
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
    """What `action` returns, or a visible skip of what Docker can't do."""
    with warnings.catch_warnings():
        # Without a daemon, the Docker client drops its sockets unclosed. They live until the error is gone.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return action()
        except (docker.errors.DockerException, requests.exceptions.RequestException, TimeoutError, OSError) as exc:
            failed = type(exc).__name__
        gc.collect()
    # Where QDRANT_URL names a server there is one; what needs servers of its own is left out, visibly.
    required = os.environ.get("CI_REQUIRE_SERVER") == "1" and not os.environ.get("QDRANT_URL")
    return _unavailable(f"no Qdrant server: Docker can't {aim} ({failed})", required=required)


def _entered(
    stack: ExitStack, environment: Mapping[str, str], fixed_ports: bool, image: str, network: Network | None,
    command: str, alias: str | None,
) -> Started:  # fmt: skip
    """A running server that is ready, which the stack stops at its end."""
    # Whoever starts it stops it; the helper that testcontainers would start for that needs an image of its own.
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
    """Wait for something that takes its time; what fails meanwhile is asked again."""
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
