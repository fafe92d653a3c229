"""The interface that every index of codes offers, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..codes import SparseCodes
from .plan import QueryPlan
from .results import Hit, IndexInfo, ItemId, Payload, Record
from .settings import IndexSettings

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["AsyncCodeIndex", "CodeIndex", "CodeModel", "all_pages"]


class CodeModel(Protocol):
    """What an index needs to know of the model whose codes it holds."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def latents(self) -> int: ...
    @property
    def dim(self) -> int: ...


class CodeIndex(Protocol):
    """Codes of items under ids, with payloads, searchable by query plans."""

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""

    @property
    def latents(self) -> int:
        """h of that model."""

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""

    @property
    def parallel_upserts(self) -> int:
        """Upserts that are worth having under way at once."""

    @property
    def journal(self) -> Path | None:
        """Where an ingestion into this index notes its progress by default; None if there is no such place."""

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items; (n, d) `dense` is for an index with `keep_dense`, and must be given to it.

        `hashes` are kept beside the items for `sync`: what each was made from.

        All of the batch is checked before any of it is written.
        """

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Remove items; ids that are not there are ignored."""

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match; not `exact` is an estimate, which costs a server nothing."""

    def info(self) -> IndexInfo:
        """Size, state and settings."""

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order asked for; those that are not there are left out."""

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" where an item was stored without one, None where there is no such item."""

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset; None is the first, and after the last. Where one
        page can't be had it can be asked for again, which a broken `scan` can't."""

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""

    def optimize(self) -> None:
        """Build compressed segments now, and wait until they are built."""

    def flush(self) -> None:
        """Return once everything written is durable."""

    def close(self) -> None:
        """Release the engine; the index stays."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def all_pages(page: Callable[[int, Any], tuple[list[ItemId], Any]], size: int) -> Iterator[list[ItemId]]:
    """The ids of an index, page after page, by its method `page`."""
    offset: Any = None
    while True:
        found, offset = page(size, offset)
        if found:
            yield found
        if offset is None:
            return


class AsyncCodeIndex(Protocol):
    """What an async retriever asks of an index."""

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""

    async def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, see `CodeIndex.count`."""

    async def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first."""

    async def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order."""

    async def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order asked for; those that are not there are left out."""
