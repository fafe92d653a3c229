"""Triton: both decodes of a code, the two cosine losses and their gradients, in one pass over the atoms.

One program handles one item. Its 4k atoms come in chunks of columns, each loaded once: the tensor cores turn it into a
chunk of the two reconstructions, and then into what the chunk adds to the products of x, x_hat_k and x_hat_4k with each
atom. A cosine's gradient is `alpha x + beta x_hat` with two numbers that are known only after the last chunk, so those
products are all that the gradient of the values needs, and no atom is loaded again.

The arithmetic, for n items: n 4k d 2 bytes of atoms from the L2 cache, which holds all of W; instead of two dense
products of n d h multiplications each way, with their dense codes from memory.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl
from torch import Tensor

from .triton_select import FOUR_OCTAVES, threshold

__all__ = ["cosine_gradients"]

_TILE = 8_192
"""Numbers of the atoms that are loaded at a time, 16 KB, because several programs share a multiprocessor's memory."""


_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _dot(a, b, total, INTERPRETED: tl.constexpr):
    """`a b + total` of bfloat16 matrices in float32. Triton's interpreter multiplies their bits, so it gets float32."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    return tl.dot(a, b, total)


@triton.jit
def _coefficients(squared_x, squared, product, weight):
    """Coefficients of x and x_hat in the gradient of `weight (1 - cos)`, and 1 - cos."""
    norm = tl.maximum(tl.sqrt(squared), 1e-8)
    norm_x = tl.maximum(tl.sqrt(squared_x), 1e-8)
    cosine = product / (norm * norm_x)
    return -weight / (norm * norm_x), weight * cosine / (norm * norm), 1.0 - cosine


@triton.jit
def _gradient_kernel(
    x_ptr, entries_ptr, atoms_ptr, loss_ptr, to_value_ptr, to_wide_ptr, to_narrow_ptr, narrow_ptr,
    use_ptr, stamp_ptr, latents, auxiliary, k,
    DIM: tl.constexpr, WIDE: tl.constexpr, PAD: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
    ATOMS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, PAD)
    used = place < WIDE
    # Places beyond the code hold latent 0 with value 0: their atoms are loaded but add nothing.
    entries = tl.load(entries_ptr + row * WIDE + place, mask=used, other=0)
    index = entries & 0xFFFF
    value = (entries & -65536).to(tl.float32, bitcast=True)

    key = tl.where(used, (entries >> 16) & 0x7FFF, -1)
    level = threshold(key, k, FOUR_OCTAVES)
    above = (key > level).to(tl.int32)
    equal = (key == level).to(tl.int32)
    equals_before = tl.cumsum(equal, axis=0) - equal
    narrow = (above > 0) | ((equal > 0) & (equals_before < k - tl.sum(above, axis=0)))

    # Rows of the small operand of both products: 0 wide, 1 narrow, 2 x, 3 and 4 the bfloat16 rounding errors of 0, 1.
    part = tl.arange(0, 16)[:, None]
    slim = tl.where(narrow, value, 0.0)
    codes = tl.where((part == 0) | (part == 3), value[None, :], 0.0)
    codes = tl.where((part == 1) | (part == 4), slim[None, :], codes).to(tl.bfloat16)
    lane = tl.arange(0, CHUNK)
    base = atoms_ptr + index[:, None] * DIM + lane[None, :]
    hats_ptr = tl.where(part == 0, to_wide_ptr, to_narrow_ptr) + row * DIM + lane[None, :]
    dots = tl.zeros((16, PAD), tl.float32)
    squares = tl.zeros((16, CHUNK), tl.float32)
    products = tl.zeros((16, CHUNK), tl.float32)
    for chunk in range((DIM + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        if DIM % CHUNK == 0:
            x = tl.load(x_ptr + row * DIM + start + lane)
            atoms = tl.load(base + start)
        else:
            inside = start + lane < DIM
            x = tl.load(x_ptr + row * DIM + start + lane, mask=inside, other=0.0)
            atoms = tl.load(base + start, mask=inside[None, :], other=0.0)
        hats = _dot(codes, atoms, tl.zeros((16, CHUNK), tl.float32), INTERPRETED)
        rounded = hats.to(tl.bfloat16)
        exact = x.to(tl.float32)[None, :]
        left = tl.where(part < 2, hats, hats - rounded.to(tl.float32))
        left = tl.where(part == 2, exact, left)
        squares += left * left
        products += left * exact
        dots = _dot(left.to(tl.bfloat16), tl.trans(atoms), dots, INTERPRETED)
        if ATOMS:
            tl.store(hats_ptr + start, rounded, mask=(part < 2) & (start + lane < DIM)[None, :])

    lengths = tl.sum(squares, axis=1)[:, None]
    along_x = tl.sum(products, axis=1)[:, None]
    squared_x = tl.sum(tl.where(part == 2, lengths, 0.0))
    wide_x, wide_own, wide_loss = _coefficients(
        squared_x, tl.sum(tl.where(part == 0, lengths, 0.0)), tl.sum(tl.where(part == 0, along_x, 0.0)), auxiliary
    )
    narrow_x, narrow_own, narrow_loss = _coefficients(
        squared_x, tl.sum(tl.where(part == 1, lengths, 0.0)), tl.sum(tl.where(part == 1, along_x, 0.0)), 1.0
    )
    tl.store(loss_ptr + 2 * row, narrow_loss)
    tl.store(loss_ptr + 2 * row + 1, wide_loss)

    of_wide = tl.where(part == 2, wide_x, tl.where((part == 0) | (part == 3), wide_own, 0.0))
    of_narrow = tl.where(part == 2, narrow_x, tl.where((part == 1) | (part == 4), narrow_own, 0.0))
    to_value = tl.sum(dots * of_wide, axis=0) + tl.where(narrow, tl.sum(dots * of_narrow, axis=0), 0.0)
    dense = row * latents + index
    tl.store(to_value_ptr + dense, to_value.to(tl.bfloat16), mask=used)
    stamp = tl.load(stamp_ptr)
    tl.store(use_ptr + index, tl.zeros_like(index).to(tl.int64) + stamp, mask=narrow)
    if ATOMS:
        tl.store(narrow_ptr + dense, value.to(tl.bfloat16), mask=narrow)
        tl.debug_barrier()  # all threads see the reconstructions that the loop stored
        flat = tl.arange(0, CHUNKS * CHUNK)
        inside_row = flat < DIM
        here = row * DIM + flat
        whole = tl.load(x_ptr + here, mask=inside_row, other=0.0).to(tl.float32)
        wide = tl.load(to_wide_ptr + here, mask=inside_row, other=0.0).to(tl.float32)
        slim_hat = tl.load(to_narrow_ptr + here, mask=inside_row, other=0.0).to(tl.float32)
        tl.store(to_wide_ptr + here, (wide_x * whole + wide_own * wide).to(tl.bfloat16), mask=inside_row)
        tl.store(to_narrow_ptr + here, (narrow_x * whole + narrow_own * slim_hat).to(tl.bfloat16), mask=inside_row)


def cosine_gradients(
    x: Tensor, entries: Tensor, atoms: Tensor, k: int, auxiliary: float,
    *, losses: Tensor, to_values: Tensor, last_use: Tensor, stamp: Tensor, to_hats: Tensor | None,
    narrow: Tensor | None,
) -> None:  # fmt: skip
    """Compute the losses `1 - cos(x, x_hat)` of both reconstructions and the gradients of their weighted sum.

    Args:
        x: (n, d) bfloat16.
        entries: (n, w) int32 from `select_entries`.
        atoms: (h, d) bfloat16.
        k: number of the w entries of largest magnitude that make the narrow reconstruction (the first among equals).
        auxiliary: weight of the wide term; the narrow term has weight 1.
        losses: (n, 2) float32, narrow and wide, written.
        to_values: (n, h) bfloat16 zeros; the gradient of each value is written at its latent.
        last_use: (h,) int64; becomes `stamp` for latents in narrow codes.
        stamp: () int64.
        to_hats: (2, n, d) bfloat16, gradients of the wide and the narrow reconstruction, written; or None.
        narrow: (n, h) bfloat16 zeros, becomes the dense narrow code; None if `to_hats` is None.
    """
    (n, wide), (latents, dim) = entries.shape, atoms.shape
    pad = max(16, triton.next_power_of_2(wide))
    chunk = max(16, min(128, _TILE // pad, triton.next_power_of_2(dim)))
    to_wide, to_narrow = (to_values, to_values) if to_hats is None else (to_hats[0], to_hats[1])
    _gradient_kernel[(n,)](
        x, entries, atoms, losses, to_values, to_wide, to_narrow, to_values if narrow is None else narrow,
        last_use, stamp, latents, auxiliary, k,
        DIM=dim, WIDE=wide, PAD=pad, CHUNK=chunk, CHUNKS=triton.next_power_of_2(triton.cdiv(dim, chunk)),
        ATOMS=narrow is not None, INTERPRETED=_INTERPRETED, num_warps=4, num_stages=3,
    )  # fmt: skip
