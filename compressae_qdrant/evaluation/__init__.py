"""How well an approximate search finds what exact dense search finds, how fast, for which items, beside which rivals.

`measures` counts, `bench` draws the queries, `contenders` and `rivals` build what is compared, `running` measures rows,
`report` writes them as a table and plots. `compressae evaluate` and `scripts/bench_retrieval.py` are thin shells.
"""

from ..metrics import (
    Estimate,
    Segment,
    agreement,
    bootstrap,
    by_segment,
    paired_difference,
    recall,
)
from ..vectors import exact_neighbours
from .timed_search import RetrievalReport, evaluate_search

__all__ = [
    "Estimate",
    "RetrievalReport",
    "Segment",
    "agreement",
    "bootstrap",
    "by_segment",
    "evaluate_search",
    "exact_neighbours",
    "paired_difference",
    "recall",
]
