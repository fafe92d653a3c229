"""The state of a training: the model, the sums of refinement and the history, with checkpoints and validation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..errors import ConfigError
from ..kernels import sparse_decode
from ..model.compressae import CompresSAE
from ..model.config import Method, ModelConfig
from ..model.history import Phase, Record, TrainingHistory
from ..model.parallel import map_batches
from ..model.pursuit import batch_rows
from .batches import make_batch_source
from .checkpoint import adam_tensors, load_checkpoint, restore_adam, save_checkpoint
from .config import TrainConfig
from .data import TrainingData
from .dictionary import NormalEquations
from .distributed import ProcessGroup

__all__ = ["WARM_UP", "TrainingState"]

WARM_UP: Final = 50
"""Steps of linear warm-up of the learning rate."""


class TrainingState:
    """The state of a training, which a checkpoint saves.

    Args:
        config: settings; `latents` must be set.
        data: training and held-out rows.
        device: device to train on.
        checkpoint: file to save to and to resume from, if any.
        on_record: called with the record of each validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        device: torch.device,
        checkpoint: Path | None,
        on_record: Callable[[Record], None] | None,
    ) -> None:
        assert config.latents is not None
        self.config, self.data, self.device, self.checkpoint, self.on_record = (
            config, data, device, checkpoint, on_record,
        )  # fmt: skip
        self.group = ProcessGroup.current()
        self.batches = make_batch_source(data, device)
        self.model = CompresSAE(ModelConfig(data.dim, config.latents, config.k), seed=config.seed).to(device)
        self.history = TrainingHistory(settings=dataclasses.asdict(config))
        self.model.history = self.history
        self.steps_done: dict[Phase, int] = {"autoencoder": 0, "dictionary": 0, "encoder": 0}
        self.last_use = torch.zeros(config.latents, dtype=torch.int64, device=device)
        self.equations: NormalEquations | None = None
        self.loss_sum: float | Tensor = 0.0
        self.loss_count = 0
        self._resumed_tensors: dict[str, Tensor] = {}
        self.held_out = data.held_out()
        if config.init == "data":
            self._start_from_items()

    def _start_from_items(self) -> None:
        items = self.data.sample(self.model.latents, salt=1)
        with torch.no_grad():
            self.model.atoms[: len(items)] = items
            self.model.encoder_weight[: len(items)] = items

    @property
    def items_seen(self) -> int:
        """Items in all batches so far, counted once for each time they were used."""
        steps = self.steps_done["autoencoder"] + self.steps_done["encoder"]
        return steps * self.config.batch_size + self.steps_done["dictionary"] * self.config.round_items

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Adam:
        """Adam over some parameters, with the moments of the checkpoint if one was just resumed."""
        adam = torch.optim.Adam(parameters, lr=self.config.learning_rate, fused=True)
        restore_adam(adam, self._resumed_tensors)
        self._resumed_tensors = {}
        return adam

    def add_loss(self, loss: Tensor) -> None:
        """Add the mean loss of a batch to the running mean, on a GPU without waiting for its value."""
        self.loss_sum = self.loss_sum + (float(loss) if loss.device.type == "cpu" else loss.double())
        self.loss_count += 1

    def save(self, optimiser: torch.optim.Adam | None = None) -> None:
        """Write a checkpoint, if there is a file for it; in the first process only."""
        if self.checkpoint is None or not self.group.is_first:
            return
        tensors = dict(self.model.state_dict()) | {"last_use": self.last_use}
        if optimiser is not None:
            tensors |= adam_tensors(optimiser)
        if self.equations is not None:
            tensors |= {f"sum.{f.name}": getattr(self.equations, f.name) for f in dataclasses.fields(self.equations)}
        meta = {
            "identity": self._identity(),
            "done": self.steps_done,
            "loss": [float(self.loss_sum), self.loss_count],
            "history": dataclasses.asdict(self.history),
        }
        save_checkpoint(self.checkpoint, tensors, meta)

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one.

        Raises:
            ConfigError: it belongs to a training with other settings or embeddings.
            ModelFileError: it cannot be read.
        """
        loaded = None if self.checkpoint is None else load_checkpoint(self.checkpoint)
        if loaded is None:
            return
        tensors, meta = loaded
        if meta["identity"] != self._identity():
            changed = [name for name, value in self._identity().items() if meta["identity"].get(name) != value]
            raise ConfigError(
                f"checkpoint {self.checkpoint} belongs to a training with other {', '.join(changed)}; use the same "
                "settings and embeddings to resume it, or delete it to train from the start"
            )
        self.model.load_state_dict({name: tensors[name] for name in self.model.state_dict()})
        self.last_use = tensors["last_use"].to(self.device)
        if "sum.gram" in tensors:
            names = [f.name for f in dataclasses.fields(NormalEquations)]
            self.equations = NormalEquations(*(tensors[f"sum.{name}"].to(self.device) for name in names))
        self._resumed_tensors = tensors
        self.steps_done = meta["done"]
        self.loss_sum, self.loss_count = meta["loss"]
        history = meta["history"]
        self.history.notes = history["notes"]
        self.history.records = [Record(**record) for record in history["records"]]

    def _identity(self) -> dict[str, Any]:
        probe = self.data.sample(4, salt=2)
        return dataclasses.asdict(self.config) | {
            "embeddings": [len(self.data), self.data.dim, [float(value) for value in probe.double().sum(1)]]
        }

    @torch.no_grad()
    def validate(self, phase: Phase) -> Record:
        """Measure the model on the held-out items, and add the record to the history."""
        losses = {}
        use = torch.zeros(self.model.latents, device=self.device)
        batches = torch.split(self.held_out, batch_rows(self.device))
        methods: tuple[Method, ...] = ("encoder", "pursuit")
        for method in methods:
            coded = map_batches(functools.partial(self.model.code, method=method), batches, self.device)
            total = 0.0
            for x, (indices, values) in zip(batches, coded, strict=True):
                total += float((1 - cosine_similarity(x, sparse_decode(indices, values, self.model.atoms))).sum())
                if method == "pursuit":
                    use += torch.bincount(indices.reshape(-1), minlength=len(use))
            losses[method] = total / len(self.held_out)
        record = Record(
            phase=phase,
            step=self.steps_done[phase],
            items=self.items_seen,
            train_loss=float(self.loss_sum) / max(self.loss_count, 1),
            encoder_loss=losses["encoder"],
            pursuit_loss=losses["pursuit"],
            dead_latents=self._dead_latents(),
            posting_mass=float((use.double() / len(self.held_out)).square().sum()),
        )
        self.loss_sum, self.loss_count = 0.0, 0
        self.history.records.append(record)
        if self.on_record is not None:
            self.on_record(record)
        return record

    def _dead_latents(self) -> int:
        if self.equations is not None:
            return int((self.equations.use < 1).sum())
        return int((self.steps_done["autoencoder"] - self.last_use >= max(self.config.revive_after, WARM_UP)).sum())
