"""The torch reference of the fused kernels: it defines what they compute, tests them, and replaces them without Triton.

Every function has the signature of its kernel.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = [
    "GRAM_UNIT", "adam_rows", "add_gram", "cosine_gradients", "gather_unit_rows", "pack", "pick_atoms",
    "select_entries", "solve_least_squares", "top_entries", "unpack",
]  # fmt: skip

GRAM_UNIT: Final = 2.0**32
"""Units of a product of two values in `add_gram`, per 1. The int64 sum has room for two billion items of unit value."""


def pack(indices: Tensor, values: Tensor) -> Tensor:
    """(n, w) int32 entries: the 16 bits of a bfloat16 value above the 16 bits of its latent (at most 65,535)."""
    bits = values.to(torch.bfloat16).contiguous().view(torch.int16)
    return (bits.int() << 16) | indices.int()


def unpack(entries: Tensor) -> tuple[Tensor, Tensor]:
    """(n, w) int64 latents and (n, w) float32 values of entries."""
    return (entries & 0xFFFF).long(), (entries & -65536).view(torch.float32)


def select_entries(e: Tensor, entries: Tensor, *, mask: bool) -> None:
    """See `triton_select.select_entries`."""
    # A stable sort selects the lower latent among equal magnitudes.
    chosen = e.abs().sort(dim=1, descending=True, stable=True).indices[:, : entries.shape[1]].sort(dim=1).values
    values = e.gather(1, chosen)
    entries.copy_(pack(chosen, values))
    if mask:
        e.zero_().scatter_(1, chosen, values)


def top_entries(e: Tensor, indices: Tensor, values: Tensor) -> None:
    """See `triton_select.top_entries`."""
    chosen = e.abs().sort(dim=1, descending=True, stable=True).indices[:, : indices.shape[1]].sort(dim=1).values
    indices.copy_(chosen)
    values.copy_(e.gather(1, chosen))


def pick_atoms(e: Tensor, support: Tensor, chosen: int, count: int) -> None:
    """See `triton_pursuit.pick_atoms`."""
    magnitude = e.abs().scatter_(1, support[:, :chosen], -1.0)
    support[:, chosen : chosen + count] = magnitude.sort(dim=1, descending=True, stable=True).indices[:, :count]


def solve_least_squares(gram: Tensor, moments: Tensor, support: Tensor, wide: int, k: int) -> tuple[Tensor, Tensor]:
    """See `triton_pursuit.solve_least_squares`."""
    support = support[:, :wide]
    matrix = gram.double()[support.unsqueeze(2), support.unsqueeze(1)]
    right = moments.double().gather(1, support).unsqueeze(2)
    inverse = torch.linalg.inv(matrix)
    cost = (inverse @ right).squeeze(2).square() / inverse.diagonal(dim1=1, dim2=2)
    kept = cost.sort(dim=1, stable=True).indices[:, wide - k :].sort(dim=1).values
    matrix = matrix.gather(1, kept.unsqueeze(2).expand(-1, -1, wide)).gather(2, kept.unsqueeze(1).expand(-1, k, -1))
    values = torch.linalg.solve(matrix, right.squeeze(2).gather(1, kept))
    return support.gather(1, kept), values.float()


def add_gram(indices: Tensor, values: Tensor, total: Tensor) -> None:
    """See `triton_pursuit.add_gram`."""
    value = values.double()
    products = (value.unsqueeze(2) * value.unsqueeze(1) * GRAM_UNIT + 0.5).floor().long()
    pairs = indices.unsqueeze(2) * len(total) + indices.unsqueeze(1)
    total.view(-1).index_add_(0, pairs.reshape(-1), products.reshape(-1))


def cosine_gradients(
    x: Tensor, entries: Tensor, atoms: Tensor, k: int, auxiliary: float,
    *, losses: Tensor, to_values: Tensor, last_use: Tensor, stamp: Tensor, to_hats: Tensor | None,
    narrow: Tensor | None,
) -> None:  # fmt: skip
    """See `triton_objective.cosine_gradients`."""
    indices, values = unpack(entries)
    exact = x.float()
    order = values.abs().sort(dim=1, descending=True, stable=True).indices
    in_narrow = torch.zeros_like(values).scatter_(1, order[:, :k], 1.0)
    gradient = torch.zeros_like(values)
    for term, (mask, weight) in enumerate(((torch.ones_like(values), auxiliary), (in_narrow, 1.0))):
        code = torch.zeros(len(x), len(atoms), device=x.device).scatter_(1, indices, values * mask)
        x_hat = code @ atoms.float()
        norm, norm_x = x_hat.norm(dim=1, keepdim=True).clamp_min(1e-8), exact.norm(dim=1, keepdim=True).clamp_min(1e-8)
        cosine = (exact * x_hat).sum(1, keepdim=True) / (norm * norm_x)
        to_hat = weight * (cosine * x_hat / norm - exact / norm_x) / norm
        losses[:, 1 - term] = 1 - cosine.squeeze(1)
        gradient += mask * (to_hat @ atoms.float().t()).gather(1, indices)
        if to_hats is not None:
            to_hats[term] = to_hat
        if narrow is not None and term:
            narrow.copy_(code)
    to_values.scatter_(1, indices, gradient.to(to_values.dtype))
    last_use[indices[in_narrow > 0]] = stamp


def gather_unit_rows(rows: Tensor, order: Tensor, out: Tensor) -> None:
    """See `triton_update.gather_unit_rows`."""
    out.copy_(normalize(rows[order].float(), dim=1))


def adam_rows(
    weight: Tensor, half: Tensor, first: Tensor, second: Tensor, parts: Tensor, rate: Tensor, step: Tensor,
    scale: float, *, unit: bool,
) -> None:  # fmt: skip
    """See `triton_update.adam_rows`."""
    gradient = parts.sum(0) * scale
    if unit:
        gradient -= (gradient * weight).sum(1, keepdim=True) * weight
    first.lerp_(gradient, 0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    weight -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    if unit:
        weight.copy_(normalize(weight, dim=1))
    half.copy_(weight)
