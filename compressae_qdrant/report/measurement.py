"""Timed searches of a report, and their recall against exact dense search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..index.ids import spelling_of
from ..index.protocol import CodeIndex
from ..index.results import Hit, ItemId
from ..metrics import recall
from ..model.compressae import CompresSAE
from ..search.retriever import Retriever
from ..search.settings import SearchOptions
from ..vectors import exact_neighbours
from .sample import Sample

__all__ = ["LIMIT", "Searches", "Truth", "run_searches", "true_neighbours"]

LIMIT: Final = 10
"""Hits of a timed query: one page of results."""


@dataclass(frozen=True)
class Truth:
    """True neighbours of some items of a sample, by exact dense search."""

    own: npt.NDArray[np.int64]
    """(q,) rows of the query items."""
    rows: npt.NDArray[np.int64]
    """(q, depth) rows closest to each query, without the query item itself, closest first."""

    @property
    def depth(self) -> int:
        """Number of neighbours of each query."""
        return int(self.rows.shape[1])


@dataclass(frozen=True)
class Searches:
    """Results and times of one search configuration, one query at a time."""

    name: str
    """Name of the configuration."""
    found: list[list[tuple[ItemId, float]]]
    """Ids and scores of the hits of each query, best first, without the query item."""
    milliseconds: FloatArray
    """(q,) latency of each search."""
    recall: FloatArray
    """(q,) recall@`LIMIT` of searches for `LIMIT` hits."""
    deep_recall: FloatArray
    """(q,) recall at the depth of the truth, of searches for as many hits."""


def true_neighbours(sample: Sample, queries: int, seed: int = 0, depth: int = 100) -> Truth:
    """Draw queries from the items of a sample, and find their true neighbours."""
    own = np.random.default_rng(seed).choice(len(sample), min(queries, len(sample)), replace=False)
    depth = min(depth, len(sample) - 1)
    return Truth(own, exact_neighbours(sample.embeddings[own], sample.embeddings, depth, own))


def run_searches(
    name: str,
    model: CompresSAE,
    index: CodeIndex,
    sample: Sample,
    truth: Truth,
    settings: SearchOptions,
    advance: Callable[[], None] = lambda: None,
) -> Searches:
    """Search an index of the sample for each query, once for `LIMIT` hits and once for the depth of the truth."""
    retriever = Retriever(model, index)
    vectors = sample.embeddings[truth.own]
    own = [sample.ids[row] for row in truth.own.tolist()]
    options: SearchOptions = {"with_payload": False, **settings}
    true = [[sample.ids[row] for row in rows] for rows in truth.rows.tolist()]
    spelling = spelling_of(sample.ids)

    def spelled(hits: Sequence[Hit]) -> list[tuple[ItemId, float]]:
        return [(spelling(hit.id), hit.score) for hit in hits]

    found, spent, deep = [], [], []
    short = min(LIMIT, truth.depth)
    retriever.search(vectors[0], short + 1, **options)  # the first call warms the caches
    for vector, mine in zip(vectors, own, strict=True):
        started = time.perf_counter()
        hits = retriever.search(vector, short + 1, **options)
        spent.append(1e3 * (time.perf_counter() - started))
        found.append([(id, score) for id, score in spelled(hits) if id != mine][:short])
        deep_hits = retriever.search(vector, truth.depth + 1, **options)
        deep.append([id for id, _ in spelled(deep_hits) if id != mine])
        advance()
    return Searches(
        name, found, np.array(spent, np.float32),
        recall([[id for id, _ in hits] for hits in found], true, short), recall(deep, true, truth.depth),
    )  # fmt: skip
