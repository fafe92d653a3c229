"""TrainConfig: the settings of a training, with the sources of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from ..checks import MAX_WHOLE, check_choice, check_number, check_whole
from ..errors import ConfigError

__all__ = ["TrainConfig", "choose_latents"]

_ITEMS_PER_LATENT = 1.5
_MAX_LATENTS = 4096


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `train`. The defaults were chosen on 63,666 real items (d=384); see EXPERIMENTS.md."""

    latents: int | None = None
    """Number of latents h; None chooses it by the number of items, see `choose_latents`."""
    k: int = 44
    """Non-zeros of a code (paper: 32). The engine stores codes in whole blocks of 128 bytes, so that 44 non-zeros take
    the space of 32 on disk; recall@10 rises from 0.927 to 0.945 (63,666 items, d=384). An inverted index kept in memory
    grows from 100 bytes an item to 125."""
    seed: int = 0
    """Random seed of the split, the order and the initial atoms. Equal seeds give equal bits on CPUs of the same kind;
    other CPUs sum in another order and give another model of the same quality."""

    steps: int = 1500
    """Optimiser steps of the autoencoder phase."""
    batch_size: int = 2048
    """Items per step, over all processes. The paper uses 100,000, on a GPU."""
    learning_rate: float = 5e-3
    """Peak learning rate of Adam, after 50 steps of warm-up and before a cosine decay to zero. Measured: 1,500 steps at
    5e-3 are better than 2,000 at the paper's 1e-3. 1e-2 gives a better encoder, but uses latents less evenly."""
    init: Literal["data", "random"] = "data"
    """Initial atoms and encoder: random items of the catalog, or random directions (the paper). Measured after 600
    steps from data, with pursuit codes: recall@100 of 0.877 and no dead latent."""
    revive_after: int = 100
    """Steps without use after which a latent is restarted as a large residual of the last batch; 0 never restarts (the
    paper)."""
    neighbour_weight: float = 0.0
    """Weight of `autoencoder.neighbour_loss`, which makes encoder codes keep the neighbours of their embeddings; 0
    leaves it out (the paper). With it, steps are taken by autograd on any device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the encoder's product in training; auto is bfloat16 where the processor multiplies it natively."""

    rounds: int = 36
    """Rounds of dictionary refinement; 0 skips this phase (the paper)."""
    round_items: int = 16_384
    """Items coded by pursuit in a round."""
    forgetting: float = 0.7
    """Weight of the codes of previous rounds in the least squares of the next one, in [0, 1)."""
    coarse_weight: float = 1.0
    """Weight, in least squares, of a second code of each item with half the non-zeros; 0 leaves it out. The leading
    atoms of codes then carry more of the reconstruction, as with losses over several sizes (Matryoshka: Kusupati et
    al., arXiv 2205.13147; multi-TopK: Gao et al., arXiv 2406.04093). Measured: slightly higher recall, 5% fewer
    postings, and more concepts that one label covers."""
    damping: float = 1.0
    """Strength of the pull of an atom towards its previous value in least squares, in items of unit value."""
    atoms_per_step: int = 4
    """Atoms selected in each step of pursuit in refinement, where more rounds help more than better codes; 1 is
    classical orthogonal matching pursuit."""

    encoder_steps: int = 400
    """Optimiser steps that fit the encoder to the refined dictionary, which stays fixed."""

    held_out: int = 1000
    """Items held out for validation, at most a fifth of all."""
    validate_every: int = 100
    """Steps between two validations. In refinement, every second round is validated."""
    checkpoint_every: int = 200
    """Steps between two checkpoints. In refinement, one is written after every second round."""

    def __post_init__(self) -> None:
        lower_bounds = {
            "k": 1, "batch_size": 1, "round_items": 1, "atoms_per_step": 1, "validate_every": 1, "checkpoint_every": 1,
            "steps": 0, "rounds": 0, "encoder_steps": 0, "held_out": 0, "revive_after": 0, "seed": 0,
        }  # fmt: skip
        for name, minimum in lower_bounds.items():
            most = 2**63 - 1 if name == "seed" else MAX_WHOLE
            object.__setattr__(self, name, check_whole(name, getattr(self, name), minimum, most, error=ConfigError))
        if self.latents is not None:
            object.__setattr__(self, "latents", check_whole("latents", self.latents, error=ConfigError))
        for name in ("learning_rate", "neighbour_weight", "coarse_weight", "forgetting", "damping"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), error=ConfigError))
        if self.latents is not None and self.latents < self.k:
            raise ConfigError(f"latents is {self.latents}, but k is {self.k}; latents must be at least k")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be positive")
        if not self.neighbour_weight >= 0:
            raise ConfigError(f"neighbour_weight is {self.neighbour_weight}; it must be at least 0")
        if not self.coarse_weight >= 0:
            raise ConfigError(f"coarse_weight is {self.coarse_weight}; it must be at least 0")
        if not 0 <= self.forgetting < 1:
            raise ConfigError(f"forgetting is {self.forgetting}; it must be in [0, 1)")
        if not self.damping > 0:
            raise ConfigError(f"damping is {self.damping}; it must be positive")
        for name, allowed in (("init", ("data", "random")), ("precision", ("auto", "float32", "bfloat16"))):
            check_choice(name, getattr(self, name), allowed, error=ConfigError)

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """The paper's recipe: random initial atoms, Adam on the autoencoder, and neither of the later phases."""
        recipe = cls(init="random", learning_rate=1e-3, revive_after=0, rounds=0, encoder_steps=0)
        return replace(recipe, **settings)

    @classmethod
    def for_encoder(cls, **settings: Any) -> Self:
        """Settings for codes by the encoder alone (`method="encoder"`).

        The autoencoder trains at a higher learning rate and with the neighbour loss, which improves `sparse` scoring.
        The dictionary is not refined, because atoms refined for pursuit fit the encoder less well.
        """
        return replace(cls(learning_rate=1e-2, neighbour_weight=0.02, rounds=0, encoder_steps=0), **settings)


def choose_latents(items: int, k: int) -> tuple[int, str]:
    """Choose the number of latents for a catalog, and give the reason in one sentence.

    The largest power of two, from 4k to 4,096, with at least 1.5 training items per latent. Measured on 8,000 items
    (6,400 of them trained on): 512, 1,024, 2,048 and 4,096 latents give held-out pursuit losses of 0.093, 0.077, 0.067
    and 0.058, so more atoms help even with little more than one training item for each.
    """
    smallest = 1 << (4 * k - 1).bit_length()
    affordable = 1 << max(int(items / _ITEMS_PER_LATENT), 1).bit_length() - 1
    latents = max(smallest, min(affordable, _MAX_LATENTS))
    if latents == _MAX_LATENTS:
        reason = "the number of the paper"
    elif latents == smallest:
        reason = f"the smallest useful number for k={k}; so few items limit the quality"
    else:
        reason = f"at least {_ITEMS_PER_LATENT} items per latent"
    return latents, f"latents={latents} for {items:,} training items and k={k}: {reason}"
