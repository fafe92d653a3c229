"""What is asked of a Qdrant server, and what its answers mean: pure functions that the sync and async indexes share.

Each gives a `Call`: a method of the client, its arguments, and how to read the answer. Nothing here talks to anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc, models

from ..codes import SparseCodes
from ..errors import CodeIndexError, IndexNotFoundError, IndexUnavailableError
from ..query_vector import QueryVector
from .base import FieldType, Hit, IndexInfo, IndexSettings, ItemId, Payload, QueryPlan, Record
from .filters import point_filter
from .ids import HASH_FIELD, ID_FIELD, item_id, public_payload
from .manifest import DENSE_NAME, VECTOR_NAME, Manifest
from .points import CodePoint, check_batch, check_plan, point_ids, rescore, to_points
from .wire import grpc_points, rest_body

__all__ = ["Call", "Requests", "Transport", "create_call", "exists_call", "field_calls", "manifest_call"]

T = TypeVar("T")

_METADATA_KEY: Final = "compressae"
_INDEXING_THRESHOLD_KB: Final = 1000
"""Segments above this become compressed: about 4,000 items of k=32. The server's default would leave 80,000 plain."""


@dataclass(frozen=True)
class Transport:
    """How a client reaches its collections."""

    kind: Literal["local", "rest", "grpc"] = "local"
    """"local" is the client's own emulation, in this process."""
    timeout: float = 5
    """Seconds that a gRPC call may take. The client's lower layer, unlike the upper, has to be told."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From the options that a client was made with."""
        if options.get("location") == ":memory:" or options.get("path"):
            return cls("local")
        return cls("grpc" if options.get("prefer_grpc") else "rest", options.get("timeout") or cls.timeout)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of a client's method."""

    method: str
    """Its name; dotted where it is in the client's own lower layer."""
    arguments: dict[str, Any]
    parse: Callable[[Any], T]
    """Reads the answer."""
    doing: str
    """What is being done, for error messages."""


def _nothing(_: Any) -> None:
    return None


def create_call(collection: str, manifest: Manifest) -> Call[None]:
    """Create a collection for the codes of a model."""
    settings = manifest.settings
    arguments: dict[str, Any] = {
        "collection_name": collection,
        "vectors_config": _dense_params(manifest) if settings.keep_dense else {},
        "sparse_vectors_config": {VECTOR_NAME: models.SparseVectorParams(index=_index_params(settings))},
        "optimizers_config": models.OptimizersConfigDiff(
            indexing_threshold=_INDEXING_THRESHOLD_KB, default_segment_number=settings.segments
        ),
        "shard_number": settings.shards,
        "replication_factor": settings.replicas,
        "write_consistency_factor": settings.write_consistency,
        "metadata": {_METADATA_KEY: manifest.to_json()},
    }
    return Call("create_collection", arguments, _nothing, "create")


def field_calls(collection: str, settings: IndexSettings) -> list[Call[None]]:
    """Index the payload fields that the settings name."""
    schemas: dict[str, Any] = {name: _FIELDS[kind] for name, kind in settings.payload_fields.items()}
    if settings.tenant_field is not None:
        kind = models.KeywordIndexType.KEYWORD
        schemas[settings.tenant_field] = models.KeywordIndexParams(type=kind, is_tenant=True)
    return [
        Call(
            "create_payload_index",
            {"collection_name": collection, "field_name": name, "field_schema": schema, "wait": True},
            _nothing,
            f"index field {name!r} of",
        )
        for name, schema in schemas.items()
    ]


def exists_call(collection: str) -> Call[bool]:
    """Whether there is such a collection (or alias)."""
    return Call("collection_exists", {"collection_name": collection}, bool, "look for")


def manifest_call(collection: str) -> Call[Manifest]:
    """The manifest of a collection, from its metadata."""

    def parse(answer: Any) -> Manifest:
        metadata = answer.config.metadata or {}
        if _METADATA_KEY not in metadata:
            raise IndexNotFoundError(
                f"collection {collection!r} is there but was not made by this package (its metadata has no "
                f"{_METADATA_KEY!r}); create the index under another name"
            )
        return Manifest.from_json(metadata[_METADATA_KEY], f"collection {collection!r}")

    return Call("get_collection", {"collection_name": collection}, parse, "open")


