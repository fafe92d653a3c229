from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes, TrainConfig, train
from compressae_qdrant.codes import FloatArray

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which no module does before it is needed

SMALL = TrainConfig(
    latents=96, k=6, seed=3, steps=30, batch_size=128, rounds=4, round_items=400, encoder_steps=10, held_out=60,
    validate_every=10, checkpoint_every=7, revive_after=10,
)  # fmt: skip
"""A training of a second."""


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def embeddings() -> FloatArray:
    """(600, 24) float32 unit rows around 40 centres, so that neighbours mean something."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, 24))
    x = centres[random.integers(0, 40, 600)] + 0.5 * random.normal(size=(600, 24))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="session")
def model(embeddings: FloatArray) -> CompresSAE:
    """A model trained on `embeddings`; don't change it."""
    return train(embeddings, SMALL)


@pytest.fixture(scope="session")
def codes(model: CompresSAE, embeddings: FloatArray) -> SparseCodes:
    return model.encode(embeddings)


@pytest.fixture
def index(tmp_path: Path, model: CompresSAE, codes: SparseCodes) -> Iterator[EdgeIndex]:
    """An embedded index of `embeddings`, ids 0..599, payload `group` = id modulo 3."""
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(datatype="float32")) as made:
        made.upsert(range(len(codes)), codes, [{"group": i % 3} for i in range(len(codes))])
        made.optimize()
        yield made
