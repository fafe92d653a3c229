"""Pursuit on a GPU: one matrix product per step, and small linear systems that kernels solve in registers.

The Gram matrix of all atoms is computed once, and the Gram matrix of each support is gathered from it. After each step,
the values on the support are solved again and decoded. The residual is multiplied by all atoms in bfloat16; only the
selection of the next atoms uses that product. Atoms are not copied and no basis is stored, so a batch of n rows needs
n h numbers of working memory.
"""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor

from ..kernels import sparse_decode
from ..kernels.dispatch import Fused

__all__ = ["RIDGE", "FusedPursuit"]

RIDGE: Final = 1e-6
"""Added to the diagonal of a support's Gram matrix, so that it stays solvable if two atoms are nearly equal."""


class FusedPursuit:
    """Pursuit and refit with one dictionary.

    Args:
        atoms: (h, d) float32, unit-norm rows, at most `dispatch.MAX_LATENTS`; constant
            during the life of this object.
        operations: the fused kernels, or their torch reference.
    """

    def __init__(self, atoms: Tensor, operations: Fused) -> None:
        self._atoms, self._operations = atoms.detach(), operations

    @functools.cached_property
    def _gram(self) -> Tensor:
        gram = self._atoms @ self._atoms.t()
        gram.diagonal().add_(RIDGE)
        return gram

    @functools.cached_property
    def _targets(self) -> Tensor:
        return self._atoms.to(torch.bfloat16).t()

    def pursue(self, x: Tensor, k: int, selected: int, atoms_per_step: int) -> tuple[Tensor, Tensor]:
        """Encode rows: select atoms by pursuit, then keep the best k of them.

        Args:
            x: (n, d) float32, unit norm.
            k: atoms in each code.
            selected: atoms to select, at least k and at most `dispatch.MAX_SUPPORT`.
            atoms_per_step: atoms selected between two updates of the residual.

        Returns:
            (n, k) int64 indices and (n, k) float32 values.
        """
        moments = x @ self._atoms.t()
        correlation = moments.to(torch.bfloat16)
        support = torch.empty((len(x), selected), dtype=torch.int64, device=x.device)
        chosen = 0
        while chosen < selected:
            if chosen:
                indices, values = self._operations.solve_least_squares(self._gram, moments, support, chosen, chosen)
                residual = x - sparse_decode(indices, values, self._atoms)
                torch.mm(residual.to(torch.bfloat16), self._targets, out=correlation)
            step = min(atoms_per_step, selected - chosen)
            self._operations.pick_atoms(correlation, support, chosen, step)
            chosen += step
        codes: tuple[Tensor, Tensor] = self._operations.solve_least_squares(self._gram, moments, support, selected, k)
        return codes

    def refit(self, x: Tensor, support: Tensor) -> Tensor:
        """Solve for the (n, k) float32 least-squares values of (n, d) float32 rows on (n, k) int64 supports."""
        k = support.shape[1]
        moments = x @ self._atoms.t()
        values: Tensor = self._operations.solve_least_squares(self._gram, moments, support.contiguous(), k, k)[1]
        return values
