"""How commands end: by Ctrl-C, by SIGTERM, with an output that nobody reads or that cannot show a character."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, EdgeIndex, QdrantIndex
from compressae_qdrant.cli import main
from compressae_qdrant.codes import FloatArray

from .support.sink import Sink, serving

RUN = (sys.executable, "-m", "compressae_qdrant")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_within_two_seconds(
    number: signal.Signals, code: int, tmp_path: Path, model: CompresSAE, catalog: Path
) -> None:
    model.save(tmp_path / "model")
    sink = Sink()
    with serving(sink) as port:
        client = QdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
        QdrantIndex.create(client, "items", model, owns_client=True).close()
        sink.delays["PUT points"] = 30.0
        where = f"http://127.0.0.1:{port}/items"
        command = [*RUN, "ingest", str(catalog), "--model", str(tmp_path / "model"), "--index", where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            while not any(method == "PUT" and "/points" in path for method, path, _ in sink.calls):
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            began = time.monotonic()
            running.send_signal(number)
            _, err = running.communicate(timeout=20)
            assert time.monotonic() - began < 2
        sink.delays.clear()
    assert running.returncode == code
    assert err.count("interrupted: rows before 0 are in the index") == 1
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "hangs", "written"),
    [
        ("sync {catalog} --model {model} --index {items}", "PUT points", "added or changed items are in the index"),
        ("sync {catalog} --model {model} --index {items}", "POST points", "added or changed items are in the index"),
        ("sync {catalog} --model {model} --index {items}", "GET aliases", "interrupted"),
        ("migrate {items}?vector=text --model {model} --index {folder}", "GET items", "interrupted"),
        ("migrate {items}?vector=text --model {model} --in-place", "GET items", "interrupted"),
        ("deploy {catalog} --model {model} --alias {items}", "GET aliases", "interrupted"),
    ],
)
def test_every_load_ends_when_interrupted(
    line: str, hangs: str, written: str, tmp_path: Path, model: CompresSAE, catalog: Path
) -> None:
    model.save(tmp_path / "model")
    sink = Sink()
    with serving(sink) as port:
        client = QdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
        QdrantIndex.create(client, "items", model, owns_client=True).close()
        before = len(sink.calls)
        sink.delays[hangs] = 30.0
        method, end = hangs.split()
        words = line.format(
            catalog=catalog, model=tmp_path / "model", folder=tmp_path / "index", items=f"http://127.0.0.1:{port}/items"
        ).split()
        with subprocess.Popen([*RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            while not any(
                called == method and path.partition("?")[0].rpartition("/")[2] == end
                for called, path, _ in sink.calls[before:]
            ):
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            began = time.monotonic()
            running.send_signal(signal.SIGTERM)
            _, err = running.communicate(timeout=20)
            assert time.monotonic() - began < 10  # the server would answer after 30 s
        sink.delays.clear()
    assert running.returncode == 143
    assert err.count("interrupted") == 1
    assert written in err
    assert "Traceback" not in err


@pytest.fixture
def described(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> list[str]:
    """The words of a search whose hit has a payload in Cyrillic."""
    model.save(tmp_path / "model")
    with EdgeIndex.create(tmp_path / "index", model) as index:
        index.upsert([1], model.encode(embeddings[:1]), [{"title": "Привет é"}])
        index.optimize()
    query = json.dumps([round(float(x), 4) for x in np.asarray(embeddings[0])])
    return ["search", query, "--model", str(tmp_path / "model"), "--index", str(tmp_path / "index")]


@pytest.mark.slow
def test_an_output_in_ascii(described: list[str]) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    ended = subprocess.run([*RUN, *described, "--json"], capture_output=True, check=False, env=env)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    assert "Привет é" in json.dumps(json.loads(ended.stdout.decode("ascii")), ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1251", "utf-8"])
def test_an_output_of_another_encoding(encoding: str, described: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ([], ["--json"]):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        monkeypatch.setattr("sys.argv", ["compressae", *described, *options])
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        for stream in (out, err):
            stream.seek(0)
        assert not err.read()
        shown = out.read()
    assert "Привет é" in json.dumps(json.loads(shown), ensure_ascii=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["--help"], ["search", "--help"]])
def test_a_closed_pipe_ends_quietly(command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*RUN, *command], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.slow
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*RUN, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert b"No space left" in ended.stderr
