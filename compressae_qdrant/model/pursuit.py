"""Pursuit: selection of the atoms that represent an embedding, and of their values, for a given dictionary.

The encoder of an autoencoder selects k latents by one matrix product and selects correlated atoms together. Orthogonal
matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993) selects atoms by their correlation with the residual instead.
Selecting several atoms per step (stagewise pursuit) is much faster but selects some redundant atoms. Therefore one
additional step is taken, and the atoms whose removal costs least are dropped, as in CoSaMP (Needell & Tropp 2009). This
keeps nearly all of the gain at a fraction of the cost.
"""

from __future__ import annotations

import functools
import logging
from typing import Final

import torch
from torch import Tensor

from ..kernels.dispatch import MAX_LATENTS, MAX_SUPPORT, fused
from .fused_pursuit import RIDGE, FusedPursuit
from .parallel import map_batches

__all__ = ["ATOMS_PER_STEP", "Dictionary", "batch_rows", "pursue", "refit", "selection_dtype"]

_LOG = logging.getLogger(__name__)
ATOMS_PER_STEP: Final = 4
"""Default atoms of a pursuit step: several times as fast as 1, for less than 0.003 recall@100 (BENCHMARKS.md)."""


class Dictionary:
    """Atoms, prepared once for encoding many batches.

    Args:
        atoms: (h, d) float32, unit-norm rows. They must not change during the life of this object.
    """

    def __init__(self, atoms: Tensor) -> None:
        self._atoms = atoms
        self._fused: FusedPursuit | None = None
        operations = fused(atoms.device)
        if operations is not None and len(atoms) <= MAX_LATENTS:
            self._fused = FusedPursuit(atoms, operations)
        elif operations is not None:
            _warn_once(f"the model has {len(atoms)} latents and the kernels support at most {MAX_LATENTS}")

    def pursue(self, x: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
        """Encode a batch by pursuit; see the function `pursue`."""
        atoms = self._atoms
        selected = k if atoms_per_step == 1 else min(k + atoms_per_step, len(atoms))
        kernels = self._fused_for(selected)
        if kernels is not None:
            return kernels.pursue(x, k, selected, atoms_per_step)
        support = _select(x, atoms, selected, atoms_per_step)
        gram, moments = _normal_equations(x, atoms, support)
        if selected > k:
            kept = _most_valuable(gram, moments, k)
            support, moments = support.gather(1, kept), moments.gather(1, kept)
            rows = gram.gather(1, kept.unsqueeze(2).expand(-1, -1, selected))
            gram = rows.gather(2, kept.unsqueeze(1).expand(-1, k, -1))
        return support, _solve(gram, moments)

    def pursue_all(self, x: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
        """Encode any number of rows by pursuit, in batches of the size that suits the device."""
        batches = torch.split(x, batch_rows(x.device))
        parts = map_batches(lambda batch: self.pursue(batch, k, atoms_per_step), batches, x.device)
        indices, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return indices, values

    def refit(self, x: Tensor, support: Tensor) -> Tensor:
        """Solve for the values of a batch on given supports; see the function `refit`."""
        kernels = self._fused_for(support.shape[1])
        if kernels is not None:
            return kernels.refit(x, support)
        return _solve(*_normal_equations(x, self._atoms, support))

    def _fused_for(self, selected: int) -> FusedPursuit | None:
        if self._fused is not None and selected > MAX_SUPPORT:
            _warn_once(f"supports have {selected} atoms and the kernels support at most {MAX_SUPPORT}")
            return None
        return self._fused


def pursue(x: Tensor, atoms: Tensor, k: int, atoms_per_step: int = ATOMS_PER_STEP) -> tuple[Tensor, Tensor]:
    """Select supports by orthogonal matching pursuit and their values by least squares.

    Args:
        x: (n, d) float32, unit norm.
        atoms: (h, d) float32, unit-norm rows.
        k: atoms in each code; at most h.
        atoms_per_step: atoms selected between two updates of the residual. 1 is the classical pursuit. With more, one
            additional step is taken, and as many atoms are dropped at the end.

    Returns:
        (n, k) int64 indices and (n, k) float32 values.
    """
    return Dictionary(atoms).pursue(x, k, atoms_per_step)


def batch_rows(device: torch.device) -> int:
    """Return the rows of a batch: 256 on a CPU, 16,384 on a GPU.

    Pursuit on 2 cores with d=384, h=4096, k=44: 3,300 items/s with 256 rows, whose correlations fit the cache of a
    core; 3,170 with 128 rows; 2,910 with 512. A GPU is fully used by 16,384 rows; their products with 4,096 atoms take
    0.4 GB.
    """
    return 256 if device.type == "cpu" else 16_384


def refit(x: Tensor, atoms: Tensor, support: Tensor) -> Tensor:
    """Solve for the values on a support that reconstruct x best (least squares).

    Args:
        x: (n, d) float32.
        atoms: (h, d) float32.
        support: (n, k) int64, unique in each row.

    Returns:
        (n, k) float32.
    """
    return Dictionary(atoms).refit(x, support)


def _select(x: Tensor, atoms: Tensor, selected: int, atoms_per_step: int) -> Tensor:
    """(n, selected) atoms, selected by their correlation with the residual of the previous ones."""
    n, d = x.shape
    residual = x.clone()
    basis = x.new_empty((n, selected, d))
    support = torch.empty((n, selected), dtype=torch.int64, device=x.device)
    dtype = selection_dtype(x.device)
    targets = atoms.to(dtype).t()
    chosen = 0
    while chosen < selected:
        step = min(atoms_per_step, selected - chosen)
        correlation = (residual.to(dtype) @ targets).abs_()
        correlation.scatter_(1, support[:, :chosen], -1.0)
        picked = correlation.topk(step, dim=1, sorted=False).indices
        support[:, chosen : chosen + step] = picked
        chosen += step
        if chosen < selected:
            block = _orthonormal_block(atoms[picked], basis[:, : chosen - step])
            basis[:, chosen - step : chosen] = block
            # The new directions explain exactly the projection of the residual onto them.
            weights = torch.bmm(block, residual.unsqueeze(2))
            residual -= torch.bmm(weights.transpose(1, 2), block).squeeze(1)
    return support


def _normal_equations(x: Tensor, atoms: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (n, k, k) Gram matrices of the supports and the (n, k) products of their atoms with x."""
    chosen = atoms[support]
    gram = torch.bmm(chosen, chosen.transpose(1, 2))
    gram.diagonal(dim1=1, dim2=2).add_(RIDGE)
    return gram, torch.bmm(chosen, x.unsqueeze(2)).squeeze(2)


def _solve(gram: Tensor, moments: Tensor) -> Tensor:
    values: Tensor = torch.cholesky_solve(moments.unsqueeze(2), _cholesky(gram)).squeeze(2)
    return values


def _most_valuable(gram: Tensor, moments: Tensor, k: int) -> Tensor:
    """Return (n, k) positions to keep. Removing atom j raises the squared error by v_j^2 / (G^-1)_jj."""
    factor = _cholesky(gram)
    values = torch.cholesky_solve(moments.unsqueeze(2), factor).squeeze(2)
    inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
    kept: Tensor = (values.square() / inverse).topk(k, dim=1, sorted=False).indices
    return kept


def _orthonormal_block(new: Tensor, basis: Tensor) -> Tensor:
    """Make (n, s, d) atoms orthonormal to each other and to an (n, m, d) orthonormal basis."""
    if basis.shape[1]:
        new = torch.baddbmm(new, torch.bmm(new, basis.transpose(1, 2)), basis, alpha=-1.0)
    gram = torch.bmm(new, new.transpose(1, 2))
    gram.diagonal(dim1=1, dim2=2).add_(RIDGE)
    block: Tensor = torch.linalg.solve_triangular(_cholesky(gram), new, upper=False)
    return block


def _cholesky(gram: Tensor) -> Tensor:
    """Return lower Cholesky factors of Gram matrices; one that rounding made indefinite gets a larger ridge."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        bad = failed.nonzero().squeeze(1)
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        factor[bad] = torch.linalg.cholesky(gram[bad] + 1e-3 * eye)
    return factor


def selection_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of correlations: bfloat16 where the processor multiplies it natively, else float32.

    Only the selection of atoms is affected by its rounding.
    """
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


@functools.cache
def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


@functools.cache
def _warn_once(reason: str) -> None:
    _LOG.warning("pursuit on this GPU cannot use the fused kernels: %s", reason)
