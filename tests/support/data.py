"""Small data and settings that are quick to train on."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from compressae_qdrant import TrainConfig

__all__ = ["SMALL", "unit_rows"]

SMALL = TrainConfig(
    latents=96, k=6, seed=3, steps=30, batch_size=128, rounds=4, round_items=400, encoder_steps=10, held_out=60,
    validate_every=10, checkpoint_every=7, revive_after=10,
)  # fmt: skip
"""Settings of a training that takes about a second."""


def unit_rows(n: int, d: int, seed: int) -> torch.Tensor:
    """Return (n, d) float32 random rows of unit norm."""
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)
