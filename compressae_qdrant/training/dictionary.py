"""Online dictionary refinement: the atoms that fit given codes best, by least squares.

The method of optimal directions (Engan, Aase & Husoy 1999) solves `min_W |X - S W|^2` for given codes S. It needs only
two sums over the items, `S'S` (h, h) and `S'X` (h, d), so items can come in chunks; older chunks, coded with older
atoms, are discounted at a fixed rate (as in Mairal, Bach, Ponce & Sapiro 2010). Memory does not grow with the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..kernels import scatter_outer, torch_reference
from ..kernels.dispatch import MAX_SUPPORT, fused
from .distributed import ProcessGroup

__all__ = ["NormalEquations", "replace_dead_atoms"]

_MIN_USE = 3.0
"""An atom counts as dead if fewer codes use it, discounted and weighted: fewer codes cannot determine it."""

_DENSE_ROWS = 2048
"""Codes that are expanded to dense rows at a time on a GPU without the kernel, 32 MB at h=4096."""


@dataclass
class NormalEquations:
    """Discounted sums over the codes seen so far."""

    gram: Tensor
    """(h, h) float32 `S'S`."""
    moments: Tensor
    """(h, d) float32 `S'X`."""
    use: Tensor
    """(h,) float32 discounted, weighted number of items that used each latent."""

    @classmethod
    def zero(cls, latents: int, dim: int, device: torch.device | None = None) -> NormalEquations:
        """The sums over no items."""
        return cls(
            torch.zeros(latents, latents, device=device),
            torch.zeros(latents, dim, device=device),
            torch.zeros(latents, device=device),
        )

    def discount(self, factor: float) -> None:
        """Multiply the sums so far by a factor."""
        for total in (self.gram, self.moments, self.use):
            total.mul_(factor)

    def add(self, indices: Tensor, values: Tensor, x: Tensor, weight: float = 1.0) -> None:
        """Add the codes of a chunk of items.

        Args:
            indices: (n, k) int64 latents.
            values: (n, k) float32, not scaled.
            x: (n, d) float32 embeddings of the items.
            weight: weight of these codes in the sums.
        """
        _add_gram(self.gram, indices, values * weight**0.5)
        self.moments += scatter_outer(indices, values * weight, x, len(self.use))
        self.use += weight * torch.bincount(indices.reshape(-1), minlength=len(self.use))

    def merge(self, own_sums: NormalEquations, group: ProcessGroup) -> None:
        """Add the sums of each process over its share of the items; `own_sums` is replaced by their total."""
        group.sum_(own_sums.gram, own_sums.moments, own_sums.use)
        for total, part in ((self.gram, own_sums.gram), (self.moments, own_sums.moments), (self.use, own_sums.use)):
            total += part

    @property
    def dead(self) -> Tensor:
        """(m,) int64 latents that too few items use to determine their atoms."""
        return (self.use < _MIN_USE).nonzero().squeeze(1)

    def solve(self, atoms: Tensor, damping: float) -> Tensor:
        """Unit-norm atoms that fit the codes best.

        Args:
            atoms: (h, d) float32 current atoms; the solution is pulled towards them.
            damping: strength of that pull, in items of unit value.

        Returns:
            (h, d) float32.
        """
        diagonal = self.gram.diagonal()
        ridge = damping + 1e-6 * diagonal.mean()
        system = self.gram.clone()
        system.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(system)
        return normalize(torch.cholesky_solve(self.moments + ridge * atoms, factor), dim=1)

    def forget(self, latents: Tensor) -> None:
        """Clear the sums of (m,) int64 latents whose atoms are about to be replaced."""
        self.gram[latents] = 0
        self.gram[:, latents] = 0
        self.moments[latents] = 0
        self.use[latents] = 2 * _MIN_USE


def replace_dead_atoms(
    atoms: Tensor,
    equations: NormalEquations,
    residuals: Tensor,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008 (frozen)
    limit: int | None = None,
) -> int:
    """Replace dead atoms by the directions of the largest residuals, in place.

    Args:
        atoms: (h, d) float32.
        equations: its sums of the replaced atoms are cleared.
        residuals: (n, d) float32, `x - x_hat` of recent items of this process.
        group: the processes that share the items.
        limit: most atoms to replace, the same in all processes; by default the number of residuals.

    Returns:
        Number of atoms replaced.
    """
    dead = equations.dead[: len(residuals) if limit is None else limit]
    if len(dead):
        atoms[dead] = group.largest_residuals(residuals, len(dead))
        equations.forget(dead)
    return len(dead)


def _add_gram(gram: Tensor, indices: Tensor, values: Tensor) -> None:
    n, k = indices.shape
    latents = len(gram)
    if gram.device.type == "cpu":
        # SciPy's sparse product is ten times faster here than scattering n k^2 products (2,048 rows: 15 ms, not 190).
        pointers = np.arange(0, n * k + 1, k)
        codes = sp.csr_matrix((values.numpy().ravel(), indices.numpy().ravel(), pointers), (n, latents))
        product = (codes.T @ codes).tocoo()
        where = torch.from_numpy(product.row.astype(np.int64) * latents + product.col)
        gram.view(-1).index_add_(0, where, torch.from_numpy(product.data))
    else:
        _add_gram_on_gpu(gram, indices, values)


def _add_gram_on_gpu(gram: Tensor, indices: Tensor, values: Tensor) -> None:
    n, k = indices.shape
    operations = fused(gram.device)
    if operations is not None and k <= MAX_SUPPORT:
        total = torch.zeros(gram.shape, dtype=torch.int64, device=gram.device)
        operations.add_gram(indices.contiguous(), values.contiguous(), total)
        gram += total.to(torch.float64).mul_(1 / torch_reference.GRAM_UNIT)
        return
    for start in range(0, n, _DENSE_ROWS):
        idx, val = indices[start : start + _DENSE_ROWS], values[start : start + _DENSE_ROWS]
        block = torch.zeros((len(idx), len(gram)), device=gram.device).scatter_(1, idx, val)
        gram.addmm_(block.t(), block)
