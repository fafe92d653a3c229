"""Pursuit as a GPU does it best: one product a step, and small systems that are solved in registers.

The Gram matrix of all atoms is computed once; each support's own is gathered from it. After each step the values on the
support are solved for anew, decoded, and what they leave of the item is multiplied by all atoms in bfloat16, which only
the choice of the next atoms sees. No atom is copied and no basis is kept, so a batch needs n h numbers beside itself.
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
"""Added to the diagonal of a support's Gram matrix, so that nearly equal atoms in one support stay solvable."""


class FusedPursuit:
    """Coding by one dictionary.

    Args:
        atoms: (h, d) float32, unit-norm rows; must not change meanwhile. h at most `dispatch.MAX_LATENTS`.
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

    def pursue(self, x: Tensor, k: int, wanted: int, atoms_per_step: int) -> tuple[Tensor, Tensor]:
        """Codes whose supports are the k best of `wanted` atoms.

        Args:
            x: (n, d) float32, unit norm.
            k: atoms in each code.
            wanted: atoms that are chosen before the others are dropped; at most `dispatch.MAX_SUPPORT`.
            atoms_per_step: chosen between two updates of the residual.

        Returns:
            (n, k) int64 indices and (n, k) float32 values.
        """
        moments = x @ self._atoms.t()
        correlation = moments.to(torch.bfloat16)
        support = torch.empty((len(x), wanted), dtype=torch.int64, device=x.device)
        chosen = 0
        while chosen < wanted:
            if chosen:
                indices, values = self._operations.solve_least_squares(self._gram, moments, support, chosen, chosen)
                residual = x - sparse_decode(indices, values, self._atoms)
                torch.mm(residual.to(torch.bfloat16), self._targets, out=correlation)
            step = min(atoms_per_step, wanted - chosen)
            self._operations.pick_atoms(correlation, support, chosen, step)
            chosen += step
        codes: tuple[Tensor, Tensor] = self._operations.solve_least_squares(self._gram, moments, support, wanted, k)
        return codes

    def refit(self, x: Tensor, support: Tensor) -> Tensor:
        """(n, k) float32 least-squares values of (n, d) float32 rows on (n, k) int64 supports."""
        k = support.shape[1]
        moments = x @ self._atoms.t()
        values: Tensor = self._operations.solve_least_squares(self._gram, moments, support.contiguous(), k, k)[1]
        return values
