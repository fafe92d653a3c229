"""Measurements of approximate search: recall against exact dense search, memory, latency, and baselines.

`bench` draws queries and finds their true neighbours. `methods` and `baselines` build the indexes to compare,
`comparison` measures them, and `tables` and `plots` present the results. `calibrate` measures the query plans of a
model. `compressae evaluate` and `scripts/bench_retrieval.py` are thin front ends.
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
