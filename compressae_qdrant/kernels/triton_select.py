"""Triton: the K entries of largest magnitude of each row, by bisection on their bits instead of sorting.

A row of pre-activations stays in registers. The magnitudes of bfloat16 numbers order like their 15 low bits, those of
float32 like 31, so the K-th largest is found by counting: a first guess four octaves below the largest, then bisection,
about ten counts for typical rows of bfloat16. One prefix sum then gives each selected entry its place. There are no
sorts and no atomics: equal inputs give equal outputs, and among equal magnitudes the lower latents are selected.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, int16

__all__ = ["select_entries", "threshold", "top_entries"]

FOUR_OCTAVES = tl.constexpr(4 << 7)
"""Difference of the bits of two bfloat16 numbers, one 16 times the other."""


@triton.jit
def threshold(key, wanted, DISTANCE: tl.constexpr):
    """The largest level that at least `wanted` keys reach. Keys are the bits of magnitudes; -1 is ignored."""
    high = tl.max(key, axis=0) + 1
    guess = tl.maximum(high - DISTANCE, 0)
    reached = tl.sum((key >= guess).to(tl.int32), axis=0)
    low = tl.where(reached >= wanted, guess, 0)
    high = tl.where(reached >= wanted, high, guess)
    while high - low > 1:
        middle = low + (high - low) // 2  # their sum may not fit 32 bits
        count = tl.sum((key >= middle).to(tl.int32), axis=0)
        high = tl.where(count > wanted, high, tl.where(count == wanted, middle + 1, middle))
        low = tl.where(count >= wanted, middle, low)
    return low


@triton.jit
def _select_kernel(e_ptr, entries_ptr, latents, wanted, WIDTH: tl.constexpr, MASK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    valid = columns < latents
    bits = tl.load(e_ptr + row * latents + columns, mask=valid, other=0).to(tl.int32)
    key = tl.where(valid, bits & 0x7FFF, -1)
    level = threshold(key, wanted, FOUR_OCTAVES)
    above = (key > level).to(tl.int32)
    equal = (key == level).to(tl.int32)
    room = wanted - tl.sum(above, axis=0)
    both = above + (equal << 16)
    before = tl.cumsum(both, axis=0) - both
    equals_before = before >> 16
    chosen = (above > 0) | ((equal > 0) & (equals_before < room))
    place = (before & 0xFFFF) + tl.minimum(equals_before, room)
    tl.store(entries_ptr + row * wanted + place, (bits << 16) | columns, mask=chosen)
    if MASK:
        tl.store(e_ptr + row * latents + columns, tl.where(chosen, bits, 0).to(tl.int16), mask=valid)


def select_entries(e: Tensor, entries: Tensor, *, mask: bool) -> None:
    """Select the entries of largest magnitude of each row, in ascending order of latents.

    Args:
        e: (n, h) bfloat16, contiguous, h at most 16,384.
        entries: (n, w) int32, written: the 16 bits of a value above the 16 bits of its latent.
        mask: whether to set the other entries of `e` to zero, which makes it the dense code.
    """
    n, latents = e.shape
    width = triton.next_power_of_2(latents)
    _select_kernel[(n,)](
        e.view(int16), entries, latents, entries.shape[1],
        WIDTH=width, MASK=mask, num_warps=max(1, min(8, width // 1024)),
    )  # fmt: skip


@triton.jit
def _top_kernel(e_ptr, index_ptr, value_ptr, latents, k, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    valid = columns < latents
    e = tl.load(e_ptr + row * latents + columns, mask=valid, other=0.0)
    key = tl.where(valid, e.to(tl.int32, bitcast=True) & 0x7FFFFFFF, -1)
    level = threshold(key, k, 4 << 23)
    above = (key > level).to(tl.int32)
    equal = (key == level).to(tl.int32)
    room = k - tl.sum(above, axis=0)
    both = above + (equal << 16)
    before = tl.cumsum(both, axis=0) - both
    equals_before = before >> 16
    place = (before & 0xFFFF) + tl.minimum(equals_before, room)
    chosen = ((above > 0) | ((equal > 0) & (equals_before < room))) & (place < k)
    tl.store(index_ptr + row * k + place, columns.to(tl.int64), mask=chosen)
    tl.store(value_ptr + row * k + place, e, mask=chosen)


def top_entries(e: Tensor, indices: Tensor, values: Tensor) -> None:
    """Select the entries of largest magnitude of each row, in ascending order of latents; the lower among equals.

    Args:
        e: (n, h) float32, contiguous, h at most 16,384; no NaN.
        indices: (n, k) int64, contiguous, written.
        values: (n, k) float32, contiguous, written.
    """
    n, latents = e.shape
    width = triton.next_power_of_2(latents)
    _top_kernel[(n,)](
        e, indices, values, latents, indices.shape[1], WIDTH=width, num_warps=max(1, min(8, width // 1024))
    )  # fmt: skip
