"""TrainConfig: every setting of a training, with the source of its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from ..errors import ConfigError

__all__ = ["TrainConfig", "choose_latents"]

_ITEMS_PER_LATENT = 1.5
_MAX_LATENTS = 4096


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `train`. Defaults were picked on 63,666 real items (d=384), see EXPERIMENTS.md."""

    latents: int | None = None
    """h; None chooses by the number of items, see `choose_latents`."""
    k: int = 32
    """Non-zeros of a code (paper: 32)."""
    seed: int = 0
    """Of the split, the order and the initial atoms. On CPUs of one kind equal seeds give equal bits; another kind sums
    in another order, and models come out as good but not the same."""

    steps: int = 1500
    """Optimiser steps of the autoencoder phase."""
    batch_size: int = 2048
    """Items of a step. The paper's 100,000 is for a GPU."""
    learning_rate: float = 5e-3
    """Adam's peak rate; 50 steps of warm-up, then a cosine to zero. Measured: 1,500 steps at 5e-3 are better than 2,000
    at the paper's 1e-3; 1e-2 is better still for the encoder, but uses latents less evenly."""
    init: Literal["data", "random"] = "data"
    """Initial atoms, the encoder tied to them: random items of the catalog, or random directions (the paper).
    Measured after 600 steps, pursuit codes: 0.877 recall@100 from data without one dead latent."""
    revive_after: int = 100
    """Steps without use after which a latent starts anew as what the worst-served item lacks; 0 never does (paper)."""
    neighbour_weight: float = 0.0
    """Of the loss that keeps the neighbours of the encoder's codes, see `autoencoder.neighbour_loss`; 0 leaves it out
    (the paper). Steps with it are taken by autograd on any device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder's product while training: auto takes bfloat16 where the processor multiplies it natively."""

    rounds: int = 36
    """Rounds of dictionary refinement; 0 leaves it out (the paper)."""
    round_items: int = 16_384
    """Items coded by pursuit in a round."""
    forgetting: float = 0.7
    """What the previous rounds' codes count in the next round's least squares, in [0, 1)."""
    coarse_weight: float = 1.0
    """What an item's code of half the non-zeros counts in least squares beside its full one; 0 leaves it out. The atoms
    that lead codes then stand for more on their own, as with several sizes in one loss (Matryoshka: Kusupati et al.,
    arXiv 2205.13147; multi-TopK: Gao et al., arXiv 2406.04093). Measured: recall a little higher, a twentieth fewer
    postings, and more concepts that one label covers."""
    damping: float = 1.0
    """Pull of an atom to its previous self in least squares, in items of unit value."""
    atoms_per_step: int = 4
    """Of the pursuit in refinement, where more rounds beat better codes; 1 is the classical pursuit."""

    encoder_steps: int = 400
    """Steps that fit the encoder to the refined dictionary, which stays fixed."""

    held_out: int = 1000
    """Items set aside for validation, at most a fifth of all."""
    validate_every: int = 100
    """Steps between two validations; every second round of refinement is validated too."""
    checkpoint_every: int = 200
    """Steps between two checkpoints; one is written after every second round of refinement too."""

    def __post_init__(self) -> None:
        lower = {
            "k": 1, "batch_size": 1, "round_items": 1, "atoms_per_step": 1, "validate_every": 1, "checkpoint_every": 1,
            "steps": 0, "rounds": 0, "encoder_steps": 0, "held_out": 0, "revive_after": 0, "seed": 0,
        }  # fmt: skip
        for name, least in lower.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.latents is not None and self.latents < self.k:
            raise ConfigError(f"latents is {self.latents} but k is {self.k}; a code can't use more latents than exist")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be positive")
        if not (math.isfinite(self.neighbour_weight) and self.neighbour_weight >= 0):
            raise ConfigError(f"neighbour_weight is {self.neighbour_weight}; it must be at least 0")
        if not (math.isfinite(self.coarse_weight) and self.coarse_weight >= 0):
            raise ConfigError(f"coarse_weight is {self.coarse_weight}; it must be at least 0")
        if not 0 <= self.forgetting < 1:
            raise ConfigError(f"forgetting is {self.forgetting}; it must be in [0, 1)")
        if not self.damping > 0:
            raise ConfigError(f"damping is {self.damping}; it must be positive")
        for name, allowed in (("init", ("data", "random")), ("precision", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """The paper's recipe alone: random directions, Adam on the autoencoder, nothing after it."""
        recipe = cls(init="random", learning_rate=1e-3, revive_after=0, rounds=0, encoder_steps=0)
        return replace(recipe, **settings)

    @classmethod
    def for_encoder(cls, **settings: Any) -> Self:
        """For codes that the encoder alone shall find (`method="encoder"`): all the time goes into the autoencoder, at
        a higher rate; the dictionary is not refined for pursuit, which would leave the encoder behind. Codes are made
        to have the neighbours of their embeddings too, which `sparse` scoring gains by."""
        return replace(cls(learning_rate=1e-2, neighbour_weight=0.02, rounds=0, encoder_steps=0), **settings)


def choose_latents(items: int, k: int) -> tuple[int, str]:
    """The number of latents for a catalog, and the reason in one sentence.

    The largest power of two, from 4k to 4,096, with at least 1.5 training items a latent. Measured on 8,000 items
    (6,400 of them trained on): 512, 1,024, 2,048 and 4,096 latents give held-out pursuit losses of 0.093, 0.077, 0.067
    and 0.058, so atoms that start as items pay even where there is hardly more than one item for each.
    """
    least = 1 << (4 * k - 1).bit_length()
    wanted = 1 << max(int(items / _ITEMS_PER_LATENT), 1).bit_length() - 1
    latents = max(least, min(wanted, _MAX_LATENTS))
    if latents == _MAX_LATENTS:
        why = "the paper's size"
    elif latents == least:
        why = f"the least that makes sense for k={k}; expect little from so few items"
    else:
        why = f"at least {_ITEMS_PER_LATENT} items a latent"
    return latents, f"latents={latents} for {items:,} training items and k={k}: {why}"
