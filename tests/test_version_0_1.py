"""Files that version 0.1.0 wrote are read: a model with its baseline and calibration, codes, an index, and settings."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, SparseCodes, ingest, open_source, sync
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.tuning.settings_file import Settings
from compressae_qdrant.vectors import unit_rows

ARCHIVE = Path(__file__).parent / "files" / "version_0_1.tar.xz"
"""Made by 0.1.0: a model of 16 dimensions, and 40 items of a catalog as codes and as an index with its journal."""

SAFE: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python before 3.11.4 has no such filter."""

MODIFIED = 1_795_729_164_343_351_841
"""Modification time of the catalog when it was loaded, in ns since 1970. The journal of a load holds it."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, **SAFE)
    os.utime(tmp_path / "catalog.npy", ns=(MODIFIED, MODIFIED))
    return tmp_path


def test_a_model_is_read_with_all_that_is_stored_beside_it(files: Path) -> None:
    model = CompresSAE.load(files / "model")
    assert (model.dim, model.latents, model.k) == (16, 32, 4)
    assert model.baseline is not None
    assert model.history is not None
    assert model.calibration is not None
    assert list(model.calibration.limits) == [1, 5]
    codes, x = SparseCodes.load(files / "codes.safetensors"), np.load(files / "catalog.npy")
    encoded = model.encode(x)
    # Rounding, which differs between processors, decides between two atoms of one item; its codes are as good.
    same = (codes.indices == encoded.indices).all(axis=1)
    assert same.sum() >= len(x) - 1
    np.testing.assert_allclose(codes.values[same], encoded.values[same], rtol=1e-4)
    np.testing.assert_allclose(_cosines(model, codes, x), _cosines(model, encoded, x), atol=0.002)
    assert codes.fingerprint is None
    assert model.decode(codes).shape == x.shape


def _cosines(model: CompresSAE, codes: SparseCodes, x: FloatArray) -> FloatArray:
    """(n,) cosines of embeddings with the reconstructions of their codes."""
    return np.asarray(np.vecdot(unit_rows(model.decode(codes)), unit_rows(x)), np.float32)


def test_an_index_is_searched_and_updated(files: Path) -> None:
    model, x = CompresSAE.load(files / "model"), np.load(files / "catalog.npy")
    with EdgeIndex.open(files / "index", model) as index:
        assert index.count() == 40
        assert index.settings.navigation is None
        retriever = Retriever(model, index)
        assert [hit.id for hit in retriever.search(x[7], 1, exact=True)] == [7]
        assert [hit.id for hit in retriever.search(x[7], 1, target_recall=0.1)] == [7]
        loaded = ingest(open_source(files / "catalog.npy"), model, index)
        assert (loaded.resumed_from, loaded.items) == (40, 0)
        report = sync(open_source(files / "catalog.npy"), model, index)
        assert (report.unchanged, report.added, report.changed, report.deleted) == (40, 0, 0, 0)


def test_settings_are_read(files: Path) -> None:
    settings = Settings.read(files / "tuned.toml")
    assert settings.train == {"k": 4}
    assert settings.search == {"first_stage_latents": 32, "prefetch": 100}
