"""Default query plans: the number of first-stage latents, and the number of candidates to rescore.

The time of the first stage grows with the catalog, the time of a candidate does not, and half the latents with twice
the candidates give about the same recall (EXPERIMENTS.md). So a larger catalog is searched cheapest by fewer latents
and more candidates: with postings at latents^0.8 and candidates at 1 / latents, latents go with the root of 1 / items.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "FIRST_STAGE", "GRAPH_FACTOR", "GRAPH_PREFETCH", "MIN_EF", "ORIGINALS_EF", "ORIGINALS_FACTOR", "ORIGINALS_PREFETCH",
    "candidates_of", "default_plan", "dense_candidates_of",
    "fused_candidates_of", "graph_candidates_of", "graph_ef",
]  # fmt: skip

FIRST_STAGE: Final = 1280
"""Default number of first-stage latents, up to `_ITEMS` items."""
GRAPH_PREFETCH: Final = 90
"""Least default number of candidates of the graph."""
GRAPH_FACTOR: Final = 3
"""Default number of candidates of the graph for each hit."""
MIN_EF: Final = 150
"""A node costs a seventh of the time of a candidate that codes rescore."""
ORIGINALS_PREFETCH: Final = 150
ORIGINALS_FACTOR: Final = 6
ORIGINALS_EF: Final = 1.5
"""The same where kept embeddings rank the candidates, which takes a third of the time of ranking them by codes: least
candidates, candidates for each hit, and nodes for each candidate."""
_ITEMS: Final = 1 << 16
_MIN_FIRST_STAGE: Final = 64
_PREFETCH: Final = 100
_PREFETCH_FACTOR: Final = 3
_NON_ZEROS: Final = 32
_NON_ZEROS_PER_CANDIDATE: Final = 16
_DENSE_FACTOR: Final = 3


def default_plan(items: int, limit: int, k: int, *, keep_dense: bool = False) -> tuple[int, int]:
    """Choose the default plan of a search.

    1,280 latents up to 65,536 items; then their number falls with the square root of the items, to 320 at a million and
    80 at 16 million, and the number of candidates rises in proportion.

    Args:
        items: items in the catalog.
        limit: hits of the search.
        k: non-zeros of a code.
        keep_dense: whether stored embeddings rescore the best candidates.

    Returns:
        First-stage latents, and candidates.
    """
    share = math.sqrt(_ITEMS / max(items, _ITEMS))
    first_stage_latents = max(_MIN_FIRST_STAGE, round(FIRST_STAGE * share))
    return first_stage_latents, math.ceil(
        candidates_of(limit, k, keep_dense=keep_dense) * FIRST_STAGE / first_stage_latents
    )


def candidates_of(limit: int, k: int, *, keep_dense: bool = False) -> int:
    """Default number of candidates for `limit` hits with 1,280 first-stage latents: 100, or three for each hit.

    One more for each hit for every 16 non-zeros of a code above 32, as the same latents then cover less of the
    code. One more where stored embeddings rescore the best, as they can rank items that the codes cannot tell apart.
    """
    longer = math.ceil(max(k - _NON_ZEROS, 0) / _NON_ZEROS_PER_CANDIDATE)
    return max(_PREFETCH, (_PREFETCH_FACTOR + longer + keep_dense) * limit)


def dense_candidates_of(limit: int) -> int:
    """Default number of rescored candidates that stored embeddings score once more."""
    return _DENSE_FACTOR * limit


def fused_candidates_of(limit: int) -> int:
    """Hits of each ranking that a hybrid search fuses: an item may be far down in one ranking and first in another."""
    return max(_PREFETCH, _PREFETCH_FACTOR * limit)


def graph_candidates_of(limit: int, *, keep_dense: bool = False) -> int:
    """Default number of candidates that the graph finds for `limit` hits, whatever the size of the catalog.

    Args:
        limit: hits.
        keep_dense: whether kept embeddings rank the candidates, instead of codes.
    """
    if keep_dense:
        return max(ORIGINALS_PREFETCH, ORIGINALS_FACTOR * limit)
    return max(GRAPH_PREFETCH, GRAPH_FACTOR * limit)


def graph_ef(candidates: int, *, keep_dense: bool = False) -> int:
    """Default number of nodes that the search of the graph keeps for so many candidates."""
    return max(MIN_EF, math.ceil(ORIGINALS_EF * candidates) if keep_dense else candidates)
