"""Measures of how a set of items uses the latents, compared with a baseline.

| measure        | for n items whose codes use latent j c_j times                                             |
|----------------|--------------------------------------------------------------------------------------------|
| `psi`          | population stability index of the latents' shares against the baseline's,                  |
|                | `sum_j (a_j - b_j) ln(a_j / b_j)` (Siddiqi, Credit Risk Scorecards, 2006: below 0.1 means  |
|                | no change); 0.5 is added to each count so that no share is zero                            |
| `posting_mass` | `sum_j c_j (c_j - 1) / (n (n - 1))`; unlike `sum_j (c_j / n)^2` it has no bias for small   |
|                | n, so batches of any size are comparable                                                   |
| `dead_latents` | unused latents for which the baseline predicts at least 5 uses                             |
| `hot_latents`  | latents used at least 3 times as often as predicted, and 6 standard errors more            |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Use", "dead", "hot", "posting_mass", "psi", "use_measures"]

_MIN_EXPECTED_USES: Final = 5.0
_MIN_RATIO: Final = 3.0
_MIN_STANDARD_ERRORS: Final = 6.0

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Use:
    """How often a set of items uses each latent."""

    items: int
    counts: Counts
    """(h,) number of items that use each latent."""

    @classmethod
    def of(cls, supports: npt.NDArray[np.int32], latents: int) -> Use:
        """Count (n, k) supports, which are padded with -1."""
        flat = supports.reshape(-1)
        return cls(len(supports), np.bincount(flat[flat >= 0], minlength=latents))


def psi(use: Use, reference: Use) -> float:
    """Population stability index of two sets. For two samples of one distribution it is not zero but of order 1/n."""
    a, b = use.counts + 0.5, reference.counts + 0.5
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())


def posting_mass(use: Use) -> float:
    """Unbiased estimate of `sum_j p_j^2`."""
    return float((use.counts * (use.counts - 1)).sum() / (use.items * max(use.items - 1, 1)))


def _expected(use: Use, reference: Use) -> npt.NDArray[np.float64]:
    return use.items * (reference.counts + 0.5) / (reference.items + 1)


def dead(use: Use, reference: Use) -> npt.NDArray[np.int64]:
    """Latents that are unused although the reference predicts uses; the largest prediction first."""
    expected = _expected(use, reference)
    latents = np.flatnonzero((expected >= _MIN_EXPECTED_USES) & (use.counts == 0))
    return latents[np.argsort(-expected[latents], kind="stable")]


def hot(use: Use, reference: Use) -> npt.NDArray[np.int64]:
    """Latents used far more than the reference predicts; the largest deviation first."""
    expected = _expected(use, reference)
    errors = (use.counts - expected) / np.sqrt(expected * (1 + use.items / reference.items))
    latents = np.flatnonzero((errors >= _MIN_STANDARD_ERRORS) & (use.counts >= _MIN_RATIO * expected))
    return latents[np.argsort(-errors[latents], kind="stable")]


def use_measures(use: Use, reference: Use) -> dict[str, float]:
    """All measures in the table above, by name."""
    return {
        "psi": psi(use, reference),
        "posting_mass": posting_mass(use),
        "dead_latents": float(len(dead(use, reference))),
        "hot_latents": float(len(hot(use, reference))),
    }
