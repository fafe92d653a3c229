"""The API key is sent to the server with every call, and appears nowhere else."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc as rpc
import numpy as np
import pytest
from qdrant_client import grpc

from compressae_qdrant import CompresSAE, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CompresSAEError
from compressae_qdrant.index import create_index, open_index
from compressae_qdrant.index.location import connect
from compressae_qdrant.index.retry import RetryPolicy

from .support.shell import Shell
from .support.sink import Sink, serving, serving_grpc

KEY = "planted-key-3f9c"

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)  # of all libraries
    yield
    assert KEY not in caplog.text


def _assert_key_absent(*texts: str, folder: Path) -> None:
    for text in texts:
        assert KEY not in text
    for file in folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY.encode() not in Path("/proc/self/cmdline").read_bytes()


def test_the_key_is_sent_to_the_server_only(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    np.save(tmp_path / "x.npy", embeddings[:100])
    model.save(tmp_path / "model")
    sink = Sink()
    shell = Shell(monkeypatch, capsys)
    with serving(sink) as port:
        where = f"--model {tmp_path}/model --index http://127.0.0.1:{port}/items"
        code, out, err = shell(f"ingest {tmp_path}/x.npy {where} --journal {tmp_path}/journal --json")
        assert code == 0, err
        index = open_index(f"http://127.0.0.1:{port}/items")
        outputs = [out, err, repr(index), str(index), *shell(f"info --index http://127.0.0.1:{port}/items --json")[1:]]
        index.close()
    assert len(sink.points) == 100
    assert {headers.get("api-key") for _, _, headers in sink.calls} == {KEY}
    assert {method for method, path, _ in sink.calls if path.startswith("/collections/items/points")} >= {"PUT"}
    _assert_key_absent(*outputs, folder=tmp_path)


def test_errors_do_not_contain_the_key(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    np.save(tmp_path / "x.npy", embeddings[:100])
    sink = Sink()
    policy = RetryPolicy(attempts=2, first_seconds=0)
    tracebacks = []
    with serving(sink) as port:
        with create_index(f"http://127.0.0.1:{port}/items", model) as index:
            sink.full_from = 50
            with pytest.raises(CompresSAEError) as caught:
                ingest(open_source(tmp_path / "x.npy"), model, index, journal=tmp_path / "journal", batch_size=25,
                       retry=policy)  # fmt: skip
            tracebacks += traceback.format_exception(caught.value)
        with serving_grpc(sink) as grpc_port, open_index(f"grpc://127.0.0.1:{grpc_port}/items") as index:
            with pytest.raises(CompresSAEError) as caught:
                index.upsert(range(50, 60), model.encode(embeddings[50:60]))
            tracebacks += traceback.format_exception(caught.value)
    for location in (f"http://127.0.0.1:{port}/items", f"grpc://127.0.0.1:{port}/items"):
        with pytest.raises(CompresSAEError) as caught:
            open_index(location)
        tracebacks += traceback.format_exception(caught.value)
    _assert_key_absent(*tracebacks, folder=tmp_path)


@pytest.mark.parametrize(
    "location",
    [f"http://user:{KEY}@host/items", f"http://host:6333/items?api_key={KEY}", f"http://host/a/b?api-key={KEY}",
     f"grpc://host/items#{KEY}", f"ftp://{KEY}@host/items?key={KEY}", f"http://host/items?shard_key=x&api_key={KEY}"],
)  # fmt: skip
def test_a_key_in_a_location_is_refused_and_not_repeated(location: str, tmp_path: Path, model: CompresSAE,
                                                         monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    model.save(tmp_path / "model")
    shell = Shell(monkeypatch, capsys)
    for line in (f"info --index '{location}'", f"train '{location}' --out {tmp_path}/m"):
        code, out, err = shell(line)
        assert code == 2, (out, err)
        _assert_key_absent(out, err, folder=tmp_path)


def test_grpc_sends_the_key_as_metadata(model: CompresSAE, embeddings: FloatArray) -> None:
    metadata: list[dict[str, str]] = []

    class RecordMetadata(rpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
        def intercept_service(self, continuation: object, details: rpc.HandlerCallDetails) -> object:
            metadata.append(dict(details.invocation_metadata))
            return None

    server = rpc.server(ThreadPoolExecutor(1), interceptors=[RecordMetadata()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client, _ = connect(f"grpc://127.0.0.1:{port}/items")
    with pytest.raises(rpc.RpcError):
        client.grpc_points.Upsert(request=grpc.UpsertPoints(collection_name="items"), timeout=5)
    client.close()
    server.stop(None).wait()
    assert metadata[0]["api-key"] == KEY
