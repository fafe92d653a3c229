"""Choice between the Triton kernels and torch for a device. A fallback to torch on a GPU is logged as a warning."""

from __future__ import annotations

import functools
import importlib
import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar, cast

import torch

__all__ = ["MAX_LATENTS", "MAX_SUPPORT", "Fused", "Status", "available", "fused", "matmul_float32"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
MAX_LATENTS: Final = 16_384
"""Largest h: a row of pre-activations must fit the registers of one program, and a count over it 15 bits."""
MAX_SUPPORT: Final = 128
"""Most atoms in a support: its Gram matrix must fit the registers of one program."""

_MODULES = ("triton_select", "triton_objective", "triton_update", "triton_pursuit")


@dataclass(frozen=True)
class Status:
    """The implementation of the fused operations on a device, and the reason for it."""

    backend: str
    """"triton" or "torch"."""
    reason: str
    """Why, in one sentence."""


class Fused(Protocol):
    """The fused operations; `torch_reference` defines what they compute."""

    select_entries: Any
    top_entries: Any
    pick_atoms: Any
    solve_least_squares: Any
    add_gram: Any
    cosine_gradients: Any
    gather_unit_rows: Any
    adam_rows: Any


def available(device: str | torch.device = "cuda") -> Status:
    """Report whether the fused kernels are used on a device, and why."""
    device = torch.device(device)
    if device.type != "cuda":
        return Status("torch", f"fused kernels are for CUDA, and the device is {device}")
    if not torch.cuda.is_available():
        return Status("torch", "torch finds no CUDA device (torch is built without CUDA, or there is no driver)")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return Status("torch", f"the GPU's compute capability is {major}.{minor}; bfloat16 products need 8.0")
    problem = _import_problem() or _probe(device)
    if problem:
        return Status("torch", problem)
    return Status("triton", f"Triton {_import('triton').__version__} on {torch.cuda.get_device_name(device)}")


def fused(device: torch.device) -> Fused | None:
    """The fused operations for a device, or None if it cannot run them. For a GPU, the reason is logged once."""
    status = available(device)
    if status.backend == "triton":
        return _triton()
    if device.type == "cuda":
        _warn_once(status.reason)
    return None


@functools.cache
def _warn_once(reason: str) -> None:
    _LOG.warning("fused kernels are not used on this GPU, so training and encoding are slower: %s", reason)


@functools.cache
def _import_problem() -> str:
    """Why the kernels cannot be imported; empty if they can."""
    try:
        for name in _MODULES:
            _import(f"{__package__}.{name}")
    except (ImportError, OSError, RuntimeError) as exc:
        return f"Triton can't be used: {exc}"
    return ""


@functools.cache
def _probe(device: torch.device) -> str:
    """Why a kernel cannot run; empty if one does. Without a C compiler, imports succeed but launches fail."""
    rows, out = torch.full((1, 16), 2.0, device=device), torch.zeros(1, 16, device=device)
    try:
        _triton().gather_unit_rows(rows, torch.zeros(1, dtype=torch.int64, device=device), out)
        norm = float(out.norm())
    except (OSError, RuntimeError, subprocess.SubprocessError, _import("triton.errors").TritonError) as exc:
        return f"Triton can't run a kernel: {exc}"
    return "" if abs(norm - 1) < 1e-3 else f"Triton's kernels give wrong results: a unit row has norm {norm}"


@functools.cache
def _triton() -> Fused:
    """The kernels of all Triton modules."""
    collected = ModuleType("fused")
    for name in _MODULES:
        module = _import(f"{__package__}.{name}")
        for function in module.__all__:
            setattr(collected, function, _on_device_of_tensors(getattr(module, function)))
    return cast(Fused, collected)


def _on_device_of_tensors(operation: Callable[..., T]) -> Callable[..., T]:
    """Launch the operation on the GPU of its first tensor; Triton would launch it on the current GPU."""

    @functools.wraps(operation)
    def launch(first: torch.Tensor, *others: Any, **settings: Any) -> T:
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]  # as it is in torch
            return operation(first, *others, **settings)

    return launch


def _import(name: str) -> Any:
    return importlib.import_module(name)


def matmul_float32(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Batched `out = a b` of (s, m, n) and (s, n, d) bfloat16 into float32, without rounding to bfloat16 in between."""
    if a.device.type == "cuda" and _WITH_OUT_DTYPE:
        torch.bmm(a, b, out_dtype=torch.float32, out=out)
    else:
        torch.bmm(a.float(), b.float(), out=out)


_WITH_OUT_DTYPE = hasattr(torch.ops.aten.bmm, "dtype_out")
"""Whether torch can multiply bfloat16 matrices into float32 (torch 2.8 and later)."""