class Requests:
    """The calls of one collection."""

    def __init__(self, collection: str, manifest: Manifest, transport: Transport = Transport()) -> None:
        self._collection = collection
        self._manifest = manifest
        self._transport = transport

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> Call[None] | None:
        """Insert or replace items; None for an empty batch. See `points.check_batch` for what is refused."""
        batch = check_batch(ids, codes, payloads, dense, self._manifest, hashes)
        if not batch.ids:
            return None
        doing = "upsert into"
        if self._transport.kind == "grpc":
            request = grpc.UpsertPoints(collection_name=self._collection, wait=True, points=grpc_points(batch))
            arguments: dict[str, Any] = {"request": request, "timeout": self._transport.timeout}
            return Call("grpc_points.Upsert", arguments, self._applied, doing)
        if self._transport.kind == "rest":
            arguments = {"point_insert_operations": rest_body(batch), "wait": True}
            return self._call("http.points_api.upsert_points", arguments, self._applied, doing)
        points = list(map(_point, to_points(batch)))
        return self._call("upsert", {"points": points, "wait": True}, self._applied, doing)

    def delete(self, ids: Sequence[ItemId]) -> Call[None]:
        """Remove items."""
        points: list[Any] = list(point_ids(list(dict.fromkeys(ids))))
        selector = models.PointIdsList(points=points)
        return self._call("delete", {"points_selector": selector, "wait": True}, self._applied, "delete from")

    def count(self, filter: models.Filter | None) -> Call[int]:
        """Exact number of items."""
        narrowed = None if filter is None else point_filter(filter)
        return self._call("count", {"count_filter": narrowed, "exact": True}, lambda answer: int(answer.count), "count")

    def info(self, items: int, location: str) -> Call[IndexInfo]:
        """Size, state and settings, `items` being known already."""

        def parse(answer: Any) -> IndexInfo:
            return IndexInfo(
                backend="qdrant",
                location=location,
                items=items,
                segments=int(answer.segments_count or 0),
                indexed_items=min(items, int(answer.indexed_vectors_count or 0)),
                fingerprint=self._manifest.fingerprint,
                latents=self._manifest.latents,
                settings=self._manifest.settings,
                index_bytes=None,
                total_bytes=None,
            )

        return self._call("get_collection", {}, parse, "describe")

    def is_optimised(self) -> Call[bool]:
        """Whether the optimisers have nothing left to do.

        Raises:
            CodeIndexError: they failed.
        """

        def parse(answer: Any) -> bool:
            if answer.status == models.CollectionStatus.RED:
                raise CodeIndexError(
                    f"the optimisers of collection {self._collection!r} failed ({answer.optimizer_status}); see the "
                    "server's log"
                )
            return bool(answer.status == models.CollectionStatus.GREEN)

        return self._call("get_collection", {}, parse, "optimise")

    def search(self, plans: Sequence[QueryPlan]) -> Call[list[list[Hit]]]:
        """Hits of several queries, each in two stages, in one call."""
        requests = [_request(check_plan(plan, self._manifest)) for plan in plans]

        def parse(answers: Any) -> list[list[Hit]]:
            return [_hits(plan, answer.points) for plan, answer in zip(plans, answers, strict=True)]

        return self._call("query_batch_points", {"requests": requests}, parse, "search")

    def retrieve(self, ids: Sequence[ItemId]) -> Call[list[Record]]:
        """Stored items, in the order asked for."""
        points = point_ids(list(dict.fromkeys(ids)))

        def parse(answer: Any) -> list[Record]:
            records = {record.id: record for record in map(_record, answer)}
            return [records[item] for item in ids if item in records]

        names = [VECTOR_NAME, DENSE_NAME] if self._manifest.settings.keep_dense else [VECTOR_NAME]
        arguments = {"ids": points, "with_payload": True, "with_vectors": names}
        return self._call("retrieve", arguments, parse, "retrieve from")

    def hashes(self, ids: Sequence[ItemId]) -> Call[list[str | None]]:
        """Content hashes of items: "" where there is none, None where there is no such item."""

        def parse(answer: Any) -> list[str | None]:
            stored = {item_id(point.id, point.payload): (point.payload or {}).get(HASH_FIELD, "") for point in answer}
            return [stored.get(item) for item in ids]

        arguments = {"ids": point_ids(list(dict.fromkeys(ids))), "with_payload": [ID_FIELD, HASH_FIELD]}
        return self._call("retrieve", arguments, parse, "retrieve from")

    def scan(self, size: int, offset: Any) -> Call[tuple[list[ItemId], Any]]:
        """Ids of `size` items from an offset on, and the next offset; None is the first, and after the last."""

        def parse(answer: Any) -> tuple[list[ItemId], Any]:
            found, following = answer
            return [item_id(point.id, point.payload) for point in found], following

        return self._call("scroll", {"limit": size, "offset": offset, "with_payload": [ID_FIELD]}, parse, "scan")

    def _applied(self, answer: Any) -> None:
        """A write was waited for; a server that gave up waiting is asked again, which does no harm."""
        result = getattr(answer, "result", answer)
        if result.status in (models.UpdateStatus.WAIT_TIMEOUT, grpc.UpdateStatus.WaitTimeout):
            raise IndexUnavailableError(f"collection {self._collection!r} took a write but has not applied it in time")

    def _call(self, method: str, arguments: dict[str, Any], parse: Callable[[Any], T], doing: str) -> Call[T]:
        return Call(method, {"collection_name": self._collection, **arguments}, parse, doing)


