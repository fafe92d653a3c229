"""Settings of an index, which are stored with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

from ..checks import check_choice, check_flag, check_number, check_sequence, check_text, check_whole, shown
from ..codes import Scale
from ..errors import ConfigError
from .text import TextFields, TextSettings, text_settings

__all__ = [
    "NAVIGATION_BITS", "NAVIGATION_DIM", "Datatype", "DenseDatatype", "FieldType", "IndexSettings", "Memory",
    "NavigationDatatype", "NavigationSettings", "ShardKey",
]  # fmt: skip

ShardKey = int | str
"""Name of a shard in a collection with custom sharding."""

Datatype = Literal["float32", "float16", "uint8"]
DenseDatatype = Literal["float16", "turbo8", "turbo4"]
NavigationDatatype = Literal["float16", "turbo4"]
Memory = Literal["pinned", "cached", "cold"]
FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "text", "uuid", "geo"]


NAVIGATION_BITS = (1, 1.5, 2, 4)
"""Bits per dimension that the engine's TurboQuant offers."""
NAVIGATION_DIM = 256
"""Default dimensions of navigation vectors, if the embeddings have as many."""
_FULL_SCAN_KB: Final[Mapping[NavigationDatatype, int]] = {"float16": 10_000, "turbo4": 2_500}


@dataclass(frozen=True)
class NavigationSettings:
    """Settings of the navigation vectors: short quantised vectors with an HNSW graph, which find candidates in a time
    that grows slowly with the catalog: 1.2 to 1.5 times for 16 times the items. Codes rank the candidates."""

    dim: int | None = None
    """Dimensions of a navigation vector, at most those of the embeddings and 256. None takes 256, or the embeddings'
    dimensions if those are fewer. Measured on 63,666 items; see EXPERIMENTS.md."""
    bits: float = 1
    """Bits per dimension in memory: 1, 1.5, 2 or 4. The vector itself is kept on disk; searches compare the best nodes
    by it (`SearchOptions.navigation_candidates`)."""
    datatype: NavigationDatatype = "float16"
    """How the vector is stored on disk: "float16" takes 2 bytes per dimension, "turbo4" half a byte (the engine's
    TurboQuant; servers need Qdrant 1.19), at up to 0.003 less recall@100 (EXPERIMENTS.md)."""
    m: int = 8
    """Links per item and layer of the graph; the lowest layer has 2 m. Vectors of 256 dimensions and 1 bit with their
    graph take 73 bytes an item at m=8 and 92 at m=16 (63,666 items)."""
    ef_construct: int = 256
    """Candidates that are considered for the links of an item when the graph is built. Building with 256 takes a third
    longer than with 128; m=8 with 256 has the recall of m=10 with 128."""
    payload_m: int | None = None
    """Links per item among the items of each value of an indexed payload field (`IndexSettings.payload_fields`,
    `tenant_field`), for values that more than 20,000 items and at most about a third of them have. Filters by these
    fields then find as much as searches without one. They add up to 4 bytes a link to the memory; None takes `m`, and 0
    leaves them out."""
    memory: Memory = "pinned"
    """Where quantised vectors and graph are kept: pinned in RAM, in the page cache, or cold on disk."""

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("m", 1), ("ef_construct", 1), ("payload_m", 0)):
            if name in ("m", "ef_construct") or getattr(self, name) is not None:
                number = check_whole(f"navigation {name}", getattr(self, name), least, error=ConfigError)
                object.__setattr__(self, name, number)
        object.__setattr__(self, "bits", check_number("navigation bits", self.bits, error=ConfigError))
        if self.bits not in NAVIGATION_BITS:
            raise ConfigError(
                f"navigation bits are {self.bits:g}; they must be one of {', '.join(map(str, NAVIGATION_BITS))}"
            )
        if not 2 <= self.m <= 128:
            raise ConfigError(f"navigation m is {self.m}; it must be from 2 to 128")
        if self.ef_construct < 4:
            raise ConfigError(f"navigation ef_construct is {self.ef_construct}; it must be at least 4")
        check_choice("navigation memory", self.memory, get_args(Memory), error=ConfigError)
        check_choice("navigation datatype", self.datatype, get_args(NavigationDatatype), error=ConfigError)

    @property
    def links_of_values(self) -> int:
        """`payload_m`, or its default."""
        return self.m if self.payload_m is None else self.payload_m

    @property
    def full_scan_kb(self) -> int:
        """KB of stored vectors below which the engine compares the items that match a filter one by one, exactly,
        instead of walking the graph: the same number of items for each datatype."""
        return _FULL_SCAN_KB[self.datatype]


