"""Data-parallel training under torchrun: each process takes a share of every batch, and sums combine the shares."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, distributed
from torch.nn.functional import normalize

__all__ = ["ProcessGroup", "default_device", "join_process_group"]

_TORCHRUN_VARIABLES = frozenset({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process among all that train together, and their collective operations.

    Without a `torch.distributed` process group, this process is the only one, and the operations do nothing.
    """

    rank: int = 0
    """Position of this process, 0 to `size` - 1."""
    size: int = 1
    """Number of processes."""

    @classmethod
    def current(cls) -> Self:
        """The process group that `torch.distributed` was initialised with, if any."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that shows progress and writes files."""
        return self.rank == 0

    def shard(self, total: int) -> tuple[int, int]:
        """First and one past the last of the `total` items that this process handles."""
        return total * self.rank // self.size, total * (self.rank + 1) // self.size

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def max_(self, tensor: Tensor) -> None:
        """Replace a tensor by its element-wise maximum over all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)

    def broadcast_(self, *tensors: Tensor) -> None:
        """Replace each tensor by that of the first process, since equal sums may differ in their last bits."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def largest_residuals(self, residuals: Tensor, count: int) -> Tensor:
        """Directions of the `count` largest residuals over all processes.

        Args:
            residuals: (n, d) residuals of this process's items.
            count: number of directions.

        Returns:
            (at most count, d), rows of unit norm.
        """
        largest = residuals[residuals.norm(dim=1).topk(min(count, len(residuals))).indices]
        if self.size > 1:
            padded = residuals.new_zeros(count, residuals.shape[1])
            padded[: len(largest)] = largest
            gathered = [torch.empty_like(padded) for _ in range(self.size)]
            distributed.all_gather(gathered, padded)
            candidates = torch.cat(gathered)
            largest = candidates[candidates.norm(dim=1).topk(count).indices]
        return normalize(largest, dim=1)


def default_device(device: str | None) -> str:
    """Name of the device that this process trains on.

    Args:
        device: the device that the user named, if any. Under torchrun, `cuda` gives each process its own GPU. None
            means `cpu`, or under torchrun `cuda` where there is a GPU.
    """
    if not _started_by_torchrun():
        return device or "cpu"
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


@contextlib.contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Initialise `torch.distributed` under torchrun, and shut it down at the end. Without torchrun, do nothing.

    Args:
        device: the device of this process; the group uses NCCL on GPUs and Gloo on CPUs.
    """
    if not _started_by_torchrun():
        yield ProcessGroup()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup.current()
    finally:
        distributed.destroy_process_group()


def _started_by_torchrun() -> bool:
    return os.environ.keys() >= _TORCHRUN_VARIABLES
