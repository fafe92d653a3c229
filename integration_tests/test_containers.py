"""Tests of the container helpers with a small image that is built here. They need a Docker daemon."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from .containers import Server, cluster, container, tried


def connected() -> docker.DockerClient:
    client = docker.from_env()
    client.ping()
    return client


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of one static program that listens on a server's ports."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make an image of")
    program = tmp_path_factory.mktemp("image") / "qdrant"
    source = Path(__file__).with_name("stand_in.c")
    subprocess.run([compiler, "-static", "-O1", "-o", program, source], check=True)
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as tar:
        tar.add(program, "qdrant")
    name = f"stand-in:{uuid.uuid4().hex}"
    client = tried("answer", connected)
    repository, tag = name.split(":")
    client.api.import_image_from_data(text.getvalue(), repository=repository, tag=tag, changes=['CMD ["/qdrant"]'])
    yield name
    client.images.remove(name, force=True)
    client.close()


def _answer(url: str) -> list[str]:
    return httpx.get(f"{url}/readyz").text.split("\n")


def test_a_container_gets_its_environment_and_random_ports(stand_in: str) -> None:
    with container({"QDRANT__SERVICE__API_KEY": "secret"}, image=stand_in) as one, container(image=stand_in) as other:
        assert "QDRANT__SERVICE__API_KEY=secret" in _answer(one.server().url)
        assert "QDRANT__SERVICE__API_KEY=secret" not in _answer(other.server().url)
        ports = {one.server().url, other.server().url, one.server().grpc_port, other.server().grpc_port}
        assert len(ports) == 4


def test_a_killed_container_restarts_on_its_ports(stand_in: str) -> None:
    with container(fixed_ports=True, image=stand_in) as started:
        before = started.server()
        started.kill()
        with pytest.raises(httpx.HTTPError):
            _answer(before.url)
        started.start()
        assert started.server() == before
        assert _answer(before.url)


def test_nodes_share_a_network_and_join_the_first(stand_in: str) -> None:
    with cluster(image=stand_in) as nodes:
        assert len(nodes) == 3
        for number, node in enumerate(nodes):
            answer = _answer(node.server().url)
            assert "QDRANT__CLUSTER__ENABLED=true" in answer
            assert f"http://node{number}:6335" in answer
            assert ("--bootstrap" in answer) == (number > 0)
            networks = node.container.get_wrapped_container().attrs["NetworkSettings"]["Networks"]
            assert [f"node{number}" in network["Aliases"] for network in networks.values()] == [True]
        nodes[2].kill()
        assert _answer(nodes[0].server().url)
        nodes[2].start()
        gone = nodes[0].server().url
    with pytest.raises(httpx.HTTPError):
        _answer(gone)


def test_an_unavailable_image_is_a_skip_or_a_failure(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = f"{stand_in.split(':')[0]}:not-there"
    monkeypatch.delenv("CI_REQUIRE_SERVER", raising=False)
    monkeypatch.delenv("QDRANT_URL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"Docker can't run {missing}"), container(image=missing):
        pass
    monkeypatch.setenv("CI_REQUIRE_SERVER", "1")
    with pytest.raises(pytest.fail.Exception, match=f"Docker can't run {missing}"), container(image=missing):
        pass
    monkeypatch.setenv("QDRANT_URL", "http://a-server:6333")
    with pytest.raises(pytest.skip.Exception, match=f"Docker can't run {missing}"), container(image=missing):
        pass


def test_a_server_without_grpc_is_a_skip_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lonely = Server("http://127.0.0.1:6333", 1)
    monkeypatch.delenv("CI_REQUIRE_SERVER", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"gRPC can't be reached at 127\.0\.0\.1:1 .*QDRANT_GRPC_PORT"):
        lonely.require_grpc()
    monkeypatch.setenv("CI_REQUIRE_SERVER", "1")
    with pytest.raises(pytest.fail.Exception, match="gRPC can't be reached"):
        lonely.require_grpc()
