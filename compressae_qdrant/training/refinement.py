"""One round of dictionary refinement: items coded by the atoms, atoms solved for, dead ones pointed elsewhere.

On a CPU a round is one piece. A GPU takes it in pieces of a batch, twice: for the codes, and for what the new atoms
lack; only the codes are kept in between, so the memory of a round doesn't grow with its items times d.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..kernels import sparse_decode
from ..model.pursuit import Dictionary, batch_rows
from .dictionary import NormalEquations, replace_dead_atoms
from .state import Run

__all__ = ["refine"]

_COARSER: Final = 2
"""Times fewer non-zeros in the codes that `TrainConfig.coarse_weight` weighs."""


@torch.no_grad()
def refine(run: Run, equations: NormalEquations, position: int, size: int, *, revive: bool) -> Tensor:
    """Refine the atoms by the items at a position, of all processes together.

    Args:
        run: its model is changed.
        equations: the sums over the rounds so far; this one's are added.
        position: of the round's first item.
        size: items of the round.
        revive: whether dead atoms are pointed at what the worst-served items lack.

    Returns:
        () mean `1 - cos(x, x_hat)` of the round's codes on the new atoms.
    """
    config, model, group = run.config, run.model, run.group
    low, high = group.shard(size)
    rows = _piece_rows(run.device, high - low)
    pieces = [(position + start, min(rows, high - start)) for start in range(low, high, rows)]
    dictionary = Dictionary(model.atoms)
    ours = equations if group.size == 1 else NormalEquations.zero(model.latents, model.dim, run.device)
    equations.discount(config.forgetting)
    codes, coarse = [], max(1, model.k // _COARSER)
    x = model.atoms.new_empty(0, model.dim)
    for piece in pieces:
        x = run.feed.batch(*piece)
        codes.append(dictionary.pursue_all(x, model.k, config.atoms_per_step))
        ours.add(*codes[-1], x)
        if config.coarse_weight:
            ours.add(*dictionary.pursue_all(x, coarse, config.atoms_per_step), x, config.coarse_weight)
    if ours is not equations:
        equations.merge(ours, group)
    model.atoms.copy_(equations.solve(model.atoms, config.damping))

    loss = model.atoms.new_zeros(())
    dead = min(len(equations.dead), size) if revive else 0
    worst = model.atoms.new_empty(0, model.dim)
    for piece, (indices, values) in zip(pieces, codes, strict=True):
        if len(pieces) > 1:
            x = run.feed.batch(*piece)
        x_hat = sparse_decode(indices, values, model.atoms)
        loss += (1 - cosine_similarity(x, x_hat)).sum()
        if dead:
            worst = torch.cat([worst, x - x_hat])
            worst = worst[worst.norm(dim=1).topk(min(dead, len(worst))).indices]
    if dead:
        replace_dead_atoms(model.atoms, equations, worst, group, dead)
    group.broadcast_(model.atoms)
    group.sum_(loss)
    return loss / size


def _piece_rows(device: torch.device, items: int) -> int:
    return max(items, 1) if device.type == "cpu" else batch_rows(device)
