"""Requests of an upload: repeated while the server is unavailable, and split while it refuses them as too large."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..codes import FloatArray, SparseCodes
from ..errors import RequestTooLargeError
from ..index.protocol import CodeIndex
from ..index.qdrant.operations import SyncOperations
from ..index.results import ItemId
from ..index.retry import RetryPolicy
from .prepared import request_bytes

__all__ = ["EncodedRows", "upload"]


@dataclass(frozen=True)
class EncodedRows:
    """Encoded items that can be written."""

    ids: Sequence[ItemId]
    codes: SparseCodes
    payloads: Sequence[dict[str, Any]]
    texts: Sequence[bytes]
    """Payload of each item as JSON."""
    dense: FloatArray | None = None
    """(n, d) embeddings, if the index keeps them."""
    hashes: Sequence[str] | None = None
    """Content hash of each item, if it is to be stored."""

    @property
    def numbers(self) -> int:
        """Indices and values of one item."""
        return 2 * self.codes.k + (0 if self.dense is None else self.dense.shape[1])


def upload(
    index: CodeIndex, items: EncodedRows, rows: slice, retry: RetryPolicy, stopped: threading.Event | None = None
) -> int | None:
    """Write some rows, in smaller requests if the server refuses one as too large. Each request is repeated by itself,
    so that a rate limit, which lets a few requests pass at a time, does not start a batch anew.

    Args:
        index: receives the items.
        items: the items.
        rows: which of them to write.
        retry: how to retry when the server fails.
        stopped: see `RetryPolicy.run`.

    Returns:
        None, or where requests were split, the approximate number of bytes that the server accepts.

    Raises:
        RequestTooLargeError: one row alone is too large; names it.
        IndexUnavailableError: the server stayed unavailable.
    """
    whole = index.without_splitting() if isinstance(index, SyncOperations) else index
    dense = None if items.dense is None else items.dense[rows]
    hashes = None if items.hashes is None else items.hashes[rows]
    try:
        retry.run(
            lambda: whole.upsert(items.ids[rows], items.codes[rows], items.payloads[rows], dense, hashes), stopped
        )
    except RequestTooLargeError as exc:
        size = request_bytes(items.texts[rows], items.numbers)
        if rows.stop - rows.start == 1:
            raise RequestTooLargeError(
                f"item {items.ids[rows.start]!r} is too large for the server by itself: about {size:,} bytes, of which "
                f"its payload takes {len(items.texts[rows.start]):,}; shorten the payload, or raise the limit of the "
                f"server ({exc})"
            ) from exc
        middle = (rows.start + rows.stop) // 2
        accepted = size // 2
        for part in (slice(rows.start, middle), slice(middle, rows.stop)):
            accepted = min(accepted, upload(index, items, part, retry, stopped) or accepted)
        return max(1, accepted)
    return None
