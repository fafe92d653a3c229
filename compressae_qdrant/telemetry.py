"""Metrics by OpenTelemetry: what searches and ingestions took, and what failed. Without the extra `otel`, nothing.

Names, units and attributes follow OpenTelemetry's semantic conventions where they have one. What the engine does in one
call (candidates, then rescoring) can't be told apart from outside, so it is one duration; only rescoring in this
process has its own.

| instrument                              | unit        | of                                                           |
|-----------------------------------------|-------------|--------------------------------------------------------------|
| `db.client.operation.duration`          | s           | one call of the engine: both stages of a search, an upsert...|
| `compressae.search.duration`            | s           | a whole search, as its caller waits for it                   |
| `compressae.search.embedding.duration`  | s           | texts of a query to vectors                                  |
| `compressae.search.planning.duration`   | s           | vectors or codes to query plans                              |
| `compressae.search.queue.duration`      | s           | waiting for a turn (`AsyncRetriever(in_flight=)`)            |
| `compressae.search.rescoring.duration`  | s           | rescoring of fetched candidates (`rescore_in_engine=False`)  |
| `compressae.search.candidates`          | {candidate} | candidates that a query's plan has rescored                  |
| `compressae.search.hits`                | {hit}       | hits of a query                                              |
| `compressae.ingest.items`               | {item}      | items confirmed by the index                                 |
| `compressae.ingest.skipped`             | {row}       | malformed rows left out                                      |
| `compressae.ingest.encoding.duration`   | s           | encoding of a batch                                          |
| `compressae.ingest.request.size`        | By          | an upsert, estimated as JSON                                 |
| `compressae.ingest.failures`            | {failure}   | batches that stopped an ingestion                            |
| `compressae.retries`                    | {retry}     | calls tried again                                            |

Attributes: `db.system.name` (qdrant, qdrant_edge), `db.operation.name`, `db.collection.name` (of a server),
`compressae.search.kind` (search, search_batch, similar_to), and `error.type`, an exception's name, where something
failed. No id, payload, filter, query, path or key is ever among them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["count", "measure", "operation", "timed", "use_provider"]

Attributes = Mapping[str, str]
_Record = Callable[[float, Attributes | None], None]

_METER: Final = "compressae_qdrant"
_FAST: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
"""Bounds in seconds: the convention's (1 ms to 10 s), with more of them where a search is."""
_COUNTS: Final = (1, 5, 10, 20, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000)
_BYTES: Final = tuple(1 << power for power in range(12, 26))

_HISTOGRAMS: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    "db.client.operation.duration": ("s", "Duration of database client operations.", _FAST),
    "compressae.search.duration": ("s", "A whole search, as its caller waits for it.", _FAST),
    "compressae.search.embedding.duration": ("s", "Texts of a query to vectors.", _FAST),
    "compressae.search.planning.duration": ("s", "Vectors or codes to query plans.", _FAST),
    "compressae.search.queue.duration": ("s", "Waiting for a turn to call the engine.", _FAST),
    "compressae.search.rescoring.duration": ("s", "Rescoring of fetched candidates in this process.", _FAST),
    "compressae.search.candidates": ("{candidate}", "Candidates that a query's plan has rescored.", _COUNTS),
    "compressae.search.hits": ("{hit}", "Hits of a query.", _COUNTS),
    "compressae.ingest.encoding.duration": ("s", "Encoding of a batch.", _FAST),
    "compressae.ingest.request.size": ("By", "An upsert, estimated as JSON.", _BYTES),
}
_COUNTERS: Final = {
    "compressae.ingest.items": ("{item}", "Items confirmed by the index."),
    "compressae.ingest.skipped": ("{row}", "Malformed rows left out."),
    "compressae.ingest.failures": ("{failure}", "Batches that stopped an ingestion."),
    "compressae.retries": ("{retry}", "Calls tried again."),
}

_records: dict[str, _Record] | None = None


def use_provider(provider: MeterProvider | None) -> None:
    """Send metrics to this provider instead of the global one of `opentelemetry.metrics`; None goes back to that."""
    global _records
    _records = _instruments(provider)


def measure(name: str, value: float, attributes: Attributes | None = None) -> None:
    """Add a value to a histogram."""
    _record(name, value, attributes)


def count(name: str, amount: int = 1, attributes: Attributes | None = None) -> None:
    """Add to a counter."""
    _record(name, amount, attributes)


@contextlib.contextmanager
def timed(name: str, attributes: Attributes | None = None) -> Iterator[None]:
    """Measure how long the block takes, in seconds; a failure is measured too, with its `error.type`."""
    started = time.perf_counter()
    try:
        yield
    except BaseException as exc:
        failed = {**(attributes or {}), "error.type": type(exc).__name__}
        _record(name, time.perf_counter() - started, failed)
        raise
    _record(name, time.perf_counter() - started, attributes)


def operation(
    system: Literal["qdrant", "qdrant_edge"], name: str, collection: str | None = None
) -> contextlib.AbstractContextManager[None]:
    """Measure one call of an engine."""
    attributes = {"db.system.name": system, "db.operation.name": name}
    if collection is not None:
        attributes["db.collection.name"] = collection
    return timed("db.client.operation.duration", attributes)


def _record(name: str, value: float, attributes: Attributes | None) -> None:
    global _records
    if _records is None:
        _records = _instruments(None)
    if _records:
        _records[name](value, attributes)


def _instruments(provider: MeterProvider | None) -> dict[str, _Record]:
    """Every instrument by its name; none at all where OpenTelemetry isn't installed."""
    try:
        from opentelemetry import metrics
    except ImportError:
        return {}
    meter = metrics.get_meter(_METER, meter_provider=provider)
    records: dict[str, _Record] = {}
    for name, (unit, description, bounds) in _HISTOGRAMS.items():
        records[name] = meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=bounds
        ).record
    for name, (unit, description) in _COUNTERS.items():
        records[name] = meter.create_counter(name, unit, description).add
    return records
