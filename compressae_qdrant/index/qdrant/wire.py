"""Upserts and queries as they are sent, built from arrays: JSON for REST, protobuf messages for gRPC.

Building the client's models from lists would take longer than the rest of an upload (`scripts/bench_ingest.py`) or of a
query (`scripts/bench_client.py`). What is built here is sent through the client's own connection, with its key, TLS and
timeouts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pydantic
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from ...codes import FloatArray, SparseCodes
from ...errors import InvalidInputError
from ...scoring import is_all_latents
from ..ids import PointId
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME
from ..points import CheckedBatch, rows_of

__all__ = ["JsonBody", "grpc_points", "grpc_query", "rest_body", "rest_queries"]

_DECIMALS: Final = 10
_VALUES, _INDICES = 1 << 3 | 2, 2 << 3 | 2
"""Tags of the fields `values` and `indices` of qdrant.SparseVector: field number, then wire type 2 (packed)."""


class JsonBody:
    """A JSON body in place of a model, for the client's methods that call `model_dump_json`."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self._text)

    def model_dump_json(self, **_: Any) -> bytes:
        """The body."""
        return self._text


def rest_body(batch: CheckedBatch, **options: Any) -> JsonBody:
    """The body of `PUT /collections/.../points`, with `options` as further fields."""
    indices, values = rows_of(batch.codes, _decimal(batch.codes.values))
    vectors: list[dict[str, Any]] = [
        {VECTOR_NAME: {"indices": i, "values": v}} for i, v in zip(indices, values, strict=True)
    ]
    if batch.dense is not None:
        for vector, dense in zip(vectors, _decimal(batch.dense).tolist(), strict=True):
            vector[DENSE_NAME] = dense
    if batch.navigation is not None:
        # They are stored in half precision, which six decimals hold.
        for vector, navigation in zip(vectors, np.round(batch.navigation.astype(float), 6).tolist(), strict=True):
            vector[NAVIGATION_NAME] = navigation
    points = [
        {"id": point, "vector": vector, "payload": payload}
        for point, vector, payload in zip(batch.ids, vectors, batch.payloads, strict=True)
    ]
    return JsonBody(orjson.dumps({"points": points, **options}, default=_plain))


def grpc_points(batch: CheckedBatch) -> list[grpc.PointStruct]:
    """The points of `qdrant.Points/Upsert`."""
    points = []
    for row, sparse in enumerate(_sparse_vectors(batch.codes)):
        payload = batch.payloads[row]
        try:
            point = grpc.PointStruct(payload=RestToGrpc.convert_payload(payload) if payload else None)
        except ValueError as exc:
            raise InvalidInputError(
                f"payload of point {batch.ids[row]!r} cannot be sent by gRPC ({exc}), which has integers below 2**63; "
                "store larger ones as strings, or use REST"
            ) from exc
        _set_id(point, batch.ids[row])
        named = point.vectors.vectors.vectors
        named[VECTOR_NAME].sparse.MergeFromString(sparse)
        if batch.dense is not None:
            named[DENSE_NAME].dense.data.extend(batch.dense[row].tolist())
        if batch.navigation is not None:
            named[NAVIGATION_NAME].dense.data.extend(batch.navigation[row].tolist())
        points.append(point)
    return points


def rest_queries(requests: Sequence[models.QueryRequest]) -> JsonBody:
    """The body of `POST /collections/.../points/query/batch`. Sparse vectors in the requests may hold arrays."""
    body = orjson.dumps({"searches": requests}, default=_model_fields, option=orjson.OPT_SERIALIZE_NUMPY)
    return JsonBody(body)


def grpc_query(request: models.QueryRequest, collection: str) -> grpc.QueryPoints:
    """A query of `qdrant.Points/QueryBatch`. Sparse vectors in the request may hold arrays."""
    return _ArraysToGrpc.convert_query_request(request, collection)


