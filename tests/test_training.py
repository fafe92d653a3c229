from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, TrainConfig, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, InvalidInputError, ModelFileError
from compressae_qdrant.kernels import sparse_decode
from compressae_qdrant.model.history import Record
from compressae_qdrant.model.pursuit import pursue
from compressae_qdrant.training.config import choose_latents
from compressae_qdrant.training.data import TrainingData
from compressae_qdrant.training.dictionary import NormalEquations, replace_dead_atoms

from .support.data import SMALL


def _same(a: CompresSAE, b: CompresSAE) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_equal_seeds_give_equal_bits_and_others_do_not(model: CompresSAE, embeddings: FloatArray) -> None:
    assert _same(train(embeddings, SMALL), model)
    assert not _same(train(embeddings, dataclasses.replace(SMALL, seed=4)), model)


@pytest.mark.parametrize(("phase", "step"), [("autoencoder", 20), ("dictionary", 4), ("encoder", 10)])
def test_a_resumed_training_gives_the_same_bits(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray, phase: str, step: int
) -> None:
    """Interrupted between two checkpoints, in each of the phases."""
    seen: list[Record] = []

    def interrupt(record: Record) -> None:
        seen.append(record)
        if (record.phase, record.step) == (phase, step):
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(embeddings, SMALL, checkpoint=checkpoint, on_record=interrupt)
    assert checkpoint.exists()
    again: list[Record] = []
    resumed = train(embeddings, SMALL, checkpoint=checkpoint, on_record=again.append)
    assert _same(resumed, model)
    assert resumed.history == model.history
    assert model.history is not None
    assert 0 < len(again) < len(model.history.records)  # it resumed and did not start again
    assert not checkpoint.exists()


def test_a_checkpoint_of_other_settings_or_embeddings_is_refused(tmp_path: Path, embeddings: FloatArray) -> None:
    def stop(_: Record) -> None:
        raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(embeddings, SMALL, checkpoint=checkpoint, on_record=stop)
    with pytest.raises(ConfigError, match="other seed"):
        train(embeddings, dataclasses.replace(SMALL, seed=9), checkpoint=checkpoint)
    with pytest.raises(ConfigError, match="other embeddings"):
        train(embeddings[:500], SMALL, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="not a readable checkpoint"):
        train(embeddings, SMALL, checkpoint=checkpoint)


def test_training_learns(model: CompresSAE) -> None:
    assert model.history is not None
    records = model.history.records
    assert {record.phase for record in records} == {"autoencoder", "dictionary", "encoder"}
    assert records[-1].encoder_loss < records[0].encoder_loss
    assert records[-1].pursuit_loss < records[0].pursuit_loss
    np.testing.assert_allclose(model.atoms.detach().norm(dim=1).numpy(), 1, rtol=1e-5)
    np.testing.assert_allclose(float(model.latent_use.sum()), model.k, rtol=1e-5)


def test_refinement_lowers_the_held_out_loss(model: CompresSAE, embeddings: FloatArray) -> None:
    without = train(embeddings, dataclasses.replace(SMALL, rounds=0))
    assert without.history is not None
    assert model.history is not None
    assert model.history.records[-1].pursuit_loss < 0.97 * without.history.records[-1].pursuit_loss


def test_refitting_the_encoder_lowers_its_loss(model: CompresSAE) -> None:
    assert model.history is not None
    before = [r for r in model.history.records if r.phase == "dictionary"][-1]
    assert model.history.records[-1].encoder_loss < before.encoder_loss


def test_the_papers_recipe_is_the_autoencoder_alone(embeddings: FloatArray) -> None:
    config = TrainConfig.paper(latents=64, k=4, steps=20, batch_size=64)
    paper = train(embeddings, config)
    assert paper.history is not None
    assert {record.phase for record in paper.history.records} == {"autoencoder"}
    random = CompresSAE(paper.config, seed=config.seed).atoms
    assert float((paper.atoms * random).detach().sum(dim=1).mean()) > 0.9  # training started from random directions


def test_unused_latents_are_restarted(embeddings: FloatArray) -> None:
    config = dataclasses.replace(SMALL, init="random", rounds=0, encoder_steps=0, steps=60, latents=300)
    revived = train(embeddings, config)
    left = train(embeddings, dataclasses.replace(config, revive_after=0))
    assert revived.history is not None
    assert left.history is not None
    assert revived.history.records[-1].dead_latents < left.history.records[-1].dead_latents


def test_dead_atoms_are_replaced_by_the_largest_residuals() -> None:
    equations = NormalEquations.zero(3, 2)
    equations.use[:] = torch.tensor([10.0, 0.0, 10.0])
    atoms = torch.eye(3, 2)
    assert replace_dead_atoms(atoms, equations, torch.tensor([[0.1, 0.0], [0.0, -0.9]])) == 1
    assert atoms[1].tolist() == [0.0, -1.0]


