"""Optimiser steps: by autograd, which runs on any device, or fused, on a GPU with the kernels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ..kernels.dispatch import MAX_LATENTS, fused
from ..model.compressae import CompresSAE
from ..model.pursuit import selection_dtype
from .autoencoder import cosine_losses, normalise_atoms_, project_gradient_
from .batches import BatchSource
from .config import TrainConfig
from .distributed import ProcessGroup
from .fused_step import FusedStep

__all__ = ["AutogradStep", "Step", "make_step"]


class Step(Protocol):
    """Takes optimiser steps on the objective of the autoencoder."""

    x: Tensor
    """(b, d) the last batch, or the share of this process."""

    def __call__(self, position: int, rate: float, stamp: int) -> Tensor:
        """Take a step on the batch at a position.

        Args:
            position: position of the batch in the order of training.
            rate: learning rate.
            stamp: number of the step, noted as the last use of the latents that it uses.

        Returns:
            () mean `1 - cos(x, x_hat_k)` over the batch of all processes, on the device.
        """

    def refresh(self) -> None:
        """Read the weights again after something else has changed them."""


class AutogradStep:
    """Steps by autograd and torch's Adam. Equal seeds give equal bits on CPUs of the same kind."""

    def __init__(
        self, model: CompresSAE, adam: torch.optim.Adam, batches: BatchSource, config: TrainConfig, group: ProcessGroup,
        *, train_atoms: bool, last_use: Tensor,
    ) -> None:  # fmt: skip
        self._model, self._adam, self._batches, self._config, self._group = model, adam, batches, config, group
        self._train_atoms, self._last_use = train_atoms, last_use
        self._start, high = group.shard(config.batch_size)
        self._items = high - self._start

    def __call__(self, position: int, rate: float, stamp: int) -> Tensor:
        """Take a step; see `Step`."""
        model, adam = self._model, self._adam
        self.x = self._batches.batch(position + self._start, self._items)
        for group in adam.param_groups:
            group["lr"] = rate
        model.atoms.requires_grad_(self._train_atoms)
        with _precision(self._config, self.x.device):
            loss = cosine_losses(model, self.x, self._config.neighbour_weight)
        adam.zero_grad()
        torch.autograd.backward(loss.total)
        cosine = loss.cosine.detach()
        if self._group.size > 1:
            cosine = self._average(cosine)
        if self._train_atoms:
            project_gradient_(model.atoms)
        adam.step()
        if self._train_atoms:
            normalise_atoms_(model.atoms)
            self._last_use[loss.support.reshape(-1)] = stamp
            self._group.max_(self._last_use)
        model.atoms.requires_grad_(True)
        return cosine

    def refresh(self) -> None:
        """Do nothing: the weights are never copied."""

    def _average(self, cosine: Tensor) -> Tensor:
        """Replace the gradients by those of the batch of all processes, and return its loss."""
        share = self._items / self._config.batch_size
        weights: list[nn.Parameter] = [weight for group in self._adam.param_groups for weight in group["params"]]
        for gradient in (weight.grad for weight in weights):
            assert gradient is not None
            gradient *= share
            self._group.sum_(gradient)
        cosine = cosine * share
        self._group.sum_(cosine)
        return cosine


def make_step(
    model: CompresSAE, adam: torch.optim.Adam, batches: BatchSource, config: TrainConfig, group: ProcessGroup,
    *, train_atoms: bool, last_use: Tensor,
) -> Step:  # fmt: skip
    """The fastest kind of step for the device of the model and the precision in `config`."""
    device = model.atoms.device
    needs_autograd = config.precision == "float32" or model.latents > MAX_LATENTS or config.neighbour_weight > 0
    operations = None if needs_autograd else fused(device)
    if operations is None:
        return AutogradStep(model, adam, batches, config, group, train_atoms=train_atoms, last_use=last_use)
    return FusedStep(
        model, adam, batches, config.batch_size, operations, group, train_atoms=train_atoms, last_use=last_use
    )


def _precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    dtype = selection_dtype(device) if config.precision == "auto" else getattr(torch, config.precision)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
