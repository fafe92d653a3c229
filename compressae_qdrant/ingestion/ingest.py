"""ingest(): load a catalog into an index, item by item as a stream. An interrupted run can be resumed.

Each time the index has made its writes durable (`flush`), the journal records the next row. A later run with the same
source, model and index continues from that row. Rows after it may be in the index already; writing them again under
the same ids changes nothing. Before it continues, it compares the index with what the journal says of it, as the index
may have been restored from an older snapshot, emptied or recreated.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ..errors import (
    CodeIndexError,
    CompresSAEError,
    IndexReplacedError,
    IndexUnavailableError,
    IngestError,
    ModelMismatchError,
)
from ..index.protocol import CodeIndex
from ..index.qdrant.operations import SyncOperations
from ..index.retry import RetryPolicy
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..sources import Batch, Source, expecting
from .confirmed import Confirmed, Counter
from .journal import Journal
from .prepared import MAX_REQUEST_BYTES
from .writer import Writer

__all__ = ["IngestReport", "check_fingerprint", "check_writable", "ingest", "optimise"]

_LOG = logging.getLogger(__name__)
_FLUSH_SECONDS: Final = 5.0
"""Minimum time between two journal entries: a kill loses at most this much work and the batches being written."""


@dataclass(frozen=True)
class IngestReport:
    """Result of an ingestion."""

    items: int
    """Items written by this run."""
    skipped: int
    """Malformed rows skipped by all runs."""
    resumed_from: int
    """First row of this run; 0 unless it resumed an earlier one."""
    rows: int
    """Rows of the source read by all runs."""
    repeated: int | None
    """Items that were replaced by a later row with the same id; None if unknown, because the index was not empty
    at the start or did not report its item count."""
    seconds: float
    """Duration of this run, including the optimisation of the index."""


def ingest(
    source: Source,
    model: CompresSAE,
    index: CodeIndex,
    *,
    journal: str | Path | None = None,
    method: Method = "pursuit",
    atoms_per_step: int = ATOMS_PER_STEP,
    batch_size: int = 2048,
    restart: bool = False,
    trust_journal: bool = False,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    patience: float | None = None,
) -> IngestReport:
    """Encode and upsert every item of a source, resuming an interrupted run.

    Args:
        source: the catalog; see `sources.open_source`.
        model: encodes the embeddings.
        index: an index for codes of this model.
        journal: file that records the progress. None uses the directory of an embedded index. For an index on a
            server, None records nothing, and every run starts from the first row.
        method: coding method; see `model.Method`.
        atoms_per_step: atoms selected in each step of pursuit.
        batch_size: rows read, encoded and upserted at a time.
        restart: ignore the journal and start from the first row.
        trust_journal: continue from the journal although items that it confirms are no longer in the index, because
            they were deleted on purpose.
        retry: how to retry when a server is unreachable or overloaded or fails.
        on_batch: called after each batch is written.
        max_request_bytes: approximate size of the largest request; see `Writer`.
        patience: seconds that a server's optimisers may show no progress; see `QdrantIndex.optimize`.

    Raises:
        ModelMismatchError: the index holds codes of another model.
        ConfigError: the journal belongs to another source, model, method or index.
        RowError: a row is malformed and the source does not skip such rows. Earlier rows are in the index and in the
            journal.
        IngestError: the index lacks items that the journal says are in it, or was deleted or recreated meanwhile; all
            rows were skipped, a batch cannot be encoded or upserted, or the server stayed unavailable for
            all attempts of `retry`. The message says which rows are in the index and how to continue.
    """
    check_fingerprint(index, model.fingerprint)
    started = time.perf_counter()
    file = index.journal if journal is None else Path(journal)
    location = "" if file is None or file == index.journal else retry.run(index.info).location
    progress = Journal(
        _short_hash(source.identity), model.fingerprint, f"{method}/{atoms_per_step}", location,
        confirmed=Confirmed(index.identity or ""),
    )  # fmt: skip
    if file is not None and not restart:
        progress = _resume(file, progress, index, retry, trusted=trust_journal)
    first_row = progress.next_row
    if progress.complete:
        return IngestReport(0, progress.skipped, first_row, first_row, None, time.perf_counter() - started)
    check_writable(index, retry)
    if first_row == 0:
        progress.empty = _item_count(index) == 0
    keeper = _Keeper(progress, file, index, retry)
    items = _write_batches(
        expecting(source, model.dim).batches(batch_size, first_row), keeper, on_batch,
        lambda on_written: Writer(model, index, method, atoms_per_step, retry, on_written, max_request_bytes),
    )  # fmt: skip
    if progress.skipped and progress.skipped == progress.next_row:
        raise IngestError(
            f"all {progress.skipped} rows of the source are malformed and were skipped, so there is no item to load; "
            "correct the source, or read it without skipping malformed rows to see the first error"
        )
    _optimize(index, progress, retry, patience)
    progress.complete = True
    repeated = _repeated(progress, keeper.save(final=True))
    if repeated:
        _LOG.warning("%d items were replaced by a later row with the same id; give every item its own id", repeated)
    return IngestReport(items, progress.skipped, first_row, progress.next_row, repeated, time.perf_counter() - started)


def check_fingerprint(index: CodeIndex, fingerprint: str) -> None:
    """Check that an index holds codes of the model with this fingerprint.

    Raises:
        ModelMismatchError: it holds codes of another model.
    """
    if index.fingerprint != fingerprint:
        raise ModelMismatchError(
            f"the index holds codes of model {index.fingerprint!r} but model {fingerprint!r} was given; use the "
            "index's own model, or create a new index"
        )


def check_writable(index: CodeIndex, retry: RetryPolicy) -> None:
    """Check that a server accepts writes into the index, before anything is encoded.

    Raises:
        IngestError: it refuses them, or stayed unavailable.
    """
    if not isinstance(index, SyncOperations):
        return
    try:
        retry.run(index.check_writable)
    except IndexUnavailableError as exc:
        raise IngestError(
            f"the server did not accept a first write after {retry.attempts} attempts ({exc}). No rows were written; "
            "run the same command again when the server is available"
        ) from exc
    except IndexReplacedError as exc:
        raise IngestError(f"{exc}. No rows were written") from exc
    except CodeIndexError as exc:
        raise IngestError(
            f"the server refuses writes ({exc}). No rows were written; set QDRANT_API_KEY to a key that can write and "
            "run the same command again"
        ) from exc


class _Keeper:
    """Makes what was written durable, and records it in the journal."""

    def __init__(self, progress: Journal, file: Path | None, index: CodeIndex, retry: RetryPolicy) -> None:
        self.progress, self.file = progress, file
        self._index, self._retry = index, retry
        self._counter = Counter(index)
        self._saved = time.perf_counter()
        self._stopped = False

    def is_due(self) -> bool:
        """Whether the last entry is old enough for the next."""
        return not self._stopped and time.perf_counter() - self._saved >= _FLUSH_SECONDS

    def stop(self) -> None:
        """Make no further entry due, because the load was interrupted and the server may not answer."""
        self._stopped = True

    def save(self, *, final: bool = False) -> int | None:
        """Record the rows confirmed so far, once the index is known to be the one that they were written to.

        Returns:
            The number of items in the index; None if it was not counted, as counting takes too long to do it often.

        Raises:
            IngestError: the index was deleted or recreated, or the server stayed unavailable.
        """
        try:
            self._index.flush()
            self._retry.run(self._index.verify)
        except IndexReplacedError as exc:
            raise _replaced(exc, self.progress) from exc
        except IndexUnavailableError as exc:
            raise IngestError(
                f"the server did not answer after {self._retry.attempts} attempts ({exc}). Rows before "
                f"{self.progress.next_row} are in the index; run the same command again when the server is available"
            ) from exc
        count = None
        if final and (self.file is not None or self.progress.empty):
            count = _item_count(self._index)
        elif self.file is not None:
            count = self._counter.count()
        self._note(count)
        return count

    def save_after_failure(self) -> None:
        """Record the rows confirmed before a failure, unless it was that the index was deleted or recreated.

        Raises:
            IngestError: it was.
        """
        count = None
        try:
            self._index.flush()
            self._index.verify()
            count = None if self.file is None else self._counter.count()
        except IndexReplacedError as exc:
            raise _replaced(exc, self.progress) from exc
        except IndexUnavailableError:
            pass  # the next run compares the index with the journal
        self._note(count)

    def save_at_once(self) -> None:
        """Record the rows confirmed before an interruption, without a request to a server that may not answer."""
        try:
            self._index.flush()
        except IndexReplacedError:
            return  # an embedded index, and its journal with it
        self._note(None)

    def _note(self, items: int | None) -> None:
        if items is not None:
            self.progress.confirmed.items = items
        if self.file is not None:
            self.progress.save(self.file)
        self._saved = time.perf_counter()


def _replaced(exc: IndexReplacedError, progress: Journal) -> IngestError:
    return IngestError(
        f"the load stopped before row {progress.next_row}: {exc}. The rows written so far are not in the index that is "
        "there now, or only a part of them; run the same command again with restart=True (--restart) to load every row"
    )


def _write_batches(
    batches: Iterable[Batch],
    keeper: _Keeper,
    on_batch: Callable[[Batch], None] | None,
    open_writer: Callable[[Callable[[Batch], None]], Writer],
) -> int:
    """Write all batches and record them in the journal; the number of items written."""
    items, progress = 0, keeper.progress

    def on_written(batch: Batch) -> None:
        nonlocal items
        progress.next_row, progress.skipped = batch.stop, progress.skipped + batch.skipped
        progress.confirmed.add(batch.ids)
        items += len(batch.ids)
        if keeper.is_due():
            keeper.save()
        if on_batch is not None:
            on_batch(batch)

    try:
        with open_writer(on_written) as writer:
            try:
                for batch in batches:
                    writer.write(batch)
            except KeyboardInterrupt:
                keeper.stop()
                writer.abandon()
                raise
            finally:
                writer.drain()  # batches before a failure are written and recorded
    except CompresSAEError as exc:
        if isinstance(exc.__cause__, IndexReplacedError):
            raise
        keeper.save_after_failure()
        raise
    except KeyboardInterrupt as exc:
        keeper.save_at_once()
        again = "continue" if keeper.file is not None else "start from the first row (a journal would let it continue)"
        exc.add_note(
            f"interrupted: rows before {progress.next_row} are in the index; run the same command again to {again}"
        )
        raise
    keeper.save()
    return items


def optimise(index: CodeIndex, retry: RetryPolicy, patience: float | None) -> None:
    """Optimise an index; a server's optimisers may show no progress for `patience` seconds."""
    retry.run(partial(index.optimize, patience) if isinstance(index, SyncOperations) else index.optimize)


