"""Encoding: batches of embeddings by the same weights, and a whole matrix as a stream of batches."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..codes import FloatArray, Scale
from ..kernels import signed_topk, sparse_decode
from ..kernels.dispatch import MAX_LATENTS, fused
from ..kernels.transfer import Download, Upload
from ..vectors import UnitRows, unit_rows
from .config import Method
from .parallel import map_batches
from .pursuit import Dictionary

__all__ = ["Coder", "encode_rows"]

_MIN_COSINE: Final = 1e-3
"""Lower bound of cos(x, x_hat) at projection scale, so that the code of a badly reconstructed item does not vanish."""

# In a forked process the threads of OpenMP do not exist, and coding would wait for them forever.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Coder:
    """The weights of a model, prepared once for encoding many batches.

    Args:
        atoms: (h, d) float32.
        encoder_weight: (h, d) float32.
        encoder_bias: (h,) float32.
        k: non-zeros of a code.
    """

    def __init__(self, atoms: Tensor, encoder_weight: Tensor, encoder_bias: Tensor, k: int) -> None:
        self._atoms, self._weight, self._bias, self._k = atoms, encoder_weight, encoder_bias, k
        self._dictionary = Dictionary(atoms)
        self._operations = fused(atoms.device) if len(atoms) <= MAX_LATENTS else None

    @torch.no_grad()
    def code(self, x: Tensor, method: Method, atoms_per_step: int) -> tuple[Tensor, Tensor]:
        """Encode (n, d) float32 rows of unit norm: (n, k) int64 latents, unordered, and (n, k) float32 raw values."""
        if method == "pursuit":
            return self._dictionary.pursue(x, self._k, atoms_per_step)
        indices, values = self._select(torch.addmm(self._bias, x, self._weight.t()))
        return (indices, values.float()) if method == "encoder" else (indices, self._dictionary.refit(x, indices))

    @torch.no_grad()
    def factor(self, x: Tensor, support: Tensor, values: Tensor, scale: Scale) -> Tensor:
        """Return the (n, 1) factors that bring raw values to a scale."""
        if scale == "raw":
            return values.new_ones(len(values), 1)
        x_hat = values if scale == "code" else sparse_decode(support, values, self._atoms)
        norm: Tensor = x_hat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        if scale != "projection":
            return norm.reciprocal()
        cosine: Tensor = (x * x_hat).sum(dim=1, keepdim=True) / norm
        return cosine.clamp_min(_MIN_COSINE) / norm

    def _select(self, e: Tensor) -> tuple[Tensor, Tensor]:
        if self._operations is None:
            return signed_topk(e, self._k)
        indices = torch.empty((len(e), self._k), dtype=torch.int64, device=e.device)
        values = torch.empty((len(e), self._k), dtype=torch.float32, device=e.device)
        self._operations.top_entries(e, indices, values)
        return indices, values


def encode_rows(
    embeddings: npt.NDArray[np.floating] | UnitRows,
    code: Callable[[Tensor], tuple[Tensor, Tensor]],
    k: int,
    size: int,
    device: torch.device,
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Encode all rows, with the latents of each code ascending. Memory beyond the result does not grow with n.

    Args:
        embeddings: (n, d) array or memory map of real numbers, or rows of unit norm, which are not normalised again
            on a CPU.
        code: function from (b, d) float32 rows of unit norm to their (b, k) int64 latents and (b, k) float32 values.
        k: non-zeros of a code.
        size: rows of a batch.
        device: device that encodes.

    Returns:
        (n, k) int32 and (n, k) float32.

    Raises:
        InvalidInputError: a row is zero, or holds NaN or an infinite value; the message names the first such row.
    """
    rows = embeddings.rows if isinstance(embeddings, UnitRows) else embeddings
    indices = np.empty((len(rows), k), np.int32)
    values = np.empty((len(rows), k), np.float32)
    if device.type == "cuda":
        _encode_streaming(rows, code, min(size, len(rows)), device, indices, values)
        return indices, values

    def encode_from(start: int) -> None:
        block = rows[start : start + size]
        unit = block if isinstance(embeddings, UnitRows) else unit_rows(block, start)
        support, scaled = code(torch.from_numpy(unit).to(device))
        order = support.argsort(dim=1)
        indices[start : start + len(support)] = support.gather(1, order).int().cpu().numpy()
        values[start : start + len(support)] = scaled.gather(1, order).cpu().numpy()

    map_batches(encode_from, range(0, len(rows), size), device)
    return indices, values


def _encode_streaming(
    rows: npt.NDArray[np.floating],
    code: Callable[[Tensor], tuple[Tensor, Tensor]],
    size: int,
    device: torch.device,
    indices: npt.NDArray[np.int32],
    values: FloatArray,
) -> None:
    """Encode a batch while the next is copied to the device and the codes of the previous one are copied back."""
    pieces = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    download = Download(device)
    with Upload(rows, size, device) as upload:
        upload.request(pieces[0])
        for number in range(len(pieces)):
            x, bad = _unit(upload.take())
            if number + 1 < len(pieces):
                upload.request(pieces[number + 1])
            support, scaled = code(x)
            order = support.argsort(dim=1)
            done = download.put(support.gather(1, order).int(), scaled.gather(1, order), bad)
            if done is not None:
                _store(rows, pieces[number - 1], done, indices, values)
        _store(rows, pieces[-1], download.last(), indices, values)


def _store(
    rows: npt.NDArray[np.floating],
    piece: slice,
    done: list[npt.NDArray[np.generic]],
    indices: npt.NDArray[np.int32],
    values: FloatArray,
) -> None:
    support, scaled, bad = done
    if bad.any():
        unit_rows(rows[piece], piece.start)  # raises an error that names the row
    indices[piece], values[piece] = support, scaled


def _unit(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Copy rows as (b, d) float32 of unit norm, and return a () flag that is set if one cannot be normalised."""
    x = raw.to(torch.float32, copy=True)
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)
    x /= norms
    return x, ~(norms.isfinite() & (norms > 0)).all()