def _index_params(settings: IndexSettings) -> models.SparseIndexParams:
    placement: dict[str, Any] = {"on_disk": settings.memory == "cold"}
    if "memory" in models.SparseIndexParams.model_fields:  # newer clients; replaces on_disk
        placement = {"memory": models.Memory(settings.memory)}
    return models.SparseIndexParams(
        full_scan_threshold=settings.full_scan_threshold, datatype=models.Datatype(settings.datatype), **placement
    )


def _dense_params(manifest: Manifest) -> dict[str, models.VectorParams]:
    """Embeddings that are only read to rescore: half precision, on disk, no graph."""
    params = models.VectorParams(
        size=manifest.dim,
        distance=models.Distance.COSINE,
        datatype=models.Datatype.FLOAT16,
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(m=0),
    )
    return {DENSE_NAME: params}


def _point(point: CodePoint) -> models.PointStruct:
    vectors: dict[str, Any] = {VECTOR_NAME: models.SparseVector(indices=point.indices, values=point.values)}
    if point.dense is not None:
        vectors[DENSE_NAME] = point.dense
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _vector(query: QueryVector) -> models.SparseVector:
    return models.SparseVector(indices=np.asarray(query.indices).tolist(), values=np.asarray(query.values).tolist())


def _exactly(query: QueryVector) -> models.RecommendQuery:
    """Recommending by one positive with the sum of scores is the dot product with the stored float32 values, whatever
    the datatype of the index."""
    strategy = models.RecommendStrategy.SUM_SCORES
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[_vector(query)], strategy=strategy))


def _request(plan: QueryPlan) -> models.QueryRequest:
    first = models.NearestQuery(nearest=_vector(plan.first_stage))
    filter = None if plan.filter is None else point_filter(plan.filter)
    payload: dict[str, Any] = {"with_payload": True if plan.with_payload else [ID_FIELD]}
    common = {"using": VECTOR_NAME, **payload}
    if plan.rescoring is None:
        return models.QueryRequest(query=first, filter=filter, limit=plan.limit, **common)
    if not plan.rescore_in_engine:
        return models.QueryRequest(query=first, filter=filter, limit=plan.prefetch, with_vector=[VECTOR_NAME], **common)
    rescoring = _exactly(plan.rescoring)
    candidates = models.Prefetch(query=first, using=VECTOR_NAME, filter=filter, limit=plan.prefetch)
    if plan.least is not None:
        candidates = models.Prefetch(
            prefetch=[candidates], query=_exactly(plan.first_stage), using=VECTOR_NAME, limit=plan.prefetch,
            score_threshold=plan.least,
        )  # fmt: skip
    if plan.dense is None:
        return models.QueryRequest(prefetch=[candidates], query=rescoring, limit=plan.limit, **common)
    best = models.Prefetch(prefetch=[candidates], query=rescoring, using=VECTOR_NAME, limit=plan.dense_candidates)
    query = models.NearestQuery(nearest=plan.dense.tolist())
    return models.QueryRequest(prefetch=[best], query=query, using=DENSE_NAME, limit=plan.limit, **payload)


def _hits(plan: QueryPlan, points: Sequence[Any]) -> list[Hit]:
    if plan.rescoring is not None and not plan.rescore_in_engine:
        return rescore([_record(point) for point in points], plan)
    return [Hit(item_id(point.id, point.payload), point.score, public_payload(point.payload)) for point in points]


def _record(point: Any) -> Record:
    code = point.vector[VECTOR_NAME]
    order = np.argsort(code.indices, kind="stable")
    return Record(
        id=item_id(point.id, point.payload),
        indices=np.array(code.indices, np.int32)[order],
        values=np.array(code.values, np.float32)[order],
        dense=np.array(point.vector[DENSE_NAME], np.float32) if DENSE_NAME in point.vector else None,
        payload=public_payload(point.payload),
    )


_FIELDS: Final[dict[FieldType, models.PayloadSchemaType]] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "text": models.PayloadSchemaType.TEXT,
    "uuid": models.PayloadSchemaType.UUID,
}
