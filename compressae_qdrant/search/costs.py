"""What a search costs: milliseconds of one core by the inverted index and by the graph, from measured constants.

`scripts/bench_capacity.py` measures the constants and writes them to `costs.json`, which ships with the package.
`capacity` estimates whole clusters from them; the planner of queries compares the two first stages.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self

from .defaults import RESCORED_HERE, GraphSizes, default_plan, dense_candidates_of, graph_sizes

__all__ = [
    "COSTS_FILE", "SCAN_BYTES", "VISIT_ITEMS", "CodeTimes", "GraphTimes", "SearchCosts", "codes_ms",
    "graph_is_cheaper", "graph_ms", "is_scanned", "item_ms", "rescoring_ms", "shipped_costs",
]  # fmt: skip

COSTS_FILE: Final = "costs.json"
"""Name of the file of shipped constants, in the folder of this module."""
SCAN_BYTES: Final = 10_000 * 1024
"""Bytes of the unquantised navigation vectors of a segment below which the engine does not walk the graph."""
_HALF: Final = 2
VISIT_ITEMS: Final = 10_000
"""Items per block of the engine's scoring, which visits all lists of a query for each block."""


@dataclass(frozen=True)
class CodeTimes:
    """Milliseconds of one core for a two-stage search over one segment with a warm page cache."""

    fixed: float
    """Per search."""
    latent: float
    """Per latent of the model, since the query of the second stage holds all latents."""
    item: float
    """Per item of the segment, whose score is initialised and checked."""
    posting: float
    """Per posting that the first stage reads."""
    visit: float
    """Per first-stage latent and 10,000 items, since the engine visits all lists for each block of that many items."""
    candidate: float
    """Per rescored candidate."""
    candidate_latent: float
    """Per rescored candidate and latent of the model, since the candidate's code is merged with the full query."""
    segment: float
    """Per segment of a shard after the first, in addition to the above."""
    planning: float
    """In the client, per query."""
    planning_latent: float
    """In the client, per latent of the model."""
    planning_product: float
    """In the client, per latent and dimension of the product with the dictionary."""
    share_exponent: float
    """Exponent e: the m first-stage latents of h hold `(m / h)^e` of all postings. Below 1, because the latents of a
    query are used more often than others."""
    spread: float
    """Variation of repeated searches: the scale of a log-logistic distribution, `ln(p95 / p50) / ln 19`."""


@dataclass(frozen=True)
class GraphTimes:
    """Milliseconds of one core for a search by the graph over one segment with a warm page cache."""

    fixed: float
    """Per search whose candidates the engine ranks by their codes, with the query of that stage."""
    step: float
    """Per node that the search keeps (ef) and unit of ln(items of the segment)."""
    scan: float
    """Per item of a small segment, whose navigation vectors the engine compares one by one instead."""
    rescoring: float
    """Time of a candidate that the engine ranks by its code, relative to one of a search by the inverted index."""
    fixed_fetched: float
    """Per search whose candidates are fetched and ranked in the client."""
    fetched: float
    """Per candidate that is fetched with its code and ranked in the client."""
    fixed_embedding: float
    """Per search whose candidates kept embeddings rank."""
    embedding: float
    """Per candidate that its kept embedding ranks instead of its code."""
    comparison: float
    """Per node that is compared by its stored navigation vector."""
    smallest: int
    """Items of the smallest index that was measured; for smaller ones the formula does not hold."""


@dataclass(frozen=True)
class SearchCosts:
    """The constants of both first stages."""

    codes: CodeTimes
    graph: GraphTimes

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Create from the JSON form; raises KeyError or TypeError for other data."""
        return cls(CodeTimes(**data["codes"]), GraphTimes(**data["graph"]))

    def to_json(self) -> dict[str, Any]:
        """JSON form of the constants."""
        return asdict(self)


@cache
def shipped_costs() -> SearchCosts:
    """The constants that ship with the package."""
    return SearchCosts.from_json(json.loads(files(__package__).joinpath(COSTS_FILE).read_text(encoding="utf-8")))


def item_ms(times: CodeTimes, latents: int, k: int, first_stage_latents: int) -> float:
    """Milliseconds that the inverted index takes per item of a segment."""
    postings = k * math.pow(first_stage_latents / latents, times.share_exponent)
    return times.item + times.posting * postings + times.visit * first_stage_latents / VISIT_ITEMS


def rescoring_ms(times: CodeTimes, latents: int) -> float:
    """Milliseconds that the code of one candidate takes to rank."""
    return times.candidate + times.candidate_latent * latents


def codes_ms(times: CodeTimes, items: float, latents: int, k: int, first_stage_latents: int, candidates: int) -> float:
    """Milliseconds of one core for a search of one segment by the inverted index."""
    query = times.fixed + times.latent * latents
    walk = item_ms(times, latents, k, first_stage_latents) * items
    return query + walk + rescoring_ms(times, latents) * candidates


def graph_ms(
    costs: SearchCosts, items: float, latents: int, sizes: GraphSizes, navigation_dim: int, *,
    by_embeddings: bool = False,
) -> float:  # fmt: skip
    """Milliseconds of one core for a search of one segment by the graph.

    Args:
        costs: the constants.
        items: items of the segment.
        latents: latents of the model.
        sizes: candidates, nodes that the search of the graph keeps, and nodes that are compared again.
        navigation_dim: dimensions of the navigation vectors.
        by_embeddings: whether kept embeddings rank the candidates instead of codes.
    """
    times = costs.graph
    if by_embeddings:
        fixed, each = times.fixed_embedding, times.embedding
    elif sizes.candidates <= RESCORED_HERE:
        fixed, each = times.fixed_fetched, times.fetched
    else:
        fixed, each = times.fixed, times.rescoring * rescoring_ms(costs.codes, latents)
    found = times.scan * items if is_scanned(items, navigation_dim) else times.step * sizes.ef * math.log(items)
    return fixed + found + times.comparison * sizes.compared + each * sizes.candidates


def is_scanned(items: float, navigation_dim: int) -> bool:
    """Whether the engine scans the navigation vectors of a segment instead of walking its graph."""
    return items * _HALF * navigation_dim < SCAN_BYTES


def graph_is_cheaper(
    costs: SearchCosts, items: int, latents: int, k: int, navigation_dim: int, limit: int, prefetch: int | None, *,
    fine: bool = True, keep_dense: bool = False,
) -> bool:  # fmt: skip
    """Whether the default plan of the graph takes less time than that of the inverted index, with a warm page cache.

    Below the smallest index that was measured it never counts as cheaper. Filters are not considered.

    Args:
        costs: the constants.
        items: items of the index; of one segment, as that is what optimisation aims for.
        latents: latents of the model.
        k: non-zeros of a code.
        navigation_dim: dimensions of the navigation vectors.
        limit: hits of the search.
        prefetch: candidates, if the search names them.
        fine: whether navigation vectors are fine; see `defaults.FINE_SHARE`.
        keep_dense: whether kept embeddings rank the best candidates.
    """
    if items < costs.graph.smallest:
        return False
    first, candidates = default_plan(items, limit, k, keep_dense=keep_dense)
    by_codes = codes_ms(costs.codes, items, latents, k, min(first, latents), prefetch or candidates)
    by_codes += costs.graph.embedding * dense_candidates_of(limit) if keep_dense else 0
    sizes = graph_sizes(limit, items=items, fine=fine, keep_dense=keep_dense, prefetch=prefetch)
    return graph_ms(costs, items, latents, sizes, navigation_dim, by_embeddings=keep_dense) < by_codes
