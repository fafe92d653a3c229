"""Training checkpoints: one safetensors file of tensors and metadata, replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ModelFileError
from ..files import atomic_path

__all__ = ["adam_tensors", "load_checkpoint", "restore_adam", "save_checkpoint"]

_FORMAT: Final = 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata={"training": json.dumps({"format": _FORMAT, **meta})})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and metadata of the checkpoint at `path`; None if there is none.

    Raises:
        ModelFileError: it is damaged, not a checkpoint, or of another version.
    """
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {})["training"])
            if meta.pop("format", None) != _FORMAT:
                raise ModelFileError(f"{path} was written by another version; delete it to train from the start")
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as exc:
        raise ModelFileError(f"{path} is not a readable checkpoint ({exc}); delete it to train from the start") from exc


def adam_tensors(optimiser: torch.optim.Adam) -> dict[str, Tensor]:
    """The optimiser's moments and step counts, by name."""
    return {
        f"adam.{number}.{name}": tensor
        for number, moments in optimiser.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def restore_adam(optimiser: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Restore the state that `adam_tensors` gave; tensors with other names are ignored."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("adam."):
            _, number, name = key.split(".")
            state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
