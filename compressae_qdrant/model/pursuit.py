"""Codes for a given dictionary: which atoms represent an embedding, and with what values.

An autoencoder's encoder picks its k latents in one product, and picks badly: correlated atoms are chosen together.
Orthogonal matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993) picks atoms by what is still unexplained. Choosing
several atoms in each step (stagewise pursuit) is far cheaper, and picks some that others of the same step made
needless; so one step more than needed is taken, and the atoms whose loss costs least are dropped again, as in CoSaMP
(Needell & Tropp 2009). That keeps nearly all of the gain at a fraction of the cost.
"""

from __future__ import annotations

import functools
import logging
from typing import Final

import torch
from torch import Tensor

from ..kernels.dispatch import MAX_LATENTS, MAX_SUPPORT, fused
from .fused_pursuit import RIDGE, FusedPursuit

__all__ = ["ATOMS_PER_STEP", "Dictionary", "batch_rows", "pursue", "refit", "selection_dtype"]

_LOG = logging.getLogger(__name__)
ATOMS_PER_STEP: Final = 4
"""Of codes, by default: several times as fast as one at a time, for less than 0.003 recall@100 (BENCHMARKS.md)."""


class Dictionary:
    """Atoms, with what coding needs of them prepared once for many batches.

    Args:
        atoms: (h, d) float32, unit-norm rows; must not change meanwhile.
    """

    def __init__(self, atoms: Tensor) -> None:
        self._atoms = atoms
        self._fused: FusedPursuit | None = None
        operations = fused(atoms.device)
        if operations is not None and len(atoms) <= MAX_LATENTS:
            self._fused = FusedPursuit(atoms, operations)
        elif operations is not None:
            _say_once(f"there are {len(atoms)} latents and the kernels take {MAX_LATENTS}")

    def pursue(self, x: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
        """See `pursue`."""
        atoms = self._atoms
        wanted = k if atoms_per_step == 1 else min(k + atoms_per_step, len(atoms))
        on_gpu = self._fused_for(wanted)
        if on_gpu is not None:
            return on_gpu.pursue(x, k, wanted, atoms_per_step)
        support = _select(x, atoms, wanted, atoms_per_step)
        gram, moments = _normal_equations(x, atoms, support)
        if wanted > k:
            kept = _least_missed(gram, moments, k)
            support, moments = support.gather(1, kept), moments.gather(1, kept)
            rows = gram.gather(1, kept.unsqueeze(2).expand(-1, -1, wanted))
            gram = rows.gather(2, kept.unsqueeze(1).expand(-1, k, -1))
        return support, _solve(gram, moments)

    def pursue_all(self, x: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
        """`pursue` for any number of rows, in batches that suit the device."""
        parts = [self.pursue(part, k, atoms_per_step) for part in torch.split(x, batch_rows(x.device))]
        indices, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return indices, values

    def refit(self, x: Tensor, support: Tensor) -> Tensor:
        """See `refit`."""
        on_gpu = self._fused_for(support.shape[1])
        if on_gpu is not None:
            return on_gpu.refit(x, support)
        return _solve(*_normal_equations(x, self._atoms, support))

    def _fused_for(self, wanted: int) -> FusedPursuit | None:
        if self._fused is not None and wanted > MAX_SUPPORT:
            _say_once(f"supports have {wanted} atoms and the kernels take {MAX_SUPPORT}")
            return None
        return self._fused


def pursue(x: Tensor, atoms: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
    """Supports by orthogonal matching pursuit, values by least squares.

    Args:
        x: (n, d) float32, unit norm.
        atoms: (h, d) float32, unit-norm rows.
        k: atoms in each code; at most h.
        atoms_per_step: chosen between two updates of the residual. 1 is the classical pursuit; with more, one step
            more is taken than needed, and its worth of atoms dropped again.

    Returns:
        (n, k) int64 indices and (n, k) float32 values.
    """
    return Dictionary(atoms).pursue(x, k, atoms_per_step)


def batch_rows(device: torch.device) -> int:
    """Rows to code at once. Measured on 2 cores at d=384, h=4096, k=32: 512 rows 4,900 items/s by pursuit, 256 rows
    3,100, 2,048 rows 3,500; the correlations of 512 rows still fit the cache. A GPU is full with 16,384, whose products
    with 4,096 atoms take 0.4 GB."""
    return 512 if device.type == "cpu" else 16_384


def refit(x: Tensor, atoms: Tensor, support: Tensor) -> Tensor:
    """The values on a support that reconstruct x best (least squares).

    Args:
        x: (n, d) float32.
        atoms: (h, d) float32.
        support: (n, k) int64, unique in each row.

    Returns:
        (n, k) float32.
    """
    return Dictionary(atoms).refit(x, support)


def _select(x: Tensor, atoms: Tensor, wanted: int, atoms_per_step: int) -> Tensor:
    """(n, wanted) atoms, chosen by their correlation with what the ones before leave unexplained."""
    n, d = x.shape
    residual = x.clone()
    basis = x.new_empty((n, wanted, d))
    support = torch.empty((n, wanted), dtype=torch.int64, device=x.device)
    dtype = selection_dtype(x.device)
    targets = atoms.to(dtype).t()
    chosen = 0
    while chosen < wanted:
        step = min(atoms_per_step, wanted - chosen)
        correlation = (residual.to(dtype) @ targets).abs_()
        correlation.scatter_(1, support[:, :chosen], -1.0)
        picked = correlation.topk(step, dim=1, sorted=False).indices
        support[:, chosen : chosen + step] = picked
        chosen += step
        if chosen < wanted:
            block = _orthonormal_block(atoms[picked], basis[:, : chosen - step])
            basis[:, chosen - step : chosen] = block
            # The projection of what is left onto the new directions is all that they explain.
            weights = torch.bmm(block, residual.unsqueeze(2))
            residual -= torch.bmm(weights.transpose(1, 2), block).squeeze(1)
    return support


def _normal_equations(x: Tensor, atoms: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """(n, k, k) Gram matrices of the supports, and (n, k) products of their atoms with x."""
    chosen = atoms[support]
    gram = torch.bmm(chosen, chosen.transpose(1, 2))
    gram.diagonal(dim1=1, dim2=2).add_(RIDGE)
    return gram, torch.bmm(chosen, x.unsqueeze(2)).squeeze(2)


def _solve(gram: Tensor, moments: Tensor) -> Tensor:
    values: Tensor = torch.cholesky_solve(moments.unsqueeze(2), _cholesky(gram)).squeeze(2)
    return values


def _least_missed(gram: Tensor, moments: Tensor, k: int) -> Tensor:
    """(n, k) positions to keep: without atom j the squared error grows by v_j^2 / (G^-1)_jj."""
    factor = _cholesky(gram)
    values = torch.cholesky_solve(moments.unsqueeze(2), factor).squeeze(2)
    inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
    kept: Tensor = (values.square() / inverse).topk(k, dim=1, sorted=False).indices
    return kept


def _orthonormal_block(new: Tensor, basis: Tensor) -> Tensor:
    """(n, s, d) atoms made orthonormal to each other and to the (n, m, d) orthonormal basis."""
    if basis.shape[1]:
        new = torch.baddbmm(new, torch.bmm(new, basis.transpose(1, 2)), basis, alpha=-1.0)
    gram = torch.bmm(new, new.transpose(1, 2))
    gram.diagonal(dim1=1, dim2=2).add_(RIDGE)
    block: Tensor = torch.linalg.solve_triangular(_cholesky(gram), new, upper=False)
    return block


def _cholesky(gram: Tensor) -> Tensor:
    """Lower factors of a batch of Gram matrices; those that rounding made indefinite get a larger ridge."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        bad = failed.nonzero().squeeze(1)
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        factor[bad] = torch.linalg.cholesky(gram[bad] + 1e-3 * eye)
    return factor


def selection_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively: only the choice of atoms sees its rounding."""
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


@functools.cache
def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


@functools.cache
def _say_once(reason: str) -> None:
    _LOG.warning("pursuit on this GPU does without fused kernels: %s", reason)
