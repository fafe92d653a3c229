"""The counterpart of bench_train.py: a training step in plain torch, random items, and a clock for a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from compressae_qdrant import CompresSAE
from compressae_qdrant.kernels import sparse_decode
from compressae_qdrant.training.autoencoder import normalise_atoms_

__all__ = ["Clock", "make_items", "plain_in_bfloat16", "plain_step"]


class Clock:
    """Measures seconds on a device, and waits for queued work before it reads the time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def of(self, work: Callable[[], object], repeats: int = 1) -> float:
        """Return the mean seconds of a call, over several queued calls."""
        started = self.now()
        for _ in range(repeats):
            work()
        return (self.now() - started) / repeats

    def median(self, work: Callable[[], object], repeats: int) -> float:
        return statistics.median(self.of(work) for _ in range(repeats))


def make_items(n: int, dim: int, device: torch.device) -> npt.NDArray[np.float16]:
    """Return (n, dim) float16 random items of unit norm."""
    random = torch.Generator(device).manual_seed(0)
    atoms = normalize(torch.randn(8192, dim, generator=random, device=device), dim=1)
    made = np.empty((n, dim), np.float16)
    for start in range(0, n, 50_000):
        rows = min(50_000, n - start)
        picked = torch.randint(8192, (rows, 16), generator=random, device=device)
        weights = torch.randn(rows, 16, generator=random, device=device)
        noise = 0.02 * torch.randn(rows, dim, generator=random, device=device)
        block = normalize(sparse_decode(picked, weights, atoms) + noise, dim=1)
        made[start : start + rows] = block.half().cpu().numpy()
    return made


def plain_step(model: CompresSAE, adam: torch.optim.Adam, x: Tensor, rate: float) -> None:
    """Do one training step as the paper describes it."""
    for group in adam.param_groups:
        group["lr"] = rate
    e = x @ model.encoder_weight.t() + model.encoder_bias
    total = torch.zeros((), device=x.device)
    for width, weight in ((model.k, 1.0), (4 * model.k, 1 / 8)):
        indices = e.abs().topk(width, dim=1).indices
        code = torch.zeros_like(e).scatter(1, indices, e.gather(1, indices))
        total = total + weight * (1 - cosine_similarity(x, code @ model.atoms)).mean()
    adam.zero_grad()
    torch.autograd.backward(total)
    adam.step()
    normalise_atoms_(model.atoms)


def plain_in_bfloat16(model: CompresSAE, adam: torch.optim.Adam, x: Tensor, rate: float) -> None:
    with torch.autocast(x.device.type, torch.bfloat16):
        plain_step(model, adam, x, rate)
