"""OpenTelemetry metrics of searches and ingestions. Without the extra `otel`, none are recorded.

Names, units and attributes follow OpenTelemetry's semantic conventions where one exists. The engine selects and
rescores candidates in one call, which is one duration; only rescoring in this process has a duration of its own.

| instrument                              | unit        | what is measured                                             |
|-----------------------------------------|-------------|--------------------------------------------------------------|
| `db.client.operation.duration`          | s           | one call of the engine: both stages of a search, an upsert...|
| `compressae.search.duration`            | s           | a whole search, as its caller sees it                        |
| `compressae.search.embedding.duration`  | s           | embedding of the texts of a query                            |
| `compressae.search.planning.duration`   | s           | planning of a query from vectors or codes                    |
| `compressae.search.queue.duration`      | s           | wait for a free slot (`AsyncRetriever(in_flight=)`)          |
| `compressae.search.rescoring.duration`  | s           | ranking of candidates that were fetched with their codes     |
| `compressae.search.candidates`          | {candidate} | candidates that the plan of a query rescores                 |
| `compressae.search.hits`                | {hit}       | hits of a query                                              |
| `compressae.ingest.items`               | {item}      | items confirmed by the index                                 |
| `compressae.ingest.skipped`             | {row}       | malformed rows skipped                                       |
| `compressae.ingest.encoding.duration`   | s           | encoding of a batch                                          |
| `compressae.ingest.request.size`        | By          | size of an upsert, estimated as JSON                         |
| `compressae.ingest.failures`            | {failure}   | failed batches that stopped an ingestion                     |
| `compressae.retries`                    | {retry}     | retried calls                                                |

Attributes: `db.system.name` (qdrant, qdrant_edge), `db.operation.name`, `db.collection.name` (on a server),
`compressae.search.kind` (search, search_batch, similar_to), and after a failure `error.type`, the exception's name.
Attributes never contain ids, payloads, filters, queries, paths or keys.
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
"""Histogram bounds in seconds: those of the convention (1 ms to 10 s), and more in the range of a search."""
_COUNTS: Final = (1, 5, 10, 20, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000)
_BYTES: Final = tuple(1 << power for power in range(12, 26))

_HISTOGRAMS: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    "db.client.operation.duration": ("s", "Duration of database client operations.", _FAST),
    "compressae.search.duration": ("s", "A whole search, as its caller sees it.", _FAST),
    "compressae.search.embedding.duration": ("s", "Embedding of the texts of a query.", _FAST),
    "compressae.search.planning.duration": ("s", "Planning of a query from vectors or codes.", _FAST),
    "compressae.search.queue.duration": ("s", "Wait for a free slot to call the engine.", _FAST),
    "compressae.search.rescoring.duration": ("s", "Rescoring of fetched candidates in this process.", _FAST),
    "compressae.search.candidates": ("{candidate}", "Candidates that the plan of a query rescores.", _COUNTS),
    "compressae.search.hits": ("{hit}", "Hits of a query.", _COUNTS),
    "compressae.ingest.encoding.duration": ("s", "Encoding of a batch.", _FAST),
    "compressae.ingest.request.size": ("By", "Size of an upsert, estimated as JSON.", _BYTES),
}
_COUNTERS: Final = {
    "compressae.ingest.items": ("{item}", "Items confirmed by the index."),
    "compressae.ingest.skipped": ("{row}", "Malformed rows skipped."),
    "compressae.ingest.failures": ("{failure}", "Failed batches that stopped an ingestion."),
    "compressae.retries": ("{retry}", "Retried calls."),
}

_records: dict[str, _Record] | None = None


def use_provider(provider: MeterProvider | None) -> None:
    """Send metrics to a provider; None restores the global provider of `opentelemetry.metrics`."""
    global _records
    _records = _instruments(provider)


def measure(name: str, value: float, attributes: Attributes | None = None) -> None:
    """Record a value in a histogram."""
    _record(name, value, attributes)


def count(name: str, amount: int = 1, attributes: Attributes | None = None) -> None:
    """Increment a counter."""
    _record(name, amount, attributes)


@contextlib.contextmanager
def timed(name: str, attributes: Attributes | None = None) -> Iterator[None]:
    """Measure the duration of a block in seconds. A failed block is measured too, with its `error.type`."""
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
    """Measure the duration of one call of an engine."""
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
    """Create the instruments, by name; none if OpenTelemetry is not installed."""
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
