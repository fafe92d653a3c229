"""Estimate the memory, disk, processors and costs of a catalog by closed formulas over measured constants.

The formulas neither iterate nor read data, so that the calculator of the report can repeat them in a browser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..search import costs as search_costs
from ..search.defaults import FIRST_STAGE, RESCORED_HERE, dense_candidates_of
from .constants import Constants, DenseCosts
from .sizes import (
    PAGE,
    dense_pages,
    graph_disk_bytes,
    index_bytes,
    item_bytes,
    link_bytes,
    navigation_dim,
    pages_read,
    payload_bytes,
    vector_bytes,
)
from .workload import Node, Prices, Workload

__all__ = ["GIB", "Estimate", "graph_ms", "plan"]

GIB: Final = 1024**3
SEGMENT_ITEMS: Final = 1_000_000
"""Minimum items of a segment when codes are spread over the cores of a node. Smaller segments save little time, and
their short lists fill few blocks."""


@dataclass(frozen=True)
class Estimate:
    """Resources of one method to store and search the catalog."""

    name: str
    """Name of the method."""
    index_bytes: float
    """Bytes of one copy of the index: posting lists, or vectors with their graph."""
    resident_bytes: float
    """Bytes of one copy in memory: the index and the engine's tables of items."""
    disk_bytes: float
    """Bytes of one copy on disk."""
    replicas: int
    """Copies of everything."""
    shards: int
    """Shards of each copy, one per node."""
    segments: int
    """Segments of a shard."""
    nodes: int
    """Nodes of all copies."""
    p50_ms: float
    """Median latency of a query on an idle cluster without the network, ms. The slowest shard counts."""
    cpu_ms: float
    """Processor time of a query over all shards, ms."""
    queries_per_core: float
    """Queries/s of the whole catalog, not of one shard, that keep one core busy."""
    utilisation: float
    """Share of the processors of all nodes that the workload's queries/s keep busy."""
    disk_reads: int
    """Items that a query reads from disk if the page cache does not hold them. Times assume a warm cache."""
    read_bytes: float
    """Bytes that a query then reads from disk on each shard, in pages of 4 KiB. Tables of ids and index are in
    memory."""
    cold_ms: float
    """Median latency of a query that finds nothing in the page cache, ms: with the time of these reads, one after
    another on each segment."""
    recall100: float | None
    """Recall@100 of the default plan on the benchmark's catalog (63,666 items) at the nearest dimensions; None if these
    settings were not measured or the workload has another plan."""
    usd: float | None
    """USD per month for memory and disk of all copies, and for the processors that the queries keep busy."""
    usd_nodes: float | None
    """USD per month for whole nodes, and for the disk of all copies."""


def plan(
    workload: Workload,
    constants: Constants,
    node: Node = Node(),  # noqa: B008 (frozen)
    prices: Prices | None = None,
) -> list[Estimate]:
    """Estimate the resources of codes, and of every measured method for dense vectors.

    Args:
        workload: the catalog and its load.
        constants: constants from `load_constants`.
        node: the machines to plan for.
        prices: prices of resources; None leaves out the costs.

    Returns:
        The estimate of codes that are searched by the graph, that of codes searched by their inverted index (one of
        them if the workload names its first stage), then those of dense vectors.
    """
    graph = [_graph(workload, constants, node, prices)] if workload.first_stage != "codes" else []
    codes = [_codes(workload, constants, node, prices)] if workload.first_stage != "graph" else []
    return graph + codes + [_dense(workload, costs, constants, node, prices) for costs in constants.dense]


def item_ms(workload: Workload, constants: Constants) -> float:
    """Milliseconds of a core that the first stage by codes takes per item of a segment."""
    return search_costs.item_ms(constants.times, workload.latents, workload.k, workload.plan[0])


def shard_ms(workload: Workload, constants: Constants) -> float:
    """Milliseconds of a core that a search by codes takes on a shard of any size: the query itself and rescoring."""
    times, (_, candidates) = constants.times, workload.plan
    query = times.fixed + times.latent * workload.latents
    return query + search_costs.rescoring_ms(times, workload.latents) * candidates


