"""What every index of codes offers, and the engine-neutral values that go in and come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray, Scale, SparseCodes
from ..errors import ConfigError, InvalidInputError
from ..explanation import Explanation
from ..query_vector import QueryVector

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = [
    "AsyncCodeIndex",
    "CodeIndex",
    "CodeModel",
    "Hit",
    "HitOrigin",
    "IndexInfo",
    "IndexSettings",
    "ItemId",
    "QueryPlan",
    "QueryVector",
    "Record",
    "ShardKey",
    "all_pages",
]

ItemId = int | str
"""An item's id as the catalog has it. Ids that are no point id of Qdrant are mapped; see `index.ids`."""

ShardKey = int | str
"""Name of a part of a collection that is sharded by hand."""

Payload = Mapping[str, Any]
Datatype = Literal["float32", "float16", "uint8"]
Memory = Literal["pinned", "cached", "cold"]
FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "text", "uuid"]


class CodeModel(Protocol):
    """What an index needs to know of the model whose codes it holds."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def latents(self) -> int: ...
    @property
    def dim(self) -> int: ...


@dataclass(frozen=True)
class IndexSettings:
    """Engine settings of one index. They are fixed when the index is created, and stored with it."""

    datatype: Datatype = "uint8"
    """How the inverted index stores values. uint8 is affine for each posting list. Measured on 63,666 items at k=32:
    float32 183 bytes an item, uint8 100, with no loss of recall@100."""
    memory: Memory = "pinned"
    """Where the inverted index lives: pinned in RAM, in the page cache, or cold on disk."""
    full_scan_threshold: int = 100_000
    """Candidates of a filter up to which the engine scores them one by one from stored vectors instead of walking
    postings. Must exceed the largest prefetch, or rescoring turns into an index walk."""
    segments: int = 1
    """Segments that optimisation aims for. One segment answers a single query fastest; use one per core for load."""
    scale: Scale = "projection"
    """Of stored values. "projection" ranks best; "reconstruction" makes scores cosines of reconstructions, as the paper
    has them; "code" makes `sparse` scoring exactly the cosine of the codes."""
    keep_dense: bool = False
    """Keep each item's dense embedding too: float16, on disk, without a graph. Searches then rescore their last
    candidates by it. Memory stays that of the codes; disk grows by 2 d bytes an item."""
    tenant_field: str | None = None
    """Payload field that names the tenant of an item. It is indexed so that a tenant's items lie together; a
    retriever with `tenant=` sees that tenant's items only."""
    payload_fields: Mapping[str, FieldType] = field(default_factory=dict)
    """Payload fields to index for fast filters."""
    shards: int = 1
    """Server only: shards of the collection."""
    replicas: int = 1
    """Server only: copies of each shard."""
    write_consistency: int = 1
    """Server only: replicas that must confirm a write."""
    shard_keys: Sequence[ShardKey] = ()
    """Server only: keys of custom sharding; `shards` is then the number for each key. Items are written through
    `of_shard(key)`; searches cover all keys unless they go that way too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shard_keys", tuple(self.shard_keys))
        if len(set(self.shard_keys)) != len(self.shard_keys):
            raise ConfigError(f"shard_keys are {', '.join(map(repr, self.shard_keys))}; each is named once")
        for name in ("segments", "shards", "replicas", "write_consistency", "full_scan_threshold"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        chosen: list[tuple[str, str, tuple[str, ...]]] = [
            ("datatype", self.datatype, get_args(Datatype)),
            ("memory", self.memory, get_args(Memory)),
            ("scale", self.scale, get_args(Scale)),
            *((f"payload_fields[{name!r}]", kind, get_args(FieldType)) for name, kind in self.payload_fields.items()),
        ]
        for name, value, allowed in chosen:
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class QueryPlan:
    """One query as an engine runs it: candidates by `first_stage`, then an exact rescoring of them by `rescoring`."""

    first_stage: QueryVector
    """Scored against the inverted index, over all items that pass the filter."""
    rescoring: QueryVector | None
    """Scored against the stored float32 values of the candidates; None returns the first stage's own scores."""
    limit: int
    """Hits to return."""
    prefetch: int
    """Candidates to rescore; at least `limit`."""
    filter: models.Filter | None = None
    """Restricts both stages to items whose payload matches."""
    with_payload: bool = True
    """Whether hits carry their payload."""
    rescore_in_engine: bool = True
    """False fetches the candidates' codes and rescores them here; the same ranking, for checks and old engines."""
    dense: FloatArray | None = None
    """(d,) the query itself: the best `dense_candidates` of the rescoring are scored once more, by the embeddings that
    an index with `keep_dense` has on disk. None leaves that out."""
    dense_candidates: int = 0
    """From `limit` to `prefetch`."""
    least: float | None = None
    """A candidate's product of its stored float32 values with `first_stage` must be at least this. So a first stage
    that is a concept restricts the search to the items that have it; None lets all candidates pass."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InvalidInputError(f"limit is {self.limit}; ask for at least 1 hit")
        if self.prefetch < self.limit:
            raise InvalidInputError(f"prefetch is {self.prefetch} and limit {self.limit}; prefetch must be >= limit")
        if self.dense is not None and not self.limit <= self.dense_candidates <= self.prefetch:
            raise InvalidInputError(
                f"dense_candidates is {self.dense_candidates}; it must be from limit ({self.limit}) to prefetch "
                f"({self.prefetch})"
            )
        if self.dense is not None and (self.rescoring is None or not self.rescore_in_engine):
            raise InvalidInputError(
                "dense embeddings rescore what the engine rescored; give the plan a rescoring there"
            )
        if self.least is not None and self.rescoring is None:
            raise InvalidInputError("a least product is asked of candidates; give the plan a rescoring")
        if not len(self.first_stage):
            raise InvalidInputError("the query vector is empty; nothing could match it")


class HitOrigin(Protocol):
    """The search that found a hit."""

    def explain(self, hit: Hit) -> Explanation:
        """Take the hit's score apart."""


