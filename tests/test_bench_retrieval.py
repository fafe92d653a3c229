"""The retrieval and plan benchmarks: the model for each k, and the rows of several runs in one directory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant import CompresSAE
from compressae_qdrant.codes import FloatArray

from .support.scripts import load_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("bench_retrieval", monkeypatch)


def test_a_model_serves_every_larger_k(
    tmp_path: Path, script: ModuleType, embeddings: FloatArray, model: CompresSAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "items.npy", embeddings)
    groups = [str(n % 3) for n in range(len(embeddings))]
    pq.write_table(pa.table({"section": groups, "tags": [[group] for group in groups]}), tmp_path / "items.parquet")
    model.save(tmp_path / "small")
    model.with_k(8, embeddings).save(tmp_path / "large")

    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        command = ["bench", str(tmp_path / "items.npy"), "--metadata", str(tmp_path / "items.parquet")]
        monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out"), "--queries", "40", *arguments])
        script.main()
        return {row["name"]: row for row in json.loads((tmp_path / "out" / "rows.json").read_text())["rows"]}

    models = ["--model", str(tmp_path / "large"), str(tmp_path / "small")]
    rows = run("--only", "ours", *models, "--k", "7", "12")
    assert not (tmp_path / "out" / "models").exists()  # nothing was trained
    wide, narrow = rows["codes k=12, exhaustive"], rows["codes k=7, exhaustive"]
    assert wide["recall100"] > narrow["recall100"]
    assert wide["resident"] > narrow["resident"]
    assert {"codes k=7 by pursuit, reconstructed", "codes k=7 by encoder, sparse"} <= set(rows)

    more = run("--only", "encoder", "--encoder-model", str(tmp_path / "small"))
    added = {name: row["family"] for name, row in more.items() if name not in rows}
    assert added == {
        "codes k=6, trained for the encoder, reconstructed": "ours for the encoder, reconstructed",
        "codes k=6, trained for the encoder, sparse": "ours for the encoder, sparse",
    }
    assert {name: more[name] for name in rows} == rows
    for name in ("table.md", "recall_bytes.png", "recall_compression.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_the_nearest_model_that_is_not_too_large(script: ModuleType, embeddings: FloatArray, model: CompresSAE) -> None:
    bench = script.Bench.of("items", embeddings, {}, 30)
    larger = model.with_k(8, embeddings)
    given = {6: model, 8: larger}
    assert script._model_for(given, bench, 5) is None
    assert script._model_for(given, bench, 6)() is model
    seven, nine = script._model_for(given, bench, 7)(), script._model_for(given, bench, 9)()
    assert (seven.k, nine.k) == (7, 9)
    assert nine.fingerprint == larger.with_k(9, embeddings).fingerprint


@pytest.mark.parametrize("kept", [[], ["--keep-dense"]])
def test_plans_beside_each_other(
    tmp_path: Path, embeddings: FloatArray, model: CompresSAE, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], kept: list[str],
) -> None:  # fmt: skip
    np.save(tmp_path / "items.npy", embeddings)
    model.save(tmp_path / "model")
    command = ["bench", str(tmp_path / "items.npy"), "--model", str(tmp_path / "model"), "--queries", "20", *kept]
    monkeypatch.setattr(sys, "argv", [*command, "--plan", "3,1,40", "--plan", "96,2"])
    load_script("bench_plans", monkeypatch).main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.partition("|---")[2].splitlines()[1:]]
    found = {(row[0], row[1]): (row[2], float(row[3])) for row in rows}
    assert found["100", "3,1,40"][0] == "3, 101"
    assert found["10", "3,1,40"][0] == "3, 40"
    assert found["10", "96,2"][0] == "96, 100"
    assert found["10", "3,1,40"][1] < found["10", "96,2"][1]
    assert (("10", "exact") in found) == (not kept)
