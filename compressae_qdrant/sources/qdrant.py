"""A source that reads the dense vectors of a collection of a Qdrant server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from ..errors import SourceError
from ..index.ids import item_id, public_payload
from ..index.manifest import METADATA_KEY
from ..index.qdrant.errors import client_errors
from ..index.qdrant.requests import query_limit_of
from ..retry import RetryPolicy
from .batches import RowRules, batches_of, check_rows
from .columns import Columns
from .source import Batch, OnError, Row

__all__ = ["QdrantSource"]

_PAGE: Final = 1024
_ID, _VECTOR = "\0id", "\0vector"
"""Names that no payload field has."""


class QdrantSource:
    """The points of a collection in the order of their ids, with payloads.

    Args:
        client: a connection to the server. It is not closed.
        collection: name of the collection, or an alias.
        vector: name of the dense vector; None means the unnamed one.
        on_error: what to do with a point without a usable vector: `raise` or `skip`.
        payloads: whether to read payloads. Without them, item ids are the ids of the points.
        lacking: name of a vector; only points without it are read.
        columns: which payload fields to read and how to rename them; the names of other columns do not matter.
        retry: how often to try again after a failed request.

    Raises:
        SourceError: the collection has no such vector, or it is a multivector.
        IndexNotFoundError: there is no such collection.
        IndexUnavailableError: the server cannot be reached.
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
        columns: Columns = Columns(),  # noqa: B008 (frozen)
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    ) -> None:
        self._client, self._collection, self._vector = client, collection, vector
        self._rules = RowRules(replace(columns, id=_ID, embedding=_VECTOR, text=None), None, on_error)
        self._payloads, self._retry = payloads, retry
        self._filter = (
            None if lacking is None else models.Filter(must_not=[models.HasVectorCondition(has_vector=lacking)])
        )
        with client_errors("read", collection, client.init_options):
            config = client.get_collection(collection).config
        self._page_size = min(_PAGE, query_limit_of(config))
        params: Any = config.params.vectors
        manifest = (config.metadata or {}).get(METADATA_KEY)
        self._is_codes_index = manifest is not None and not manifest.get("adopted", False)
        named = params if isinstance(params, dict) else {None: params} if params is not None else {}
        if vector not in named:
            names = ", ".join(map(repr, named)) or "none"
            raise SourceError(
                f"collection {collection!r} has no dense vector {vector!r}; it has {names}; choose one by ?vector=NAME"
            )
        if named[vector].multivector_config is not None:
            raise SourceError(
                f"the vector {vector!r} of collection {collection!r} is a multivector, several vectors for each point; "
                "choose a vector with one by ?vector=NAME, or store their mean as such a vector first"
            )
        self._dim = int(named[vector].size)

    @property
    def dim(self) -> int:
        """Dimension d of the vectors."""
        return self._dim

    @property
    def rows(self) -> int | None:
        """Number of points to read."""
        with client_errors("count", self._collection, self._client.init_options):
            return int(self._client.count(self._collection, count_filter=self._filter, exact=True).count)

    @property
    def seekable(self) -> bool:
        """False: pages can only be read one after the other."""
        return False

    @property
    def identity(self) -> str:
        """The names of the collection and the vector; not the points, which may change while they are read."""
        return f"qdrant {self._collection} {self._vector}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of `size` points from point number `start` on."""
        return batches_of(self._read(start), self._rules, size, start)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        """None: points are read page by page."""
        return None

    def expecting(self, dim: int) -> Self:
        """The same source, for which points with another dimension are malformed."""
        source = copy.copy(self)
        source._rules = replace(self._rules, dim=dim)
        return source

    def check(self, rows: int) -> None:
        """Check the first points; see `sources.check_source`."""
        check_rows(self._read(0), self._rules, rows, f"collection {self._collection!r}")

    def _page(self, offset: Any, vectors: Any, with_payload: bool) -> tuple[list[Any], Any]:
        with client_errors("read", self._collection, self._client.init_options):
            return self._client.scroll(
                self._collection, scroll_filter=self._filter, limit=self._page_size, offset=offset,
                with_payload=with_payload and self._payloads, with_vectors=vectors,
            )  # fmt: skip

    def _read(self, start: int) -> Iterator[Row]:
        offset: Any = None
        number = 0
        names: Any = True if self._vector is None else [self._vector]
        while True:
            needed = number + self._page_size > start  # earlier pages are skipped without reading their vectors
            points, offset = self._retry.run(partial(self._page, offset, names if needed else False, needed))
            for point in points:
                if number >= start:
                    vector: Any = point.vector
                    vector = vector.get(self._vector or "") if isinstance(vector, dict) else vector
                    # In other collections, fields with the names of our reserved ones are ordinary payload.
                    payload = public_payload(point.payload) if self._is_codes_index else point.payload or {}
                    id = item_id(point.id, point.payload if self._is_codes_index else None)
                    yield number, {**payload, _ID: id, _VECTOR: vector}
                number += 1
            if offset is None:
                return