@dataclass(frozen=True)
class Hit:
    """One answer: the catalog's own id, the score (higher is closer) and the item's payload.

    Where it comes from is no part of its value: neither compared, nor shown, nor pickled.
    """

    id: ItemId
    score: float
    payload: dict[str, Any] = field(default_factory=dict)
    origin: InitVar[HitOrigin | None] = None
    found_by: ClassVar[HitOrigin | None] = None

    def __post_init__(self, origin: HitOrigin | None) -> None:
        object.__setattr__(self, "found_by", origin)

    def __getstate__(self) -> dict[str, Any]:
        return {"id": self.id, "score": self.score, "payload": self.payload}

    def explain(self) -> Explanation:
        """Which concepts made query and item meet, with shares that sum to the score. Reads the item's code from the
        index: one call a hit; `Retriever.explain` takes several hits in one.

        Raises:
            InvalidInputError: no `Retriever` found this hit, or an async one did (use its `explain`).
            IndexNotFoundError: the item is no longer in the index.
        """
        if self.found_by is None:
            raise InvalidInputError(f"hit {self.id!r} is of no retriever, which alone knows its query")
        return self.found_by.explain(self)


@dataclass(frozen=True)
class Record:
    """One stored item."""

    id: ItemId
    indices: npt.NDArray[np.int32]
    """(<= k,) latents of its code, ascending."""
    values: FloatArray
    """(<= k,) stored values."""
    payload: dict[str, Any] = field(default_factory=dict)
    dense: FloatArray | None = None
    """(d,) its embedding, of unit norm, where the index keeps it."""


@dataclass(frozen=True)
class IndexInfo:
    """What an index says about itself."""

    backend: Literal["edge", "qdrant"]
    location: str
    items: int
    segments: int
    indexed_items: int | None
    """Items in compressed, fast segments; the rest wait for `optimize`. None on a server whose optimisers are at work:
    it doesn't say."""
    fingerprint: str
    """Of the model whose codes it holds."""
    latents: int
    settings: IndexSettings
    index_bytes: int | None
    """Measured bytes of the inverted index; None where the engine doesn't say."""
    total_bytes: int | None
    """Measured bytes of everything on disk, with stored codes, payloads and logs; None where unknown."""


class CodeIndex(Protocol):
    """Codes of items under ids, with payloads, searchable by query plans."""

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""

    @property
    def latents(self) -> int:
        """h of that model."""

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""

    @property
    def parallel_upserts(self) -> int:
        """Upserts that are worth having under way at once."""

    @property
    def journal(self) -> Path | None:
        """Where an ingestion into this index notes its progress by default; None if there is no such place."""

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items; (n, d) `dense` is for an index with `keep_dense`, and must be given to it.

        `hashes` are kept beside the items for `sync`: what each was made from.

        All of the batch is checked before any of it is written.
        """

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Remove items; ids that are not there are ignored."""

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match; not `exact` is an estimate, which costs a server nothing."""

    def info(self) -> IndexInfo:
        """Size, state and settings."""

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order asked for; those that are not there are left out."""

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" where an item was stored without one, None where there is no such item."""

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset; None is the first, and after the last. Where one
        page can't be had it can be asked for again, which a broken `scan` can't."""

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""

    def optimize(self) -> None:
        """Build compressed segments now, and wait until they are built."""

    def flush(self) -> None:
        """Return once everything written is durable."""

    def close(self) -> None:
        """Release the engine; the index stays."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def all_pages(page: Callable[[int, Any], tuple[list[ItemId], Any]], size: int) -> Iterator[list[ItemId]]:
    """The ids of an index, page after page, by its method `page`."""
    offset: Any = None
    while True:
        found, offset = page(size, offset)
        if found:
            yield found
        if offset is None:
            return


class AsyncCodeIndex(Protocol):
    """What an async retriever asks of an index."""

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, see `CodeIndex.count`."""

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order asked for; those that are not there are left out."""
