"""Calls that write a checked batch: by REST, by gRPC, or through the client's own models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from ...errors import ConfigError, IndexUnavailableError
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..points import CheckedBatch, CodePoint, to_points
from .calls import Call
from .target import Target
from .wire import grpc_points, rest_body

__all__ = ["add_codes_call", "check_applied", "upsert_call"]

_ACTION: Final = "upsert into"


def upsert_call(target: Target, batch: CheckedBatch) -> Call[None]:
    """Insert or replace the items of a batch, and wait until the server has applied it."""
    if target.transport.kind == "grpc":
        return _grpc_call(target, batch)
    if target.transport.kind == "rest":
        return _rest_call(target, batch)
    return Call(
        _ACTION,
        lambda client: client.upsert(
            collection_name=target.collection,
            points=list(map(_point, to_points(batch))),
            wait=True,
            shard_key_selector=target.shard_key,
            update_mode=models.UpdateMode.INSERT_ONLY if target.only_new else None,
        ),
        check_applied(target.collection),
    )


def _grpc_call(target: Target, batch: CheckedBatch) -> Call[None]:
    request = grpc.UpsertPoints(collection_name=target.collection, wait=True, points=grpc_points(batch))
    if target.shard_key is not None:
        request.shard_key_selector.CopyFrom(RestToGrpc.convert_shard_key_selector(target.shard_key))
    if target.only_new:
        request.update_mode = grpc.UpdateMode.InsertOnly
    timeout = target.transport.timeout
    return Call(
        _ACTION,
        lambda client: client.grpc_points.Upsert(request=request, timeout=timeout),
        check_applied(target.collection),
        request.ByteSize(),
    )


def _rest_call(target: Target, batch: CheckedBatch) -> Call[None]:
    options: dict[str, Any] = {}
    if target.shard_key is not None:
        options["shard_key"] = target.shard_key
    if target.only_new:
        options["update_mode"] = models.UpdateMode.INSERT_ONLY
    text = rest_body(batch, **options)
    body = cast("models.PointInsertOperations", text)
    return Call(
        _ACTION,
        lambda client: client.http.points_api.upsert_points(
            collection_name=target.collection, wait=True, point_insert_operations=body
        ),
        check_applied(target.collection),
        text.size,
    )


def add_codes_call(target: Target, batch: CheckedBatch) -> Call[None]:
    """Give codes to existing points of an adopted collection, which keep their payloads and other vectors.

    Raises:
        ConfigError: the batch has payloads or content hashes.
    """
    if any(batch.payloads):
        raise ConfigError(
            f"collection {target.collection!r} was adopted and keeps its own payloads; upsert codes into it without "
            "payloads and hashes"
        )
    points = [models.PointVectors(id=point.id, vector={VECTOR_NAME: _sparse(point)}) for point in to_points(batch)]
    return Call(
        "add codes to",
        lambda client: client.update_vectors(
            collection_name=target.collection, points=points, wait=True, shard_key_selector=target.shard_key
        ),
        check_applied(target.collection),
    )


def check_applied(collection: str) -> Callable[[Any], None]:
    """A parser of the answer to a write that raises IndexUnavailableError if the server has not applied it in time.

    Repeating such a write is safe.
    """

    def parse(answer: Any) -> None:
        result = getattr(answer, "result", answer)
        if result.status in (models.UpdateStatus.WAIT_TIMEOUT, grpc.UpdateStatus.WaitTimeout):
            raise IndexUnavailableError(f"collection {collection!r} accepted a write but did not apply it in time")

    return parse


def _point(point: CodePoint) -> models.PointStruct:
    vectors: dict[str, Any] = {VECTOR_NAME: _sparse(point)}
    if point.dense is not None:
        vectors[DENSE_NAME] = point.dense
    if point.navigation is not None:
        vectors[NAVIGATION_NAME] = point.navigation
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _sparse(point: CodePoint) -> models.SparseVector:
    return models.SparseVector(indices=point.indices, values=point.values)
