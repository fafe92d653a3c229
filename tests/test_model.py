from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, DimensionError, InvalidInputError, MissingExtraError, ModelFileError
from compressae_qdrant.model.config import ModelConfig


@pytest.mark.parametrize("method", ["encoder", "refit", "pursuit"])
def test_codes_are_valid_and_decode_to_projections(model: CompresSAE, embeddings: FloatArray, method: Any) -> None:
    codes = model.encode(embeddings, method)
    SparseCodes(codes.indices, codes.values, codes.latents)  # raises if a rule is broken
    decoded = model.decode(codes)
    cosines = np.linalg.norm(decoded, axis=1)  # x_hat is the projection of x on its direction
    np.testing.assert_allclose((decoded * embeddings).sum(axis=1), cosines**2, rtol=1e-5)
    assert float(cosines.mean()) > {"encoder": 0.6, "refit": 0.7, "pursuit": 0.8}[method]


def test_pursuit_beats_refit_beats_encoder(model: CompresSAE, embeddings: FloatArray) -> None:
    cosines = [
        float(np.linalg.norm(model.decode(model.encode(embeddings, method)), axis=1).mean())
        for method in ("encoder", "refit", "pursuit")
    ]
    assert cosines == sorted(cosines)


def test_the_encoder_matches_its_definition_in_the_paper(model: CompresSAE, embeddings: FloatArray) -> None:
    codes = model.encode(embeddings[:20], "encoder", scale="raw")
    weight, bias = model.encoder_weight.detach().numpy(), model.encoder_bias.detach().numpy()
    e = embeddings[:20].astype(np.float64) @ weight.T + bias
    for row in range(20):
        best = np.sort(np.argsort(-np.abs(e[row]))[: model.k])
        assert codes.indices[row].tolist() == best.tolist()
        np.testing.assert_allclose(codes.values[row], e[row, best], rtol=1e-4, atol=1e-6)


def test_values_have_the_requested_scale(model: CompresSAE, embeddings: FloatArray) -> None:
    raw = model.encode(embeddings[:9], scale="raw")
    code = model.encode(embeddings[:9], scale="code")
    np.testing.assert_allclose(np.linalg.norm(code.values, axis=1), 1, rtol=1e-5)
    assert (raw.scale, code.scale) == ("raw", "code")
    unit = model.encode(embeddings[:9], scale="reconstruction")
    np.testing.assert_allclose(np.linalg.norm(model.decode(unit), axis=1), 1, rtol=1e-5)
    # Least-squares values already make x_hat a projection.
    np.testing.assert_allclose(model.encode(embeddings[:9], scale="projection").values, raw.values, rtol=1e-3)


def test_a_code_with_negative_cosine_is_stored(model: CompresSAE, embeddings: FloatArray) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.encoder_weight.neg_()
        broken.encoder_bias.neg_()
    codes = broken.encode(embeddings[:50], "encoder")
    assert (np.abs(codes.values).max(axis=1) > 0).all()
    assert (np.linalg.norm(broken.decode(codes), axis=1) < 2e-3).all()


