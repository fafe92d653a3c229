"""The processes of one training under torchrun: each takes its share of every batch, and sums make them one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, distributed
from torch.nn.functional import normalize

__all__ = ["Ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process among all; without a process group, the only one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """By the process group that is set up, if any."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, total: int) -> tuple[int, int]:
        """Where this process's part of `total` items starts and ends."""
        return total * self.rank // self.size, total * (self.rank + 1) // self.size

    def sum_(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def largest_(self, tensor: Tensor) -> None:
        """Replace a tensor by the element-wise largest of all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)

    def agree_(self, *tensors: Tensor) -> None:
        """Replace tensors by those of the first process: equal sums may end in other bits on another device."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def worst_served(self, residuals: Tensor, count: int) -> Tensor:
        """Directions of the `count` largest residuals of all processes, (at most count, d) of unit norm.

        Args:
            residuals: (n, d), those of this process's items.
            count: how many.
        """
        worst = residuals[residuals.norm(dim=1).topk(min(count, len(residuals))).indices]
        if self.size > 1:
            offered = residuals.new_zeros(count, residuals.shape[1])
            offered[: len(worst)] = worst
            gathered = [torch.empty_like(offered) for _ in range(self.size)]
            distributed.all_gather(gathered, offered)
            everyone = torch.cat(gathered)
            worst = everyone[everyone.norm(dim=1).topk(count).indices]
        return normalize(worst, dim=1)
