"""A batch as it is prepared for writing: each id, payload and content hash is computed once and passed on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from .. import telemetry
from ..errors import InvalidInputError
from ..index.ids import ItemIds, PointId
from ..index.points import point_ids
from ..sources import Batch

__all__ = ["MAX_REQUEST_BYTES", "PreparedBatch", "payload_texts", "request_bytes", "request_slices"]

MAX_REQUEST_BYTES: Final = 8 << 20
"""Approximate size of the largest request. A server refuses 32 MB, and smaller requests use parallel workers better."""
_POINT_BYTES: Final = 64
"""Approximate JSON size of a point's id and structure; gRPC needs less."""
_NUMBER_BYTES: Final = 16
"""Approximate JSON size of one index or value; gRPC needs less."""


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with valid, distinct ids, and with the JSON texts of its payloads. Make one by `of`."""

    batch: Batch
    ids: ItemIds
    texts: Sequence[bytes]
    """Payload of each item as JSON with sorted keys."""
    hashes: Sequence[str] | None = None
    """Content hash of each item, if it is to be stored."""

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Check the ids of a batch.

        Raises:
            InvalidInputError: an id is invalid or occurs twice in the batch, or a payload has field names that are not
                strings.
        """
        ids = ItemIds.of(batch.ids)
        point_ids(ids)
        return cls(batch, ids, payload_texts(batch.payloads))

    def with_hashes(self, method: str) -> Self:
        """The batch with content hashes: 16 hexadecimal digits computed from an item's embedding, its payload and the
        coding method."""
        start = hashlib.blake2b(method.encode(), digest_size=8)
        hashes = []
        for embedding, text in zip(np.ascontiguousarray(self.batch.embeddings, dtype="<f4"), self.texts, strict=True):
            digest = start.copy()
            digest.update(embedding.tobytes())
            digest.update(text)
            hashes.append(digest.hexdigest())
        return replace(self, hashes=hashes)

    def take(self, rows: Iterable[int]) -> Self:
        """The items in these rows of the batch."""
        rows = list(rows)
        batch, ids = self.batch, self.ids.take(rows)
        part = replace(
            batch, ids=ids, embeddings=batch.embeddings[rows],
            payloads=[batch.payloads[row] for row in rows], skipped=0,
            norms=None if batch.norms is None else batch.norms[rows],
        )  # fmt: skip
        hashes = None if self.hashes is None else [self.hashes[row] for row in rows]
        texts = [self.texts[row] for row in rows]
        return replace(self, batch=part, ids=ids, texts=texts, hashes=hashes)

    @cached_property
    def items(self) -> frozenset[PointId]:
        """The items as a set of point ids, because a UUID may have another spelling in another batch."""
        return frozenset(self.ids.points)


def payload_texts(payloads: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Each payload as JSON with sorted keys.

    Raises:
        InvalidInputError: a payload has field names that are not strings.
    """
    try:
        return [json.dumps(payload, sort_keys=True, default=str).encode() for payload in payloads]
    except TypeError as exc:
        raise InvalidInputError(f"a payload cannot be written as JSON ({exc}); use strings as field names") from exc


def request_bytes(texts: Sequence[bytes], numbers: int) -> int:
    """Approximate size of a request with items of these payload texts and `numbers` indices and values each."""
    return len(texts) * (_POINT_BYTES + numbers * _NUMBER_BYTES) + sum(map(len, texts))


def request_slices(texts: Sequence[bytes], numbers: int, max_bytes: int = MAX_REQUEST_BYTES) -> list[slice]:
    """Split a batch into requests that are small enough for a server.

    Args:
        texts: payload of each item as JSON.
        numbers: indices and values of one item.
        max_bytes: approximate size of the largest request.

    Returns:
        The rows of each request.
    """
    size, start, slices = 0, 0, []
    for row, text in enumerate(texts):
        item = request_bytes([text], numbers)
        if size and size + item > max_bytes:
            slices.append(slice(start, row))
            telemetry.measure("compressae.ingest.request.size", size)
            size, start = 0, row
        size += item
    telemetry.measure("compressae.ingest.request.size", size)
    return [*slices, slice(start, len(texts))]
