"""sync(): make an index equal to a catalog. Only new and changed items are encoded; items missing from it are deleted.

The index stores a content hash with each item. An interrupted run is repeated; items written before are then unchanged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import IndexReplacedError, IngestError, SourceError
from ..index import QdrantIndex
from ..index.ids import id_digests
from ..index.protocol import CodeIndex
from ..index.retry import RetryPolicy
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..sources import Batch, Source, expecting
from .ingest import check_fingerprint, check_writable, optimise
from .prepared import MAX_REQUEST_BYTES
from .writer import Writer

__all__ = ["SyncReport", "sync"]

_PAGE: Final = 4096
"""Item ids read from the index at a time."""


@dataclass(frozen=True)
class SyncReport:
    """Result of a synchronisation."""

    added: int
    changed: int
    """Items with a different embedding, payload or coding method, or stored without a content hash."""
    unchanged: int
    deleted: int
    skipped: int
    """Malformed rows skipped."""
    seconds: float


def sync(
    source: Source,
    model: CompresSAE,
    index: CodeIndex,
    *,
    delete: bool = True,
    backfill: bool = False,
    method: Method = "pursuit",
    atoms_per_step: int = ATOMS_PER_STEP,
    batch_size: int = 2048,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    patience: float | None = None,
) -> SyncReport:
    """Add, change and delete items until the index holds the same items as the source.

    Memory grows by 8 bytes for each item of the source, to detect deleted items at the end.

    Args:
        source: the catalog.
        model: encodes the embeddings.
        index: an index for codes of this model.
        delete: delete items that are not in the source.
        backfill: another process writes newer items to the index at the same time. An item that appears after it was
            looked up is not overwritten, if the server supports this (Qdrant 1.17 or newer).
        method: coding method; items encoded with another method count as changed.
        atoms_per_step: atoms selected in each step of pursuit.
        batch_size: rows read and compared at a time.
        retry: how to retry when a server fails.
        on_batch: called after each batch is compared and its changes are handed to the writer.
        max_request_bytes: approximate size of the largest request; see `Writer`.
        patience: seconds that a server's optimisers may show no progress; see `QdrantIndex.optimize`.

    Raises:
        ModelMismatchError: the index holds codes of another model.
        SourceError: the source has no items, or rows were skipped. Nothing is deleted then, because an unreadable item
            cannot be told from a deleted one.
        IngestError: a batch cannot be encoded or upserted, or has an id twice; or the index was deleted or recreated
            meanwhile.
    """
    check_fingerprint(index, model.fingerprint)
    started = time.perf_counter()
    digests: list[npt.NDArray[np.uint64]] = []
    added = changed = unchanged = skipped = 0
    only_new = index.only_new() if backfill and isinstance(index, QdrantIndex) else None
    written = 0

    def on_written(batch: Batch) -> None:
        nonlocal written
        written += len(batch.ids)

    check_writable(index, retry)
    with (
        _replacement(),
        _interruption(lambda: written),
        Writer(model, index, method, atoms_per_step, retry, on_written, max_request_bytes) as writer,
    ):
        for batch in expecting(source, model.dim).batches(batch_size):
            skipped += batch.skipped
            # Prepared before the look-up: it waits until an earlier row with the same id is written.
            prepared = writer.prepare(batch).with_hashes(f"{method}/{atoms_per_step}")
            digests.append(id_digests(prepared.ids))
            stored = retry.run(partial(index.hashes, prepared.ids))
            new_rows = [row for row, old in enumerate(stored) if old is None]
            changed_rows = [
                row for row, (old, now) in enumerate(zip(stored, prepared.hashes or (), strict=True))
                if old is not None and old != now
            ]  # fmt: skip
            added, changed = added + len(new_rows), changed + len(changed_rows)
            unchanged += len(stored) - len(new_rows) - len(changed_rows)
            if only_new is None:
                parts = [(sorted(new_rows + changed_rows), index)]
            else:
                parts = [(new_rows, only_new), (changed_rows, index)]
            for rows, target in parts:
                if rows:
                    writer.write_prepared(prepared.take(rows), target)
            if on_batch is not None:
                on_batch(batch)
        writer.drain()
    if skipped and not added + changed + unchanged:
        raise SourceError(
            f"all {skipped} rows of the source are malformed and were skipped; nothing was changed; correct the "
            "source, or read it without skipping malformed rows to see the first error"
        )
    with _replacement():
        deleted = _delete_missing(index, digests, skipped, retry) if delete else 0
        optimise(index, retry, patience)
        index.flush()
        retry.run(index.verify)
    return SyncReport(added, changed, unchanged, deleted, skipped, time.perf_counter() - started)


@contextlib.contextmanager
def _replacement() -> Iterator[None]:
    """Say in an error that the index was deleted or recreated what that means for the synchronisation."""
    try:
        yield
    except IndexReplacedError as exc:
        raise IngestError(
            f"the synchronisation stopped: {exc}. What was written so far is not in the index that is there now, or "
            "only a part of it, and nothing was deleted there; run the same command again"
        ) from exc


@contextlib.contextmanager
def _interruption(written: Callable[[], int]) -> Iterator[None]:
    """Note in an interruption how many items were written."""
    try:
        yield
    except KeyboardInterrupt as exc:
        exc.add_note(
            f"interrupted: {written()} added or changed items are in the index and nothing was deleted; run the same "
            "command again to continue"
        )
        raise


def _delete_missing(index: CodeIndex, digests: list[npt.NDArray[np.uint64]], skipped: int, retry: RetryPolicy) -> int:
    """Delete the items whose digest is not among those of the source; how many were deleted."""
    present = np.sort(np.concatenate(digests)) if digests else np.empty(0, np.uint64)
    if not len(present) or skipped:
        reason = f"{skipped} rows of the source could not be read" if skipped else "the source has no items"
        raise SourceError(
            f"{reason}; items were added and changed, but nothing was deleted; correct the source, or sync with "
            "delete=False (--keep-vanished)"
        )
    deleted, offset = 0, None
    while True:
        ids, offset = retry.run(partial(index.page, _PAGE, offset))
        stored = id_digests(ids)
        nearest = np.searchsorted(present, stored).clip(max=len(present) - 1)
        missing = [item for item, known in zip(ids, present[nearest] == stored, strict=True) if not known]
        if missing:
            retry.run(index.verify)  # another index in its place may need these items
            retry.run(partial(index.delete, missing))
            deleted += len(missing)
        if offset is None:
            return deleted
