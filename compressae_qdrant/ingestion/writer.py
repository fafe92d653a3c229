"""Writer: encodes batches, upserts them with parallel workers, and confirms them in the order of the source.

The number of requests being sent is bounded, so memory does not grow when the server is slow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from .. import telemetry
from ..checks import check_whole
from ..codes import SparseCodes
from ..errors import (
    CodeIndexError,
    ConfigError,
    IndexReplacedError,
    IndexUnavailableError,
    IngestError,
    InvalidInputError,
)
from ..index.protocol import CodeIndex
from ..index.retry import RetryPolicy
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..sources import Batch
from .prepared import MAX_REQUEST_BYTES, PreparedBatch, request_slices
from .requests import EncodedRows, upload

__all__ = ["Writer"]


class Writer:
    """Encodes and upserts batches. Use it as a context manager, which waits for the running requests at its end.

    Args:
        model: encodes the embeddings.
        index: receives the codes, and says how many upserts to run in parallel.
        method: coding method; see `model.Method`.
        atoms_per_step: atoms selected in each step of pursuit.
        retry: how to retry when a server fails.
        on_written: called for each batch once it is in the index, in the order of the source.
        max_request_bytes: approximate size of the largest request. A request that the server refuses as too large is
            split, and later ones are smaller.

    Raises:
        ConfigError: `max_request_bytes` is not positive.
    """

    def __init__(
        self,
        model: CompresSAE,
        index: CodeIndex,
        method: Method,
        atoms_per_step: int,
        retry: RetryPolicy,
        on_written: Callable[[Batch], None],
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        max_request_bytes = check_whole("max_request_bytes", max_request_bytes, 1, 2**63, error=ConfigError)
        self._model, self._index = model, index
        self._method, self._atoms_per_step = method, atoms_per_step
        self._retry, self._on_written = retry, on_written
        self._pending: deque[tuple[PreparedBatch, list[Future[None]]]] = deque()
        self._workers = index.parallel_upserts
        self._pool = ThreadPoolExecutor(self._workers) if self._workers > 1 else None
        self._any_request_succeeded = False
        self._stopped = threading.Event()
        self._max_request_bytes = max_request_bytes

    def write(self, batch: Batch) -> None:
        """Prepare and write a batch; see `write_prepared`."""
        self.write_prepared(self.prepare(batch))

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Check the ids of a batch, and wait while an earlier batch with one of them is being written, so that an item
        that occurs twice in the source ends with its last value.

        Raises:
            IngestError: an id is invalid or occurs twice in the batch, or an earlier batch failed; names the rows.
        """
        try:
            prepared = PreparedBatch.of(batch)
        except InvalidInputError as exc:
            raise self._rejected(batch, exc) from exc
        if any(not earlier.items.isdisjoint(prepared.items) for earlier, _ in self._pending):
            self.drain()
        return prepared

    def write_prepared(self, prepared: PreparedBatch, target: CodeIndex | None = None) -> None:
        """Encode a batch from `prepare` and start its upserts, into another view of the index if `target` is given.

        Waits while there are as many unconfirmed batches as workers.

        Raises:
            IngestError: the batch cannot be encoded, or it or an earlier one was refused; names the rows.
        """
        requests: list[Future[None]] = []
        if prepared.ids:
            target = target or self._index
            try:
                codes = self._encode(prepared.batch)
            except InvalidInputError as exc:
                raise self._rejected(prepared.batch, exc) from exc
            batch = prepared.batch
            dense = batch.embeddings if self._index.settings.keep_dense else None
            items = EncodedRows(prepared.ids, codes, batch.payloads, prepared.texts, dense, prepared.hashes)
            for rows in request_slices(prepared.texts, items.numbers, self._max_request_bytes):
                if self._pool is not None:
                    requests.append(self._pool.submit(self._upsert, target, items, rows))
                    continue
                try:
                    self._upsert(target, items, rows)
                except (InvalidInputError, CodeIndexError) as exc:
                    raise self._failed(prepared.batch, exc) from exc
        self._pending.append((prepared, requests))
        while len(self._pending) > (self._workers if self._pool else 0):
            self._confirm_first()

    def drain(self) -> None:
        """Wait until every batch that was handed over is in the index.

        Raises:
            IngestError: one failed; names its rows.
        """
        while self._pending:
            self._confirm_first()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.abandon()
        elif self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def abandon(self) -> None:
        """Confirm the batches that are already written, and give up the others without waiting for the server."""
        self._stopped.set()
        while self._pending and all(_succeeded(request) for request in self._pending[0][1]):
            self._confirm_first()
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _encode(self, batch: Batch) -> SparseCodes:
        with telemetry.timed("compressae.ingest.encoding.duration"):
            return self._model.encode(
                batch.unit_rows(), self._method, atoms_per_step=self._atoms_per_step, scale=self._index.settings.scale
            )

    def _upsert(self, target: CodeIndex, items: EncodedRows, rows: slice) -> None:
        accepted = upload(target, items, rows, self._retry, self._stopped)
        if accepted is not None:
            self._max_request_bytes = min(self._max_request_bytes, accepted)
        self._any_request_succeeded = True

    def _confirm_first(self) -> None:
        prepared, requests = self._pending[0]
        try:
            for request in requests:
                request.result()
        except (InvalidInputError, CodeIndexError) as exc:
            self._stop_requests()
            raise self._failed(prepared.batch, exc) from exc
        self._pending.popleft()
        telemetry.count("compressae.ingest.items", len(prepared.ids))
        telemetry.count("compressae.ingest.skipped", prepared.batch.skipped)
        self._on_written(prepared.batch)

    def _stop_requests(self) -> None:
        """Cancel the requests that have not started and wait for the others, so that an error says what was written."""
        wait([request for _, requests in self._pending for request in requests if not request.cancel()])
        self._pending.clear()

    def _rejected(self, batch: Batch, exc: InvalidInputError) -> IngestError:
        """The error of a batch of which nothing was sent, once all earlier batches are written."""
        self.drain()
        return self._failed(batch, exc)

    def _failed(self, batch: Batch, exc: InvalidInputError | CodeIndexError) -> IngestError:
        telemetry.count("compressae.ingest.failures", attributes={"error.type": type(exc).__name__})
        rows = f"rows {batch.start}-{batch.stop - 1}"
        if batch.start:
            written = f"Rows before {batch.start} are in the index"
        elif self._any_request_succeeded or isinstance(exc, IndexUnavailableError):
            written = "Some of these rows may be in the index"
        else:
            written = "No rows were written"
        if isinstance(exc, IndexReplacedError):
            return IngestError(
                f"upload failed at {rows}: {exc}. The rows written before are not in the index that is there now, or "
                "only a part of them; run the same command again (with --restart for ingest) to load every row"
            )
        if isinstance(exc, IndexUnavailableError):
            return IngestError(
                f"upload failed at {rows} after {self._retry.attempts} attempts ({exc}). {written}; run the same "
                "command again when the server is available"
            )
        if isinstance(exc, CodeIndexError):
            return IngestError(
                f"upload failed at {rows} ({exc}). {written}; resolve this problem and run the same command again"
            )
        return IngestError(
            f"{rows} cannot be ingested: {exc}. {written}; correct the source and run the same command again (with "
            "--restart if the file changed)"
        )


def _succeeded(request: Future[None]) -> bool:
    return request.done() and not request.cancelled() and request.exception() is None
