"""Recall of a trained dictionary with every number of non-zeros, datatype, first stage and prefetch, on a sample."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..capacity import Constants, Node, Workload, plan
from ..codes import FloatArray
from ..errors import InvalidInputError
from ..index import EdgeIndex, IndexSettings
from ..metrics import recall
from ..model.compressae import CompresSAE
from ..search.retriever import Retriever
from ..vectors import exact_neighbours, unit_rows
from .points import Goal, Point, Space

__all__ = ["Sample", "Served", "measure"]

_LOAD: Final = 4096


@dataclass(frozen=True)
class Sample:
    """Items to train on and to search, and queries that are none of them."""

    items: FloatArray
    """(n, d) unit norm."""
    queries: FloatArray
    """(q, d) unit norm."""
    truth: list[list[int]]
    """For each query its closest items, closest first."""

    @classmethod
    def of(cls, embeddings: npt.NDArray[np.floating], queries: int, depth: int, seed: int = 0) -> Self:
        """Draw the queries from the embeddings, leave them out, and find their neighbours.

        Raises:
            InvalidInputError: there are too few embeddings.
        """
        if len(embeddings) < max(2 * queries, queries + 2 * depth):
            raise InvalidInputError(
                f"a sample of {len(embeddings)} items is too small for {queries} queries and recall@{depth}"
            )
        asked = np.zeros(len(embeddings), bool)
        asked[np.random.default_rng(seed).choice(len(embeddings), queries, replace=False)] = True
        items, rows = unit_rows(embeddings[~asked]), unit_rows(embeddings[asked])
        return cls(items, rows, exact_neighbours(rows, items, depth).tolist())


@dataclass(frozen=True)
class Served:
    """The catalog that the settings are for."""

    items: int
    """Of the whole catalog."""
    constants: Constants
    node: Node = field(default_factory=Node)

    def cost(self, workload: Workload) -> tuple[float, float]:
        """Bytes an item in memory, and p50 in ms."""
        estimate = plan(workload, self.constants, self.node)[0]
        return estimate.resident_bytes / workload.items, estimate.p50_ms


def measure(model: CompresSAE, sample: Sample, space: Space, served: Served, goal: Goal) -> list[Point]:
    """Every point of one trained dictionary, through the embedded engine.

    Queries aren't timed: times of a sample say little about a catalog, and `capacity` has them measured.
    """
    points = []
    for k in space.lengths(model.k):
        if k > model.latents:
            continue
        coder = model if k == model.k else model.with_k(k, sample.items[:2000])
        codes = coder.encode(sample.items)
        for datatype in space.datatypes:
            with (
                tempfile.TemporaryDirectory() as folder,
                EdgeIndex.create(Path(folder) / "index", coder, IndexSettings(datatype=datatype)) as index,
            ):
                for start in range(0, len(codes), _LOAD):
                    part = codes[start : start + _LOAD]
                    index.upsert(range(start, start + len(part)), part)
                index.optimize()
                retriever = Retriever(coder, index)
                for first_stage_latents in sorted({min(size, model.latents) for size in space.first_stage_latents}):
                    for factor in space.prefetch:
                        prefetch = min(factor * goal.depth, len(sample.items))
                        hits = retriever.search_batch(
                            sample.queries,
                            goal.depth,
                            first_stage_latents=first_stage_latents,
                            prefetch=prefetch,
                            with_payload=False,
                        )
                        found = [[hit.id for hit in each] for each in hits]
                        asked = Workload(
                            items=served.items, dim=model.dim, k=k, latents=model.latents, datatype=datatype,
                            limit=goal.depth, first_stage_latents=first_stage_latents, prefetch=prefetch,
                        )  # fmt: skip
                        size, ms = served.cost(asked)
                        points.append(
                            Point(
                                latents=model.latents, trained_k=model.k, k=k, datatype=datatype,
                                first_stage_latents=first_stage_latents, prefetch=prefetch, bytes=size,
                                recall=float(recall(found, sample.truth, goal.depth).mean()), ms=ms,
                            )
                        )  # fmt: skip
    return points
