"""The objective of the autoencoder, as in the paper (arXiv 2505.11388, section 3), and the constraint on its atoms.

A batch is encoded once. The 4k pre-activations of largest magnitude are kept in order and decoded twice: the first k of
them, and all 4k. The second term gives gradients to latents that would die under the first alone.
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
    """The objective on one batch, and its parts."""

    total: Tensor
    """() `(1 - cos(x, x_hat_k)) + (1 - cos(x, x_hat_4k)) / 8`, batch mean, plus the weighted neighbour loss."""
    cosine: Tensor
    """() the first term, `1 - cos(x, x_hat_k)`, mean over the batch."""
    support: Tensor
    """(n, k) int64 latents that the code of each item uses."""
    per_item: Tensor
    """(n,) `1 - cos(x, x_hat_k)`, detached."""


def cosine_losses(model: CompresSAE, x: Tensor, neighbour_weight: float = 0.0) -> Loss:
    """The objective on a batch.

    Args:
        model: the model; gradients of `Loss.total` flow to its weights.
        x: (n, d) float32, unit norm.
        neighbour_weight: weight of `neighbour_loss`; 0 is the paper's objective.
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
    """How much the neighbours of codes differ from the neighbours of their embeddings, within a batch.

    The softmax of an item's cosines with the others, divided by a temperature of 0.05, is a distribution over them. The
    loss is the Kullback-Leibler divergence of the distribution of the codes from that of the embeddings, as in
    distillation of similarities (SEED, arXiv 2101.04731). At most 256 items are compared with at most 2,048.

    Args:
        x: (n, d) float, unit norm; no gradient flows to it.
        indices: (n, k) int64 latents of each code.
        values: (n, k) float values of each code.
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
        target = softmax((x[:anchors] @ x.t()).float().masked_fill(own, -torch.inf) / _TEMPERATURE, dim=1)
    cosines = (codes[:anchors] @ codes.t()).float().masked_fill(own, -1e4)
    return kl_div(log_softmax(cosines / _TEMPERATURE, dim=1), target, reduction="batchmean")


@torch.no_grad()
def project_gradient_(atoms: Tensor) -> None:
    """Remove the component of the atoms' gradient that would only change their norms.

    Call it before the optimiser's step. Projecting after the step, as the published code does, has no effect, because
    the next step clears the gradient.
    """
    if atoms.grad is not None:
        atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms


@torch.no_grad()
def normalise_atoms_(atoms: Tensor) -> None:
    """Scale each atom to unit norm, in place. A zero row stays zero."""
    atoms.copy_(normalize(atoms, dim=1))
