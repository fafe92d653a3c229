"""The optimiser step on a GPU: dense bfloat16 products where they are faster, sparse kernels elsewhere.

For a batch of n items, with w = 4k::

    e = x W_enc' + b            product, n d h
    entries of e, wide code     one pass over e, which becomes the dense wide code
    losses, gradients           one pass over the n w atoms of the codes
    gradient of W               wide code' g_wide + narrow code' g_narrow, products of n d h each
    gradient of W_enc           (gradient of the values)' x, product of n d h
    Adam                        one pass over the weights

Products are of bfloat16 and summed in float32; weights and moments are float32. For the gradients of the weights, a
dense product on tensor cores is faster than a sparse one, which would fetch n w rows of d numbers from memory. The
order of every sum is fixed, so equal seeds give equal bits on one GPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from ..kernels.dispatch import Fused, matmul_float32
from ..model.compressae import CompresSAE
from .autoencoder import AUXILIARY_WEIGHT, WIDE
from .batches import BatchSource
from .distributed import ProcessGroup

__all__ = ["FusedStep"]

_LOG = logging.getLogger(__name__)
_CODE_BYTES: Final = 2 << 30
"""Largest size of one dense code in bytes; larger batches are split into chunks."""
_SPLITS: Final = 4
"""Parts of the sum over items in a weight gradient, computed in parallel: h d alone is 96 tiles for 132
multiprocessors."""
_SPLIT_ROWS: Final = 4096
"""Fewest rows of such a part."""
_WARM_UP: Final = 2
"""Steps before a CUDA graph is captured, by which kernels are compiled and libraries initialised."""


class FusedStep:
    """Takes steps of Adam on the paper's objective, for a fixed batch size.

    Args:
        model: trained in place.
        adam: its state is updated in place, so that it can be saved and resumed as usual.
        batches: source of the batches.
        batch: number of items of a step, over all processes.
        operations: the fused kernels, or their torch reference.
        group: the processes that share the batch.
        train_atoms: whether to train the atoms too, or only the encoder.
        last_use: (h,) int64, the number of the last step in which a narrow code used each latent; updated in place.
    """

    def __init__(
        self, model: CompresSAE, adam: torch.optim.Adam, batches: BatchSource, batch: int, operations: Fused,
        group: ProcessGroup, *, train_atoms: bool, last_use: Tensor,
    ) -> None:  # fmt: skip
        device, h, d = model.atoms.device, model.latents, model.dim
        self._model, self._batches, self._operations, self._group = model, batches, operations, group
        self._batch, self._train_atoms = batch, train_atoms
        # The kernels always update the last use, but only the use while atoms are trained counts.
        self._last_use = last_use if train_atoms else last_use.clone()
        self._start, high = group.shard(batch)
        items = high - self._start
        self._rows = math.ceil(items / math.ceil(items * h * 2 / _CODE_BYTES))
        self._splits = _SPLITS if self._rows % _SPLITS == 0 and self._rows >= _SPLITS * _SPLIT_ROWS else 1

        def half(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.bfloat16, device=device)

        self.x = half(items, d)
        self._code, self._to_values = half(self._rows, h), half(self._rows, h)
        self._narrow = half(self._rows, h) if train_atoms else None
        self._to_hats = half(2, self._rows, d) if train_atoms else None
        self._entries = torch.empty(self._rows, min(WIDE * model.k, h), dtype=torch.int32, device=device)
        self._losses = torch.empty(items, 2, device=device)
        self._to_atoms = torch.empty(2 * self._splits if train_atoms else 0, h, d, device=device)
        self._to_encoder = torch.empty(self._splits, h, d, device=device)
        self._to_bias = torch.empty(1, 1, h, device=device)
        self._scratch = torch.empty(self._splits if self._rows < items else 0, h, d, device=device)
        self._rate = torch.zeros((), device=device)
        self._stamp = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._moments = [_moments(adam, weight) for weight in (model.encoder_weight, model.encoder_bias)]
        if train_atoms:
            self._moments.append(_moments(adam, model.atoms))
        self._halves = [half(h, d), half(h), half(h, d)]
        self.refresh()
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graphs = device.type == "cuda"
        self.on_stage: Callable[[str], None] | None = None
        """Called after the work of each stage is queued, to measure it. No CUDA graph is used while it is set."""

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights to bfloat16 again after something else has changed them."""
        for half, weight in zip(self._halves, self._weights(), strict=True):
            half.copy_(weight)

    @torch.no_grad()
    def __call__(self, position: int, rate: float, stamp: int) -> Tensor:
        """Take a step; see `Step`. The next step overwrites the loss that is returned."""
        self._batches.fill(position + self._start, self.x)
        self._rate.fill_(rate)
        self._stamp.fill_(stamp)
        if self._graphs and self._graph is None and self._taken >= _WARM_UP and self.on_stage is None:
            self._graph = self._capture()
        if self._graph is None or self.on_stage is not None:
            self._compute()
        else:
            self._graph.replay()
        self._taken += 1
        if self._group.size > 1:  # communication is not part of the graph
            self._update()
        if self._train_atoms:
            self._group.max_(self._last_use)
        return self._loss

    def _weights(self) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
        return self._model.encoder_weight, self._model.encoder_bias, self._model.atoms

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that prepare batches may call CUDA during the capture.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._compute()
        except RuntimeError as exc:
            _LOG.warning("the step can't be captured as a CUDA graph, so its kernels are launched one by one: %s", exc)
            self._graphs = False
            return None
        return graph

    def _compute(self) -> None:
        for start in range(0, len(self.x), self._rows):
            self._gradients(start)
        torch.sum(self._losses[:, 0], 0, out=self._loss)
        self._loss /= self._batch
        if self._group.size == 1:
            self._update()

    def _gradients(self, start: int) -> None:
        """Add the gradients of one chunk to those of the chunks before it."""
        x = self.x[start : start + self._rows]
        n = len(x)
        encoder, bias, atoms = self._halves
        code, entries, to_values = self._code[:n], self._entries[:n], self._to_values[:n].zero_()
        narrow = None if self._narrow is None else self._narrow[:n].zero_()
        to_hats = None if self._to_hats is None else self._to_hats[:, :n]
        self._stage("clearing")
        torch.addmm(bias, x, encoder.t(), out=code)
        self._stage("encoder product")
        self._operations.select_entries(code, entries, mask=self._train_atoms)
        self._stage("selection")
        self._operations.cosine_gradients(
            x, entries, atoms, self._model.k, AUXILIARY_WEIGHT, losses=self._losses[start : start + n],
            to_values=to_values, last_use=self._last_use, stamp=self._stamp, to_hats=to_hats, narrow=narrow,
        )  # fmt: skip
        self._stage("decode and gradients")
        if narrow is not None and to_hats is not None:
            self._product(code, to_hats[0], self._to_atoms[: self._splits], start)
            self._product(narrow, to_hats[1], self._to_atoms[self._splits :], start)
        self._product(to_values, x, self._to_encoder, start)
        to_bias = to_values.sum(0, dtype=torch.float32)
        self._to_bias.copy_(to_bias) if start == 0 else self._to_bias.add_(to_bias)
        self._stage("weight gradients")

    def _stage(self, name: str) -> None:
        if self.on_stage is not None:
            self.on_stage(name)

    def _product(self, code: Tensor, side: Tensor, total: Tensor, start: int) -> None:
        """Write `code' side`, of (n, h) and (n, d), to the parts of (s, h, d) `total`; later chunks are added."""
        splits = self._splits if len(code) == self._rows else 1
        parts = code.view(splits, -1, code.shape[1]).transpose(1, 2), side.reshape(splits, -1, side.shape[1])
        if start == 0:
            matmul_float32(*parts, total)
        else:
            matmul_float32(*parts, self._scratch[:splits])
            total[:splits] += self._scratch[:splits]

    def _update(self) -> None:
        parts = [self._to_encoder, self._to_bias, self._to_atoms]
        if self._group.size > 1:
            parts = [part.sum(0, keepdim=True) for part in parts]
            self._group.sum_(*parts[: len(self._moments)], self._loss)
        for weight, half, moments, part in zip(self._weights(), self._halves, self._moments, parts, strict=False):
            step, first, second = moments
            step += 1
            shape = part.shape[1:]
            self._operations.adam_rows(
                weight.detach().view(shape), half.view(shape), first.view(shape), second.view(shape), part,
                self._rate, step, 1 / self._batch, unit=weight is self._model.atoms,
            )  # fmt: skip
        self._stage("update")


def _moments(adam: torch.optim.Adam, weight: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
    """Step count and moments of a weight, created like Adam creates them if they do not exist yet."""
    state = adam.state[weight]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    return state["step"], state["exp_avg"], state["exp_avg_sq"]