def search_ms(workload: Workload, constants: Constants, shards: int, segments: int) -> float:
    """Median latency of a search by codes over one shard of several in ms, with one core for each of its segments."""
    times = constants.times
    query = times.fixed + times.latent * workload.latents
    rescoring = shard_ms(workload, constants) - query
    return query + rescoring / segments + item_ms(workload, constants) * workload.items / (shards * segments)


def graph_ms(workload: Workload, constants: Constants, shards: int) -> float:
    """Milliseconds of a core that a search by the graph takes on one shard of several."""
    return search_costs.graph_ms(
        constants.search, workload.items / shards, workload.latents, workload.graph_plan, navigation_dim(workload),
        by_embeddings=workload.keep_dense,
    )  # fmt: skip


def spread(constants: Constants, parts: int) -> float:
    """Ratio of the median time of the slowest of several parts to the median time of one, for log-logistic times."""
    return math.pow(math.pow(2, 1 / parts) - 1, -constants.times.spread)


def _codes(workload: Workload, constants: Constants, node: Node, prices: Prices | None) -> Estimate:
    times, free = constants.times, 1 - node.headroom
    per_item = item_ms(workload, constants)
    # A query takes A * items + B * shards ms. Replicas are chosen so that B takes at most half of the processors, then
    # shards so that the other half is enough for A.
    per_shard = shard_ms(workload, constants) + times.segment * (node.vcpus - 1)
    rate = workload.queries_per_second / (1000 * free * node.vcpus)
    replicas = max(workload.replicas, math.ceil(2 * rate * per_shard))
    full_segments = max(1, math.ceil(workload.items / SEGMENT_ITEMS))
    tables = constants.bytes.item * workload.items
    shards = max(
        math.ceil((tables + index_bytes(workload, constants, full_segments)) / (node.ram_gib * GIB * free)),
        math.ceil(rate * per_item * workload.items / (replicas - rate * per_shard)),
    )
    segments = max(1, min(node.vcpus, workload.items // (shards * SEGMENT_ITEMS)))
    index = index_bytes(workload, constants, shards * segments)
    is_default_plan = workload.first_stage_latents in (None, FIRST_STAGE) and workload.prefetch is None
    known = constants.codes_recall100 if _was_measured(workload) and is_default_plan else {}
    candidates = workload.plan[1]
    embeddings = min(dense_candidates_of(workload.limit), candidates) if workload.keep_dense else 0
    return _estimate(
        f"codes k={workload.k}, h={workload.latents}, {workload.datatype}",
        workload, constants, node, prices, index, tables, index + item_bytes(workload, constants) * workload.items,
        replicas, shards, segments,
        planning_ms(workload, constants)
        + search_ms(workload, constants, shards, segments) * spread(constants, shards * segments),
        per_item * workload.items + shards * (shard_ms(workload, constants) + times.segment * (segments - 1)),
        candidates, pages_read(workload, constants, candidates, embeddings), _of_k(known, workload),
    )  # fmt: skip


def _graph(workload: Workload, constants: Constants, node: Node, prices: Prices | None) -> Estimate:
    """Codes whose candidates the graph finds; the inverted index is cold, and a segment has all items of its shard."""
    free, items = 1 - node.headroom, workload.items
    tables = constants.bytes.item * items
    most = vector_bytes(workload, constants) + link_bytes(workload, constants, items)
    shards = math.ceil((most * items + tables) / (node.ram_gib * GIB * free))
    graph = vector_bytes(workload, constants) + link_bytes(workload, constants, items / shards)
    disk = (
        index_bytes(workload, constants, shards) / items
        + item_bytes(workload, constants)
        + graph_disk_bytes(workload, constants, items / shards)
    )
    one = graph_ms(workload, constants, shards)
    candidates, _, compared = workload.graph_plan
    defaults = Workload(items=items, dim=workload.dim, limit=workload.limit)
    settings = ("navigation_dim", "navigation_bits", "navigation_m", "navigation_datatype", "prefetch", "navigation_ef")
    is_default = all(getattr(workload, name) == getattr(defaults, name) for name in settings)
    known = constants.graph_recall100 if _was_measured(workload) and is_default else {}
    makes_vector = not workload.keep_dense and candidates > RESCORED_HERE
    by_codes, by_embeddings = (0, candidates) if workload.keep_dense else (candidates, 0)
    return _estimate(
        f"codes k={workload.k}, h={workload.latents}, graph",
        workload, constants, node, prices, graph * items, tables, disk * items,
        _replicas(workload, one, node), shards, 1,
        (planning_ms(workload, constants) if makes_vector else constants.times.planning)
        + one * spread(constants, shards),
        one * shards,
        candidates + compared, pages_read(workload, constants, by_codes, by_embeddings, compared),
        _of_k(known, workload),
    )  # fmt: skip


def _dense(workload: Workload, costs: DenseCosts, constants: Constants, node: Node, prices: Prices | None) -> Estimate:
    free = 1 - node.headroom
    index_item = costs.resident_item + costs.resident_dimension * workload.dim
    tables = constants.bytes.item * workload.items
    disk_item = costs.disk_item + costs.disk_dimension * workload.dim + payload_bytes(workload, constants)
    shards = math.ceil((index_item * workload.items + tables) / (node.ram_gib * GIB * free))
    depth = math.log(max(workload.items / shards, 2))
    one = costs.fixed + (costs.log_item + costs.log_item_dimension * workload.dim) * depth
    return _estimate(
        costs.name, workload, constants, node, prices, index_item * workload.items, tables, disk_item * workload.items,
        _replicas(workload, one, node), shards, 1, one * spread(constants, shards), one * shards,
        costs.originals * workload.limit, dense_pages(workload, costs), _nearest(costs.recall100, workload.dim),
    )  # fmt: skip


def planning_ms(workload: Workload, constants: Constants) -> float:
    """Milliseconds of the client to plan a query that the engine ranks by codes."""
    times = constants.times
    return times.planning + (times.planning_latent + times.planning_product * workload.dim) * workload.latents


def _replicas(workload: Workload, shard_ms: float, node: Node) -> int:
    """Copies that carry the queries, if a query takes so many milliseconds on each shard, which has a node."""
    needed = workload.queries_per_second * shard_ms / (1000 * (1 - node.headroom) * node.vcpus)
    return max(workload.replicas, math.ceil(needed))


def _was_measured(workload: Workload) -> bool:
    """Whether recalls of such codes are known."""
    return workload.latents == Workload.latents and not workload.keep_dense


def _of_k(known: dict[str, float], workload: Workload) -> float | None:
    """The recall of codes of this length, by "k,dimensions"."""
    by_dim = {key.split(",")[1]: value for key, value in known.items() if key.split(",")[0] == str(workload.k)}
    return _nearest(by_dim, workload.dim)


def _estimate(
    name: str, workload: Workload, constants: Constants, node: Node, prices: Prices | None, index: float, tables: float,
    disk: float, replicas: int, shards: int, segments: int, p50: float, cpu: float, reads: int, pages: float,
    recall: float | None,
) -> Estimate:  # fmt: skip
    nodes, resident = replicas * shards, index + tables
    busy = workload.queries_per_second * cpu / 1000
    usd = usd_nodes = None
    if prices is not None:
        disk_usd = replicas * disk / GIB * prices.disk_gib
        usd = disk_usd + replicas * resident / GIB * prices.ram_gib + busy * prices.vcpu
        usd_nodes = disk_usd + nodes * (node.ram_gib * prices.ram_gib + node.vcpus * prices.vcpu)
    return Estimate(
        name=name, index_bytes=index, resident_bytes=resident, disk_bytes=disk, replicas=replicas, shards=shards,
        segments=segments, nodes=nodes, p50_ms=p50, cpu_ms=cpu, queries_per_core=1000 / cpu,
        utilisation=busy / (nodes * node.vcpus), disk_reads=reads,
        read_bytes=PAGE * pages, cold_ms=p50 + constants.disk.page_ms * pages / segments, recall100=recall,
        usd=usd, usd_nodes=usd_nodes,
    )  # fmt: skip


def _nearest(measured: dict[str, float], dim: int) -> float | None:
    return min(((abs(int(d) - dim), value) for d, value in measured.items()), default=(0, None))[1]
