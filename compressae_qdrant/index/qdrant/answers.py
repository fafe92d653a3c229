"""Items as read from the points that qdrant-client returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, grpc_to_payload

from ..ids import PointId, content_hash, item_id, plain_id, public_payload
from ..manifest import DENSE_NAME, VECTOR_NAME
from ..plan import QueryPlan
from ..rescore import StoredCode, Vectors, above_minimum, asked_for, scored
from ..results import Hit, ItemId, Record

__all__ = ["PointReader"]


class _Point:
    """What a hit needs of `models.ScoredPoint`, from a message of gRPC."""

    def __init__(self, message: grpc.ScoredPoint, *, coded: bool) -> None:
        self._message = message
        self.score: float = message.score
        self.vector = _grpc_code(message) if coded else None

    @property
    def id(self) -> PointId:
        id: PointId = self._message.id.uuid or self._message.id.num
        return id

    @cached_property
    def payload(self) -> dict[str, Any]:
        """Converted when it is read: not every candidate becomes a hit."""
        return grpc_to_payload(self._message.payload)


class _OldCode(NamedTuple):
    indices: Sequence[int]
    values: Sequence[float]


AnyPoint: TypeAlias = models.Record | models.ScoredPoint | _Point


@dataclass(frozen=True)
class PointReader:
    """Reads items from the points of one collection."""

    adopted: bool
    """Whether the collection was adopted. Its payloads are the user's own, so that reserved fields have no meaning."""

    def item_id(self, point: AnyPoint) -> ItemId:
        """The catalog's id of a point."""
        return item_id(point, None if self.adopted else point.payload)

    def payload(self, point: AnyPoint) -> dict[str, Any]:
        """The user's payload of a point."""
        return dict(point.payload or {}) if self.adopted else public_payload(point.payload)

    def record(self, point: AnyPoint) -> Record:
        """The stored item of a point, with the vectors that were read."""
        indices, values, dense = _vectors(point)
        return Record(
            id=self.item_id(point),
            indices=np.empty(0, np.int32) if indices is None else indices,
            values=np.empty(0, np.float32) if values is None else values,
            dense=dense,
            payload=self.payload(point),
        )

    def records(self, ids: Sequence[PointId], points: Sequence[models.Record]) -> list[Record]:
        """The stored items of `ids`, in their order, without those that are missing or have no code."""
        coded = (point for point in points if VECTOR_NAME in (point.vector or {}))
        records = {plain_id(point.id): self.record(point) for point in coded}
        return [records[id] for id in ids if id in records]

    def hashes(self, ids: Sequence[PointId], points: Sequence[models.Record]) -> list[str | None]:
        """The content hashes of `ids`: "" for an item without one, None for an item that is missing."""
        stored = {plain_id(point.id): content_hash(point.payload) for point in points}
        return [stored.get(id) for id in ids]

    def hits(self, plan: QueryPlan, points: Sequence[models.ScoredPoint | _Point]) -> list[Hit]:
        """The hits of a plan, best first."""
        hits = [
            Hit(self.item_id(point), score, self.payload(point), plan.origin,
                *(asked_for(plan, _vectors(point)) if plan.with_codes or plan.with_dense else ()))
            for point, score in scored(points, plan)
        ]  # fmt: skip
        return above_minimum(hits, plan)

    def grpc_hits(self, plan: QueryPlan, points: Sequence[grpc.ScoredPoint]) -> list[Hit]:
        """The hits of a plan, best first, from gRPC's messages."""
        if plan.with_codes or plan.with_dense:
            return self.hits(plan, [GrpcToRest.convert_scored_point(point) for point in points])
        # Building the client's models would take longer than reading what a hit needs.
        return self.hits(plan, [_Point(point, coded=plan.is_rescored_here) for point in points])


def _grpc_code(point: grpc.ScoredPoint) -> dict[str, StoredCode]:
    """The code of a point by its name, if it has one."""
    vectors = point.vectors.vectors.vectors
    if VECTOR_NAME not in vectors:
        return {}
    vector = vectors[VECTOR_NAME]
    if vector.HasField("sparse"):
        return {VECTOR_NAME: vector.sparse}
    return {VECTOR_NAME: _OldCode(vector.indices.data, vector.data)}  # as older servers send it


def _vectors(point: AnyPoint) -> Vectors:
    """Indices and values of a point's code, ascending, and its embedding, as far as they were read."""
    vectors: Any = point.vector or {}
    code, dense = vectors.get(VECTOR_NAME), vectors.get(DENSE_NAME)
    kept = None if dense is None else np.array(dense, np.float32)
    if code is None:
        return None, None, kept
    order = np.argsort(code.indices, kind="stable")
    return np.array(code.indices, np.int32)[order], np.array(code.values, np.float32)[order], kept
