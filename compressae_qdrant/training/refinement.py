"""One round of dictionary refinement: code items by pursuit, solve for the atoms, replace dead atoms.

On a CPU a round is one chunk. On a GPU it is split into chunks and read twice: once for the codes, and once for the
residuals of the new atoms. Only the codes are kept in between, so memory does not grow with items times d.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..kernels import sparse_decode
from ..model.pursuit import Dictionary, batch_rows
from .dictionary import NormalEquations, replace_dead_atoms
from .state import TrainingState

__all__ = ["refine"]

_COARSE_DIVISOR: Final = 2
"""k divided by this is the number of non-zeros of the codes weighted by `TrainConfig.coarse_weight`."""


@torch.no_grad()
def refine(state: TrainingState, equations: NormalEquations, position: int, size: int, *, revive: bool) -> Tensor:
    """Refine the atoms on the items at a position; all processes together take part in a round.

    Args:
        state: its model is updated in place.
        equations: sums over the rounds so far; those of this round are added.
        position: position of the round's first item in the order of training.
        size: number of items of the round, over all processes.
        revive: whether to replace dead atoms by the largest residuals.

    Returns:
        () mean `1 - cos(x, x_hat)` of the round's codes with the new atoms.
    """
    config, model, group = state.config, state.model, state.group
    low, high = group.shard(size)
    rows = _chunk_rows(state.device, high - low)
    chunks = [(position + start, min(rows, high - start)) for start in range(low, high, rows)]
    dictionary = Dictionary(model.atoms)
    own_sums = equations if group.size == 1 else NormalEquations.zero(model.latents, model.dim, state.device)
    equations.discount(config.forgetting)
    codes, coarse = [], max(1, model.k // _COARSE_DIVISOR)
    x = model.atoms.new_empty(0, model.dim)
    for chunk in chunks:
        x = state.batches.batch(*chunk)
        codes.append(dictionary.pursue_all(x, model.k, config.atoms_per_step))
        own_sums.add(*codes[-1], x)
        if config.coarse_weight:
            own_sums.add(*dictionary.pursue_all(x, coarse, config.atoms_per_step), x, config.coarse_weight)
    if own_sums is not equations:
        equations.merge(own_sums, group)
    model.atoms.copy_(equations.solve(model.atoms, config.damping))

    loss = model.atoms.new_zeros(())
    dead = min(len(equations.dead), size) if revive else 0
    largest = model.atoms.new_empty(0, model.dim)
    for chunk, (indices, values) in zip(chunks, codes, strict=True):
        if len(chunks) > 1:
            x = state.batches.batch(*chunk)
        x_hat = sparse_decode(indices, values, model.atoms)
        loss += (1 - cosine_similarity(x, x_hat)).sum()
        if dead:
            largest = torch.cat([largest, x - x_hat])
            largest = largest[largest.norm(dim=1).topk(min(dead, len(largest))).indices]
    if dead:
        replace_dead_atoms(model.atoms, equations, largest, group, dead)
    group.broadcast_(model.atoms)
    group.sum_(loss)
    return loss / size


def _chunk_rows(device: torch.device, items: int) -> int:
    return max(items, 1) if device.type == "cpu" else batch_rows(device)
