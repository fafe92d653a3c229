"""Every script can be imported and shows its help, and benchmarks have data without any files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .support.scripts import SCRIPTS, load_script

WITHOUT_ARGUMENTS = {
    "bench_data",
    "plain_training",
    "capacity_data",
    "capacity_graph",
    "capacity_indexes",
    "capacity_recall",
    "capacity_report",
    "quickstart",
}
"""Modules of the benchmarks, and the script that takes no arguments."""
NAMES = sorted(file.stem for file in SCRIPTS.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_imported_and_shows_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    module = load_script(name, monkeypatch)
    assert module.__doc__
    if name in WITHOUT_ARGUMENTS:
        return
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        (module.main_ray if name == "ingest_catalog" else module.main)()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert module.__doc__.strip().splitlines()[0] in shown
    assert "shared/" not in shown


def test_a_benchmark_without_files_uses_the_shipped_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_script("bench_data", monkeypatch)
    name, rows = data.load_catalog([])
    assert name.startswith("the shipped sample (8,000 items, 384 dimensions")
    assert rows.shape == (8000, 384)
    assert {label: len(values) for label, values in data.load_labels(None).items()} == {"section": 8000, "tags": 8000}


def test_a_benchmark_joins_the_fields_of_a_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_script("bench_data", monkeypatch)
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    for field in ("text", "title"):
        np.save(tmp_path / f"{field}.npy", rows)
    pq.write_table(
        pa.table({"tags": [["a"]] * 4, "section": list("abcd"), "other": [0] * 4}), tmp_path / "items.parquet"
    )
    name, one = data.load_catalog([tmp_path / "text.npy"])
    assert (name, one.dtype, one.tolist()) == ("text (4 items, 3 dimensions)", np.float16, rows.tolist())
    name, both = data.load_catalog([tmp_path / "text.npy", tmp_path / "title.npy"])
    assert (name, both.shape, both.dtype) == ("text + title (4 items, 6 dimensions)", (4, 6), np.float32)
    assert data.load_labels(tmp_path / "items.parquet") == {"section": list("abcd"), "tags": [["a"]] * 4}
