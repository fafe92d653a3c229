"""Maximal marginal relevance: hits that are close to the query but not to each other."""

from __future__ import annotations

import numpy as np

from ..codes import FloatArray
from ..errors import InvalidInputError

__all__ = ["diverse"]


def diverse(query: FloatArray, vectors: FloatArray, limit: int, relevance: float = 0.5) -> list[int]:
    """Choose rows by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), by cosines.

    Each row chosen maximises `relevance * cos(query, row) - (1 - relevance) * max cos(chosen, row)`.

    Args:
        query: (d,) embedding, not zero.
        vectors: (n, d) embeddings or reconstructions of the candidates.
        limit: rows to choose.
        relevance: 1 considers the query only, 0 only the differences between rows.

    Returns:
        At most `limit` different rows, in the order in which they were chosen.

    Raises:
        InvalidInputError: `relevance` is not from 0 to 1.
    """
    if not 0 <= relevance <= 1:
        raise InvalidInputError(f"relevance is {relevance}; it must be from 0 to 1")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    gain = unit @ (query / np.linalg.norm(query))
    nearest = np.full(len(unit), -np.inf, np.float32)
    chosen: list[int] = []
    for _ in range(min(limit, len(unit))):
        value = relevance * gain - (1 - relevance) * nearest if chosen else gain.copy()
        value[chosen] = -np.inf
        row = int(np.argmax(value))
        chosen.append(row)
        nearest = np.maximum(nearest, unit @ unit[row])
    return chosen
