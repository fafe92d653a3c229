"""Recall of a trained dictionary on a sample, with every number of non-zeros, datatype, first stage and prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..capacity import Constants, Node, PlannedStage, Workload, plan
from ..codes import FloatArray
from ..errors import InvalidInputError
from ..evaluation.temporary_index import temporary_index
from ..index import IndexSettings
from ..index.settings import NavigationSettings
from ..metrics import recall
from ..model.compressae import CompresSAE
from ..search.defaults import graph_sizes
from ..search.retriever import Retriever
from ..vectors import exact_neighbours, unit_rows
from .points import Goal, SearchSpace, TrialPoint

__all__ = ["Sample", "TargetCatalog", "measure"]

_STATISTICS_ITEMS: Final = 2000
"""Items whose codes give the latent use of a model with another k."""


@dataclass(frozen=True)
class Sample:
    """Items to train on and to index, and queries that are not among them."""

    items: FloatArray
    """(n, d) unit-norm embeddings."""
    queries: FloatArray
    """(q, d) unit-norm embeddings."""
    truth: list[list[int]]
    """Rows of the items closest to each query, closest first."""

    @classmethod
    def of(cls, embeddings: npt.NDArray[np.floating], queries: int, depth: int, seed: int = 0) -> Self:
        """Draw the queries from the embeddings, take them out, and find their true neighbours.

        Raises:
            InvalidInputError: there are too few embeddings.
        """
        if len(embeddings) < max(2 * queries, queries + 2 * depth):
            raise InvalidInputError(
                f"a sample of {len(embeddings)} items is too small for {queries} queries and recall@{depth}"
            )
        is_query = np.zeros(len(embeddings), bool)
        is_query[np.random.default_rng(seed).choice(len(embeddings), queries, replace=False)] = True
        items, rows = unit_rows(embeddings[~is_query]), unit_rows(embeddings[is_query])
        return cls(items, rows, exact_neighbours(rows, items, depth).tolist())


@dataclass(frozen=True)
class TargetCatalog:
    """The whole catalog that settings are searched for."""

    items: int
    """Number of items."""
    constants: Constants
    """Constants of the capacity estimates."""
    node: Node = field(default_factory=Node)
    """The machine that serves it."""

    def cost(self, workload: Workload) -> tuple[float, float]:
        """Estimate bytes per item in memory, and the median latency of a query in ms."""
        estimate = plan(workload, self.constants, self.node)[0]
        return estimate.resident_bytes / workload.items, estimate.p50_ms


def measure(
    model: CompresSAE, sample: Sample, space: SearchSpace, catalog: TargetCatalog, goal: Goal
) -> list[TrialPoint]:
    """Measure every setting of one trained dictionary in the embedded engine.

    Queries are not timed: times on a sample say little about the catalog, so `capacity` estimates them.
    """
    points = []
    for k in space.lengths(model.k):
        if k > model.latents:
            continue
        coder = model if k == model.k else model.with_k(k, sample.items[:_STATISTICS_ITEMS])
        codes = coder.encode(sample.items)
        for datatype in space.datatypes:
            # The graph is the same whatever the datatype of the inverted index, so one index is measured with it.
            graph = "graph" in space.first_stages and datatype == space.datatypes[0]
            settings = IndexSettings(datatype=datatype, navigation=NavigationSettings() if graph else None)
            with temporary_index(coder, codes, settings) as index:
                retriever = Retriever(coder, index)
                for stage, first_stage_latents, prefetch in _plans(space, graph, model.latents, goal.depth):
                    prefetch = min(prefetch, len(sample.items))
                    hits = retriever.search_batch(
                        sample.queries, goal.depth, first_stage=stage, first_stage_latents=first_stage_latents,
                        prefetch=prefetch, with_payload=False,
                    )  # fmt: skip
                    results = [[hit.id for hit in each] for each in hits]
                    workload = Workload(
                        items=catalog.items, dim=model.dim, k=k, latents=model.latents, datatype=datatype,
                        first_stage=stage, limit=goal.depth, first_stage_latents=first_stage_latents,
                        prefetch=prefetch,
                    )  # fmt: skip
                    size, ms = catalog.cost(workload)
                    points.append(
                        TrialPoint(
                            latents=model.latents, trained_k=model.k, k=k, datatype=datatype, first_stage=stage,
                            first_stage_latents=first_stage_latents, prefetch=prefetch, bytes=size,
                            recall=float(recall(results, sample.truth, goal.depth).mean()), ms=ms,
                        )
                    )  # fmt: skip
    return points


def _plans(space: SearchSpace, graph: bool, latents: int, depth: int) -> Iterator[tuple[PlannedStage, int | None, int]]:
    """First stage, latents of one by codes, and candidates of each query plan to try."""
    if graph:
        yield "graph", None, graph_sizes(depth).candidates
    for factor in space.prefetch:
        if graph:
            yield "graph", None, factor * depth
        if "codes" in space.first_stages:
            for first_stage_latents in sorted({min(size, latents) for size in space.first_stage_latents}):
                yield "codes", first_stage_latents, factor * depth
