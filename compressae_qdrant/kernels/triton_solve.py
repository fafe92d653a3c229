"""Triton: least squares on small supports, an item a program: solve, drop what is needed least, solve again.

The Gram matrix of a support stays in registers and is inverted in place by the sweep operator (Goodnight 1979), pivot
after pivot; sweeping a pivot once more takes its atom out again, which leaves the inverse of what remains. Libraries'
batched solvers launch a kernel for each matrix where they have no batched form.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["MAX_SUPPORT", "solve_least_squares"]

MAX_SUPPORT = 128
"""Atoms in a support: its Gram matrix must fit the registers of one program."""


@triton.jit
def _sweep(matrix, pivot, rows, columns):
    """Invert on one pivot, in place. Twice is back again, so a second sweep removes the pivot's row and column."""
    is_row, is_column = rows == pivot, columns == pivot
    row = tl.sum(tl.where(is_row, matrix, 0.0), axis=0)[None, :]
    column = tl.sum(tl.where(is_column, matrix, 0.0), axis=1)[:, None]
    value = tl.sum(tl.where(is_column, row, 0.0))
    # A pivot that rounding made zero belongs to an atom that adds nothing: it gets next to no weight.
    value = tl.where(tl.abs(value) < 1e-6, 1e6, value)
    swept = matrix - column * row / value
    swept = tl.where(is_row, row / value, swept)
    swept = tl.where(is_column, column / value, swept)
    return tl.where(is_row & is_column, -1.0 / value, swept)


@triton.jit
def _solve_kernel(
    gram_ptr, moments_ptr, support_ptr, index_ptr, value_ptr, wide, k, PAD: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0).to(tl.int64)
    rows, columns, place = tl.arange(0, PAD)[:, None], tl.arange(0, PAD)[None, :], tl.arange(0, PAD)
    inside = (rows < wide) & (columns < wide)
    matrix = tl.load(gram_ptr + item * wide * wide + rows * wide + columns, mask=inside, other=0.0)
    moments = tl.load(moments_ptr + item * wide + place, mask=place < wide, other=0.0)
    support = tl.load(support_ptr + item * wide + place, mask=place < wide, other=0)
    for pivot in range(wide):
        matrix = _sweep(matrix, pivot, rows, columns)
    # Swept on all pivots, the matrix is minus the inverse. Without atom j the error grows by v_j^2 / inverse_jj.
    diagonal = -tl.sum(tl.where(rows == columns, matrix, 0.0), axis=0)
    values = -tl.sum(matrix * moments[None, :], axis=1)
    kept = place < wide
    cost = tl.where(kept, values * values / tl.maximum(diagonal, 1e-30), 3e38)
    for _ in range(k, wide):
        least = tl.min(cost, axis=0)
        gone = tl.min(tl.where(cost == least, place, PAD), axis=0)
        matrix = _sweep(matrix, gone, rows, columns)
        kept = kept & (place != gone)
        cost = tl.where(place == gone, 3e38, cost)
    solved = -tl.sum(tl.where(kept[:, None] & kept[None, :], matrix * moments[None, :], 0.0), axis=1)
    position = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(index_ptr + item * k + position, support, mask=kept)
    tl.store(value_ptr + item * k + position, solved, mask=kept)


def solve_least_squares(gram: Tensor, moments: Tensor, support: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k atoms of each support that are needed most, and the values on them that reconstruct best.

    Args:
        gram: (n, w, w) float32 Gram matrices of the supports, w at most `MAX_SUPPORT`.
        moments: (n, w) float32 products of their atoms with the item.
        support: (n, w) int64.
        k: at most w; w - k atoms are dropped, those without which the error grows least.

    Returns:
        (n, k) int64 and (n, k) float32.
    """
    n, wide = support.shape
    indices = torch.empty((n, k), dtype=torch.int64, device=gram.device)
    values = torch.empty((n, k), dtype=torch.float32, device=gram.device)
    pad = max(16, triton.next_power_of_2(wide))
    _solve_kernel[(n,)](
        gram.contiguous(), moments.contiguous(), support.contiguous(), indices, values, wide, k,
        PAD=pad, num_warps=4 if pad <= 64 else 8,
    )  # fmt: skip
    return indices, values
