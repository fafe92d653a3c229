"""The interface that every index of codes offers, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypedDict, TypeVar, Unpack
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ..checks import check_whole, shown
from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError
from .plan import QueryPlan
from .results import Hit, IndexInfo, ItemId, Payload, Record
from .settings import IndexSettings

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["AsyncCodeIndex", "CodeIndex", "CodeModel", "ScrollOptions", "all_pages", "check_page"]

T = TypeVar("T")


class ScrollOptions(TypedDict, total=False):
    """Keyword arguments of `scroll` and `scan_records`; every one may be left out."""

    filter: models.Filter | None
    """Condition on payload fields or ids that every item must meet."""
    with_payload: bool
    """Whether records carry their payload, as they do by default."""
    with_codes: bool
    """Whether records carry their code; otherwise `indices` and `values` are empty."""
    with_dense: bool
    """Whether records carry their embedding, which the index must keep."""


class CodeModel(Protocol):
    """The properties of a model that its index needs."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def latents(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def projection_fingerprint(self) -> str: ...
    @property
    def max_navigation_dim(self) -> int: ...
    def navigation_vectors(self, codes: SparseCodes, dim: int) -> FloatArray: ...


class CodeIndex(Protocol):
    """An index of item codes: items have ids and payloads, and are found by query plans."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model whose codes the index holds."""

    @property
    def latents(self) -> int:
        """Number of latents h of that model."""

    @property
    def identity(self) -> str | None:
        """Random id of the index, by which it is told from a later one of the same name; None in indexes of 0.1."""

    @property
    def settings(self) -> IndexSettings:
        """Settings with which the index was created."""

    @property
    def projection(self) -> str | None:
        """Fingerprint of the projection that made its navigation vectors; None for an index without them."""

    @property
    def parallel_upserts(self) -> int:
        """How many upserts to run at once."""

    @property
    def journal(self) -> Path | None:
        """Default file for the progress of an ingestion into this index; None if the index has no place for one."""

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items. The whole batch is checked before any of it is written.

        Args:
            ids: n different item ids.
            codes: (n, k) codes of the index's model.
            payloads: n JSON-like payloads, or None for none.
            dense: (n, d) embeddings, required by an index with `keep_dense` and refused by others.
            hashes: n hashes of the items' content, which `sync` compares, or None.
        """

    def verify(self) -> None:
        """Check that this is still the index that was opened; other calls check it too, at most every two seconds.

        Raises:
            IndexReplacedError: it was deleted, or another was created in its place.
        """

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Delete items; ids that are not in the index are ignored."""

    def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """Delete the items that match a filter.

        Args:
            filter: condition on payload fields or ids.
            all_items: whether a filter without any condition may delete everything.

        Returns:
            Number of matching items, counted just before the deletion.

        Raises:
            InvalidInputError: the filter has no condition and `all_items` is not set.
        """

    def drop(self) -> None:
        """Delete the index with all its items, and close it."""

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match a filter; with `exact=False`, a cheap estimate."""

    def info(self) -> IndexInfo:
        """Size, state and settings."""

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order of `ids`; missing ones are left out."""

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" for an item without one, None for an item that is missing."""

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset. None is the first offset, and follows the last
        page. A page that failed can be requested again; a `scan` that failed cannot be continued."""

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""

    def scroll(
        self, size: int = 1024, offset: Any = None, **options: Unpack[ScrollOptions]
    ) -> tuple[list[Record], Any]:
        """One page of the stored items, in the order of their point ids.

        Args:
            size: items of the page; a server's strict mode may allow fewer.
            offset: the second result of the call before; None for the first page.
            **options: which items, and what is read of them; see `ScrollOptions`.

        Returns:
            The records, and the offset of the next page: None after the last one.

        Raises:
            InvalidInputError: embeddings are asked for and the index keeps none.
        """

    def scan_records(self, size: int = 1024, **options: Unpack[ScrollOptions]) -> Iterator[list[Record]]:
        """The stored items, `size` at a time; see `scroll`."""

    def optimize(self) -> None:
        """Build compressed segments now, and wait until they are built."""

    def flush(self) -> None:
        """Return once everything written is durable."""

    def close(self) -> None:
        """Release the engine. The index itself is kept."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_page(size: int, offset: Any) -> int:
    """Check the arguments of `page`, and return the size.

    Raises:
        InvalidInputError: the size is no positive whole number, or the offset is none that `page` returned.
    """
    size = check_whole("the size of a page", size, 1)
    known = offset is None or isinstance(offset, UUID) or (isinstance(offset, int) and 0 <= offset < 2**64)
    if isinstance(offset, bool) or not (known or (isinstance(offset, str) and _is_uuid(offset))):
        raise InvalidInputError(f"the offset of a page is {shown(offset)}; pass None, or what the last page returned")
    return size


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def all_pages(page: Callable[[int, Any], tuple[list[T], Any]], size: int) -> Iterator[list[T]]:
    """The ids or records of an index, page by page, read by its method `page` or `scroll`."""
    offset: Any = None
    while True:
        items, offset = page(size, offset)
        if items:
            yield items
        if offset is None:
            return


class AsyncCodeIndex(Protocol):
    """The methods of an index that an async retriever uses."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model whose codes the index holds."""

    @property
    def settings(self) -> IndexSettings:
        """Settings with which the index was created."""

    @property
    def projection(self) -> str | None:
        """Fingerprint of the projection that made its navigation vectors; None for an index without them."""

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, see `CodeIndex.count`."""

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order of `ids`; missing ones are left out."""
