"""add_codes(): codes beside the dense vectors that they are made from, in the same collection of a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from qdrant_client import QdrantClient

from ..index import IndexSettings, QdrantIndex
from ..index.manifest import VECTOR_NAME
from ..model.compressae import CompresSAE
from ..retry import RetryPolicy
from ..sources import Batch, QdrantSource
from ..sources.source import OnError
from .ingest import ingest

__all__ = ["MigrationReport", "add_codes"]


@dataclass(frozen=True)
class MigrationReport:
    """What adding codes to a collection did."""

    encoded: int
    """Points that got a code."""
    skipped: int
    """Points without a usable vector."""
    points: int
    """Points of the collection."""
    seconds: float


def add_codes(
    client: QdrantClient,
    collection: str,
    vector: str | None,
    model: CompresSAE,
    *,
    settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    again: bool = False,
    batch_size: int = 2048,
    on_error: OnError = "raise",
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
) -> MigrationReport:
    """Give a sparse vector of codes to the points of a collection that goes on serving.

    The points themselves say what is left to do, so an interrupted run is simply run again, and a later one encodes
    what is new: a point that was upserted as a whole has lost its code. A point that is rewritten in the moment between
    its reading and its coding keeps the older code, and so does one whose dense vector alone is updated; `again` mends
    both. `QdrantIndex.open` then searches the codes.

    Args:
        client: to the server.
        collection: its name.
        vector: name of the dense vector; None is the unnamed one.
        model: encodes the vectors.
        settings: of the index; `datatype`, `memory` and `full_scan_threshold` count here.
        again: encode points that have a code already too.
        batch_size: points read, encoded and written at once.
        on_error: what a point without a usable vector does.
        retry: what to do while the server fails.
        on_batch: called after each batch is in.

    Raises:
        SourceError: the collection has no such vector.
        ModelMismatchError: it has the codes of another model.
        CodeIndexError: the server can't add vectors to a collection.
        IngestError: the server stayed away; what is in stays in.
    """
    started = time.perf_counter()
    index = QdrantIndex.adopt(client, collection, model, settings)
    lacking = None if again else VECTOR_NAME
    source = QdrantSource(client, collection, vector, on_error, payloads=False, lacking=lacking, retry=retry)
    report = ingest(source, model, index, batch_size=batch_size, retry=retry, on_batch=on_batch)
    return MigrationReport(report.items, report.skipped, index.count(), time.perf_counter() - started)
