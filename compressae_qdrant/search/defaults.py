"""Default query plans: the number of first-stage latents, and the number of candidates to rescore.

The time of the first stage grows with the catalog, the time of a candidate does not, and half the latents with twice
the candidates give about the same recall (EXPERIMENTS.md). So a larger catalog is searched cheapest by fewer latents
and more candidates: with postings at latents^0.8 and candidates at 1 / latents, latents go with the root of 1 / items.
"""

from __future__ import annotations

import math
import sys
from typing import Final, NamedTuple

__all__ = [
    "COMPARED_FACTOR", "FIRST_STAGE", "GRAPH_FACTOR", "GRAPH_PREFETCH", "MIN_EF", "ORIGINALS_EF", "ORIGINALS_FACTOR",
    "ORIGINALS_PREFETCH", "GraphSizes", "candidates_of", "default_plan", "dense_candidates_of", "fused_candidates_of",
    "graph_sizes",
]  # fmt: skip

FIRST_STAGE: Final = 1280
"""Default number of first-stage latents, up to `_ITEMS` items."""
GRAPH_PREFETCH: Final = 60
"""Least default number of candidates of the graph."""
GRAPH_FACTOR: Final = 1.8
"""Default number of candidates of the graph for each hit."""
COMPARED_FACTOR: Final = 2.25
"""Nodes for each candidate that are compared by their stored navigation vectors. Comparing one takes less than a
twentieth of the time of ranking a code. With it, two thirds of the candidates reach the same recall."""
MIN_EF: Final = 200
"""A node costs less than a quarter of the time of a candidate that codes rank."""
ORIGINALS_PREFETCH: Final = 150
ORIGINALS_FACTOR: Final = 6
ORIGINALS_EF: Final = 1.5
"""The same where kept embeddings rank the candidates, which takes less than a third of the time of ranking them by
codes: least candidates, candidates for each hit, and nodes for each candidate. Embeddings rank all candidates, so
navigation vectors are not compared again."""
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


class GraphSizes(NamedTuple):
    """What a search by the graph looks at."""

    candidates: int
    """Candidates that codes or embeddings rank."""
    ef: int
    """Nodes that the search of the graph keeps."""
    compared: int
    """Nodes that are compared by their stored navigation vectors; 0 takes the candidates by quantised vectors."""


def graph_sizes(
    limit: int,
    *,
    keep_dense: bool = False,
    prefetch: int | None = None,
    ef: int | None = None,
    compared: int | None = None,
    at_least: int = 0,
) -> GraphSizes:
    """Complete the sizes of a search by the graph with the defaults, which do not depend on the size of the catalog.

    Args:
        limit: hits.
        keep_dense: whether kept embeddings rank the candidates, instead of codes.
        prefetch: candidates, if they are given.
        ef: nodes that the search of the graph keeps, if they are given.
        compared: nodes that are compared by their stored navigation vectors, if they are given.
        at_least: candidates that a later stage of the search needs.
    """
    if keep_dense:
        candidates = max(prefetch or max(ORIGINALS_PREFETCH, ORIGINALS_FACTOR * limit), at_least)
        compared = compared or 0
    else:
        candidates = max(prefetch or max(GRAPH_PREFETCH, math.ceil(GRAPH_FACTOR * limit)), at_least)
        if compared is None:
            compared = min(math.ceil(COMPARED_FACTOR * candidates), max(ef or sys.maxsize, candidates))
    compared = compared if compared > candidates else 0  # as many are the same ones in another order
    nodes = ef or max(MIN_EF, math.ceil(ORIGINALS_EF * candidates) if keep_dense else 0)
    return GraphSizes(candidates, max(nodes, candidates, compared), compared)
