"""What is measured of a set of codes, and how much of it chance gives: by resampling the baseline's items.

| measure        | of n items whose codes use latent j c_j times                                              |
|----------------|--------------------------------------------------------------------------------------------|
| `psi`          | population stability index of the latents' shares against the baseline's,                  |
|                | `sum_j (a_j - b_j) ln(a_j / b_j)` (Siddiqi, Credit Risk Scorecards, 2006: under 0.1 is no  |
|                | change), each count half a use more so that no share is zero                               |
| `posting_mass` | `sum_j c_j (c_j - 1) / (n (n - 1))`: without the bias that `sum_j (c_j / n)^2` has for     |
|                | few items, so that batches of any size compare                                             |
| `dead_latents` | latents of which the baseline leads to expect at least 5 uses and that have none           |
| `hot_latents`  | latents used at least 3 times as often as expected, 6 standard errors above it             |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Use", "dead", "hot", "posting_mass", "psi", "use_measures"]

_EXPECTED: Final = 5.0
_TIMES: Final = 3.0
_ERRORS: Final = 6.0

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Use:
    """How often a set of items uses each latent."""

    items: int
    counts: Counts
    """(h,)"""

    @classmethod
    def of(cls, supports: npt.NDArray[np.int32], latents: int) -> Use:
        """From (n, k) supports, -1 where a code uses fewer latents."""
        flat = supports.reshape(-1)
        return cls(len(supports), np.bincount(flat[flat >= 0], minlength=latents))


def psi(use: Use, reference: Use) -> float:
    """Population stability index of two uses; its value for two samples of the same is not zero but grows with 1/n."""
    a, b = use.counts + 0.5, reference.counts + 0.5
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())


def posting_mass(use: Use) -> float:
    """`sum_j p_j^2`, unbiased."""
    return float((use.counts * (use.counts - 1)).sum() / (use.items * max(use.items - 1, 1)))


def _expected(use: Use, reference: Use) -> npt.NDArray[np.float64]:
    return use.items * (reference.counts + 0.5) / (reference.items + 1)


def dead(use: Use, reference: Use) -> npt.NDArray[np.int64]:
    """Numbers of latents that the reference uses and this use should, but doesn't; most missed first."""
    expected = _expected(use, reference)
    found = np.flatnonzero((expected >= _EXPECTED) & (use.counts == 0))
    return found[np.argsort(-expected[found], kind="stable")]


def hot(use: Use, reference: Use) -> npt.NDArray[np.int64]:
    """Numbers of latents used far more than the reference leads to expect; the most surprising first."""
    expected = _expected(use, reference)
    errors = (use.counts - expected) / np.sqrt(expected * (1 + use.items / reference.items))
    found = np.flatnonzero((errors >= _ERRORS) & (use.counts >= _TIMES * expected))
    return found[np.argsort(-errors[found], kind="stable")]


def use_measures(use: Use, reference: Use) -> dict[str, float]:
    """Every measure of the module's table."""
    return {
        "psi": psi(use, reference),
        "posting_mass": posting_mass(use),
        "dead_latents": float(len(dead(use, reference))),
        "hot_latents": float(len(hot(use, reference))),
    }
