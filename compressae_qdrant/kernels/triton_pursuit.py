"""Triton: pursuit with one program per item: the next atoms, least squares on the support, and the sums `S'S`.

The Gram matrix of a support stays in registers and is inverted in place by the sweep operator (Goodnight 1979), pivot
after pivot. Libraries' batched solvers launch a kernel for each matrix where they have no batched form.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, int16

from .torch_reference import GRAM_UNIT

__all__ = ["add_gram", "pick_atoms", "solve_least_squares"]


@triton.jit(do_not_specialize=["chosen", "count"])
def _pick_kernel(e_ptr, support_ptr, latents, wide, chosen, count, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    valid = columns < latents
    bits = tl.load(e_ptr + row * latents + columns, mask=valid, other=0).to(tl.int32)
    # No two keys are equal: among equal magnitudes, the lower latent has the larger key.
    key = tl.where(valid, ((bits & 0x7FFF) << 16) | (0xFFFF - columns), -1)
    for place in range(chosen):
        taken = tl.load(support_ptr + row * wide + place)
        key = tl.where(columns == taken, -1, key)
    for place in range(chosen, chosen + count):
        best = tl.max(key, axis=0)
        tl.store(support_ptr + row * wide + place, (0xFFFF - (best & 0xFFFF)).to(tl.int64))
        key = tl.where(key == best, -1, key)


def pick_atoms(e: Tensor, support: Tensor, chosen: int, count: int) -> None:
    """Select the `count` entries of largest magnitude of each row that are not in its support yet.

    Args:
        e: (n, h) bfloat16, contiguous, h at most 16,384.
        support: (n, w) int64, contiguous; columns from `chosen` on are written, largest magnitude first, the lower
            latent first among equals.
        chosen: columns of the support that are filled already.
        count: at most w - chosen and h - chosen.
    """
    n, latents = e.shape
    width = triton.next_power_of_2(latents)
    _pick_kernel[(n,)](
        e.view(int16), support, latents, support.shape[1], chosen, count,
        WIDTH=width, num_warps=max(1, min(8, width // 1024)),
    )  # fmt: skip


@triton.jit
def _minus_inverse(matrix, wide, rows, columns):
    """Minus the inverse of the first `wide` rows and columns, by sweeping on each pivot in turn."""
    for pivot in range(wide):
        is_row, is_column = rows == pivot, columns == pivot
        row = tl.sum(tl.where(is_row, matrix, 0.0), axis=0)[None, :]
        column = tl.sum(tl.where(is_column, matrix, 0.0), axis=1)[:, None]
        value = tl.sum(tl.where(is_column, row, 0.0))
        # The pivot of an atom in the span of the others is only a rounding error: it gets almost no weight.
        value = tl.where(value < 1e-5, 1e6, value)
        swept = matrix - column * row / value
        swept = tl.where(is_row, row / value, swept)
        swept = tl.where(is_column, column / value, swept)
        matrix = tl.where(is_row & is_column, -1.0 / value, swept)
    return matrix


@triton.jit(do_not_specialize=["wide", "k"])
def _solve_kernel(
    gram_ptr, moments_ptr, support_ptr, index_ptr, value_ptr, latents, stride, wide, k,
    DROP: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0).to(tl.int64)
    rows, columns, place = tl.arange(0, PAD)[:, None], tl.arange(0, PAD)[None, :], tl.arange(0, PAD)
    kept = place < wide
    support = tl.load(support_ptr + item * stride + place, mask=kept, other=0)
    moments = tl.load(moments_ptr + item * latents + support, mask=kept, other=0.0)
    pairs = gram_ptr + support[:, None] * latents + support[None, :]
    matrix = tl.load(pairs, mask=kept[:, None] & kept[None, :], other=0.0)
    matrix = _minus_inverse(matrix, wide, rows, columns)
    values = -tl.sum(matrix * moments[None, :], axis=1)
    if DROP:
        # Without atom j the error grows by v_j^2 / inverse_jj.
        diagonal = -tl.sum(tl.where(rows == columns, matrix, 0.0), axis=0)
        cost = tl.where(kept, values * values / tl.maximum(diagonal, 1e-30), 3e38)
        for _ in range(k, wide):
            gone = tl.min(tl.where(cost == tl.min(cost, axis=0), place, PAD), axis=0)
            kept = kept & (place != gone)
            cost = tl.where(place == gone, 3e38, cost)
        # Solve again for the atoms that remain: updating the inverse would keep rounding errors of nearly equal atoms.
        moments = tl.where(kept, moments, 0.0)
        matrix = tl.load(pairs, mask=kept[:, None] & kept[None, :], other=0.0)
        matrix = tl.where((rows == columns) & (kept == 0)[None, :], 1.0, matrix)
        matrix = _minus_inverse(matrix, wide, rows, columns)
        values = -tl.sum(matrix * moments[None, :], axis=1)
    # One step of iterative refinement, because float32 is not exact enough.
    gram = tl.load(pairs, mask=kept[:, None] & kept[None, :], other=0.0)
    left = moments - tl.sum(gram * values[None, :], axis=1)
    values -= tl.sum(matrix * left[None, :], axis=1)
    position = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(index_ptr + item * k + position, support, mask=kept)
    tl.store(value_ptr + item * k + position, values, mask=kept)


def solve_least_squares(gram: Tensor, moments: Tensor, support: Tensor, wide: int, k: int) -> tuple[Tensor, Tensor]:
    """Reduce each support to its k most needed atoms, and solve for the values that reconstruct best.

    Args:
        gram: (h, h) float32 `W W'`, contiguous, its diagonal slightly enlarged.
        moments: (n, h) float32 products of the atoms with each item, contiguous.
        support: (n, at least `wide`) int64, contiguous, different latents in each row.
        wide: number of columns of the support to use, at most `dispatch.MAX_SUPPORT`.
        k: number of atoms to keep, at most `wide`; those whose removal increases the error least are dropped.

    Returns:
        (n, k) int64 in the order of the support, and (n, k) float32.
    """
    n = len(support)
    indices = torch.empty((n, k), dtype=torch.int64, device=gram.device)
    values = torch.empty((n, k), dtype=torch.float32, device=gram.device)
    pad = max(16, triton.next_power_of_2(wide))
    _solve_kernel[(n,)](
        gram, moments, support, indices, values, len(gram), support.shape[1], wide, k,
        DROP=k < wide, PAD=pad, num_warps=1 if pad <= 32 else pad // 16,
    )  # fmt: skip
    return indices, values


@triton.jit
def _gram_kernel(index_ptr, value_ptr, total_ptr, latents, k, UNIT: tl.constexpr, PAD: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, PAD)
    used = place < k
    index = tl.load(index_ptr + item * k + place, mask=used, other=0)
    value = tl.load(value_ptr + item * k + place, mask=used, other=0.0).to(tl.float64)
    products = tl.floor(value[:, None] * value[None, :] * UNIT + 0.5).to(tl.int64)
    pairs = index[:, None] * latents + index[None, :]
    tl.atomic_add(total_ptr + pairs, products, mask=used[:, None] & used[None, :], sem="relaxed")


def add_gram(indices: Tensor, values: Tensor, total: Tensor) -> None:
    """Add `S'S` of codes to integers, whose sum does not depend on the order of the programs.

    Args:
        indices: (n, k) int64, contiguous.
        values: (n, k) float32, contiguous, at most 1,000 in magnitude.
        total: (h, h) int64, in units of `1 / GRAM_UNIT`: 2.3e-10, finer than float32 resolves a sum above 0.004.
    """
    n, k = indices.shape
    pad = max(16, triton.next_power_of_2(k))
    _gram_kernel[(n,)](
        indices, values, total, len(total), k, UNIT=GRAM_UNIT, PAD=pad, num_warps=max(1, min(8, pad * pad // 512))
    )  # fmt: skip
