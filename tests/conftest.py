from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.model.projection import Projection

from .support.data import SMALL
from .support.shell import Shell

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it at import, and no module imports Triton early


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` on a machine without a GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU, and torch sees no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def embeddings() -> FloatArray:
    """(600, 24) float32 unit rows around 40 centres, so that rows have meaningful neighbours."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 24))
    x = centres[random.integers(0, 40, 600)] + 0.5 * random.normal(size=(600, 24))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="session")
def model(embeddings: FloatArray) -> CompresSAE:
    """A model trained on `embeddings`; tests must not change it."""
    return train(embeddings, SMALL)


@pytest.fixture(scope="session")
def codes(model: CompresSAE, embeddings: FloatArray) -> SparseCodes:
    """Codes of `embeddings`."""
    return model.encode(embeddings)


@pytest.fixture
def catalog(tmp_path: Path, embeddings: FloatArray) -> Path:
    """The file catalog.npy with `embeddings`."""
    np.save(tmp_path / "catalog.npy", embeddings)
    return tmp_path / "catalog.npy"


@pytest.fixture
def index(tmp_path: Path, model: CompresSAE, codes: SparseCodes) -> Iterator[EdgeIndex]:
    """An embedded index of `codes` with ids 0..599 and the payload `group` = id modulo 3."""
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(datatype="float32")) as made:
        made.upsert(range(len(codes)), codes, [{"group": i % 3} for i in range(len(codes))])
        made.optimize()
        yield made


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    """A shell whose working directory is tmp_path and whose terminal is 200 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="session")
def items() -> FloatArray:
    """300 embeddings whose variance falls from dimension to dimension, around a mean that is not zero."""
    random = np.random.default_rng(11)
    x = random.normal(size=(300, 24)) * np.linspace(1, 0.2, 24) + 0.3
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="session")
def navigator(items: FloatArray) -> CompresSAE:
    """A model of `items` with a projection fitted to them."""
    model = CompresSAE(ModelConfig(24, 96, 8), seed=3)
    model.projection = Projection.fit(items)
    model.measure_latents(model.encode(items))
    return model
