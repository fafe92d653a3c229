"""Calls that write, read and search the points of one collection, shared by the sync and async indexes."""

from __future__ import annotations

import copy
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from ...codes import FloatArray, SparseCodes
from ...errors import CodeIndexError, ConfigError
from ..filters import point_filter
from ..ids import ITEM_FIELDS, PointId
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME, Manifest
from ..plan import QueryPlan
from ..points import CheckedBatch, check_batch, points_of
from ..protocol import CodeModel, ScrollOptions
from ..reads import ScrollSettings, check_plan, scroll_settings
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from ..settings import ShardKey
from .answers import PointReader
from .calls import Call, OptimiserState, ignore_answer
from .client import Transport
from .contents import identity_call
from .queries import search_call
from .target import Target
from .upserts import add_codes_call, check_applied, upsert_call

__all__ = ["MAX_REQUEST_BYTES", "Requests", "query_limit_of"]

T = TypeVar("T")

MAX_REQUEST_BYTES: Final = 30 << 20
"""Bytes of the largest request that is sent. A server refuses 32 MB by default."""


def query_limit_of(config: models.CollectionConfig) -> int:
    """Most points that one request may return, by the strict mode of a collection."""
    strict = config.strict_mode_config
    limit = strict.max_query_limit if strict is not None and strict.enabled else None
    return limit or sys.maxsize


def progress_of(tree: models.ProgressTree) -> tuple[Any, ...]:
    """The numbers of a tree of progress that change when work is done, and not with time alone."""
    return (tree.name, tree.done, tree.finished_at is not None, [progress_of(child) for child in tree.children or ()])