@dataclass(frozen=True)
class IndexSettings:
    """Engine settings of one index, fixed when it is created."""

    datatype: Datatype = "uint8"
    """How the inverted index stores values. uint8 is scaled for each posting list. Measured on 63,666 items at k=32:
    float32 183 bytes per item, uint8 100, with no loss of recall@100."""
    memory: Memory | None = None
    """Where the inverted index is kept: pinned in RAM, in the page cache, or cold on disk. None takes "cold" with
    navigation, which rarely reads it, and "pinned" without."""
    navigation: NavigationSettings | None = NavigationSettings()
    """Navigation vectors and their graph, which find the candidates of a search; None leaves them out, so that every
    search walks the inverted index."""
    full_scan_threshold: int = 16
    """If at most this many items match a filter, the first stage by codes looks each of them up in the posting list of
    every latent of the query, and does not walk the lists. Rescoring is not affected. On 63,666 items half of which
    match, a search took 6 ms with 16 and 317 ms with 100,000."""
    segments: int = 1
    """Number of segments that optimisation aims for. One answers a single query fastest; one per core serves the most
    queries."""
    scale: Scale = "projection"
    """Scale of the stored values. "projection" ranks best; "reconstruction" makes scores cosines of reconstructions, as
    in the paper; "code" makes `sparse` scoring exactly the cosine of the codes."""
    keep_dense: bool = False
    """Whether to keep each item's dense embedding, on disk and without a graph. Searches then rescore their best
    candidates by it. It takes no memory. A name of `dense_datatype` stands for True and that datatype."""
    dense_datatype: DenseDatatype = "float16"
    """How the embeddings of `keep_dense` are stored: "float16" takes 2 d bytes per item, "turbo8" d and "turbo4" d / 2
    (the engine's TurboQuant; servers need Qdrant 1.19 for "turbo4" and 1.20 for "turbo8")."""
    tenant_field: str | None = None
    """Payload field that names the tenant of an item. It is indexed so that a tenant's items are stored together; a
    retriever with `tenant=` finds that tenant's items only."""
    payload_fields: Mapping[str, FieldType] = field(default_factory=dict)
    """Payload fields to index for fast filters."""
    text_fields: TextFields = field(default_factory=dict)
    """Payload fields of texts that searches with `text=` rank by BM25: names, or names with `TextSettings` or a
    language. Needs the embedded engine, Qdrant 1.20 or newer, or the client's local mode."""
    shards: int = 1
    """Server only: shards of the collection."""
    replicas: int = 1
    """Server only: copies of each shard."""
    write_consistency: int = 1
    """Server only: replicas that must confirm a write."""
    shard_keys: Sequence[ShardKey] = ()
    """Server only: keys of custom sharding; `shards` is then the number of shards for each key. Items are written
    through `of_shard(key)`; searches cover all keys unless they use it too."""

    def __post_init__(self) -> None:
        check_sequence("shard_keys", self.shard_keys, error=ConfigError)
        object.__setattr__(self, "shard_keys", tuple(map(_shard_key, self.shard_keys)))
        object.__setattr__(self, "navigation", _navigation(self.navigation))
        object.__setattr__(self, "text_fields", text_settings(self.text_fields))
        if isinstance(self.keep_dense, str):
            object.__setattr__(self, "dense_datatype", self.keep_dense)
            object.__setattr__(self, "keep_dense", True)
        if self.memory is None:
            object.__setattr__(self, "memory", "pinned" if self.navigation is None else "cold")
        if len(set(self.shard_keys)) != len(self.shard_keys):
            raise ConfigError(f"shard_keys are {', '.join(map(repr, self.shard_keys))}; each key may occur once")
        if self.tenant_field is not None:
            check_text("tenant_field", self.tenant_field, error=ConfigError)
        if not isinstance(self.payload_fields, Mapping):
            raise ConfigError(f"payload_fields are {shown(self.payload_fields)}; pass a mapping of names to types")
        for name in self.payload_fields:
            check_text("the name of a payload field", name, error=ConfigError)
        if both := sorted({*self.payload_fields, self.tenant_field} & {*self.texts}, key=str):
            raise ConfigError(
                f"field {both[0]!r} is in text_fields and also indexed for filters; a field has one index, so store "
                "the text a second time under another name"
            )
        for name in ("segments", "shards", "replicas", "write_consistency", "full_scan_threshold"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, error=ConfigError))
        object.__setattr__(self, "keep_dense", check_flag("keep_dense", self.keep_dense, error=ConfigError))
        chosen: list[tuple[str, str | None, tuple[str, ...]]] = [
            ("datatype", self.datatype, get_args(Datatype)),
            ("memory", self.memory, get_args(Memory)),
            ("dense_datatype", self.dense_datatype, get_args(DenseDatatype)),
            ("scale", self.scale, get_args(Scale)),
            *((f"payload_fields[{name!r}]", kind, get_args(FieldType)) for name, kind in self.payload_fields.items()),
        ]
        for name, value, allowed in chosen:
            check_choice(name, value, allowed, error=ConfigError)

    @property
    def linked_fields(self) -> set[str]:
        """Payload fields whose values have links of their own in the graph: indexed ones that are not texts."""
        if self.navigation is None or not self.navigation.links_of_values:
            return set()
        fields = {name for name, kind in self.payload_fields.items() if kind != "text"}
        return fields if self.tenant_field is None else fields | {self.tenant_field}

    @property
    def texts(self) -> Mapping[str, TextSettings]:
        """`text_fields` with the settings of each field."""
        return cast("Mapping[str, TextSettings]", self.text_fields)


def _shard_key(key: object) -> ShardKey:
    if isinstance(key, str):
        return check_text("a shard key", key, error=ConfigError)
    return check_whole("a shard key", key, 0, 2**64 - 1, error=ConfigError)


def _navigation(value: NavigationSettings | Mapping[str, Any] | bool | None) -> NavigationSettings | None:
    """Navigation settings as given, or read from JSON or TOML, where false means none."""
    if value is None or isinstance(value, bool):
        return NavigationSettings() if value else None
    if isinstance(value, Mapping):
        try:
            return NavigationSettings(**value)
        except TypeError as exc:
            raise ConfigError(f"navigation settings {dict(value)!r} have an unknown name ({exc})") from exc
    if not isinstance(value, NavigationSettings):
        raise ConfigError(f"navigation is {shown(value)}; it must be NavigationSettings or None")
    return value
