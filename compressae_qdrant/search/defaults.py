"""Default query plans: the number of first-stage latents, of nodes of the graph, and of candidates to rescore.

The time of the first stage grows with the catalog, the time of a candidate does not, and half the latents with twice
the candidates give about the same recall (EXPERIMENTS.md). So a larger catalog is searched cheapest by fewer latents
and more candidates: with postings at latents^0.8 and candidates at 1 / latents, latents go with the root of 1 / items.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = [
    "BY_CODES", "BY_CODES_COARSE", "BY_ORIGINALS", "BY_ORIGINALS_COARSE", "FINE_DIM", "FINE_SHARE", "FIRST_STAGE",
    "NODES_PER_DOUBLING", "RESCORED_HERE", "SMALL_ITEMS", "GraphDefaults", "GraphSizes", "candidates_of",
    "default_plan", "dense_candidates_of", "fused_candidates_of", "graph_sizes", "is_usually_fine", "nodes_growth",
]  # fmt: skip

FIRST_STAGE: Final = 1280
"""Default number of first-stage latents, up to `SMALL_ITEMS` items."""


class GraphDefaults(NamedTuple):
    """Default sizes of a search by the graph whose candidates codes, or kept embeddings (originals), rank.

    All nodes are compared by their stored navigation vectors first, at a small part of the cost of ranking one. Fine
    vectors bring the hits to the front; of coarse ones, more candidates are needed for the same recall
    (EXPERIMENTS.md).
    """

    least: int
    """Candidates, at least."""
    factor: float
    """Candidates for each hit."""
    nodes: int
    """Nodes that the search of the graph keeps, at least, in a small catalog."""
    nodes_factor: float
    """Nodes for each candidate, in a small catalog."""


BY_CODES: Final = GraphDefaults(16, 1.2, 200, 3.75)
BY_CODES_COARSE: Final = GraphDefaults(60, 1.8, 200, 2.25)
BY_ORIGINALS: Final = GraphDefaults(30, 1.8, 225, 5.0)
BY_ORIGINALS_COARSE: Final = GraphDefaults(90, 4.0, 225, 2.25)
FINE_SHARE: Final = 0.9
"""Share of an item that its navigation vector holds (`CompresSAE.navigation_share`) from which it is fine. 192 of 384
dimensions hold 0.92 and 256 of 768 hold 0.93; 192 of 768 hold 0.86 and 128 of 384 hold 0.80, which is coarse."""
FINE_DIM: Final = 256
"""Dimensions from which navigation vectors are taken for fine where no model is known; half of the embeddings' are
enough."""
RESCORED_HERE: Final = 40
"""Most candidates of the graph that this process ranks. Fetching and ranking a code here takes twice as long as in the
engine. But the engine needs a query vector of all latents, whose product and transfer take the time of about 50."""
NODES_PER_DOUBLING: Final = 0.125
"""Share of the default nodes that is added for each doubling of the index above `SMALL_ITEMS`, as the same number of
nodes finds less of a larger one. Chosen by measurements at 63,666 and a million items, ranked by codes (BENCHMARKS.md);
more items are extrapolated. All items of the index count, although each of its segments has a graph of its own."""
SMALL_ITEMS: Final = 1 << 16
"""Items up to which default plans do not depend on the size of the catalog."""
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
    share = math.sqrt(SMALL_ITEMS / max(items, SMALL_ITEMS))
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


def is_usually_fine(navigation_dim: int | None, dim: int) -> bool:
    """Whether navigation vectors of so many dimensions, by default as many as they can have, are likely to be fine.

    Args:
        navigation_dim: their dimensions.
        dim: dimensions of the embeddings.
    """
    return navigation_dim is None or 2 * navigation_dim >= min(2 * FINE_DIM, dim)


def nodes_growth(items: int) -> float:
    """Default nodes of a search by the graph, relative to those in a small catalog."""
    return 1 + NODES_PER_DOUBLING * math.log2(max(items, SMALL_ITEMS) / SMALL_ITEMS)


def graph_sizes(
    limit: int,
    *,
    items: int = 0,
    fine: bool = True,
    keep_dense: bool = False,
    prefetch: int | None = None,
    ef: int | None = None,
    compared: int | None = None,
    at_least: int = 0,
) -> GraphSizes:
    """Complete the sizes of a search by the graph with the defaults.

    Args:
        limit: hits.
        items: items in the catalog, with which the default nodes grow; 0 for a small one.
        fine: whether navigation vectors are fine; see `FINE_SHARE`.
        keep_dense: whether kept embeddings rank the candidates, instead of codes.
        prefetch: candidates, if they are given.
        ef: nodes that the search of the graph keeps, if they are given.
        compared: nodes that are compared by their stored navigation vectors, if they are given.
        at_least: candidates that a later stage of the search needs.
    """
    by_codes, by_originals = (BY_CODES, BY_ORIGINALS) if fine else (BY_CODES_COARSE, BY_ORIGINALS_COARSE)
    defaults = by_originals if keep_dense else by_codes
    candidates = max(prefetch or max(defaults.least, math.ceil(defaults.factor * limit)), at_least)
    least = max(defaults.nodes, math.ceil(defaults.nodes_factor * candidates))
    nodes = max(ef or math.ceil(nodes_growth(items) * least), candidates)
    compared = nodes if compared is None else compared
    compared = compared if compared > candidates else 0  # as many are the same ones in another order
    return GraphSizes(candidates, max(nodes, compared), compared)