def _optimize(index: CodeIndex, progress: Journal, retry: RetryPolicy, patience: float | None) -> None:
    try:
        optimise(index, retry, patience)
    except IndexReplacedError as exc:
        raise _replaced(exc, progress) from exc
    except CodeIndexError as exc:
        raise IngestError(
            f"optimising the index failed ({exc}). All {progress.next_row} rows are in the index; run the command "
            "again to resume the optimisation"
        ) from exc
    except KeyboardInterrupt as exc:
        exc.add_note(
            f"interrupted: all {progress.next_row} rows are in the index; run the command again to resume the "
            "optimisation"
        )
        raise


def _repeated(progress: Journal, count: int | None) -> int | None:
    """Items replaced by a later row, if the index was empty at the start and reported its item count at the end."""
    return None if count is None or not progress.empty else max(0, progress.next_row - progress.skipped - count)


def _item_count(index: CodeIndex) -> int | None:
    """Number of items, or None if the index fails to report it: only a figure of the report depends on it."""
    try:
        return index.count()
    except CodeIndexError:
        return None


def _resume(file: Path, current: Journal, index: CodeIndex, retry: RetryPolicy, *, trusted: bool) -> Journal:
    """The progress of an earlier run of this ingestion, or `current` if there is none.

    Raises:
        IngestError: the index is not as the earlier run left it.
    """
    earlier = Journal.load(file)
    if earlier is None:
        return current
    earlier.check(current, file)
    if not earlier.next_row:
        return current
    says = f"journal {file} says that the rows before {earlier.next_row} are in the index, but"
    count = retry.run(index.count)
    if not count:
        _LOG.warning("%s the index is empty; every row is loaded again", says)
        return current
    lost = "" if trusted else earlier.confirmed.lost(index, count, retry)
    if lost:
        raise IngestError(
            f"{says} {lost}. It was recreated, emptied or restored from an older snapshot, or items were deleted. Use "
            "restart=True (--restart) to load every row again, which replaces items by id, or trust_journal=True "
            "(--trust-journal) if they were deleted on purpose"
        )
    if trusted:
        earlier.confirmed = Confirmed(items=count)  # the next run compares with what is there now
    earlier.confirmed.identity = current.confirmed.identity
    if trusted:
        earlier.save(file)
    return earlier


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
