"""Estimate the memory, disk, processors and costs of a catalog by closed formulas over measured constants.

The formulas neither iterate nor read data, so that the calculator of the report can repeat them in a browser.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self, get_args

from ..errors import ConfigError
from ..index.settings import Datatype
from ..search.defaults import FIRST_STAGE, candidates_of, default_plan
from .constants import Constants, DenseCosts

__all__ = ["GIB", "Estimate", "Node", "Prices", "Workload", "plan"]

GIB: Final = 1024**3
BLOCK: Final = 128
"""Postings per block of the engine."""
VISIT_ITEMS: Final = 10_000
"""Items per block of the engine's scoring, which visits all lists of a query for each block."""
TEXT_WORD_BYTES: Final = 3.3
"""Bytes on disk of a text index for each word of an item's field, measured by `scripts/bench_hybrid.py` on 63,666 items
of 48 words."""
SEGMENT_ITEMS: Final = 1_000_000
"""Minimum items of a segment when codes are spread over the cores of a node. Smaller segments save little time, and
their short lists fill few blocks."""


@dataclass(frozen=True)
class Workload:
    """The catalog to serve, its codes, and its load."""

    items: int
    """Items of the catalog."""
    dim: int
    """Dimensions (d) of the dense embeddings."""
    k: int = 32
    """Non-zeros of a code."""
    latents: int = 4096
    """Latents (h) of the model."""
    datatype: Datatype = "uint8"
    """Datatype of index values."""
    payload_bytes: float = 0
    """Mean bytes of an item's payload as JSON."""
    text_words: float = 0
    """Mean words of an item in the payload fields that are searched for words (`IndexSettings.text_fields`)."""
    replicas: int = 1
    """Minimum copies of everything; more are planned if the queries need them."""
    queries_per_second: float = 0
    """Queries per second at the peak."""
    limit: int = 10
    """Hits per query."""
    first_stage_latents: int | None = None
    """Latents of the first stage, at most h; None takes those of the default plan."""
    prefetch: int | None = None
    """Candidates that are rescored; None takes those of the default plan."""
    keep_dense: bool = False
    """Whether embeddings are kept on disk with the codes, as float16."""

    def __post_init__(self) -> None:
        for name in ("items", "dim", "k", "latents", "replicas", "limit", "first_stage_latents", "prefetch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        for name in ("payload_bytes", "text_words", "queries_per_second"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.prefetch is not None and self.prefetch < self.limit:
            raise ConfigError(
                f"prefetch is {self.prefetch} but limit is {self.limit}; rescoring needs at least as many candidates"
            )
        if self.k > self.latents:
            raise ConfigError(
                f"k is {self.k} but there are {self.latents} latents; k must be at most the number of latents"
            )
        if self.datatype not in get_args(Datatype):
            raise ConfigError(f"datatype is {self.datatype!r}; it must be one of {', '.join(get_args(Datatype))}")

    @property
    def plan(self) -> tuple[int, int]:
        """First-stage latents and candidates of a search for `limit` hits."""
        if self.first_stage_latents is None and self.prefetch is None:
            first_stage_latents, prefetch = default_plan(self.items, self.limit, self.k, keep_dense=self.keep_dense)
        else:
            first_stage_latents = self.first_stage_latents or FIRST_STAGE
            prefetch = self.prefetch or candidates_of(self.limit, self.k, keep_dense=self.keep_dense)
        return min(first_stage_latents, self.latents), prefetch


@dataclass(frozen=True)
class Node:
    """A machine that serves shards."""

    ram_gib: float = 64
    """Memory, GiB."""
    vcpus: int = 16
    """Number of vCPUs."""
    headroom: float = 0.25
    """Share of memory and processors left free for the system, segment rebuilds and peaks."""

    def __post_init__(self) -> None:
        if self.ram_gib <= 0 or self.vcpus < 1 or not 0 <= self.headroom < 1:
            raise ConfigError(
                f"a node has {self.ram_gib} GiB, {self.vcpus} vCPUs and headroom {self.headroom}; memory must be "
                "positive, vCPUs at least 1, headroom in [0, 1)"
            )


@dataclass(frozen=True)
class Prices:
    """Prices of resources, in USD per month."""

    ram_gib: float
    """Per GiB of memory."""
    disk_gib: float
    """Per GiB of disk."""
    vcpu: float
    """Per vCPU."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"price {field.name} is {value!r}; it must be a number of USD per month, at least 0")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a TOML file of `ram_gib`, `disk_gib` and `vcpu`.

        Raises:
            ConfigError: the file cannot be read, lacks a price, or has an unknown one.
        """
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{file} is not a TOML file of prices ({exc})") from exc
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise ConfigError(
                f"{file} has the prices {', '.join(sorted(data)) or '(none)'}; it must have "
                f"{', '.join(sorted(names))}, in USD per month for a GiB of memory, a GiB of disk and a vCPU"
            )
        return cls(**data)


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
    recall100: float | None
    """Recall@100 of the default plan on the benchmark's catalog (63,666 items) at the nearest dimensions; None if these
    settings were not measured or the workload has another plan."""
    usd: float | None
    """USD per month for memory and disk of all copies, and for the processors that the queries keep busy."""
    usd_nodes: float | None
    """USD per month for whole nodes, and for the disk of all copies."""


def plan(workload: Workload, constants: Constants, node: Node = Node(), prices: Prices | None = None) -> list[Estimate]:
    """Estimate the resources of codes, and of every measured method for dense vectors.

    Args:
        workload: the catalog and its load.
        constants: constants from `load_constants`.
        node: the machines to plan for.
        prices: prices of resources; None leaves out the costs.

    Returns:
        The estimate of codes, then those of dense vectors.
    """
    return [_codes(workload, constants, node, prices)] + [
        _dense(workload, costs, constants, node, prices) for costs in constants.dense
    ]


def index_bytes(workload: Workload, constants: Constants, segments: int) -> float:
    """Bytes of the posting lists of one copy, whose segments each have their own lists."""
    size, lists = constants.bytes, segments * workload.latents
    length = workload.items * workload.k / lists
    loose = loose_postings(length, size.loose_sharpness)
    packed = size.packed[workload.datatype] + math.log2(workload.latents / workload.k) / 8
    return lists * (size.list + loose * size.loose + (length - loose) * packed)


def loose_postings(length: float, sharpness: float) -> float:
    """Expected postings of a list outside full blocks: all of a short list, half a block of a long one."""
    half = BLOCK / 2
    return half * length / math.pow(math.pow(length, sharpness) + math.pow(half, sharpness), 1 / sharpness)


def item_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk per item, without its postings: code, payload, embedding and tables."""
    size = constants.bytes
    code = size.code + (size.code_nonzero + size.code_nonzero_bit * math.log2(workload.latents)) * workload.k
    dense = size.dense_dimension * workload.dim if workload.keep_dense else 0
    return size.disk_item + size.cell * math.ceil(code / size.cell) + payload_bytes(workload, constants) + dense


def payload_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk of an item's payload and of the text index of its words."""
    words = TEXT_WORD_BYTES * workload.text_words
    if not workload.payload_bytes:
        return words
    return constants.bytes.payload_item + constants.bytes.payload * workload.payload_bytes + words


def item_ms(workload: Workload, constants: Constants) -> float:
    """Milliseconds of a core that the first stage takes per item of a segment."""
    times, (first, _) = constants.times, workload.plan
    postings = workload.k * math.pow(first / workload.latents, times.share_exponent)
    return times.item + times.posting * postings + times.visit * first / VISIT_ITEMS


def shard_ms(workload: Workload, constants: Constants) -> float:
    """Milliseconds of a core that a search takes on a shard of any size: the query itself and rescoring."""
    times, (_, candidates) = constants.times, workload.plan
    query = times.fixed + times.latent * workload.latents
    return query + (times.candidate + times.candidate_latent * workload.latents) * candidates


def search_ms(workload: Workload, constants: Constants, shards: int, segments: int) -> float:
    """Median latency of a search over one shard of several in ms, with one core for each of its segments."""
    times = constants.times
    query = times.fixed + times.latent * workload.latents
    rescoring = shard_ms(workload, constants) - query
    return query + rescoring / segments + item_ms(workload, constants) * workload.items / (shards * segments)


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
    planning = times.planning + (times.planning_latent + times.planning_product * workload.dim) * workload.latents
    is_default_plan = workload.first_stage_latents in (None, FIRST_STAGE) and workload.prefetch is None
    was_measured = workload.latents == Workload.latents and is_default_plan
    known = constants.codes_recall100 if was_measured and not workload.keep_dense else {}
    recall_by_dim = {key.split(",")[1]: value for key, value in known.items() if key.split(",")[0] == str(workload.k)}
    return _estimate(
        f"codes k={workload.k}, h={workload.latents}, {workload.datatype}",
        workload, node, prices, index, tables, index + item_bytes(workload, constants) * workload.items,
        replicas, shards, segments,
        planning + search_ms(workload, constants, shards, segments) * spread(constants, shards * segments),
        per_item * workload.items + shards * (shard_ms(workload, constants) + times.segment * (segments - 1)),
        workload.plan[1], _nearest(recall_by_dim, workload.dim),
    )  # fmt: skip


def _dense(workload: Workload, costs: DenseCosts, constants: Constants, node: Node, prices: Prices | None) -> Estimate:
    free = 1 - node.headroom
    index_item = costs.resident_item + costs.resident_dimension * workload.dim
    tables = constants.bytes.item * workload.items
    disk_item = costs.disk_item + costs.disk_dimension * workload.dim + payload_bytes(workload, constants)
    shards = math.ceil((index_item * workload.items + tables) / (node.ram_gib * GIB * free))
    depth = math.log(max(workload.items / shards, 2))
    shard_ms_median = costs.fixed + (costs.log_item + costs.log_item_dimension * workload.dim) * depth
    cpu = shard_ms_median * shards
    replicas = max(
        workload.replicas, math.ceil(workload.queries_per_second * cpu / (1000 * free * node.vcpus * shards))
    )
    return _estimate(
        costs.name, workload, node, prices, index_item * workload.items, tables, disk_item * workload.items,
        replicas, shards, 1, shard_ms_median * spread(constants, shards), cpu, costs.originals * workload.limit,
        _nearest(costs.recall100, workload.dim),
    )  # fmt: skip


def _estimate(
    name: str, workload: Workload, node: Node, prices: Prices | None, index: float, tables: float, disk: float,
    replicas: int, shards: int, segments: int, p50: float, cpu: float, reads: int, recall: float | None,
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
        utilisation=busy / (nodes * node.vcpus), disk_reads=reads, recall100=recall, usd=usd, usd_nodes=usd_nodes,
    )  # fmt: skip


def _nearest(measured: dict[str, float], dim: int) -> float | None:
    return min(((abs(int(d) - dim), value) for d, value in measured.items()), default=(0, None))[1]
