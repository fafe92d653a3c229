"""The autoencoder's objective and its optimiser step, as the paper has them (arXiv 2505.11388, section 3).

A step encodes a batch once, keeps the 4k pre-activations of largest magnitude in order, and decodes twice: the first k
of them and all 4k. The second term keeps latents in training that the first would let die.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ..kernels import encode_topk, sparse_decode
from ..model import CompresSAE

__all__ = ["AUXILIARY_WEIGHT", "WIDE", "Loss", "cosine_losses", "normalise_atoms_", "project_gradient_"]

WIDE = 4
"""The auxiliary term reconstructs from this many times k latents (paper: 4k)."""

AUXILIARY_WEIGHT = 1 / 8
"""Weight of the auxiliary term (paper, equation 5)."""


@dataclass(frozen=True)
class Loss:
    """The objective on one batch, and what it is made of."""

    total: Tensor
    """() `(1 - cos(x, x_hat_k)) + (1 - cos(x, x_hat_4k)) / 8`, mean over the batch."""
    cosine: Tensor
    """() its first term alone."""
    support: Tensor
    """(n, k) int64 latents that the code of each item uses."""
    per_item: Tensor
    """(n,) `1 - cos(x, x_hat_k)`, detached."""


def cosine_losses(model: CompresSAE, x: Tensor) -> Loss:
    """The objective on a batch.

    Args:
        model: trained in place by the gradients of `Loss.total`.
        x: (n, d) float32, unit norm.
    """
    k = model.k
    wide = min(WIDE * k, model.latents)
    indices, values = encode_topk(x, model.encoder_weight, model.encoder_bias, wide)
    values = values.float()
    narrow = 1 - cosine_similarity(x, sparse_decode(indices[:, :k], values[:, :k], model.atoms))
    broad = 1 - cosine_similarity(x, sparse_decode(indices, values, model.atoms))
    cosine = narrow.mean()
    return Loss(cosine + AUXILIARY_WEIGHT * broad.mean(), cosine, indices[:, :k], narrow.detach())


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
