"""The encoding path of GPUs, tested on any device: pursuit by the torch reference and by Triton, and streaming."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.kernels import dispatch, sparse_decode, torch_reference
from compressae_qdrant.kernels.transfer import Download, Upload
from compressae_qdrant.model import encoder as coding
from compressae_qdrant.model import pursuit
from compressae_qdrant.model.pursuit import Dictionary
from compressae_qdrant.vectors import UnitRows

from .support.data import unit_rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")


@pytest.fixture(params=["torch", "triton"])
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    kernels: Any = torch_reference
    if request.param == "triton":
        pytest.importorskip("triton", reason="needs Triton, which is not installed")
        kernels = dispatch._triton()
    for module in (pursuit, coding):
        monkeypatch.setattr(module, "fused", lambda _: kernels)
    return kernels


def _loss(x: torch.Tensor, atoms: torch.Tensor, codes: tuple[torch.Tensor, torch.Tensor]) -> float:
    return float((x - sparse_decode(*codes, atoms)).square().sum(1).mean())


@pytest.mark.parametrize(("k", "step"), [(5, 1), (12, 4), (17, 7)])
@pytest.mark.usefixtures("operations")
def test_fused_pursuit_is_as_good_as_the_reference(k: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, atoms = unit_rows(12, 40, 1).to(DEVICE), unit_rows(150, 40, 2).to(DEVICE)
    atoms[3] = atoms[4]
    codes = Dictionary(atoms).pursue(x, k, step)
    assert all(len(set(row)) == k for row in codes[0].tolist())
    best = torch.linalg.lstsq(atoms[codes[0]].mT.double(), x.double().unsqueeze(2)).solution.squeeze(2)
    np.testing.assert_allclose(_loss(x, atoms, codes), _loss(x, atoms, (codes[0], best.float())), atol=1e-5)
    monkeypatch.setattr(pursuit, "fused", lambda _: None)
    assert _loss(x, atoms, codes) < 1.04 * _loss(x, atoms, Dictionary(atoms).pursue(x, k, step))


@pytest.mark.usefixtures("operations")
def test_with_k_equal_to_h_reconstruction_is_exact() -> None:
    x, atoms = unit_rows(5, 4, 4).to(DEVICE), unit_rows(8, 4, 5).to(DEVICE)
    indices, values = Dictionary(atoms).pursue(x, 8, 3)
    assert all(sorted(row) == list(range(8)) for row in indices.tolist())
    torch.testing.assert_close(sparse_decode(indices, values, atoms), x, atol=1e-3, rtol=0)


@pytest.mark.usefixtures("operations")
def test_a_support_too_large_for_the_kernels_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    pursuit._warn_once.cache_clear()
    x, atoms = unit_rows(3, 150, 4).to(DEVICE), unit_rows(200, 150, 5).to(DEVICE)
    with caplog.at_level(logging.WARNING, "compressae_qdrant"):
        for _ in range(2):
            indices, _ = Dictionary(atoms).pursue(x, 140, 4)
    assert indices.shape == (3, 140)
    assert [record.getMessage() for record in caplog.records] == [
        "pursuit on this GPU cannot use the fused kernels: supports have 144 atoms and the kernels support at most 128"
    ]


@pytest.mark.parametrize("method", ["encoder", "refit", "pursuit"])
def test_streamed_encoding_equals_plain_encoding(
    model: CompresSAE, embeddings: FloatArray, operations: Any, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are float16, and the last batch is smaller than the others."""
    rows = (3 * embeddings[:37]).astype(np.float16)
    monkeypatch.setattr(coding, "fused", lambda _: None)
    monkeypatch.setattr(pursuit, "fused", lambda _: None)
    expected = model.encode(rows, method)
    monkeypatch.setattr(coding, "fused", lambda _: operations)
    monkeypatch.setattr(pursuit, "fused", lambda _: operations)
    coder = model._coder()

    def code(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        support, raw = coder.code(x, method, 4)
        return support, raw * coder.factor(x, support, raw, "projection")

    indices, values = np.full((37, model.k), -1, np.int32), np.zeros((37, model.k), np.float32)
    coding._encode_streaming(rows, code, 16, CPU, indices, values)
    same = (indices == expected.indices).all(axis=1)
    assert same.mean() > (0.9 if method == "pursuit" else 0.999)
    np.testing.assert_allclose(values[same], expected.values[same], atol=1e-4)


@pytest.mark.parametrize("row", [3, 40, 69])
def test_streamed_encoding_names_the_invalid_row(model: CompresSAE, embeddings: FloatArray, row: int) -> None:
    rows = embeddings[:70].copy()
    rows[row] = 0
    coder = model._coder()
    out = np.zeros((70, model.k), np.int32), np.zeros((70, model.k), np.float32)
    with pytest.raises(InvalidInputError, match=f"row {row} is all zero"):
        coding._encode_streaming(rows, lambda x: coder.code(x, "encoder", 4), 32, CPU, *out)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["encoder", "refit", "pursuit"])
def test_a_gpu_and_a_cpu_give_the_same_codes(model: CompresSAE, embeddings: FloatArray, method: Any) -> None:
    gpu_model = CompresSAE(model.config).to("cuda")
    gpu_model.load_state_dict(model.state_dict())
    on_cpu, on_gpu = model.encode(embeddings, method), gpu_model.encode(embeddings, method, batch_size=64)
    assert (on_cpu.indices == on_gpu.indices).all(axis=1).mean() > (0.9 if method == "pursuit" else 0.99)


def test_uploaded_pieces_arrive_complete_and_in_order() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 7))
    picks: list[Any] = [slice(0, 30), np.array([5, 99, 5, 0]), slice(90, 100), np.arange(30)[::-1].copy(), slice(7, 8)]
    with Upload(rows, 30, DEVICE) as upload:
        upload.request(picks[0])
        for number, pick in enumerate(picks):
            piece = upload.take().clone()
            if number + 1 < len(picks):
                upload.request(picks[number + 1])
            np.testing.assert_array_equal(piece.cpu().numpy(), rows[pick].astype(np.float32))


def test_an_error_of_reading_rows_is_raised_by_take() -> None:
    with Upload(np.zeros((10, 3)), 4, DEVICE) as upload:
        upload.request(np.array([0, 10]))
        with pytest.raises(IndexError):
            upload.take()


def test_downloads_arrive_one_batch_later() -> None:
    download = Download(DEVICE)
    batches = [torch.full((size, 2), float(size), device=DEVICE) for size in (4, 4, 3, 3)]
    seen = [download.put(batch) for batch in batches]
    assert seen[0] is None
    later = [*seen[1:], download.last()]
    # Buffers are reused two calls later, so of arrays of equal size only the last still has its values.
    assert [done[0].shape for done in later if done] == [(4, 2), (4, 2), (3, 2), (3, 2)]
    assert later[-1] is not None
    assert (later[-1][0] == 3).all()


def test_unit_rows_are_encoded_without_being_normalised_again(
    model: CompresSAE, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = embeddings[:70] * np.arange(1, 71, dtype=np.float32)[:, None]
    codes, unit = model.encode(raw, batch_size=32), UnitRows(raw)
    monkeypatch.setattr(coding, "unit_rows", None)  # a second normalisation would fail
    assert model.encode(unit, batch_size=32) == codes
    with pytest.raises(InvalidInputError, match="embeddings have 5 dimensions"):
        model.encode(UnitRows(raw[:, :5]))
    with pytest.raises(InvalidInputError, match="embedding in row 11 is all zero"):
        UnitRows(np.zeros((1, 24), np.float32), 11)
