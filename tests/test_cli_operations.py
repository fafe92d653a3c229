"""The commands sync, migrate, deploy and rollback; a server is replaced by the client's local mode."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE
from compressae_qdrant.cli.output import progress_bar
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index import location

from .support.shell import Shell


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> QdrantClient:
    client = QdrantClient(":memory:")

    def connect(location: str) -> tuple[QdrantClient, str]:
        return client, location.rpartition("/")[2]

    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(location, "connect", connect)
    return client


def test_notices_are_shown_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("compressae_qdrant.index.qdrant.steps")
    with progress_bar("ingest", 10, quiet=False):
        log.info("collection %r: optimisers at work", "[b]items")
    log.info("nobody asked")
    with progress_bar("ingest", 10, quiet=True):
        log.info("nobody asked")
    err = capsys.readouterr().err
    assert "collection '[b]items': optimisers at work" in err
    assert "nobody asked" not in err


def test_sync_reports_what_it_touched(shell: Shell, tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    model.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", embeddings[:100])
    line = f"sync {tmp_path}/x.npy --model {tmp_path}/model --index {tmp_path}/index"
    assert shell.json(line)["added"] == 100
    np.save(tmp_path / "x.npy", embeddings[:90])
    report = shell.json(line)
    assert (report["deleted"], report["unchanged"], report["in_index"]) == (10, 90, 90)
    np.save(tmp_path / "x.npy", embeddings[:80])
    assert shell.json(f"{line} --keep-vanished")["in_index"] == 90


def test_migrate_evaluate_and_train_from_a_collection(
    shell: Shell, tmp_path: Path, server: QdrantClient, model: CompresSAE, embeddings: FloatArray
) -> None:
    model.save(tmp_path / "model")
    params = models.VectorParams(size=24, distance=models.Distance.COSINE)
    server.create_collection("dense", vectors_config={"text": params})
    server.upsert("dense", [models.PointStruct(id=n, vector={"text": x.tolist()}) for n, x in enumerate(embeddings)])
    there = "'http://host:6333/dense?vector=text'"
    line = f"migrate {there} --model {tmp_path}/model --index {tmp_path}/index"
    assert shell.json(line)["added"] == 600
    assert shell.json(line)["unchanged"] == 600
    report = shell.json(f"evaluate {there} --model {tmp_path}/model --index {tmp_path}/index --queries 20 --exact")
    assert report["queries"] == 20
    assert 0.3 < report["recall"]["10"] < 1
    trained = shell.json(f"train {there} --out {tmp_path}/new --latents 64 --k 4 --steps 3 --rounds 1")
    assert trained["dim"] == 24
    code, _, err = shell(f"migrate 'http://host:6333/dense?wrong=1' --model {tmp_path}/model --index {tmp_path}/i")
    assert code == 2
    assert "the name of a vector: ?vector=NAME" in err


@pytest.mark.slow
def test_deploy_and_roll_back(
    shell: Shell, tmp_path: Path, server: QdrantClient, model: CompresSAE, embeddings: FloatArray
) -> None:
    np.save(tmp_path / "x.npy", embeddings[:250])  # the client's local mode is slow
    model.save(tmp_path / "model")
    other = CompresSAE.load(tmp_path / "model")
    with torch.no_grad():
        other.atoms.copy_(other.atoms.flip(0))
    other.save(tmp_path / "new")
    alias = "--alias http://host:6333/items"
    least = "--min-recall 0.3 --tolerance 0.5"
    first = shell.json(f"deploy {tmp_path}/x.npy --model {tmp_path}/model {alias} {least}")
    second = shell.json(f"deploy {tmp_path}/x.npy --model {tmp_path}/new --live-model {tmp_path}/model {alias} {least}")
    assert second["previous"] == first["collection"]
    assert shell.json(f"rollback {alias}") == {"live": first["collection"], "previous": second["collection"]}
    assert shell.json(f"rollback {alias} --drop-previous") == {"dropped": second["collection"]}
    code, _, err = shell(f"rollback {alias}")
    assert code == 2
    assert "no previous collection" in err
