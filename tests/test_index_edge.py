from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes
from compressae_qdrant.errors import (
    CodeIndexError,
    ConfigError,
    IndexExistsError,
    IndexNotFoundError,
    IndexUnavailableError,
    InvalidInputError,
    ModelMismatchError,
)
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.model.config import ModelConfig

OTHER = CompresSAE(ModelConfig(24, 96, 6), seed=77)
CODES = SparseCodes([[1, 3], [0, 2]], [[0.5, 0.1], [0.2, -3.0]], 96)


def test_a_reopened_index_is_unchanged(tmp_path: Path, model: CompresSAE, codes: SparseCodes) -> None:
    settings = IndexSettings(
        datatype="float16", memory="cached", payload_fields={"n": "integer"}, navigation=NavigationSettings(dim=24)
    )
    with EdgeIndex.create(tmp_path / "index", model, settings) as index:
        index.upsert(range(600), codes, [{"n": n} for n in range(600)])
        before = index.retrieve([5])[0]
    with EdgeIndex.open(tmp_path / "index", model) as index:
        assert (index.count(), index.settings, index.fingerprint) == (600, settings, model.fingerprint)
        after = index.retrieve([5])[0]
        assert (after.indices.tolist(), after.values.tolist()) == (before.indices.tolist(), before.values.tolist())


def test_another_model_is_refused(tmp_path: Path, model: CompresSAE) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    with pytest.raises(ModelMismatchError, match=f"{model.fingerprint}.*{OTHER.fingerprint}"):
        EdgeIndex.open(tmp_path / "index", OTHER)


def test_create_does_not_overwrite(tmp_path: Path, model: CompresSAE) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    with pytest.raises(IndexExistsError, match="there is already an index at"):
        EdgeIndex.create(tmp_path / "index", model)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft").write_text("x")
    with pytest.raises(IndexExistsError, match="already exists and is not an empty directory"):
        EdgeIndex.create(tmp_path / "thesis", model)
    assert (tmp_path / "thesis" / "draft").read_text() == "x"


def test_create_accepts_an_empty_directory(tmp_path: Path, model: CompresSAE) -> None:
    (tmp_path / "index").mkdir()
    with EdgeIndex.create(tmp_path / "index", model) as index:
        assert index.count() == 0


def test_a_failed_creation_leaves_no_files(tmp_path: Path, model: CompresSAE, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compressae_qdrant.index.edge.index.write_text", raise_disk_full)
    with pytest.raises(CodeIndexError, match="No space left"):
        EdgeIndex.create(tmp_path / "index", model)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_cannot_open_the_index(tmp_path: Path, model: CompresSAE) -> None:
    with EdgeIndex.create(tmp_path / "index", model):
        with pytest.raises(IndexUnavailableError, match="is open in process"):
            EdgeIndex.open(tmp_path / "index")
        code = "import sys; from compressae_qdrant import EdgeIndex; EdgeIndex.open(sys.argv[1])"
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "index"], capture_output=True, text=True, check=False
        )
        assert "IndexUnavailableError" in other.stderr
    EdgeIndex.open(tmp_path / "index").close()


@pytest.mark.parametrize(
    ("damage", "error", "complaint"),
    [
        (lambda p: (p / "index.json").unlink(), IndexNotFoundError, "there is no index at"),
        (lambda p: (p / "index.json").write_text("{"), CodeIndexError, "damaged"),
        (lambda p: (p / "index.json").write_text("{}"), CodeIndexError, "no manifest"),
        (lambda p: _edit(p, format=9), CodeIndexError, "index format 9, but this version reads format 1"),
        (lambda p: _edit(p, latents="many"), CodeIndexError, "damaged"),
        (lambda p: (p / "shard" / "edge_config.json").write_text("?"), CodeIndexError, "cannot open"),
    ],
)
def test_a_damaged_index_raises_a_clear_error(
    tmp_path: Path, model: CompresSAE, damage: Any, error: Any, complaint: str
) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    damage(tmp_path / "index")
    with pytest.raises(error, match=complaint):
        EdgeIndex.open(tmp_path / "index")


def _edit(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps(manifest | changes))


def test_a_relative_path_works_after_a_change_of_directory(
    tmp_path: Path, model: CompresSAE, codes: SparseCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with EdgeIndex.create("index", model) as index:
        index.upsert(range(300), codes[:300])
        monkeypatch.chdir(tmp_path / "elsewhere")
        index.upsert(range(300, 600), codes[300:])
        assert index.info().items == 600
    with EdgeIndex.open(tmp_path / "index", model) as index:
        assert index.count() == 600


def test_a_closed_index_refuses_calls(tmp_path: Path, model: CompresSAE) -> None:
    index = EdgeIndex.create(tmp_path / "index", model)
    index.close()
    index.close()
    with pytest.raises(CodeIndexError, match="is closed; open it again"):
        index.count()


def test_optimised_segments_are_compressed_and_measured(index: EdgeIndex, codes: SparseCodes) -> None:
    info = index.info()
    assert (info.items, info.indexed_items) == (600, 600)
    assert info.index_bytes is not None
    assert info.total_bytes is not None
    assert codes.nbytes / 4 < info.index_bytes < info.total_bytes
    index.upsert([1000], codes[:1])
    index.delete([3])
    later = index.info()
    assert (later.items, later.indexed_items) == (600, 599)


@pytest.mark.parametrize(
    "setting",
    [
        {"datatype": "int4"},
        {"memory": "cloud"},
        {"segments": 0},
        {"scale": "big"},
        {"shards": 0},
        {"payload_fields": {"price": "int"}},
    ],
)
def test_settings_out_of_range(setting: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(setting))}(\['price'\])? is"):
        IndexSettings(**setting)


def test_a_single_string_of_ids_is_refused(index: EdgeIndex) -> None:
    index.upsert(["4", "2"], CODES)
    for call in (index.delete, index.retrieve, index.hashes):
        with pytest.raises(InvalidInputError, match=r"ids are one str, '42'; pass a sequence of ids"):
            call("42")  # as a sequence, it would mean the items "4" and "2"
    assert index.count() == 602


def test_a_directory_without_write_permission_cannot_be_locked(tmp_path: Path, model: CompresSAE) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    (tmp_path / "index" / "lock").unlink()
    (tmp_path / "index" / "lock").mkdir()
    with pytest.raises(CodeIndexError, match=r"cannot lock .*index: .*needs a writable directory"):
        EdgeIndex.open(tmp_path / "index")
