"""What to plan for: the catalog with its load, the machines, and their prices."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self, get_args

from ..errors import ConfigError
from ..index.settings import Datatype, DenseDatatype, NavigationDatatype, NavigationSettings
from ..model.projection import MAX_DIM
from ..search.defaults import FIRST_STAGE, GraphSizes, candidates_of, default_plan, graph_sizes, is_usually_fine

__all__ = ["Node", "PlannedStage", "Prices", "Workload"]

PlannedStage = Literal["graph", "codes"]
"""First stage of an estimate; see `Workload.first_stage`."""


@dataclass(frozen=True)
class Workload:
    """The catalog to serve, its codes, and its load."""

    items: int
    """Items of the catalog."""
    dim: int
    """Dimensions (d) of the dense embeddings."""
    k: int = 44
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
    first_stage: PlannedStage | None = None
    """First stage of the estimate: "graph" (navigation vectors and graph in memory, the inverted index on disk) or
    "codes" (the inverted index in memory). None estimates both."""
    first_stage_latents: int | None = None
    """Latents of a first stage by codes, at most h; None takes those of the default plan."""
    prefetch: int | None = None
    """Candidates that are rescored; None takes those of the default plan of each first stage."""
    navigation_ef: int | None = None
    """Nodes that the search of the graph keeps; None takes the default of a search."""
    navigation_dim: int | None = None
    """Dimensions of a navigation vector; None takes the default, 256 or those of the embeddings if they are fewer."""
    navigation_bits: float = NavigationSettings.bits
    """Bits per dimension of a navigation vector: 1, 1.5, 2 or 4."""
    navigation_m: int = NavigationSettings.m
    """Links of the graph per item and layer."""
    navigation_datatype: NavigationDatatype = NavigationSettings.datatype
    """How navigation vectors are stored on disk: "float16" takes 2 bytes per dimension, "turbo4" 0.5."""
    keep_dense: bool = False
    """Whether embeddings are kept on disk with the codes."""
    dense_datatype: DenseDatatype = "float16"
    """How they are stored: "float16" takes 2 bytes per dimension, "turbo8" 1 and "turbo4" 0.5."""

    def __post_init__(self) -> None:
        for name in (
            "items", "dim", "k", "latents", "replicas", "limit", "first_stage_latents", "prefetch", "navigation_ef",
        ):  # fmt: skip
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
        if self.dense_datatype not in get_args(DenseDatatype):
            raise ConfigError(
                f"dense_datatype is {self.dense_datatype!r}; it must be one of {', '.join(get_args(DenseDatatype))}"
            )
        if self.first_stage not in (None, *get_args(PlannedStage)):
            raise ConfigError(
                f"first_stage is {self.first_stage!r}; it must be one of {', '.join(get_args(PlannedStage))}, or None "
                "to estimate both"
            )
        NavigationSettings(
            dim=self.navigation_dim, bits=self.navigation_bits, m=self.navigation_m, datatype=self.navigation_datatype
        )
        if self.navigation_dim is not None and self.navigation_dim > min(self.dim, MAX_DIM):
            raise ConfigError(
                f"navigation_dim is {self.navigation_dim}; it must be at most {min(self.dim, MAX_DIM)}: the "
                f"embeddings have {self.dim} dimensions, and navigation vectors have {MAX_DIM} or fewer"
            )

    @property
    def graph_plan(self) -> GraphSizes:
        """What a search by the graph for `limit` hits looks at."""
        fine = is_usually_fine(self.navigation_dim, self.dim)
        return graph_sizes(
            self.limit, items=self.items, fine=fine, keep_dense=self.keep_dense, prefetch=self.prefetch,
            ef=self.navigation_ef,
        )  # fmt: skip

    @property
    def plan(self) -> tuple[int, int]:
        """First-stage latents and candidates of a search by codes for `limit` hits."""
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
