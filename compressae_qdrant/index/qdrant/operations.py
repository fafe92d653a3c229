"""The operations of `CodeIndex` on a collection, for any sync way to make its calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from ...checks import check_sequence
from ...codes import SparseCodes
from ..plan import QueryPlan
from ..protocol import ScrollOptions, all_pages
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from .base import CollectionIndex
from .calls import Call
from .steps import (
    count_steps,
    delete_steps,
    drop_steps,
    follow,
    optimise_steps,
    page_steps,
    read_steps,
    scroll_steps,
    upsert_steps,
    verify_steps,
)

__all__ = ["SyncOperations"]

T = TypeVar("T")


class SyncOperations(CollectionIndex):
    """The operations of an index whose `_run` makes a call and waits for its result."""

    @abstractmethod
    def _run(self, call: Call[T]) -> T: ...

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items. The whole batch is checked before any of it is sent. It is sent in several requests
        if one would be too large for the server.

        Raises:
            InvalidInputError, InvalidCodeError: the batch is not valid; see `points.check_batch`.
            RequestTooLargeError: an item is too large by itself; names it.
        """
        follow(upsert_steps(self._requests, ids, codes, payloads, dense, hashes), self._run)

    def check_writable(self) -> None:
        """Find out whether the server accepts writes by the cheapest one, the deletion of a point that does not exist.

        Raises:
            CodeIndexError: it does not, for example because the API key is read-only.
        """
        self._run(self._requests.write_nothing())

    def verify(self) -> None:
        """Check that the collection is still the one that was opened. Other calls check it too, every two seconds.

        Raises:
            IndexReplacedError: it was deleted, or another was created under its name.
        """
        follow(verify_steps(self._requests, self._watch), self._run)

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Delete items; ids that are not in the index are ignored."""
        call = self._requests.delete(ids)
        if call is not None:
            self._run(call)

    def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """Delete the items that match a filter; see `CodeIndex.delete_by_filter`."""
        return follow(delete_steps(self._requests, filter, all_items=all_items), self._run)

    def drop(self, *, aliases: bool = False) -> None:
        """Delete the collection, and close the index.

        Args:
            aliases: whether a collection may be deleted that aliases point to, together with these.

        Raises:
            ConfigError: the collection has aliases, was adopted, or this index is one shard key of it.
        """
        follow(drop_steps(self._requests, self._collection, aliases=aliases), self._run)
        self.close()

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match a filter; with `exact=False`, the server's estimate.

        The number of all items is an estimate too where the collection's strict mode forbids exact counts.
        """
        return follow(count_steps(self._requests, filter, exact=exact), self._run)

    def info(self) -> IndexInfo:
        """Size, state and settings. A server does not report sizes in bytes."""
        return self._run(self._requests.info(self.count()))

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first, in one call."""
        return self._run(self._requests.search([plan]))[0]

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order, in one call."""
        check_sequence("plans", plans)
        return self._run(self._requests.search(plans)) if len(plans) else []

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order of `ids`; missing ones are left out."""
        return follow(read_steps(self._requests.retrieve, ids), self._run)

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" for an item without one, None for an item that is missing."""
        return follow(read_steps(self._requests.hashes, ids), self._run)

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset; see `CodeIndex.page`."""
        return follow(page_steps(self._requests, size, offset), self._run)

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""
        return all_pages(self.page, size)

    def scroll(
        self, size: int = 1024, offset: Any = None, **options: Unpack[ScrollOptions]
    ) -> tuple[list[Record], Any]:
        """One page of the stored items; see `CodeIndex.scroll`."""
        return follow(scroll_steps(self._requests, size, offset, options), self._run)

    def scan_records(self, size: int = 1024, **options: Unpack[ScrollOptions]) -> Iterator[list[Record]]:
        """The stored items, `size` at a time; see `CodeIndex.scroll`."""
        return all_pages(lambda size, offset: self.scroll(size, offset, **options), size)

    def optimize(self, patience: float | None = None) -> None:
        """Wait until the server's optimisers are done. Their progress is logged every ten seconds.

        Args:
            patience: seconds that they may show no progress. None takes 120, or 600 where the server does not report
                their progress in detail (before Qdrant 1.17).

        Raises:
            CodeIndexError: they failed, are switched off, or made no progress for too long.
        """
        follow(optimise_steps(self._requests, self._collection, patience), self._run)

    def flush(self) -> None:
        """Do nothing: every upsert already waits until the server has logged it."""

    def close(self) -> None:
        """Do nothing: the client belongs to the caller."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
