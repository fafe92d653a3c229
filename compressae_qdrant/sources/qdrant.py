"""A source that reads the dense vectors of a collection of a Qdrant server."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from ..errors import ExactCountError, IndexNotFoundError, SourceError
from ..index.ids import item_id, public_payload
from ..index.manifest import METADATA_KEY
from ..index.qdrant.calls import run_call
from ..index.qdrant.collections import target_call
from ..index.qdrant.errors import client_errors
from ..index.qdrant.requests import query_limit_of
from ..index.retry import RetryPolicy
from .batches import RowRules, batches_of, check_rows
from .columns import Columns
from .source import Batch, OnError, Row
from .spread import SpreadSample

__all__ = ["QdrantSource"]

_PAGE: Final = 1024
_CHECK_SECONDS: Final = 5.0
"""How long reading goes on without a look whether the collection is still the same."""
_CHURN: Final = 0.01
"""Share of the points that may be deleted while a collection is read. More of them gone means that it was recreated or
emptied, or that the points read are too far from one state of it."""
_OTHER: Final = 0.1
"""Share of the sampled points whose vectors may be replaced while a collection is read. More of them means that it was
recreated with other vectors, as by another embedding model."""
_ID, _VECTOR = "\0id", "\0vector"
"""Names that no payload field has."""


class QdrantSource:
    """The points of a collection in the order of their ids, with payloads.

    An alias is resolved once, and one collection is read to the end. Reading ends with an error, before a `sync` would
    delete anything, if the alias was switched or the collection was recreated meanwhile, or if more than a hundredth of
    its points is gone.

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
        SourceError: the collection has no such vector, or it is a multivector; while reading, it was replaced.
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
        self._client, self._name, self._vector = client, collection, vector
        self._rules = RowRules(replace(columns, id=_ID, embedding=_VECTOR, text=None), None, on_error)
        self._payloads, self._retry = payloads, retry
        self._filter = (
            None if lacking is None else models.Filter(must_not=[models.HasVectorCondition(has_vector=lacking)])
        )
        self._collection = self._target() or collection
        config = self._config()
        self._kind = _kind(config, vector)
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
    def collection(self) -> str:
        """Name of the collection that is read, also where the source was opened by an alias."""
        return self._collection

    @property
    def dim(self) -> int:
        """Dimension d of the vectors."""
        return self._dim

    @property
    def rows(self) -> int | None:
        """Number of points to read."""
        return self._count()

    @property
    def seekable(self) -> bool:
        """False: pages can only be read one after the other."""
        return False

    @property
    def identity(self) -> str:
        """The names of the collection and the vector, and the identity of an index of this package; not the points,
        which may change while they are read."""
        identity = self._kind[-1] if self._is_codes_index else None
        return f"qdrant {self._collection} {self._vector}" + (f" {identity}" if identity else "")

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

    def _target(self) -> str | None:
        """The collection that the given name is an alias of; None if it is none."""
        return run_call(self._client, self._name, target_call(self._name))

    def _config(self) -> models.CollectionConfig:
        with client_errors("read", self._collection, self._client.init_options):
            return self._client.get_collection(self._collection).config

    def _count(self) -> int:
        def count(*, exact: bool) -> int:
            with client_errors("count", self._collection, self._client.init_options):
                return int(self._client.count(self._collection, count_filter=self._filter, exact=exact).count)

        try:
            return count(exact=True)
        except ExactCountError:
            return count(exact=False)  # an estimate, which is exact once the optimisers are done

    def _check_same(self) -> None:
        """Raise SourceError if the alias was switched or the collection recreated since this source was opened."""
        again = "so what was read is not one catalog, and points that were not read are not deleted ones; run the "
        again += "same command again"
        target = self._retry.run(self._target)
        if (target or self._name) != self._collection:
            now = "no longer exists" if target is None else f"was switched to {target!r}"
            raise SourceError(f"alias {self._name!r} {now} while collection {self._collection!r} was read, {again}")
        try:
            kind = _kind(self._retry.run(self._config), self._vector)
        except IndexNotFoundError as exc:
            raise SourceError(f"collection {self._collection!r} was deleted while it was read, {again}") from exc
        if kind[:-1] != self._kind[:-1] or (self._kind[-1] is not None and kind[-1] != self._kind[-1]):
            raise SourceError(f"collection {self._collection!r} was recreated while it was read, {again}")

    def _check_whole(self, expected: int, read: int, sample: Mapping[Any, Any]) -> None:
        """Raise SourceError unless nearly all points are still there that were there when reading began, and most of
        them with the vectors that were read.

        A collection of another application has no identity. If it was recreated with equal settings, it shows in what
        is gone and in what has another vector.

        Args:
            expected: points when reading began.
            read: points read.
            sample: vectors of some of them by id; None where it was not read.
        """
        count = self._retry.run(self._count)
        vectors = {id: vector for id, vector in sample.items() if vector is not None}
        now = self._retry.run(partial(self._existing, list(sample))) if sample else {}
        gone = len(sample) - len(now)
        other = sum(not np.array_equal(now[id], vector) for id, vector in vectors.items() if id in now)
        if other > _OTHER * len(vectors):
            raise SourceError(
                f"{other} of {len(vectors)} sampled points of collection {self._collection!r} have another vector than "
                "when they were read. It was recreated or embedded anew while it was read, so what was read is not one "
                "catalog; run the same command again when it is complete"
            )
        if min(read, count) < expected - int(_CHURN * expected) or gone > _CHURN * len(sample):
            raise SourceError(
                f"collection {self._collection!r} had {expected:,} points when reading began; {read:,} were read, it "
                f"has {count:,} now, and {gone} of {len(sample)} sampled ones are gone. It was recreated or emptied "
                "while it was read, so points that were not read are not deleted ones; run the same command again when "
                "it is complete"
            )

    def _existing(self, points: Sequence[Any]) -> dict[Any, Any]:
        """The vectors of those points that exist, by id."""
        with client_errors("read", self._collection, self._client.init_options):
            found = self._client.retrieve(self._collection, ids=points, with_payload=False, with_vectors=self._vectors)
        return {point.id: self._vector_of(point) for point in found}

    @property
    def _vectors(self) -> bool | list[str]:
        """What the client is asked for to read the vector."""
        return True if self._vector is None else [self._vector]

    def _vector_of(self, point: models.Record) -> Any:
        vector: Any = point.vector
        return vector.get(self._vector or "") if isinstance(vector, dict) else vector

    def _page(self, offset: Any, vectors: Any, with_payload: bool) -> tuple[list[Any], Any]:
        with client_errors("read", self._collection, self._client.init_options):
            return self._client.scroll(
                self._collection, scroll_filter=self._filter, limit=self._page_size, offset=offset,
                with_payload=with_payload and self._payloads, with_vectors=vectors,
            )  # fmt: skip

    def _read(self, start: int) -> Iterator[Row]:
        offset: Any = None
        number = 0
        # With a filter, points cease to match while they are read: by the codes that they are given.
        expected = self._retry.run(self._count) if self._filter is None else 0
        sample, seen, checked = SpreadSample(), dict[Any, Any](), time.monotonic()
        while True:
            needed = number + self._page_size > start  # earlier pages are skipped without reading their vectors
            points, offset = self._retry.run(partial(self._page, offset, self._vectors if needed else False, needed))
            sample.add([point.id for point in points])
            seen |= {point.id: self._vector_of(point) for point in points}
            seen = {id: seen[id] for id in sample.all()}
            if time.monotonic() - checked > _CHECK_SECONDS:
                self._check_same()
                checked = time.monotonic()
            for point in points:
                if number >= start:
                    # In other collections, fields with the names of our reserved ones are ordinary payload.
                    payload = public_payload(point.payload) if self._is_codes_index else point.payload or {}
                    id = item_id(point, point.payload if self._is_codes_index else None)
                    yield number, {**payload, _ID: id, _VECTOR: self._vector_of(point)}
                number += 1
            if offset is None:
                self._check_same()
                if self._filter is None:
                    self._check_whole(expected, number, seen)
                return


def _kind(config: models.CollectionConfig, vector: str | None) -> tuple[Any, ...]:
    """Properties by which a collection is told from a later one of its name; the last is the identity of an index of
    this package, or None."""
    params: Any = config.params.vectors
    named = params if isinstance(params, dict) else {None: params}
    manifest = (config.metadata or {}).get(METADATA_KEY) or {}
    used = named.get(vector)
    return (
        None if used is None else (used.size, used.distance, used.multivector_config is not None),
        config.params.shard_number, config.params.sharding_method, manifest.get("identity"),
    )  # fmt: skip
