"""Optimiser steps: by autograd, which is exact and runs anywhere, or fused, where the device has the kernels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ..kernels.dispatch import MAX_LATENTS, fused
from ..model.compressae import CompresSAE
from ..model.pursuit import selection_dtype
from .autoencoder import cosine_losses, normalise_atoms_, project_gradient_
from .batches import Feed
from .config import TrainConfig
from .distributed import ProcessGroup
from .fused_step import FusedStep

__all__ = ["AutogradStep", "Step", "make_step"]


class Step(Protocol):
    """A way to take optimiser steps on the autoencoder's objective."""

    x: Tensor
    """(b, d) the last batch; of several processes, this one's share."""

    def __call__(self, position: int, rate: float, stamp: int) -> Tensor:
        """Take a step on the batch at a position; gives the () mean `1 - cos(x, x_hat_k)` over it, on the device."""

    def refresh(self) -> None:
        """Take over weights that something else has changed."""


class AutogradStep:
    """Steps as torch takes them. On CPUs of one kind equal seeds give equal bits."""

    def __init__(
        self, model: CompresSAE, adam: torch.optim.Adam, feed: Feed, config: TrainConfig, group: ProcessGroup,
        *, train_atoms: bool, last_use: Tensor,
    ) -> None:  # fmt: skip
        self._model, self._adam, self._feed, self._config, self._group = model, adam, feed, config, group
        self._train_atoms, self._last_use = train_atoms, last_use
        self._low, high = group.shard(config.batch_size)
        self._items = high - self._low

    def __call__(self, position: int, rate: float, stamp: int) -> Tensor:
        """Take a step; see `Step`."""
        model, adam = self._model, self._adam
        self.x = self._feed.batch(position + self._low, self._items)
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
        """Nothing is kept here."""

    def _average(self, cosine: Tensor) -> Tensor:
        """Make this process's gradients and loss those of the whole batch."""
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
    model: CompresSAE, adam: torch.optim.Adam, feed: Feed, config: TrainConfig, group: ProcessGroup,
    *, train_atoms: bool, last_use: Tensor,
) -> Step:  # fmt: skip
    """The fastest step for the model's device and the precision that is asked for."""
    device = model.atoms.device
    plain = config.precision == "float32" or model.latents > MAX_LATENTS or config.neighbour_weight > 0
    operations = None if plain else fused(device)
    if operations is None:
        return AutogradStep(model, adam, feed, config, group, train_atoms=train_atoms, last_use=last_use)
    return FusedStep(
        model, adam, feed, config.batch_size, operations, group, train_atoms=train_atoms, last_use=last_use
    )


def _precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    dtype = selection_dtype(device) if config.precision == "auto" else getattr(torch, config.precision)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
