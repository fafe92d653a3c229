from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, IngestError, ModelMismatchError, RowError
from compressae_qdrant.model.config import ModelConfig


@pytest.fixture
def catalog(tmp_path: Path, embeddings: FloatArray) -> Path:
    rows = [{"id": f"i{n}", "embedding": x.tolist(), "n": n} for n, x in enumerate(embeddings)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "catalog.parquet")
    return tmp_path / "catalog.parquet"


def _content(index: EdgeIndex) -> dict[Any, Any]:
    return {
        record.id: (record.indices.tolist(), record.values.tolist(), record.payload)
        for record in index.retrieve([f"i{n}" for n in range(600)])
    }


def test_every_item_is_stored_with_its_code_and_payload(
    tmp_path: Path, catalog: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        report = ingest(open_source(catalog), model, index, batch_size=70)
        assert (report.items, report.rows, report.resumed_from, report.skipped) == (600, 600, 0, 0)
        content = _content(index)
        assert len(content) == index.count() == 600
        indices, values, payload = content["i599"]
        code = model.encode(embeddings[560:600], batch_size=512)  # the last batch of 70 begins at 560
        assert indices == code.indices[39].tolist()
        np.testing.assert_allclose(values, code.values[39], atol=1e-5)
        assert payload == {"n": 599}


def test_repeated_ingestion_changes_nothing(tmp_path: Path, catalog: Path, model: CompresSAE) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        ingest(open_source(catalog), model, index)
        before = _content(index)
        assert ingest(open_source(catalog), model, index).items == 0
        assert ingest(open_source(catalog), model, index, restart=True).items == 600
        assert _content(index) == before
        assert index.count() == 600


def test_items_replaced_by_a_later_row_are_counted_and_logged(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": n % 90, "embedding": x.tolist(), "n": n} for n, x in enumerate(embeddings[:100])]
    rows[40]["embedding"] = [0.0] * 24
    (tmp_path / "repeats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with EdgeIndex.create(tmp_path / "index", model) as index:
        report = ingest(open_source(tmp_path / "repeats.jsonl", on_error="skip"), model, index, batch_size=30)
        assert (report.items, report.skipped, report.repeated, index.count()) == (99, 1, 10, 89)
        assert index.retrieve([3])[0].payload == {"n": 93}
        assert "10 items were replaced by a later row with the same id" in caplog.text
        source = open_source(tmp_path / "repeats.jsonl", on_error="skip")
        repeated_run = ingest(source, model, index, batch_size=30, restart=True)
        assert repeated_run.repeated is None  # unknown, because the index was not empty


_RUN = """
import sys
from compressae_qdrant import CompresSAE, EdgeIndex, ingest, open_source
import importlib  # the package has a function with the module's name
importlib.import_module("compressae_qdrant.ingestion.ingest")._FLUSH_SECONDS = 0.0
model = CompresSAE.load(sys.argv[1])
index = EdgeIndex.open(sys.argv[2], model)
batches = 0
def after(batch):
    global batches
    batches += 1
    print("batch", batches, flush=True)
    if batches == int(sys.argv[4]):
        sys.stdin.readline()  # wait here to be killed
ingest(open_source(sys.argv[3]), model, index, batch_size=50, on_batch=after)
"""


@pytest.mark.parametrize("batches", [1, 7, 12])
def test_a_killed_run_is_resumed_without_lost_or_repeated_items(
    tmp_path: Path, catalog: Path, model: CompresSAE, batches: int
) -> None:
    model.save(tmp_path / "model")
    with EdgeIndex.create(tmp_path / "clean", model) as clean:
        ingest(open_source(catalog), model, clean, batch_size=50)
        expected = _content(clean)
    EdgeIndex.create(tmp_path / "index", model).close()
    command = [sys.executable, "-c", _RUN, *map(str, (tmp_path / "model", tmp_path / "index", catalog, batches))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(batches)]
        assert lines[-1] == f"batch {batches}\n"
        os.kill(process.pid, signal.SIGKILL)
    with EdgeIndex.open(tmp_path / "index", model) as index:
        report = ingest(open_source(catalog), model, index, batch_size=50)
        assert report.resumed_from == 50 * batches  # resumed, not restarted
        assert report.repeated == 0
        assert index.count() == 600
        assert _content(index) == expected


def test_a_malformed_row_stops_the_run_and_earlier_rows_are_kept(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    rows = [{"id": n, "embedding": x.tolist()} for n, x in enumerate(embeddings[:100])]
    rows[77]["embedding"] = [0.0] * 24
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with EdgeIndex.create(tmp_path / "index", model) as index:
        with pytest.raises(RowError, match="row 77"):
            ingest(open_source(path), model, index, batch_size=25)
        assert index.count() == 75
        report = ingest(open_source(path, on_error="skip"), model, index, batch_size=25)
        assert (report.items, report.skipped, report.resumed_from) == (24, 1, 75)
        assert index.count() == 99


def test_a_repeated_id_in_a_batch_is_refused(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(json.dumps({"id": n % 9, "embedding": embeddings[n].tolist()}) for n in range(12)))
    with (
        EdgeIndex.create(tmp_path / "index", model) as index,
        pytest.raises(IngestError, match=r"rows 0-11 cannot be ingested: item id 0 .*twice.*\. No rows were written"),
    ):
        ingest(open_source(path), model, index)


def test_another_source_model_or_method_is_refused(tmp_path: Path, catalog: Path, model: CompresSAE) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        ingest(open_source(catalog), model, index)
        with pytest.raises(ConfigError, match="another encoding method"):
            ingest(open_source(catalog), model, index, method="encoder")
        pq.write_table(pq.read_table(catalog).slice(0, 50), catalog)
        with pytest.raises(ConfigError, match=r"another source .*--restart"):
            ingest(open_source(catalog), model, index)
        with pytest.raises(ModelMismatchError, match=model.fingerprint):
            ingest(open_source(catalog), CompresSAE(ModelConfig(24, 96, 6), seed=8), index)
        elsewhere = tmp_path / "elsewhere"
        ingest(open_source(catalog), model, index, journal=elsewhere)
        with EdgeIndex.create(tmp_path / "second", model) as second:
            second.upsert(["x"], model.encode(np.ones((1, 24))))
            with pytest.raises(ConfigError, match=r"another index .*index, now .*second"):
                ingest(open_source(catalog), model, second, journal=elsewhere)
        index.journal.write_text("[]")
        with pytest.raises(ConfigError, match="not an ingestion journal"):
            ingest(open_source(catalog), model, index)
