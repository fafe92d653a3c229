"""Fused training steps and distributed training give the same result as autograd in one process."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from compressae_qdrant import CompresSAE, TrainConfig, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.kernels import dispatch, torch_reference
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.model.history import Record
from compressae_qdrant.training import fused_step, steps
from compressae_qdrant.training.batches import make_batch_source
from compressae_qdrant.training.data import TrainingData
from compressae_qdrant.training.distributed import ProcessGroup, default_device
from compressae_qdrant.training.fused_step import FusedStep
from compressae_qdrant.training.steps import AutogradStep
from compressae_qdrant.tuning.settings_file import Settings

from .support.data import SMALL

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 48


@pytest.fixture(params=["torch", "triton"])
def operations(request: pytest.FixtureRequest) -> Any:
    if request.param == "torch":
        return torch_reference
    pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not tested")
    return dispatch._triton()


def _parts(embeddings: FloatArray, *, train_atoms: bool = True) -> tuple[CompresSAE, torch.optim.Adam, TrainingData]:
    """A model whose weights, and data whose rows, are exact in bfloat16, so that both paths see the same numbers."""
    model = CompresSAE(ModelConfig(24, 70, 6), seed=1).to(DEVICE)
    with torch.no_grad():
        model.encoder_bias.normal_(0, 0.05, generator=torch.Generator(DEVICE).manual_seed(0))
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    weights = list(model.parameters()) if train_atoms else [model.encoder_weight, model.encoder_bias]
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True)
    return model, adam, TrainingData(embeddings, held_out=60, seed=3, device=DEVICE)


def _fused(
    model: CompresSAE, adam: torch.optim.Adam, data: TrainingData, operations: Any, last_use: Tensor, **options: Any
) -> FusedStep:
    batches = make_batch_source(data, DEVICE, operations)
    options = {"train_atoms": True} | options
    return FusedStep(model, adam, batches, BATCH, operations, ProcessGroup(), last_use=last_use, **options)


@pytest.mark.parametrize("chunk_bytes", [2 << 30, 2 * 70 * 20])
def test_a_fused_step_follows_the_gradient_of_float64(
    embeddings: FloatArray, operations: Any, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one chunk, and in chunks of which the last is smaller."""
    monkeypatch.setattr(fused_step, "_CODE_BYTES", chunk_bytes)
    model, adam, data = _parts(embeddings)
    reference = CompresSAE(model.config).double().to(DEVICE)
    reference.load_state_dict(model.state_dict())
    last_use = torch.zeros(70, dtype=torch.int64, device=DEVICE)
    step = _fused(model, adam, data, operations, last_use)
    loss = float(step(5, 1e-3, 11))

    x = data.batch(5, BATCH).bfloat16().double()
    e = x @ reference.encoder_weight.t() + reference.encoder_bias
    order = e.detach().bfloat16().abs().sort(dim=1, descending=True, stable=True).indices
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for width, share in ((6, 1.0), (24, 1 / 8)):
        mask = torch.zeros_like(e).scatter(1, order[:, :width], 1.0)
        term = (1 - torch.cosine_similarity(x, (e * mask) @ reference.atoms)).mean()
        total = total + share * term
        if width == 6:
            assert loss == pytest.approx(float(term.detach()), rel=2e-3)
    torch.autograd.backward(total)
    for name, weight in model.named_parameters():
        wanted = dict(reference.named_parameters())[name].grad
        assert wanted is not None
        if name == "atoms":
            atoms = reference.atoms.detach()
            wanted = wanted - (wanted * atoms).sum(1, keepdim=True) * atoms
        got = adam.state[weight]["exp_avg"].double() / 0.1
        assert float((got - wanted).norm() / wanted.norm()) < 0.02, name
        assert int(adam.state[weight]["step"]) == 1
    assert torch.equal(last_use > 0, torch.bincount(order[:, :6].reshape(-1), minlength=70) > 0)
    assert set(last_use.tolist()) <= {0, 11}
    torch.testing.assert_close(model.atoms.norm(dim=1), torch.ones(70, device=DEVICE))


def test_fused_steps_learn_like_autograd_steps(embeddings: FloatArray) -> None:
    losses = {}
    for kind in ("autograd", "fused"):
        model, adam, data = _parts(embeddings)
        use = torch.zeros(70, dtype=torch.int64, device=DEVICE)
        config = TrainConfig(latents=70, k=6, batch_size=BATCH, precision="float32")
        step: steps.Step
        if kind == "fused":
            step = _fused(model, adam, data, torch_reference, use)
        else:
            step = AutogradStep(
                model, adam, make_batch_source(data, DEVICE), config, ProcessGroup(), train_atoms=True, last_use=use
            )
        losses[kind] = [float(step(i * BATCH, 5e-3, i + 1)) for i in range(60)]
    np.testing.assert_allclose(losses["fused"], losses["autograd"], rtol=0.1)
    assert np.mean(losses["fused"][-10:]) == pytest.approx(np.mean(losses["autograd"][-10:]), abs=0.002)
    assert losses["fused"][-1] < 0.5 * losses["fused"][0]


def test_fused_steps_for_the_encoder_leave_the_atoms_alone(embeddings: FloatArray) -> None:
    model, adam, data = _parts(embeddings, train_atoms=False)
    atoms = model.atoms.detach().clone()
    last_use = torch.full((70,), 200, device=DEVICE)
    step = _fused(model, adam, data, torch_reference, last_use, train_atoms=False)
    losses = [float(step(i * BATCH, 5e-3, i + 1)) for i in range(20)]
    assert losses[-1] < losses[0]
    assert torch.equal(model.atoms, atoms)
    assert last_use.tolist() == [200] * 70  # when atoms were last used while they were trained