class _ArraysToGrpc(RestToGrpc):
    """The client's conversion, with sparse vectors of arrays in place of lists."""

    @classmethod
    def convert_sparse_vector(cls, model: models.SparseVector) -> grpc.SparseVector:
        values = np.asarray(model.values, "<f4")
        vector = grpc.SparseVector()
        vector.MergeFromString(_head(_VALUES, 4 * len(values)) + values.tobytes() + _packed_indices(model.indices))
        return vector


def _packed_indices(indices: Sequence[int] | npt.NDArray[np.int32]) -> bytes:
    """The field `indices` of qdrant.SparseVector."""
    if is_all_latents(indices):
        return _packed_latents(len(indices))
    array = np.asarray(indices)
    varints = _varints(array, int(array.max(initial=0)) + 1)
    return _head(_INDICES, varints.size) + varints.tobytes()


@functools.lru_cache(maxsize=8)
def _packed_latents(count: int) -> bytes:
    return _packed_indices(np.arange(count, dtype=np.int32))


@functools.lru_cache(maxsize=8)
def _json_latents(count: int) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(np.arange(count), option=orjson.OPT_SERIALIZE_NUMPY))


def _model_fields(value: Any) -> Any:
    """A model of the client as JSON: the fields that are set."""
    if isinstance(value, models.Filter):
        return orjson.Fragment(value.model_dump_json(by_alias=True, exclude_unset=True, exclude_none=True))
    if isinstance(value, models.SparseVector) and is_all_latents(value.indices):
        return {"indices": _json_latents(len(value.indices)), "values": value.values}
    if isinstance(value, pydantic.BaseModel):
        return {name: field for name in value.model_fields_set if (field := getattr(value, name)) is not None}
    raise TypeError


def _set_id(point: grpc.PointStruct, id: PointId) -> None:
    if isinstance(id, int):
        point.id.num = id
    else:
        point.id.uuid = id


def _decimal(x: FloatArray) -> npt.NDArray[np.float64]:
    """The numbers of `x` as doubles with few decimals, which give `x` exactly when they are read as float32.

    A float32 written as a double has about 17 digits. It is rounded to ten decimals if that preserves the float32.
    """
    exact = x.astype(np.float64)
    short = np.round(exact, _DECIMALS)
    return np.where(short.astype(np.float32) == x, short, exact)


def _sparse_vectors(codes: SparseCodes) -> list[bytes]:
    """Each code as a serialised qdrant.SparseVector."""
    n, k = codes.indices.shape
    varints = _varints(codes.indices, codes.latents)
    width = varints.shape[-1]
    values = codes.values.astype("<f4", copy=False).view(np.uint8).reshape(n, 4 * k)
    parts = [_repeated(_head(_VALUES, 4 * k), n), values, _repeated(_head(_INDICES, width * k), n),
             varints.reshape(n, width * k)]  # fmt: skip
    vectors = [row.tobytes() for row in np.concatenate(parts, axis=1)]
    for row in np.flatnonzero((codes.values == 0).any(axis=1)).tolist():
        indices, kept = codes.row(row)
        vectors[row] = grpc.SparseVector(values=kept.tolist(), indices=indices.tolist()).SerializeToString()
    return vectors


def _varints(indices: npt.NDArray[np.int32], latents: int) -> npt.NDArray[np.uint8]:
    """Indices below `latents` as varints, in a further axis. Each is padded to the bytes of the largest possible one,
    which readers of protobuf accept."""
    width = max(1, -(-(latents - 1).bit_length() // 7))
    varints = (indices[..., None] >> (7 * np.arange(width)) & 0x7F).astype(np.uint8)
    varints[..., :-1] |= 0x80
    return varints


def _repeated(text: bytes, n: int) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(np.frombuffer(text, np.uint8), (n, len(text)))


def _head(tag: int, size: int) -> bytes:
    """The tag and length before the `size` bytes of a packed field."""
    head = bytearray([tag])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size])


def _plain(value: Any) -> Any:
    """The JSON value of a number or a sequence of a subclass."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    raise TypeError
