"""Shape of a model, and the methods of encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..checks import check_whole
from ..errors import ConfigError

__all__ = ["Method", "ModelConfig"]

Method = Literal["pursuit", "refit", "encoder"]
"""How an embedding is encoded.

pursuit: orthogonal matching pursuit selects the latents, and least squares gives their values. refit: the encoder
selects the latents, and least squares gives their values. encoder: the encoder gives both.
"""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model."""

    dim: int
    """d: dimensions of the dense embeddings."""
    latents: int
    """h: atoms in the dictionary."""
    k: int
    """Non-zeros of a code, at most h."""

    def __post_init__(self) -> None:
        for name in ("dim", "latents", "k"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, error=ConfigError))
        if self.k > self.latents:
            raise ConfigError(f"k is {self.k} but there are {self.latents} latents; k must not exceed latents")
