"""The signed top-k of pre-activations and the decode of sparse codes, in torch with sparse gradients.

A row has only k of h latents: the decode sums k atoms, and the gradients of the decoder and the encoder touch only the
selected latents. No dense (n, h) code is created.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["encode_topk", "scatter_outer", "signed_topk", "sparse_decode"]

_INT16 = 1 << 15


def signed_topk(e: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k entries of largest magnitude in each row, largest first, with their signs.

    Args:
        e: (n, h) float.
        k: at most h.

    Returns:
        (n, k) int64 indices and (n, k) values; gradients flow to the values.
    """
    indices = e.detach().abs().topk(k, dim=1).indices
    return indices, e.gather(1, indices)


def encode_topk(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The signed top-k of `x weight' + bias`.

    Args:
        x: (n, d) float.
        weight: (h, d) encoder, row j the direction of latent j (the paper's W_enc, transposed).
        bias: (h,).
        k: at most h.

    Returns:
        (n, k) int64 indices, largest magnitude first, and (n, k) values. The backward pass touches only the n k
        selected entries: the encoder's gradient is a sum of n k rows instead of a dense (h, n) by (n, d) product.
    """
    indices, values = _EncodeTopK.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, k
    )
    return indices, values


def sparse_decode(indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """Decode sparse codes: `x_hat_i = sum_j values_ij atoms[indices_ij]`.

    Args:
        indices: (n, k) int64.
        values: (n, k) float.
        atoms: (h, d) float, the decoder W.

    Returns:
        (n, d); gradients flow to the values and the atoms.
    """
    decoded: Tensor = _SparseDecode.apply(  # type: ignore[no-untyped-call]
        indices, values, atoms
    )
    return decoded


def scatter_outer(indices: Tensor, values: Tensor, rows: Tensor, latents: int) -> Tensor:
    """`S' rows` for the sparse (n, h) matrix S of codes: row j of the result sums values_ij rows_i over its items.

    Args:
        indices: (n, k) int64 in [0, latents).
        values: (n, k) float.
        rows: (n, d) float.
        latents: h.

    Returns:
        (latents, d). Entries are summed in a fixed order, so the result is reproducible.
    """
    k = indices.shape[1]
    flat = indices.reshape(-1)
    keys = flat.to(torch.int16) if latents <= _INT16 else flat  # sorts five times faster, in the same order
    order = torch.argsort(keys, stable=True)
    ends = torch.bincount(flat, minlength=latents).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    weights = values.reshape(-1)[order].to(rows.dtype)
    return embedding_bag(order // k, rows, offsets=starts, per_sample_weights=weights, mode="sum")


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
        ctx.save_for_backward(indices, values, atoms)
        return _bag(indices, values, atoms)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        indices, values, atoms = ctx.saved_tensors
        grad = grads[0].contiguous()
        to_values = _row_dots(indices, grad, atoms).to(values.dtype) if ctx.needs_input_grad[1] else None
        to_atoms = scatter_outer(indices, values, grad, atoms.shape[0]) if ctx.needs_input_grad[2] else None
        return None, to_values, to_atoms


class _EncodeTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        indices, values = signed_topk(torch.addmm(bias, x, weight.t()), k)
        ctx.save_for_backward(x, weight, indices)
        ctx.mark_non_differentiable(indices)
        return indices, values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, indices = ctx.saved_tensors
        grad = grads[1].contiguous()
        latents = weight.shape[0]
        to_x = _bag(indices, grad, weight) if ctx.needs_input_grad[0] else None
        to_weight = scatter_outer(indices, grad, x, latents) if ctx.needs_input_grad[1] else None
        to_bias = None
        if ctx.needs_input_grad[2]:
            to_bias = torch.zeros(latents, dtype=grad.dtype, device=grad.device)
            to_bias.index_add_(0, indices.reshape(-1), grad.reshape(-1))
        return to_x, to_weight, to_bias, None


def _bag(indices: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    return embedding_bag(indices, atoms, per_sample_weights=values.to(atoms.dtype), mode="sum")


def _row_dots(indices: Tensor, rows: Tensor, atoms: Tensor) -> Tensor:
    """The (n, k) dot products rows_i . atoms[indices_ij], without gathering n k atoms at once."""
    weights = torch.zeros(indices.shape, dtype=rows.dtype, device=rows.device, requires_grad=True)
    with torch.enable_grad():  # the fused backward of embedding_bag for its weights is exactly this product
        (dots,) = torch.autograd.grad(_bag(indices, weights, atoms.detach()), weights, rows)
    return dots
