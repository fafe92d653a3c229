"""A collection of a Qdrant server as a source: the dense vectors that are there already."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from ..errors import SourceError
from ..index.ids import item_id, public_payload
from ..index.manifest import METADATA_KEY
from ..index.qdrant.errors import client_errors
from ..retry import RetryPolicy
from .source import Batch, Columns, OnError, Row, batches_of

__all__ = ["QdrantSource"]

_PAGE: Final = 1024
_COLUMNS: Final = Columns(id="\0id", embedding="\0vector", payload=None)


class QdrantSource:
    """The points of a collection in the order of their ids, with payloads.

    Args:
        client: to the server; it stays the caller's.
        collection: its name, or an alias.
        vector: name of the dense vector; None is the unnamed one.
        on_error: what a point without a usable vector does.
        payloads: whether to read payloads. Without them, ids are those of the points.
        lacking: only points without this vector, as they are when their page is read.
        retry: what to do while the server fails to give a page.

    Raises:
        SourceError: the collection has no such vector.
        IndexNotFoundError, IndexUnavailableError: there is no such collection, or no server.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        vector: str | None = None,
        on_error: OnError = "raise",
        *,
        payloads: bool = True,
        lacking: str | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    ) -> None:
        self._client, self._collection, self._vector, self._on_error = client, collection, vector, on_error
        self._payloads, self._retry = payloads, retry
        self._filter = (
            None if lacking is None else models.Filter(must_not=[models.HasVectorCondition(has_vector=lacking)])
        )
        with client_errors("read", collection):
            config = client.get_collection(collection).config
        params: Any = config.params.vectors
        manifest = (config.metadata or {}).get(METADATA_KEY)
        self._ours = manifest is not None and not manifest.get("adopted", False)
        named = params if isinstance(params, dict) else {None: params} if params is not None else {}
        if vector not in named:
            names = ", ".join(map(repr, named)) or "none"
            raise SourceError(
                f"collection {collection!r} has no dense vector {vector!r}; it has {names}; name one by ?vector=NAME"
            )
        self._dim = int(named[vector].size)

    @property
    def dim(self) -> int:
        """d of the vector."""
        return self._dim

    @property
    def rows(self) -> int | None:
        """Points of the collection."""
        with client_errors("count", self._collection):
            return int(self._client.count(self._collection, count_filter=self._filter, exact=True).count)

    @property
    def seekable(self) -> bool:
        """False: pages follow one another."""
        return False

    @property
    def identity(self) -> str:
        """The collection and the vector; not what is in them, which may change while it is read."""
        return f"qdrant {self._collection} {self._vector}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of `size` points from point number `start` on."""
        return batches_of(self._read(start), _COLUMNS, size, start, None, self._on_error)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        """None: points come page by page."""
        return None

    def _page(self, offset: Any, vectors: Any, wanted: bool) -> tuple[list[Any], Any]:
        with client_errors("read", self._collection):
            return self._client.scroll(
                self._collection, scroll_filter=self._filter, limit=_PAGE, offset=offset,
                with_payload=wanted and self._payloads, with_vectors=vectors,
            )  # fmt: skip

    def _read(self, start: int) -> Iterator[Row]:
        offset: Any = None
        number = 0
        names: Any = True if self._vector is None else [self._vector]
        while True:
            wanted = number + _PAGE > start  # pages before are passed by without their vectors
            points, offset = self._retry.run(partial(self._page, offset, names if wanted else False, wanted))
            for point in points:
                if number >= start:
                    vector: Any = point.vector
                    vector = vector.get(self._vector or "") if isinstance(vector, dict) else vector
                    # Fields of someone's own that are called as our reserved ones stay what they are.
                    payload = public_payload(point.payload) if self._ours else point.payload or {}
                    id = item_id(point.id, point.payload if self._ours else None)
                    yield number, {**payload, "\0id": id, "\0vector": vector}
                number += 1
            if offset is None:
                return
