"""ModelConfig: the shape of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["ModelConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model."""

    dim: int
    """d: dimensions of the dense embeddings."""
    latents: int
    """h: atoms in the dictionary."""
    k: int
    """Non-zeros of a code, at most h."""

    def __post_init__(self) -> None:
        for name in ("dim", "latents", "k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.k > self.latents:
            raise ConfigError(f"k is {self.k} but there are {self.latents} latents; a code can't use more than all")