class Requests:
    """Builds the calls of one collection, or of one shard key of it. It makes no call itself."""

    def __init__(self, target: Target, manifest: Manifest, model: CodeModel | None = None) -> None:
        self._target = target
        self._model = model
        self._manifest = manifest
        self._reader = PointReader(manifest.adopted)
        self.query_limit: int | None = None
        """Most points that one request may return, by the collection's strict mode; None until it has been read."""
        self.max_bytes = MAX_REQUEST_BYTES
        """Bytes of the largest upsert that is sent. It falls when the server refuses one as too large."""
        self.splits = True
        """Whether an upsert that is too large is split."""

    @property
    def adopted(self) -> bool:
        """Whether codes are added to points that this package did not write."""
        return self._manifest.adopted

    def of_shard(self, shard_key: ShardKey) -> Requests:
        """The calls of one shard key.

        Raises:
            ConfigError: the collection has no such shard key.
        """
        known = self._manifest.settings.shard_keys
        if shard_key not in known:
            raise ConfigError(
                f"collection {self._target.collection!r} has no shard key {shard_key!r}; it has "
                f"{', '.join(map(repr, known)) or 'none'}"
            )
        return Requests(replace(self._target, shard_key=shard_key), self._manifest, self._model)

    def over(self, transport: Transport) -> Requests:
        """The same calls for a client of another transport."""
        return Requests(replace(self._target, transport=transport), self._manifest, self._model)

    def with_manifest(self, manifest: Manifest, model: CodeModel) -> Requests:
        """The same calls once the collection has another manifest."""
        return Requests(self._target, manifest, model)

    def only_new(self) -> Requests:
        """The same calls, but an upsert leaves existing items unchanged (Qdrant 1.17 or newer)."""
        return Requests(replace(self._target, only_new=True), self._manifest, self._model)

    def without_splitting(self) -> Requests:
        """The same calls, but an upsert is one request, whatever its size."""
        whole = copy.copy(self)
        whole.splits = False
        return whole

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> Call[None] | None:
        """Insert or replace items; None for an empty batch.

        Raises:
            InvalidInputError, InvalidCodeError: the batch is not valid; see `points.check_batch`.
            ConfigError: the collection has shard keys, and these calls are of none.
        """
        batch = self.checked(ids, codes, payloads, dense, hashes)
        return self.write(batch) if batch.ids else None

    def checked(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> CheckedBatch:
        """A batch that `write` takes; arguments and errors as in `upsert`."""
        return check_batch(ids, codes, payloads, dense, self._manifest, hashes, self._model)

    def write(self, batch: CheckedBatch) -> Call[None]:
        """Insert or replace the items of a checked batch, in one request.

        Raises:
            ConfigError: the collection has shard keys, and these calls are of none.
        """
        self._check_shard()
        return add_codes_call(self._target, batch) if self.adopted else upsert_call(self._target, batch)

    def set_navigation(self, ids: Sequence[ItemId], vectors: FloatArray) -> Call[None]:
        """Give navigation vectors to existing items; payloads and other vectors stay."""
        points = [
            models.PointVectors(id=point, vector={NAVIGATION_NAME: vector})
            for point, vector in zip(self._points(ids), vectors.tolist(), strict=True)
        ]
        return Call(
            "add navigation vectors to",
            lambda client: client.update_vectors(
                collection_name=self._target.collection, points=points, wait=True,
                shard_key_selector=self._target.shard_key,
            ),
            check_applied(self._target.collection),
        )  # fmt: skip

    def delete(self, ids: Sequence[ItemId]) -> Call[None] | None:
        """Delete items; None for no items, because servers refuse an empty list.

        Raises:
            ConfigError: the collection has shard keys and these calls are of none, or the collection was adopted.
        """
        points: list[Any] = list(dict.fromkeys(self._points(ids)))
        if not points:
            return None
        return self._delete(models.PointIdsList(points=points))

    def delete_by_filter(self, filter: models.Filter) -> Call[None]:
        """Delete the items that match a filter. See `delete` for errors."""
        return self._delete(models.FilterSelector(filter=point_filter(filter, old_ids=self._manifest.old_ids)))

    def _delete(self, selector: models.PointIdsList | models.FilterSelector) -> Call[None]:
        self._check_shard()
        collection, shard_key = self._target.collection, self._target.shard_key
        if self.adopted:
            raise ConfigError(
                f"collection {collection!r} was adopted, so its points are not deleted here; delete them with "
                "qdrant-client"
            )
        return Call(
            "delete from",
            lambda client: client.delete(
                collection_name=collection, points_selector=selector, wait=True, shard_key_selector=shard_key
            ),
            check_applied(collection),
        )

    def scroll_settings(self, size: int, options: ScrollOptions) -> ScrollSettings:
        """The arguments of a scroll, checked; see `points.scroll_settings`."""
        return scroll_settings(size, options, self._manifest)

    def write_nothing(self) -> Call[None]:
        """Delete a point that does not exist: a write that changes nothing, and fails where any other would fail.

        Raises:
            ConfigError: the collection has shard keys, and these calls are of none.
        """
        self._check_shard()
        nobody: list[Any] = [str(uuid.uuid4())]  # servers refuse an empty list
        return Call(
            "write to",
            lambda client: client.delete(
                collection_name=self._target.collection,
                points_selector=models.PointIdsList(points=nobody),
                wait=True,
                shard_key_selector=self._target.shard_key,
            ),
            check_applied(self._target.collection),
        )

    def verify(self) -> Call[None]:
        """Compare the manifest of the collection with the one that was read when it was opened.

        Raises:
            IndexReplacedError: it is another collection of the same name.
        """
        return identity_call(self._target.collection, self._manifest)

    def read_query_limit(self) -> Call[int]:
        """Most points that one request may return, by the collection's strict mode."""

        def parse(answer: models.CollectionInfo) -> int:
            return query_limit_of(answer.config)

        collection = self._target.collection
        return Call("inspect", lambda client: client.get_collection(collection_name=collection), parse)

    def count(self, filter: models.Filter | None, *, exact: bool = True) -> Call[int]:
        """Number of items, or of those that match a filter."""
        with_point_ids = None if filter is None else point_filter(filter, old_ids=self._manifest.old_ids)
        return Call(
            "count",
            lambda client: client.count(
                collection_name=self._target.collection,
                count_filter=with_point_ids,
                exact=exact,
                shard_key_selector=self._target.shard_key,
            ),
            lambda answer: answer.count,
        )

    def info(self, items: int) -> Call[IndexInfo]:
        """Size, state and settings; `items` is the number of items, counted before."""
        collection, shard_key = self._target.collection, self._target.shard_key
        location = collection if shard_key is None else f"{collection}?shard_key={shard_key}"

        def parse(answer: models.CollectionInfo) -> IndexInfo:
            return IndexInfo(
                backend="qdrant",
                location=location,
                items=items,
                segments=int(answer.segments_count or 0),
                # The server's count of indexed vectors includes sparse ones in segments that are not compressed yet.
                indexed_items=items if answer.status == models.CollectionStatus.GREEN else None,
                fingerprint=self._manifest.fingerprint,
                latents=self._manifest.latents,
                settings=self._manifest.settings,
                index_bytes=None,
                navigation_bytes=None,
                total_bytes=None,
            )

        return Call("describe", lambda client: client.get_collection(collection_name=collection), parse)

    def state(self) -> Call[OptimiserState]:
        """State of the optimisers.

        Raises:
            CodeIndexError: they failed.
        """
        collection = self._target.collection

        def parse(answer: models.CollectionInfo) -> OptimiserState:
            if answer.status == models.CollectionStatus.RED:
                raise CodeIndexError(
                    f"the optimisers of collection {collection!r} failed ({answer.optimizer_status}); see the "
                    "server's log"
                )
            off = answer.config.optimizer_config.max_optimization_threads == 0
            return OptimiserState(
                status=str(answer.status),
                segments=int(answer.segments_count or 0),
                indexed=int(answer.indexed_vectors_count or 0),
                switched_off="max_optimization_threads is 0" if off else "",
            )

        return Call("optimise", lambda client: client.get_collection(collection_name=collection), parse)

    def optimiser_progress(self) -> Call[str]:
        """How far the optimisers have come, as a text that changes with every step (Qdrant 1.17 or newer, by REST)."""
        collection = self._target.collection
        return Call(
            "optimise",
            lambda client: client.get_optimizations(collection_name=collection),
            lambda answer: repr([progress_of(running.progress) for running in answer.running]),
        )

    def start_optimisers(self) -> Call[None]:
        """Start optimisers that wait since the server's restart. An update without changes does that."""
        return Call(
            "optimise",
            lambda client: client.update_collection(
                collection_name=self._target.collection, optimizers_config=models.OptimizersConfigDiff()
            ),
            ignore_answer,
        )

    def search(self, plans: Sequence[QueryPlan]) -> Call[list[list[Hit]]]:
        """Hits of several plans, in order."""
        return search_call(self._target, list(map(self._prepared, plans)), self._reader)

    def retrieve(self, ids: Sequence[ItemId]) -> Call[list[Record]]:
        """Stored items, in the order of `ids`; missing ones are left out."""
        vectors = [VECTOR_NAME, DENSE_NAME] if self._manifest.settings.keep_dense else [VECTOR_NAME]
        points = self._points(ids)
        return Call(
            "retrieve from",
            lambda client: client.retrieve(
                collection_name=self._target.collection,
                ids=list(dict.fromkeys(points)),
                with_payload=True,
                with_vectors=vectors,
                shard_key_selector=self._target.shard_key,
            ),
            lambda answer: self._reader.records(points, answer),
        )

    def hashes(self, ids: Sequence[ItemId]) -> Call[list[str | None]]:
        """Content hashes of items: "" for an item without one, None for an item that is missing."""
        points = self._points(ids)
        return Call(
            "retrieve from",
            lambda client: client.retrieve(
                collection_name=self._target.collection,
                ids=list(dict.fromkeys(points)),
                with_payload=list(ITEM_FIELDS),
                with_vectors=False,
                shard_key_selector=self._target.shard_key,
            ),
            lambda answer: self._reader.hashes(points, answer),
        )

    def page(self, size: int, offset: Any) -> Call[tuple[list[ItemId], Any]]:
        """Ids of `size` items from an offset on, and the next offset. None is the first offset, and follows the last
        page."""

        return self._scroll(ScrollSettings(size, None, list(ITEM_FIELDS), []), size, offset, self._reader.item_id)

    def _prepared(self, plan: QueryPlan) -> QueryPlan:
        """A plan that has been checked, with point ids in its filter."""
        plan = check_plan(plan, self._manifest)
        if plan.filter is None:
            return plan
        return replace(plan, filter=point_filter(plan.filter, old_ids=self._manifest.old_ids))

    def _points(self, ids: Sequence[ItemId]) -> list[PointId]:
        return points_of(ids, old=self._manifest.old_ids)

    def scroll(self, wanted: ScrollSettings, size: int, offset: Any) -> Call[tuple[list[Record], Any]]:
        """One page of `size` stored items, and the next offset; see `page`."""
        return self._scroll(wanted, size, offset, self._reader.record)

    def _scroll(
        self, wanted: ScrollSettings, size: int, offset: Any, read: Callable[[models.Record], T]
    ) -> Call[tuple[list[T], Any]]:
        with_point_ids = None if wanted.filter is None else point_filter(wanted.filter, old_ids=self._manifest.old_ids)

        def parse(answer: tuple[list[models.Record], Any]) -> tuple[list[T], Any]:
            points, next_offset = answer
            return [read(point) for point in points], next_offset

        return Call(
            "scan",
            lambda client: client.scroll(
                collection_name=self._target.collection,
                limit=size,
                offset=offset,
                with_payload=wanted.payload,
                shard_key_selector=self._target.shard_key,
                scroll_filter=with_point_ids,
                with_vectors=wanted.vectors or False,
            ),
            parse,
        )

    def check_droppable(self) -> None:
        """Check that the collection may be deleted.

        Raises:
            ConfigError: it was adopted, or these calls are of one shard key.
        """
        if self.adopted:
            raise ConfigError(
                f"collection {self._target.collection!r} was adopted, so it is not deleted here; delete it with "
                "qdrant-client"
            )
        if self._target.shard_key is not None:
            raise ConfigError(
                f"this index is shard key {self._target.shard_key!r} of collection {self._target.collection!r}; drop "
                "deletes the whole collection, so open it without the shard key"
            )

    def _check_shard(self) -> None:
        keys = self._manifest.settings.shard_keys
        if keys and self._target.shard_key is None:
            raise ConfigError(
                f"collection {self._target.collection!r} is split by shard keys {', '.join(map(repr, keys))}; write "
                "through index.of_shard(key) (?shard_key=KEY in a location)"
            )
