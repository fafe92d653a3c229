"""The GPU's refinement path: data in pieces, and sums by kernels or by their torch references."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.kernels import dispatch, torch_reference
from compressae_qdrant.model import pursuit
from compressae_qdrant.training import dictionary, refinement
from compressae_qdrant.training.batches import _ResidentBatches, _StreamedBatches, make_batch_source
from compressae_qdrant.training.data import TrainingData
from compressae_qdrant.training.dictionary import NormalEquations

from .support.data import SMALL

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("kind", [_ResidentBatches, _StreamedBatches])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_batch_sources_give_the_batches_of_the_data(embeddings: FloatArray, kind: Any, dtype: Any) -> None:
    """Across shuffles, backwards, repeated, and with changing sizes."""
    data = TrainingData((2 * embeddings).astype(dtype), held_out=100, seed=1, device=DEVICE)
    batches = kind(data, DEVICE, torch_reference)
    for position, size in [(0, 50), (50, 50), (100, 50), (470, 50), (480, 30), (510, 90), (5, 90), (5, 90), (1200, 7)]:
        torch.testing.assert_close(batches.batch(position, size), data.batch(position, size), atol=1e-6, rtol=1e-6)
        half = torch.empty(size, data.dim, dtype=torch.bfloat16, device=DEVICE)
        batches.fill(position, half)
        torch.testing.assert_close(half.float(), data.batch(position, size), atol=0, rtol=2**-7)


def test_rows_that_do_not_fit_are_streamed(embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(embeddings, held_out=0, seed=1, device=DEVICE)
    kinds: list[object] = []
    for free in (8, 2):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free * embeddings.nbytes // 2, 0))
        for name in ("_ResidentBatches", "_StreamedBatches"):
            monkeypatch.setattr(f"compressae_qdrant.training.batches.{name}", lambda *_, name=name: name)
        kinds.append(make_batch_source(data, torch.device("cuda"), torch_reference))
    assert kinds == ["_ResidentBatches", "_StreamedBatches"]


@pytest.mark.parametrize("kernels", ["none", "torch", "triton"])
def test_gram_sums_on_a_gpu_equal_those_on_a_cpu(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not tested")
    random = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(40, generator=random)[:5] for _ in range(90)])
    values, x = torch.randn(90, 5, generator=random), torch.randn(90, 8, generator=random)
    wanted = NormalEquations.zero(40, 8)
    wanted.add(indices, values, x)
    chosen: Any = torch_reference if kernels == "torch" else dispatch._triton() if kernels == "triton" else None
    monkeypatch.setattr(dictionary, "fused", lambda _: chosen)
    monkeypatch.setattr(dictionary, "_DENSE_ROWS", 32)
    gram = torch.zeros(40, 40, device=DEVICE)
    dictionary._add_gram_on_gpu(gram, indices.to(DEVICE), values.to(DEVICE))
    torch.testing.assert_close(gram.cpu(), wanted.gram, atol=1e-5, rtol=1e-5)


def test_rounds_in_chunks_equal_whole_rounds(
    model: CompresSAE, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SMALL, latents=200, init="random", revive_after=0, steps=5)
    whole = train(embeddings, config)
    monkeypatch.setattr(refinement, "_chunk_rows", lambda *_: 90)
    pieces = train(embeddings, config)
    assert whole.history is not None
    assert pieces.history is not None
    for name in ("train_loss", "pursuit_loss", "encoder_loss", "dead_latents"):
        np.testing.assert_allclose(
            [getattr(record, name) for record in pieces.history.records],
            [getattr(record, name) for record in whole.history.records],
            rtol=2e-3,
        )


def test_refinement_with_the_gpu_pursuit_learns_as_much(
    model: CompresSAE, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pursuit, "fused", lambda _: torch_reference)
    monkeypatch.setattr(refinement, "_chunk_rows", lambda *_: 128)
    other = train(embeddings, SMALL)
    assert other.history is not None
    assert model.history is not None
    ours, theirs = other.history.records[-1], model.history.records[-1]
    # On 60 held-out items, seeds differ by 0.1 in both directions.
    assert ours.pursuit_loss == pytest.approx(theirs.pursuit_loss, rel=0.1)
    assert ours.encoder_loss == pytest.approx(theirs.encoder_loss, rel=0.1)
