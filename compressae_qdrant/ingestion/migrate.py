"""add_codes(): add codes to a collection of dense vectors on a server, beside the vectors they are computed from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from qdrant_client import QdrantClient

from ..errors import SourceError
from ..index import IndexSettings, QdrantIndex
from ..index.manifest import VECTOR_NAME
from ..index.retry import RetryPolicy
from ..model.compressae import CompresSAE
from ..sources import Batch, QdrantSource, check_source
from ..sources.source import OnError
from .ingest import ingest
from .prepared import MAX_REQUEST_BYTES

__all__ = ["MigrationReport", "add_codes"]


@dataclass(frozen=True)
class MigrationReport:
    """Result of adding codes to a collection."""

    encoded: int
    """Points encoded by this run."""
    skipped: int
    """Points skipped because they have no usable vector."""
    points: int
    """Points in the collection."""
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
    on_start: Callable[[int | None], None] | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    patience: float | None = None,
) -> MigrationReport:
    """Add a sparse vector of codes to the points of a collection, which stays available to queries.

    Only points without a code are encoded, so an interrupted run is simply repeated, and a later run encodes new
    points: upserting a whole point removes its code. A point keeps an outdated code if it is rewritten between reading
    and coding, or if only its dense vector is updated; `again` encodes both anew. Open the collection with
    `QdrantIndex.open` to search the codes.

    Args:
        client: client of the server.
        collection: name of the collection, or an alias, which is resolved once.
        vector: name of the dense vector; None is the unnamed one.
        model: encodes the vectors.
        settings: settings of the index. `datatype`, `memory`, `full_scan_threshold` and `scale` apply; the tenant field
            and the payload fields are indexed.
        again: also encode points that already have a code.
        batch_size: points read, encoded and written at a time.
        on_error: whether a point without a usable vector stops the run or is skipped.
        retry: how to retry when the server fails.
        on_batch: called after each batch is written.
        on_start: called once with the number of points to encode.
        max_request_bytes: approximate size of the largest request; see `Writer`.
        patience: seconds that the optimisers may show no progress; see `QdrantIndex.optimize`.

    Raises:
        ConfigError: the settings have one that an existing collection cannot be given, or differ from those with which
            codes were added before.
        SourceError: the collection has no such vector, its vectors have another dimension than the model's, or they
            are multivectors. Nothing was added to it then.
        ModelMismatchError: the collection holds codes of another model.
        CodeIndexError: the server does not support adding vectors to a collection.
        IngestError: the server stayed unavailable; codes written before remain.
    """
    started = time.perf_counter()
    # Whether its points can be encoded is found out before anything is added to the collection.
    whole = QdrantSource(client, collection, vector, on_error, payloads=False, retry=retry)
    if whole.rows:
        check_source(whole, model.dim)
    index = QdrantIndex.adopt(client, whole.collection, model, settings)
    lacking = None if again else VECTOR_NAME
    source = QdrantSource(client, collection, vector, on_error, payloads=False, lacking=lacking, retry=retry)
    if source.collection != index.collection:
        raise SourceError(
            f"alias {collection!r} was switched from {index.collection!r} to {source.collection!r} meanwhile; nothing "
            "was encoded; run the same command again"
        )
    if on_start is not None:
        on_start(source.rows)
    report = ingest(
        source, model, index, batch_size=batch_size, retry=retry, on_batch=on_batch,
        max_request_bytes=max_request_bytes, patience=patience,
    )  # fmt: skip
    return MigrationReport(report.items, report.skipped, index.count(), time.perf_counter() - started)