def test_normal_equations_are_least_squares() -> None:
    random = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(6, generator=random)[:3] for _ in range(200)])
    values = torch.randn(200, 3, generator=random)
    x = torch.randn(200, 4, generator=random)
    equations = NormalEquations.zero(6, 4)
    equations.add(indices[:120], values[:120], x[:120])
    equations.add(indices[120:], values[120:], x[120:])
    dense = torch.zeros(200, 6).scatter(1, indices, values)
    torch.testing.assert_close(equations.gram, dense.T @ dense, atol=1e-4, rtol=1e-4)
    wanted = torch.nn.functional.normalize(torch.linalg.lstsq(dense, x).solution, dim=1)
    torch.testing.assert_close(equations.solve(torch.zeros(6, 4), 1e-6), wanted, atol=1e-3, rtol=1e-3)


def test_a_weight_of_two_equals_adding_the_codes_twice() -> None:
    random = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(6, generator=random)[:3] for _ in range(50)])
    values, x = torch.randn(50, 3, generator=random), torch.randn(50, 4, generator=random)
    twice, weighed = NormalEquations.zero(6, 4), NormalEquations.zero(6, 4)
    twice.add(indices, values, x)
    twice.add(indices, values, x)
    weighed.add(indices, values, x, weight=2.0)
    for name in ("gram", "moments", "use"):
        torch.testing.assert_close(getattr(weighed, name), getattr(twice, name), atol=1e-4, rtol=1e-4)


def test_coarse_codes_in_refinement_improve_codes_of_half_the_non_zeros(embeddings: FloatArray) -> None:
    """Without making the full codes worse."""
    settings = dataclasses.replace(SMALL, rounds=8)
    x = torch.from_numpy(embeddings)

    def losses(weight: float) -> list[float]:
        atoms = train(embeddings, dataclasses.replace(settings, coarse_weight=weight)).atoms.detach()
        result = []
        for k in (SMALL.k // 2, SMALL.k):
            indices, values = pursue(x, atoms, k, 1)
            result.append(float((x - sparse_decode(indices, values, atoms)).square().sum(dim=1).mean()))
        return result

    without, coarse = losses(0.0), losses(1.0)
    assert coarse[0] < 0.93 * without[0]
    assert coarse[1] < 1.02 * without[1]


def test_the_number_of_latents_is_chosen_and_explained(
    embeddings: FloatArray, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(SMALL, latents=None, steps=1, rounds=0, encoder_steps=0)
    with caplog.at_level(logging.INFO, "compressae_qdrant"):
        made = train(embeddings, config)
    assert made.latents == 256
    assert made.history is not None
    assert "latents=256 for 540 training items" in caplog.text
    assert made.history.notes == [caplog.records[0].getMessage()]
    assert [choose_latents(n, 32)[0] for n in (10, 3_000, 6_400, 10**8)] == [128, 1024, 4096, 4096]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(np.arange(len(x))[:, None] == 123, np.nan, x), "row 123 holds NaN"),
        (lambda x: np.where(np.arange(len(x))[:, None] == 5, 0, x), "row 5 is all zero"),
        (lambda x: x[:3], "there are 3 embeddings to train on; at least 16"),
    ],
)
def test_unusable_embeddings_are_refused_before_training(embeddings: FloatArray, change: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train(change(embeddings), SMALL)


@pytest.mark.parametrize(
    "setting",
    [{"k": 0}, {"latents": 5}, {"learning_rate": 0.0}, {"forgetting": 1.0}, {"coarse_weight": -1.0}, {"damping": 0.0},
     {"init": "magic"}, {"precision": "float8"}, {"batch_size": 0}, {"seed": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} is"):
        TrainConfig(**setting)


def test_half_precision_trains_too(embeddings: FloatArray) -> None:
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(SMALL, precision=precision, rounds=0, encoder_steps=0)
        history = train(embeddings, config).history
        assert history is not None
        assert history.records[-1].encoder_loss < 0.3


def test_the_order_of_batches_is_seeded_shuffles(embeddings: FloatArray) -> None:
    data = TrainingData(embeddings, held_out=100, seed=1, device=torch.device("cpu"))
    epoch = torch.cat([data.batch(position, 50) for position in range(0, 500, 50)])
    assert len({row.numpy().tobytes() for row in epoch}) == 500  # each row once
    held = {row.numpy().tobytes() for row in data.held_out()}
    assert not held & {row.numpy().tobytes() for row in epoch}
    straddling = data.batch(480, 40)
    torch.testing.assert_close(straddling[:20], epoch[480:])
    assert not torch.equal(data.batch(500, 50), epoch[:50])
