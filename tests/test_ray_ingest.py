"""A Ray Data job on this machine, compared with ingestion in one process.

The job runs in separate processes, because Ray's warnings must not become errors.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, DimensionError, IngestError, RowError
from compressae_qdrant.index import create_index
from compressae_qdrant.ingestion.loaded_files import LoadedFiles
from compressae_qdrant.ingestion.ray import (
    _BatchEncoder,
    _cpu_shares,
    _encoder_count,
    _FileReader,
    _successful_rows,
    ingest_with_ray,
)
from compressae_qdrant.sources import Columns
from compressae_qdrant.sources.identity import file_identity

from .support.sink import Sink, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # starting Ray can take minutes on a busy machine

SCRIPT = Path(__file__).parents[1] / "scripts" / "ingest_catalog.py"
FILES, ROWS_PER_FILE = 4, 150


@pytest.fixture
def folder(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> Path:
    """Parquet files, the first with a malformed row, and a model."""
    (tmp_path / "catalog").mkdir()
    for file in range(FILES):
        rows = [{"id": n, "embedding": embeddings[n].tolist(), "title": f"item {n}"}
                for n in range(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE)]  # fmt: skip
        if file == 0:
            rows.insert(7, {"id": 10_000, "embedding": [0.0] * 24, "title": "no direction"})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "catalog" / f"part-{file}.parquet")
    model.save(tmp_path / "model")
    return tmp_path


def _run(folder: Path, index: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--ray", "catalog", "--model", "model", "--index", index, "--cpus", "2",
               "--object-store-mb", "80", "--batch-size", "64", "--journal", str(folder / "journal"),
               *more]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


def _job(folder: Path, index: str, *more: str) -> dict[str, Any]:
    done = _run(folder, index, "--skip-bad-rows", *more)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return report


def test_a_job_writes_the_same_index_as_one_process(folder: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    settings = IndexSettings(text_fields=["title"])
    EdgeIndex.create(folder / "index", model, settings).close()
    report = _job(folder, str(folder / "index"))
    assert (report["items"], report["skipped"], report["files"], report["files_before"]) == (600, 1, FILES, 0)
    with (
        EdgeIndex.create(folder / "single", model, settings) as single,
        EdgeIndex.open(folder / "index", model) as index,
    ):
        ingest(open_source(folder / "catalog", on_error="skip"), model, single, batch_size=64)
        assert index.count() == single.count() == 600
        for ours, theirs in zip(index.retrieve(range(600)), single.retrieve(range(600)), strict=True):
            assert (ours.id, ours.payload) == (theirs.id, theirs.payload)
            np.testing.assert_array_equal(ours.indices, theirs.indices)
            np.testing.assert_array_equal(ours.values, theirs.values)
        words = [hit.id for hit in Retriever(model, index).search(embeddings[0], 5, text="77", code_weight=0)]
        assert words == [77]


def test_a_malformed_row_stops_a_job(folder: Path) -> None:
    done = _run(folder, str(folder / "index"))
    assert done.returncode == 2, done.stderr[-3000:]
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert f"error: {folder}/catalog/part-0.parquet: row 7 (10000) has an embedding that is all zero" in error
    assert "resolve this and run the job again" in error
    assert "Traceback" not in done.stderr


def test_embeddings_with_other_dimensions_return_an_error_row(folder: Path) -> None:
    rows: Any = _FileReader(Columns(), 64, "raise", 24)({"path": str(folder / "catalog" / "part-1.parquet")})
    row = next(rows) | {"embeddings": np.ones((64, 5), np.float32).tobytes()}
    failed = _BatchEncoder(str(folder / "model"), "pursuit", 4, "projection", False)(row)
    assert (failed["items"], failed["embeddings"]) == (0, b"")
    error = pickle.loads(failed["error"])
    assert isinstance(error, DimensionError)
    assert "5 dimensions" in str(error)


@pytest.mark.parametrize("cpus", [1, 2, 16])
@pytest.mark.parametrize("encoders", [1, 2, 15, 16, 100])
@pytest.mark.parametrize("writers", [0, 2])
def test_every_stage_gets_cpus(cpus: int, encoders: int, writers: int) -> None:
    reader, encoder, writer = _cpu_shares(cpus, encoders, writers)
    assert min(reader, encoder, writer) > 0
    assert reader + encoders * encoder + writers * writer <= cpus
    assert encoder <= 1
    if encoders < cpus:
        assert (reader, encoder, writer) == (0.5, 1, 0.25)


def test_the_number_of_encoders_fits_the_machine() -> None:
    assert [_encoder_count(None, cpus, 0) for cpus in (1, 2, 16)] == [1, 1, 15]
    assert (_encoder_count(None, 16, 4), _encoder_count(3, 16, 4), _encoder_count(3, 2, 0)) == (4, 3, 3)
    for requested, message in ((0, "at least 1"), (5, "5, but each needs a GPU and Ray has 4")):
        with pytest.raises(ConfigError, match=message):
            _encoder_count(requested, 16, 4)


def test_a_row_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RowError("row 7 is bad", 7)))
    assert (type(error), str(error), error.row) == (RowError, "row 7 is bad", 7)


def test_a_failed_job_raises_an_ingest_error(index: EdgeIndex) -> None:
    from ray.exceptions import RayError

    def rows() -> Iterator[dict[str, Any]]:
        yield {"path": "a", "error": b""}
        raise RayError("a long story\nthe worker was killed")

    successful = _successful_rows(rows(), LoadedFiles(None, "m-1", index))
    assert next(successful)["path"] == "a"
    with pytest.raises(IngestError, match=r"^the Ray job failed: the worker was killed\. 0 files are loaded; "):
        next(successful)


def test_a_job_resumes_after_the_loaded_files(folder: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    sink, first = Sink(), folder / "catalog" / "part-0.parquet"
    with serving(sink) as port, create_index(f"http://127.0.0.1:{port}/items", model) as index:
        ingest(open_source(first, on_error="skip"), model, index)  # like a job that was interrupted after one file
        identities = {str(first): file_identity(first)}
        done = {"format": 1, "model": model.fingerprint, "index": "items", "files": identities}
        (folder / "journal").write_text(json.dumps(done))
        report = _job(folder, f"http://127.0.0.1:{port}/items", "--cpus", "1", "--encoders", "2")
        assert set(json.loads((folder / "journal").read_text())["files"]) == {
            str(file) for file in (folder / "catalog").iterdir()
        }
    assert (report["items"], report["files"], report["files_before"]) == (450, FILES - 1, 1)
    codes = model.encode(embeddings)
    assert sorted(sink.points) == list(range(600))
    for item, point in sink.points.items():
        indices, values = codes.row(item)
        assert point["vector"]["code"]["indices"] == indices.tolist()
        np.testing.assert_array_equal(np.array(point["vector"]["code"]["values"], np.float32), values)
        assert point["payload"] == {"title": f"item {item}"}


def test_a_journal_belongs_to_one_index_and_model(folder: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    journal = folder / "journal"
    with EdgeIndex.create(folder / "one", model) as one, EdgeIndex.create(folder / "two", model) as two:
        for index in (one, two):
            index.upsert([1], model.encode(embeddings[:1]))
        LoadedFiles(journal, model.fingerprint, one).add(str(folder / "model" / "config.json"))
        assert LoadedFiles(journal, model.fingerprint, one).contains(str(folder / "model" / "config.json"))
        with pytest.raises(ConfigError, match=r"journal .* belongs to index '.*one', but this job uses '.*two'"):
            LoadedFiles(journal, model.fingerprint, two)
        with pytest.raises(ConfigError, match=r"journal .* belongs to model 'm.*', but this job uses 'other'"):
            LoadedFiles(journal, "other", one)


def test_ray_must_be_running(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Ray is not running"):
        ingest_with_ray([folder / "catalog" / "part-0.parquet"], folder / "model", str(folder / "index"))
