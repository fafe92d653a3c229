"""sync(): make an index equal to a source. Only what differs is encoded and written; what vanished is deleted.

Each item keeps a hash of what it was made from. An interrupted run is simply run again: what is in already is equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import ModelMismatchError, SourceError
from ..index import QdrantIndex
from ..index.ids import id_digests
from ..index.protocol import CodeIndex
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..retry import RetryPolicy
from ..sources import Batch, Source
from .writer import Writer, content_hash

__all__ = ["SyncReport", "sync"]

_PAGE: Final = 4096


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did."""

    added: int
    changed: int
    """Items whose embedding or payload differed, or that had been ingested without a hash."""
    unchanged: int
    deleted: int
    skipped: int
    """Malformed rows left out."""
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
) -> SyncReport:
    """Add, change and delete items until the index holds what the source holds.

    Memory grows by 8 bytes an item of the source, to know at the end what has vanished from it.

    Args:
        source: what to read.
        model: encodes the embeddings.
        index: an index of that model's codes.
        delete: remove items that the source doesn't have.
        backfill: others write newer items to the index meanwhile: one that appears after it was looked for is left as
            it is, where the server can (Qdrant 1.17 or newer).
        method: how codes are found; items encoded another way count as changed.
        atoms_per_step: of pursuit.
        batch_size: rows read and compared at once.
        retry: what to do while a server fails.
        on_batch: called after each batch is compared and handed over.

    Raises:
        ModelMismatchError: the index holds another model's codes.
        SourceError: the source has no items, or rows were skipped: nothing is deleted then, as what is unreadable can't
            be told from what has vanished.
        IngestError: a batch can't be encoded or upserted, or has an id twice.
    """
    if index.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"the index holds codes of model {index.fingerprint!r} but model {model.fingerprint!r} was given; use the "
            "index's own model, or create a new index"
        )
    started = time.perf_counter()
    how = f"{method}/{atoms_per_step}"
    seen: list[npt.NDArray[np.uint64]] = []
    added = changed = unchanged = skipped = 0
    adding = index.only_new() if backfill and isinstance(index, QdrantIndex) else None
    with Writer(model, index, method, atoms_per_step, retry, lambda _: None) as writer:
        for batch in source.batches(batch_size):
            skipped += batch.skipped
            seen.append(id_digests(batch.ids))
            writer.settle(batch)  # or the hash of an item that came before would be that of what it replaces
            stored = retry.run(lambda ids=batch.ids: index.hashes(ids))  # type: ignore[misc]  # bound at once
            wanted = [content_hash(batch, row, how) for row in range(len(batch.ids))]
            new = [row for row, hash in enumerate(stored) if hash is None]
            other = [row for row, hash in enumerate(stored) if hash is not None and hash != wanted[row]]
            added, changed = added + len(new), changed + len(other)
            unchanged += len(wanted) - len(new) - len(other)
            parts = [(new, adding), (other, None)] if adding else [(sorted([*new, *other]), None)]
            for rows, into in parts:
                if rows:
                    writer.write(_part(batch, rows), [wanted[row] for row in rows], into)
            if on_batch is not None:
                on_batch(batch)
        writer.drain()
    deleted = _delete_vanished(index, seen, skipped, retry) if delete else 0
    retry.run(index.optimize)
    index.flush()
    return SyncReport(added, changed, unchanged, deleted, skipped, time.perf_counter() - started)


def _part(batch: Batch, rows: list[int]) -> Batch:
    return Batch(
        [batch.ids[row] for row in rows], batch.embeddings[rows], [batch.payloads[row] for row in rows], batch.start,
        batch.stop, 0,
    )  # fmt: skip


def _delete_vanished(index: CodeIndex, seen: list[npt.NDArray[np.uint64]], skipped: int, retry: RetryPolicy) -> int:
    present = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.uint64)
    if not len(present) or skipped:
        what = f"{skipped} rows of the source could not be read" if skipped else "the source has no items"
        raise SourceError(
            f"{what}; adds and changes are in, but nothing was deleted; mend the source, or sync with delete=False "
            "(--keep-vanished)"
        )
    deleted, offset = 0, None
    while True:
        ids, offset = retry.run(lambda offset=offset: index.page(_PAGE, offset))  # type: ignore[misc]  # bound at once
        digests = id_digests(ids)
        places = np.searchsorted(present, digests).clip(max=len(present) - 1)
        vanished = [item for item, there in zip(ids, present[places] == digests, strict=True) if not there]
        if vanished:
            retry.run(lambda ids=vanished: index.delete(ids))  # type: ignore[misc]  # bound at once
            deleted += len(vanished)
        if offset is None:
            return deleted