def test_equal_numbers_of_any_type_give_the_same_codes(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    x = embeddings[:30].astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    expected = model.encode(x)
    others: list[Any] = [x.astype(np.float64), x.tolist(), np.load(tmp_path / "x.npy", mmap_mode="r"), 8 * x]
    for other in others:
        codes = model.encode(other)
        np.testing.assert_array_equal(codes.indices, expected.indices)
        np.testing.assert_allclose(codes.values, expected.values, atol=1e-5)
    assert model.encode(x[0]).indices.tolist() == expected.indices[:1].tolist()


def test_codes_do_not_depend_on_the_batch_size(model: CompresSAE, embeddings: FloatArray) -> None:
    # Only the encoder: rounding in pursuit depends on the batch size.
    whole, parts = (model.encode(embeddings, "encoder", batch_size=size) for size in (600, 37))
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_allclose(whole.values, parts.values, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda x: x[:, :5], r"5 dimensions but model 'm-[0-9a-f]{12}' encodes 24"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 7, np.nan, x), "row 7 holds NaN"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 530, np.inf, x), "row 530 holds NaN or an infinite"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 3, 0, x), "row 3 is all zero"),
        (lambda x: x[:0], "not be empty"),
        (lambda x: x[None], r"\(items, dimensions\)"),
        (lambda x: np.array([["a"]]), "real numbers"),
    ],
)
def test_invalid_embeddings_are_refused(model: CompresSAE, embeddings: FloatArray, damage: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        model.encode(damage(embeddings))


def test_invalid_settings_are_refused(model: CompresSAE, embeddings: FloatArray) -> None:
    settings: list[dict[str, Any]] = [{"method": "magic"}, {"scale": "big"}, {"atoms_per_step": 0}, {"batch_size": 0}]
    for setting in settings:
        with pytest.raises(InvalidInputError, match=next(iter(setting))):
            model.encode(embeddings, **setting)
    with pytest.raises(ConfigError, match="k is 5 but there are 4 latents"):
        ModelConfig(dim=3, latents=4, k=5)
    with pytest.raises(DimensionError):
        model.encode(np.ones(3))
    with pytest.raises(InvalidInputError, match="codes have 7 latents but model"):
        model.decode(SparseCodes([[1]], [[1.0]], 7))


def test_with_k_keeps_the_atoms_and_changes_k(model: CompresSAE, embeddings: FloatArray) -> None:
    wide = model.with_k(9, embeddings)
    assert (wide.k, wide.fingerprint == model.fingerprint) == (9, False)
    assert torch.equal(wide.atoms, model.atoms)
    narrow_codes, codes = model.encode(embeddings), wide.encode(embeddings)
    assert np.linalg.norm(wide.decode(codes), axis=1).mean() > np.linalg.norm(model.decode(narrow_codes), axis=1).mean()
    dense = codes.to_csr().toarray()
    np.testing.assert_allclose(wide.latent_use.numpy(), (dense != 0).mean(axis=0), rtol=1e-5)
    used = (dense != 0).any(axis=0)
    expected = np.abs(dense).sum(axis=0)[used] / (dense != 0).sum(axis=0)[used]
    np.testing.assert_allclose(wide.latent_magnitude.numpy()[used], expected, rtol=1e-5)
    assert wide.history is not None
    assert wide.history.notes[-1] == "k=9 was set after training with k=6"
    assert model.k == 6
    with pytest.raises(ConfigError, match="k is 97 but there are 96 latents"):
        model.with_k(97, embeddings)


def test_the_fingerprint_depends_on_weights_and_k() -> None:
    base = CompresSAE(ModelConfig(4, 8, 2))
    assert base.fingerprint == CompresSAE(ModelConfig(4, 8, 2)).fingerprint
    assert base.fingerprint != CompresSAE(ModelConfig(4, 8, 3)).fingerprint
    before = base.fingerprint
    with torch.no_grad():
        base.atoms[0, 0] += 1e-3
    assert base.fingerprint != before


def test_save_and_load_round_trip(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    model.save(tmp_path / "model")
    loaded = CompresSAE.load(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.encode(embeddings) == model.encode(embeddings)
    assert loaded.history == model.history
    assert (tmp_path / "model" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert loaded.posting_mass == model.posting_mass > 0


def test_a_model_loaded_in_inference_mode_is_the_same(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    model.save(tmp_path)
    with torch.inference_mode():
        loaded = CompresSAE.load(tmp_path)
        inside = loaded.encode(embeddings[:3])
    assert loaded.fingerprint == model.fingerprint
    assert inside == loaded.encode(embeddings[:3]) == model.encode(embeddings[:3])


def test_saving_again_replaces_the_weights_file(tmp_path: Path, model: CompresSAE) -> None:
    model.save(tmp_path)
    other = CompresSAE(ModelConfig(4, 8, 2))
    other.save(tmp_path)
    assert CompresSAE.load(tmp_path).fingerprint == other.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_save_keeps_the_old_model(tmp_path: Path, model: CompresSAE, monkeypatch: pytest.MonkeyPatch) -> None:
    model.save(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compressae_qdrant.model.storage.write_text", fail)
    with pytest.raises(OSError, match="No space"):
        CompresSAE(ModelConfig(4, 8, 2)).save(tmp_path)
    assert CompresSAE.load(tmp_path).fingerprint == model.fingerprint


def _edit(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda p: (p / "config.json").unlink(), "there is no model"),
        (lambda p: (p / "config.json").write_text("{"), r"cannot read .*config\.json"),
        (lambda p: _edit(p, format=99), "format 99, this version reads 1; upgrade"),
        (lambda p: _edit(p, k=5), "fingerprint"),
        (lambda p: _edit(p, latents=50), "does not match its config"),
        (lambda p: _edit(p, fingerprint="m-000000000000"), "altered"),
        (lambda p: next(p.glob("weights-*")).write_bytes(b"x"), "truncated or altered"),
        (lambda p: next(p.glob("weights-*")).unlink(), "cannot read the weights"),
        (lambda p: _flip_last_bit(next(p.glob("weights-*"))), "truncated or altered"),
        (lambda p: (p / "history.json").write_text("[]"), "not a training history"),
        (lambda p: (p / "history.json").write_bytes(b"\xff"), "not a training history"),
        (lambda p: _edit(p, weights=3), "cannot read the weights"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, model: CompresSAE, damage: Any, complaint: str) -> None:
    model.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelFileError, match=complaint):
        CompresSAE.load(tmp_path)


def _flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_without_matplotlib_a_model_is_saved_without_its_chart(
    model: CompresSAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.history is not None
    model.save(tmp_path / "model")
    assert (tmp_path / "model" / "training.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"compressae-qdrant\[plots\]"):
        model.history.plot(tmp_path / "training.png")
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / "training.png").exists()
    assert CompresSAE.load(tmp_path / "model").history == model.history
