"""The plan of a search that names none: how many latents search for candidates, and how many of these are rescored.

The first stage's time grows with the catalog, a candidate's doesn't, and half the latents with twice the candidates
find about as much (EXPERIMENTS.md). So the larger a catalog, the fewer latents and the more candidates are cheapest:
with postings at latents^0.8 and candidates at 1 / latents, latents go with the root of 1 / items.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["FIRST_STAGE", "candidates_of", "default_plan", "dense_candidates_of"]

FIRST_STAGE: Final = 1280
"""Latents that search for candidates by default, up to `_ITEMS` items."""
_ITEMS: Final = 1 << 16
_LEAST_FIRST_STAGE: Final = 64
_PREFETCH: Final = 100
_PREFETCH_FACTOR: Final = 3
_NON_ZEROS: Final = 32
_NON_ZEROS_A_CANDIDATE: Final = 16
_DENSE_FACTOR: Final = 3


def default_plan(items: int, limit: int, k: int, *, keep_dense: bool = False) -> tuple[int, int]:
    """Latents of the first stage, and candidates of it, for a catalog of so many items and a search for so many hits.
    k is the number of non-zeros of a code.

    1,280 latents up to 65,536 items; then their number falls with the root of the items, to 320 at a million and 80 at
    16 million, and candidates rise as latents fall.
    """
    share = math.sqrt(_ITEMS / max(items, _ITEMS))
    first_stage_latents = max(_LEAST_FIRST_STAGE, round(FIRST_STAGE * share))
    return first_stage_latents, math.ceil(
        candidates_of(limit, k, keep_dense=keep_dense) * FIRST_STAGE / first_stage_latents
    )


def candidates_of(limit: int, k: int, *, keep_dense: bool = False) -> int:
    """Candidates that 1,280 latents find for so many hits by default: three a hit. Of longer codes the same latents
    see a smaller part, so it is one more for every 16 non-zeros above 32; and one more where embeddings rescore the
    best, as what the codes alone can't tell apart is worth finding then."""
    longer = math.ceil(max(k - _NON_ZEROS, 0) / _NON_ZEROS_A_CANDIDATE)
    return max(_PREFETCH, (_PREFETCH_FACTOR + longer + keep_dense) * limit)


def dense_candidates_of(limit: int) -> int:
    """Rescored candidates that embeddings score once more by default."""
    return _DENSE_FACTOR * limit
