"""Triton: batches of unit rows gathered from the stored matrix, and Adam with projection and normalisation."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["adam_rows", "gather_unit_rows"]


@triton.jit
def _gather_kernel(rows_ptr, order_ptr, out_ptr, DIM: tl.constexpr, PAD: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PAD)
    inside = columns < DIM
    row = tl.load(order_ptr + item).to(tl.int64)
    x = tl.load(rows_ptr + row * DIM + columns, mask=inside, other=0.0).to(tl.float32)
    x = x / tl.sqrt(tl.sum(x * x, axis=0))
    tl.store(out_ptr + item * DIM + columns, x.to(out_ptr.dtype.element_ty), mask=inside)


def gather_unit_rows(rows: Tensor, order: Tensor, out: Tensor) -> None:
    """Gather rows of unit norm.

    Args:
        rows: (n, d) float, no zero row.
        order: (b,) int64 row numbers.
        out: (b, d) float, written: `rows[order_i]` divided by its norm.
    """
    dim = rows.shape[1]
    pad = triton.next_power_of_2(dim)
    _gather_kernel[(len(order),)](rows, order, out, DIM=dim, PAD=pad, num_warps=max(1, min(8, pad // 256)))


@triton.jit
def _adam_kernel(
    weight_ptr, half_ptr, first_ptr, second_ptr, parts_ptr, rate_ptr, step_ptr, scale, stride,
    DIM: tl.constexpr, PAD: tl.constexpr, PARTS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PAD)
    inside = columns < DIM
    here = row * DIM + columns
    gradient = tl.zeros((PAD,), tl.float32)
    part_ptr = parts_ptr + here
    for _ in range(PARTS):
        gradient += tl.load(part_ptr, mask=inside, other=0.0)
        part_ptr += stride
    gradient *= scale
    weight = tl.load(weight_ptr + here, mask=inside, other=0.0)
    if UNIT:
        gradient -= tl.sum(gradient * weight, axis=0) * weight
    first = 0.9 * tl.load(first_ptr + here, mask=inside, other=0.0) + 0.1 * gradient
    second = 0.999 * tl.load(second_ptr + here, mask=inside, other=0.0) + 0.001 * gradient * gradient
    step = tl.load(step_ptr)
    corrected_first = 1.0 - tl.exp2(step * -0.15200309344504997)
    corrected_second = 1.0 - tl.exp2(step * -0.0014434168696687174)
    weight -= tl.load(rate_ptr) * (first / corrected_first) / (tl.sqrt(second / corrected_second) + 1e-8)
    if UNIT:
        weight = weight / tl.maximum(tl.sqrt(tl.sum(weight * weight, axis=0)), 1e-12)
    tl.store(weight_ptr + here, weight, mask=inside)
    tl.store(half_ptr + here, weight.to(tl.bfloat16), mask=inside)
    tl.store(first_ptr + here, first, mask=inside)
    tl.store(second_ptr + here, second, mask=inside)


def adam_rows(
    weight: Tensor, half: Tensor, first: Tensor, second: Tensor, parts: Tensor, rate: Tensor, step: Tensor,
    scale: float, *, unit: bool,
) -> None:  # fmt: skip
    """Take a step of Adam (betas 0.9 and 0.999, eps 1e-8) on the rows of a matrix, in place.

    Args:
        weight: (r, c) float32.
        half: (r, c) bfloat16, becomes a copy of the new weights.
        first, second: (r, c) float32 moments.
        parts: (p, r, c) float32; their sum times `scale` is the gradient.
        rate, step: () float32, the learning rate and this step's number, from 1.
        unit: whether to project the gradient of each row to be orthogonal to it, and scale the row to unit norm.
    """
    rows, dim = weight.shape
    pad = triton.next_power_of_2(dim)
    _adam_kernel[(rows,)](
        weight, half, first, second, parts, rate, step, scale, rows * dim,
        DIM=dim, PAD=pad, PARTS=len(parts), UNIT=unit, num_warps=max(1, min(8, pad // 256)),
    )  # fmt: skip
