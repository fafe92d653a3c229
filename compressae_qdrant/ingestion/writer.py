"""Batches into an index: encoded here, upserted by several workers, confirmed in the order of the source.

The queue of requests under way is bounded, so memory stays flat however slow the server is.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from .. import telemetry
from ..codes import SparseCodes
from ..errors import CodeIndexError, IndexUnavailableError, IngestError, InvalidInputError
from ..index.points import point_ids
from ..index.protocol import CodeIndex
from ..index.results import ItemId
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..retry import RetryPolicy
from ..sources import Batch

__all__ = ["Writer", "content_hash", "request_slices"]

_REQUEST_BYTES: Final = 8 << 20
"""Largest request, roughly: a server refuses 32 MB, and smaller ones spread better over workers."""
_POINT_BYTES: Final = 64
_NUMBER_BYTES: Final = 16
"""Of an id and its frame, and of one index or value, in a request as JSON; gRPC needs less."""


class Writer:
    """Encodes batches and upserts them. Use it in a `with`: its end waits for what is under way.

    Args:
        model: encodes the embeddings.
        index: takes the codes; says how many upserts it likes to have under way.
        method: how codes are found; see `model.Method`.
        atoms_per_step: of pursuit.
        retry: what to do while a server fails.
        on_confirmed: called for each batch once it is in the index, in the order of the source.
    """

    def __init__(
        self,
        model: CompresSAE,
        index: CodeIndex,
        method: Method,
        atoms_per_step: int,
        retry: RetryPolicy,
        on_confirmed: Callable[[Batch], None],
    ) -> None:
        self._model, self._index = model, index
        self._method, self._atoms_per_step = method, atoms_per_step
        self._retry, self._on_confirmed = retry, on_confirmed
        self._under_way: deque[tuple[Batch, list[Future[None]]]] = deque()
        self._ids: deque[set[ItemId]] = deque()
        self._workers = index.parallel_upserts
        self._pool = ThreadPoolExecutor(self._workers) if self._workers > 1 else None

    def write(self, batch: Batch, hashes: Sequence[str] | None = None, into: CodeIndex | None = None) -> None:
        """Encode a batch and hand it over, `into` another view of the index if there is one.

        Waits while as many batches as there are workers are under way.

        Raises:
            IngestError: this batch can't be encoded or is refused, or an earlier one failed; names the rows.
        """
        done: list[Future[None]] = []
        self.settle(batch)
        try:
            if batch.ids:
                with telemetry.timed("compressae.ingest.encoding.duration"):
                    codes = self._model.encode(
                        batch.embeddings,
                        self._method,
                        atoms_per_step=self._atoms_per_step,
                        scale=self._index.settings.scale,
                    )
                numbers = 2 * self._model.k + (self._model.dim if self._index.settings.keep_dense else 0)
                for rows in request_slices(batch.payloads, numbers):
                    if self._pool is None:
                        self._upsert(into or self._index, batch, codes, hashes, rows)
                    else:
                        done.append(self._pool.submit(self._upsert, into or self._index, batch, codes, hashes, rows))
        except (InvalidInputError, CodeIndexError) as exc:
            raise self._stopped(batch, exc) from exc
        self._under_way.append((batch, done))
        self._ids.append(set(batch.ids) if self._pool else set())
        while len(self._under_way) > (self._workers if self._pool else 0):
            self._confirm()

    def settle(self, batch: Batch) -> None:
        """Wait until none of a batch's items is under way: one that comes twice must end as it came last.

        Raises:
            IngestError: an id is in the batch twice, in whichever requests the two would have gone, or a batch under
                way failed; names the rows.
        """
        try:
            if batch.ids:
                point_ids(batch.ids)
        except InvalidInputError as exc:
            raise self._stopped(batch, exc) from exc
        if any(not earlier.isdisjoint(batch.ids) for earlier in self._ids):
            self.drain()

    def drain(self) -> None:
        """Wait until every batch that was handed over is in the index.

        Raises:
            IngestError: one failed; names its rows.
        """
        while self._under_way:
            self._confirm()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _confirm(self) -> None:
        batch, done = self._under_way[0]
        try:
            for future in done:
                future.result()
        except (InvalidInputError, CodeIndexError) as exc:
            raise self._stopped(batch, exc) from exc
        self._under_way.popleft()
        self._ids.popleft()
        telemetry.count("compressae.ingest.items", len(batch.ids))
        telemetry.count("compressae.ingest.skipped", batch.skipped)
        self._on_confirmed(batch)

    def _upsert(
        self, index: CodeIndex, batch: Batch, codes: SparseCodes, hashes: Sequence[str] | None, rows: slice
    ) -> None:
        dense = batch.embeddings[rows] if self._index.settings.keep_dense else None
        ids: Sequence[ItemId] = batch.ids[rows]
        payloads, kept = batch.payloads[rows], None if hashes is None else hashes[rows]
        self._retry.run(lambda: index.upsert(ids, codes[rows], payloads, dense, kept))

    def _stopped(self, batch: Batch, exc: InvalidInputError | CodeIndexError) -> IngestError:
        telemetry.count("compressae.ingest.failures", attributes={"error.type": type(exc).__name__})
        before = self._under_way[0][0].start if self._under_way else batch.start
        rows = f"rows {batch.start}..{batch.stop - 1}"
        if isinstance(exc, IndexUnavailableError):
            return IngestError(
                f"stopped at {rows}, which may be in: {exc} ({self._retry.attempts} attempts). Rows before {before} "
                "are in the index; run the same command to go on once the server is back"
            )
        if isinstance(exc, CodeIndexError):
            return IngestError(
                f"stopped at {rows}, which may be in: {exc}. Rows before {before} are in the index; once that is "
                "mended, run the same command to go on"
            )
        return IngestError(
            f"{rows} can't be ingested: {exc}. Rows before {before} are in the index; mend the source and run the same "
            "command to go on (with --restart if the file changed)"
        )


def request_slices(payloads: Sequence[Mapping[str, Any]], numbers: int) -> list[slice]:
    """Rows of each request, so that none is too large for a server; an item has so many `numbers` and its payload."""
    size, start, slices = 0, 0, []
    for row, payload in enumerate(payloads):
        item = _POINT_BYTES + numbers * _NUMBER_BYTES + (len(json.dumps(payload, default=str)) if payload else 0)
        if size and size + item > _REQUEST_BYTES:
            slices.append(slice(start, row))
            telemetry.measure("compressae.ingest.request.size", size)
            size, start = 0, row
        size += item
    telemetry.measure("compressae.ingest.request.size", size)
    return [*slices, slice(start, len(payloads))]


def content_hash(batch: Batch, row: int, how: str) -> str:
    """What an item is made from, as 16 hexadecimal digits: embedding, payload, and how it is encoded."""
    digest = hashlib.blake2b(how.encode(), digest_size=8)
    digest.update(np.ascontiguousarray(batch.embeddings[row], dtype="<f4").tobytes())
    digest.update(json.dumps(batch.payloads[row], sort_keys=True, default=str).encode())
    return digest.hexdigest()
