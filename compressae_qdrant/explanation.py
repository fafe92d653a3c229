"""Why an item was found: a score taken apart into what each latent adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .codes import FloatArray
from .query_vector import QueryVector

__all__ = ["Explanation", "Share", "explain"]


@dataclass(frozen=True)
class Share:
    """What one latent adds to a score."""

    latent: int
    name: str | None
    """Of its concept, where it has one."""
    share: float
    """`asked * stored`: its part of the score; negative where it keeps query and item apart."""
    asked: float
    """Value of the query-side vector at this latent, steering included."""
    stored: float
    """Value of the latent in the item's code."""
    opposed: bool
    """The stored value has the sign that leans away from the concept."""


@dataclass(frozen=True)
class Explanation:
    """A score as a sum: of the shares, and of what they leave."""

    score: float
    """As the hit has it."""
    shares: tuple[Share, ...]
    """One for each latent of the item's code that the query-side vector has too; the largest first, by size."""
    remainder: float
    """What the shares leave of the score: rounding, as long as codes score. With embeddings that the index keeps
    (`dense_candidates`), what the embedding knows and the code doesn't; otherwise a sign that the item was written
    again after the search."""


def explain(
    query: QueryVector,
    indices: npt.NDArray[np.int32],
    values: FloatArray,
    score: float,
    concept_of: Callable[[int], tuple[str, int] | None],
) -> Explanation:
    """Take a score apart.

    Args:
        query: the whole query-side vector, as it scored the candidates.
        indices: (k,) latents of the item's code.
        values: (k,) its stored values.
        score: of the hit.
        concept_of: name and sign of a latent's concept, if it has one.
    """
    _, asked, stored = np.intersect1d(query.indices, indices, assume_unique=True, return_indices=True)
    shares = []
    for i, j in zip(asked.tolist(), stored.tolist(), strict=True):
        latent, a, v = int(query.indices[i]), float(query.values[i]), float(values[j])
        name, sign = concept_of(latent) or (None, 1)
        shares.append(Share(latent, name, a * v, a, v, v * sign < 0))
    shares.sort(key=lambda share: (-abs(share.share), share.latent))
    return Explanation(score, tuple(shares), score - sum(share.share for share in shares))