def test_a_whole_training_by_fused_steps_can_be_resumed(
    tmp_path: Path, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "fused", lambda _: torch_reference)
    config = dataclasses.replace(SMALL, precision="bfloat16", rounds=2)
    whole = train(embeddings, config)

    def interrupt(record: Record) -> None:
        if (record.phase, record.step) == ("autoencoder", 20):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(embeddings, config, checkpoint=tmp_path / "checkpoint", on_record=interrupt)
    resumed = train(embeddings, config, checkpoint=tmp_path / "checkpoint")
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert whole.history is not None
    assert whole.history.records[-1].encoder_loss < 0.3


class _Threads(ProcessGroup):
    """ProcessGroup that are threads of this process."""

    slots: ClassVar[dict[int, Tensor]] = {}
    barrier: ClassVar[threading.Barrier] = threading.Barrier(2, timeout=60)

    def _combine(self, tensor: Tensor, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.slots[self.rank] = tensor.clone()
        self.barrier.wait()
        combined = how(self.slots[0], self.slots[1])
        self.barrier.wait()
        tensor.copy_(combined)

    def sum_(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self._combine(tensor, torch.add)

    def max_(self, tensor: Tensor) -> None:
        self._combine(tensor, torch.maximum)


@pytest.mark.parametrize("train_atoms", [True, False])
def test_fused_steps_of_two_processes_equal_those_of_one(embeddings: FloatArray, train_atoms: bool) -> None:
    """With an odd batch. Gradients are compared by Adam's moments, because its steps amplify small differences."""
    batch = 47

    def steps_of(group: ProcessGroup) -> tuple[CompresSAE, torch.optim.Adam, Tensor, list[float]]:
        model, adam, data = _parts(embeddings, train_atoms=train_atoms)
        use = torch.zeros(70, dtype=torch.int64, device=DEVICE)
        batches = make_batch_source(data, DEVICE, torch_reference)
        step = FusedStep(model, adam, batches, batch, torch_reference, group, train_atoms=train_atoms, last_use=use)
        step._graphs = False  # two threads that capture graphs at once would wait for each other
        first = [float(step(0, 1e-3, 1))]
        moments = torch.cat([state["exp_avg"].flatten() for state in adam.state.values()]).clone()
        return model, adam, moments, first + [float(step(i * batch, 1e-3, i + 1)) for i in range(1, 6)]

    one = steps_of(ProcessGroup())
    with ThreadPoolExecutor(2) as threads:
        two = list(threads.map(steps_of, [_Threads(rank, 2) for rank in range(2)]))
    for model, _, moments, losses in two:
        assert float((moments - one[2]).norm() / one[2].norm()) < 1e-3
        np.testing.assert_allclose(losses, one[3], rtol=2e-3)
        assert losses[-1] < losses[0]
        for name, value in two[0][0].state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name  # the weights stay equal


def test_two_processes_give_the_model_of_one(tmp_path: Path, embeddings: FloatArray) -> None:
    """All three phases, with latents that die and are restarted, odd batches, and a checkpoint."""
    config = dataclasses.replace(SMALL, latents=200, steps=12, batch_size=101, rounds=3, revive_after=5,
                                 encoder_steps=5, precision="float32", init="random")  # fmt: skip
    np.save(tmp_path / "embeddings.npy", embeddings)
    settings = tmp_path / "settings.toml"
    Settings(train=dataclasses.asdict(config)).write(settings)
    shown = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "compressae_qdrant", "train", tmp_path / "embeddings.npy", "--out", tmp_path / "model",
         "--config", settings, "--device=cpu", "--json"],
        check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    one = train(embeddings, config)
    two = CompresSAE.load(tmp_path / "model")
    assert one.history is not None
    assert two.history is not None
    assert json.loads(shown)["fingerprint"] == two.fingerprint  # printed by the first process alone
    assert [path.name for path in (tmp_path / "model").iterdir() if "checkpoint" in path.name] == []
    assert [r.dead_latents for r in two.history.records] == [r.dead_latents for r in one.history.records]
    for name in ("train_loss", "encoder_loss", "pursuit_loss"):
        np.testing.assert_allclose(
            [getattr(r, name) for r in two.history.records], [getattr(r, name) for r in one.history.records], rtol=1e-3
        )
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("device", "alone", "with_torchrun"),
    [("cpu", "cpu", "cpu"), ("cuda", "cuda", "cuda:3"), ("cuda:1", "cuda:1", "cuda:1"), (None, "cpu", "cuda:3")],
)
def test_each_process_of_torchrun_trains_on_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str | None, alone: str, with_torchrun: str
) -> None:
    assert default_device(device) == alone
    for name, value in {
        "RANK": "7",
        "LOCAL_RANK": "3",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device(device) == with_torchrun
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device(None) == "cpu"


def test_training_works_without_triton(tmp_path: Path, embeddings: FloatArray) -> None:
    np.save(tmp_path / "embeddings.npy", embeddings)
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import numpy as np\n"
        "from compressae_qdrant import TrainConfig, train\n"
        f"x = np.load({str(tmp_path / 'embeddings.npy')!r})\n"
        "config = TrainConfig(latents=64, k=4, steps=3, batch_size=64, rounds=1, encoder_steps=2)\n"
        "assert len(train(x, config).history.records) == 3\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
