"""The autoencoder's objective and its optimiser step, as the paper has them (arXiv 2505.11388, section 3).

A step encodes a batch once, keeps the 4k pre-activations of largest magnitude in order, and decodes twice: the first k
of them and all 4k. The second term keeps latents in training that the first would let die.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, log_softmax, normalize, softmax

from ..kernels import encode_topk, sparse_decode
from ..model.compressae import CompresSAE

__all__ = [
    "AUXILIARY_WEIGHT", "WIDE", "Loss", "cosine_losses", "neighbour_loss", "normalise_atoms_", "project_gradient_",
]  # fmt: skip

WIDE = 4
"""The auxiliary term reconstructs from this many times k latents (paper: 4k)."""

AUXILIARY_WEIGHT = 1 / 8
"""Weight of the auxiliary term (paper, equation 5)."""

_TEMPERATURE = 0.05
_ANCHORS = 256
_NEIGHBOURS = 2048


@dataclass(frozen=True)
class Loss:
    """The objective on one batch, and what it is made of."""

    total: Tensor
    """() `(1 - cos(x, x_hat_k)) + (1 - cos(x, x_hat_4k)) / 8`, mean over the batch, and the weighted neighbour loss."""
    cosine: Tensor
    """() its first term alone."""
    support: Tensor
    """(n, k) int64 latents that the code of each item uses."""
    per_item: Tensor
    """(n,) `1 - cos(x, x_hat_k)`, detached."""


def cosine_losses(model: CompresSAE, x: Tensor, neighbour_weight: float = 0.0) -> Loss:
    """The objective on a batch.

    Args:
        model: trained in place by the gradients of `Loss.total`.
        x: (n, d) float32, unit norm.
        neighbour_weight: of `neighbour_loss`; the paper has no such term.
    """
    k = model.k
    wide = min(WIDE * k, model.latents)
    indices, values = encode_topk(x, model.encoder_weight, model.encoder_bias, wide)
    values = values.float()
    narrow = 1 - cosine_similarity(x, sparse_decode(indices[:, :k], values[:, :k], model.atoms))
    broad = 1 - cosine_similarity(x, sparse_decode(indices, values, model.atoms))
    cosine = narrow.mean()
    total = cosine + AUXILIARY_WEIGHT * broad.mean()
    if neighbour_weight:
        total = total + neighbour_weight * neighbour_loss(x, indices[:, :k], values[:, :k], model.latents)
    return Loss(total, cosine, indices[:, :k], narrow.detach())


def neighbour_loss(x: Tensor, indices: Tensor, values: Tensor, latents: int) -> Tensor:
    """How far codes are from having the neighbours that their embeddings have, within a batch.

    An item's cosines with the others, divided by a temperature, are a distribution over them by softmax; the loss is
    the Kullback-Leibler divergence of the codes' distribution from the embeddings', as in distillation of similarities
    (SEED, arXiv 2101.04731). 256 items are compared with 2,048 at most, so a large batch costs no more than that.

    Args:
        x: (n, d) float, unit norm; no gradient goes into it.
        indices: (n, k) int64 latents of each code.
        values: (n, k) float, their values.
        latents: h.

    Returns:
        () nats, mean over the items; 0 for a batch of one.
    """
    x, indices, values = x[:_NEIGHBOURS], indices[:_NEIGHBOURS], values[:_NEIGHBOURS]
    anchors, own = min(_ANCHORS, len(x)), torch.eye(len(x), dtype=torch.bool, device=x.device)[:_ANCHORS]
    if len(x) < 2:
        return values.sum() * 0
    codes = torch.zeros(len(x), latents, device=x.device).scatter(1, indices, normalize(values, dim=1))
    with torch.no_grad():
        wanted = softmax((x[:anchors] @ x.t()).float().masked_fill(own, -torch.inf) / _TEMPERATURE, dim=1)
    cosines = (codes[:anchors] @ codes.t()).float().masked_fill(own, -1e4)
    return kl_div(log_softmax(cosines / _TEMPERATURE, dim=1), wanted, reduction="batchmean")


@torch.no_grad()
def project_gradient_(atoms: Tensor) -> None:
    """Remove from the atoms' gradient what would only change their norms.

    Done before the optimiser's step: projecting after it, as published code does, changes nothing, because the next
    step starts by clearing the gradient.
    """
    if atoms.grad is not None:
        atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms


@torch.no_grad()
def normalise_atoms_(atoms: Tensor) -> None:
    """Scale each atom to unit norm, in place. A zero row stays zero."""
    atoms.copy_(normalize(atoms, dim=1))
