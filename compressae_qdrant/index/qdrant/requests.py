"""What is asked of a collection, and what its answers mean: pure functions that the sync and async indexes share.

Each gives a `Call`. Nothing here talks to anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from ...codes import SparseCodes
from ...errors import CodeIndexError, ConfigError, IndexUnavailableError
from ...scoring import QueryVector
from ..filters import point_filter
from ..ids import HASH_FIELD, ID_FIELD, item_id, public_payload
from ..manifest import DENSE_NAME, VECTOR_NAME, Manifest
from ..plan import QueryPlan
from ..points import (
    CheckedBatch,
    CodePoint,
    check_batch,
    check_plan,
    point_ids,
    rescore,
    to_points,
)
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from ..settings import ShardKey
from .calls import Call, State, Transport, nothing
from .wire import grpc_points, rest_body

__all__ = ["Requests"]

T = TypeVar("T")


class Requests:
    """The calls of one collection."""

    def __init__(
        self,
        collection: str,
        manifest: Manifest,
        transport: Transport = Transport(),  # noqa: B008 (frozen)
        shard_key: ShardKey | None = None,
        *,
        only_new: bool = False,
    ) -> None:
        self._collection = collection
        self._manifest = manifest
        self._transport = transport
        self._shard_key = shard_key
        self._update_mode = models.UpdateMode.INSERT_ONLY if only_new else None

    @property
    def adopted(self) -> bool:
        """Whether codes are added to points of someone else."""
        return self._manifest.adopted

    def of_shard(self, shard_key: ShardKey) -> Requests:
        """The calls of that shard alone.

        Raises:
            ConfigError: the collection has no such shard key.
        """
        known = self._manifest.settings.shard_keys
        if shard_key not in known:
            raise ConfigError(
                f"collection {self._collection!r} has no shard key {shard_key!r}; it has "
                f"{', '.join(map(repr, known)) or 'none'}"
            )
        only_new = self._update_mode is not None
        return Requests(self._collection, self._manifest, self._transport, shard_key, only_new=only_new)

    def only_new(self) -> Requests:
        """The same calls, but an upsert leaves items that are there as they are (Qdrant 1.17 or newer)."""
        return Requests(self._collection, self._manifest, self._transport, self._shard_key, only_new=True)

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> Call[None] | None:
        """Insert or replace items; None for an empty batch. See `points.check_batch` for what is refused.

        Raises:
            ConfigError: the collection has shard keys, and these calls are of none.
        """
        batch = check_batch(ids, codes, payloads, dense, self._manifest, hashes)
        if not batch.ids:
            return None
        self._check_shard()
        if self._manifest.adopted:
            return self._set_codes(batch)
        doing = "upsert into"
        if self._transport.kind == "grpc":
            request = grpc.UpsertPoints(collection_name=self._collection, wait=True, points=grpc_points(batch))
            if self._shard_key is not None:
                request.shard_key_selector.CopyFrom(RestToGrpc.convert_shard_key_selector(self._shard_key))
            if self._update_mode is not None:
                request.update_mode = grpc.UpdateMode.InsertOnly
            arguments: dict[str, Any] = {"request": request, "timeout": self._transport.timeout}
            return Call("grpc_points.Upsert", arguments, self._applied, doing)
        mode = {} if self._update_mode is None else {"update_mode": self._update_mode}
        if self._transport.kind == "rest":
            options = mode if self._shard_key is None else {"shard_key": self._shard_key, **mode}
            arguments = {"point_insert_operations": rest_body(batch, **options), "wait": True}
            return Call(
                "http.points_api.upsert_points",
                {"collection_name": self._collection, **arguments},
                self._applied,
                doing,
            )
        points = list(map(_point, to_points(batch)))
        return self._call("upsert", {"points": points, "wait": True, **mode}, self._applied, doing)

    def _set_codes(self, batch: CheckedBatch) -> Call[None]:
        """Give codes to points that are there, which keep their payloads and other vectors."""
        if any(batch.payloads):
            raise ConfigError(
                f"collection {self._collection!r} holds payloads of its own, which codes are added to; upsert codes "
                "without payloads and hashes"
            )
        points = [models.PointVectors(id=point.id, vector={VECTOR_NAME: _sparse(point)}) for point in to_points(batch)]
        return self._call("update_vectors", {"points": points, "wait": True}, self._applied, "add codes to")

    def _check_shard(self) -> None:
        keys = self._manifest.settings.shard_keys
        if keys and self._shard_key is None:
            raise ConfigError(
                f"collection {self._collection!r} is split by shard keys {', '.join(map(repr, keys))}; write through "
                "index.of_shard(key) (?shard_key=KEY in a location)"
            )

    def delete(self, ids: Sequence[ItemId]) -> Call[None]:
        """Remove items.

        Raises:
            ConfigError: the collection has shard keys and these calls are of none, or its points are not ours.
        """
        self._check_shard()
        if self._manifest.adopted:
            raise ConfigError(
                f"collection {self._collection!r} was there before its codes; delete its points by the client"
            )
        points: list[Any] = [*point_ids(ids, repeats=True)]
        selector = models.PointIdsList(points=points)
        return self._call("delete", {"points_selector": selector, "wait": True}, self._applied, "delete from")

    def count(self, filter: models.Filter | None, *, exact: bool = True) -> Call[int]:
        """Number of items."""
        narrowed = None if filter is None else point_filter(filter)
        asked = {"count_filter": narrowed, "exact": exact}
        return self._call("count", asked, lambda answer: int(answer.count), "count")

    def info(self, items: int) -> Call[IndexInfo]:
        """Size, state and settings, `items` being known already."""
        location = self._collection if self._shard_key is None else f"{self._collection}?shard_key={self._shard_key}"

        def parse(answer: Any) -> IndexInfo:
            return IndexInfo(
                backend="qdrant",
                location=location,
                items=items,
                segments=int(answer.segments_count or 0),
                # Its own count of indexed vectors takes in sparse ones of segments that are not compressed yet.
                indexed_items=items if answer.status == models.CollectionStatus.GREEN else None,
                fingerprint=self._manifest.fingerprint,
                latents=self._manifest.latents,
                settings=self._manifest.settings,
                index_bytes=None,
                total_bytes=None,
            )

        return Call("get_collection", {"collection_name": self._collection}, parse, "describe")

    def state(self) -> Call[State]:
        """What the optimisers are at.

        Raises:
            CodeIndexError: they failed.
        """

        def parse(answer: Any) -> State:
            if answer.status == models.CollectionStatus.RED:
                raise CodeIndexError(
                    f"the optimisers of collection {self._collection!r} failed ({answer.optimizer_status}); see the "
                    "server's log"
                )
            return State(str(answer.status), int(answer.segments_count or 0), int(answer.indexed_vectors_count or 0))

        return Call("get_collection", {"collection_name": self._collection}, parse, "optimise")

    def nudge(self) -> Call[None]:
        """Start optimisers that a restart of the server left waiting: an update that changes nothing does."""
        arguments = {"collection_name": self._collection, "optimizers_config": models.OptimizersConfigDiff()}
        return Call("update_collection", arguments, nothing, "optimise")

    def search(self, plans: Sequence[QueryPlan]) -> Call[list[list[Hit]]]:
        """Hits of several queries, each in two stages, in one call."""
        requests = [_request(check_plan(plan, self._manifest), self._shard_key) for plan in plans]

        def parse(answers: Any) -> list[list[Hit]]:
            return [self._hits(plan, answer.points) for plan, answer in zip(plans, answers, strict=True)]

        arguments = {"collection_name": self._collection, "requests": requests}
        return Call("query_batch_points", arguments, parse, "search")

    def retrieve(self, ids: Sequence[ItemId]) -> Call[list[Record]]:
        """Stored items, in the order asked for."""
        points = point_ids(ids, repeats=True)

        def parse(answer: Any) -> list[Record]:
            coded = (point for point in answer if VECTOR_NAME in (point.vector or {}))
            records = {record.id: record for record in map(self._record, coded)}
            return [records[item] for item in ids if item in records]

        names = [VECTOR_NAME, DENSE_NAME] if self._manifest.settings.keep_dense else [VECTOR_NAME]
        arguments = {"ids": points, "with_payload": True, "with_vectors": names}
        return self._call("retrieve", arguments, parse, "retrieve from")

    def hashes(self, ids: Sequence[ItemId]) -> Call[list[str | None]]:
        """Content hashes of items: "" where there is none, None where there is no such item."""

        def parse(answer: Any) -> list[str | None]:
            stored = {self._id(point): (point.payload or {}).get(HASH_FIELD, "") for point in answer}
            return [stored.get(item) for item in ids]

        arguments = {"ids": point_ids(ids, repeats=True), "with_payload": [ID_FIELD, HASH_FIELD]}
        return self._call("retrieve", arguments, parse, "retrieve from")

    def scan(self, size: int, offset: Any) -> Call[tuple[list[ItemId], Any]]:
        """Ids of `size` items from an offset on, and the next offset; None is the first, and after the last."""

        def parse(answer: Any) -> tuple[list[ItemId], Any]:
            found, following = answer
            return [self._id(point) for point in found], following

        return self._call("scroll", {"limit": size, "offset": offset, "with_payload": [ID_FIELD]}, parse, "scan")

    def _applied(self, answer: Any) -> None:
        """A write was waited for; a server that gave up waiting is asked again, which does no harm."""
        result = getattr(answer, "result", answer)
        if result.status in (models.UpdateStatus.WAIT_TIMEOUT, grpc.UpdateStatus.WaitTimeout):
            raise IndexUnavailableError(f"collection {self._collection!r} took a write but has not applied it in time")

    def _hits(self, plan: QueryPlan, points: Sequence[Any]) -> list[Hit]:
        if plan.rescoring is not None and not plan.rescore_in_engine:
            return rescore([self._record(point) for point in points], plan)
        return [Hit(self._id(point), point.score, self._payload(point)) for point in points]

    def _record(self, point: Any) -> Record:
        code = point.vector[VECTOR_NAME]
        order = np.argsort(code.indices, kind="stable")
        return Record(
            id=self._id(point),
            indices=np.array(code.indices, np.int32)[order],
            values=np.array(code.values, np.float32)[order],
            dense=np.array(point.vector[DENSE_NAME], np.float32) if DENSE_NAME in point.vector else None,
            payload=self._payload(point),
        )

    def _id(self, point: Any) -> ItemId:
        # A field of someone's own that is called as our reserved one means nothing to us.
        return item_id(point.id, None if self.adopted else point.payload)

    def _payload(self, point: Any) -> dict[str, Any]:
        return dict(point.payload or {}) if self.adopted else public_payload(point.payload)

    def _call(self, method: str, arguments: dict[str, Any], parse: Callable[[Any], T], doing: str) -> Call[T]:
        shard = {} if self._shard_key is None else {"shard_key_selector": self._shard_key}
        return Call(method, {"collection_name": self._collection, **arguments, **shard}, parse, doing)


def _point(point: CodePoint) -> models.PointStruct:
    vectors: dict[str, Any] = {VECTOR_NAME: _sparse(point)}
    if point.dense is not None:
        vectors[DENSE_NAME] = point.dense
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _sparse(point: CodePoint) -> models.SparseVector:
    return models.SparseVector(indices=point.indices, values=point.values)


def _vector(query: QueryVector) -> models.SparseVector:
    return models.SparseVector(indices=np.asarray(query.indices).tolist(), values=np.asarray(query.values).tolist())


def _exactly(query: QueryVector) -> models.RecommendQuery:
    """Recommending by one positive with the sum of scores is the dot product with the stored float32 values, whatever
    the datatype of the index."""
    strategy = models.RecommendStrategy.SUM_SCORES
    return models.RecommendQuery(recommend=models.RecommendInput(positive=[_vector(query)], strategy=strategy))


def _request(plan: QueryPlan, shard_key: ShardKey | None) -> models.QueryRequest:
    first = models.NearestQuery(nearest=_vector(plan.first_stage))
    filter = None if plan.filter is None else point_filter(plan.filter)
    payload: dict[str, Any] = {"with_payload": True if plan.with_payload else [ID_FIELD], "shard_key": shard_key}
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
