"""Metrics of searches and ingestions, read in memory and from a Prometheus endpoint."""

from __future__ import annotations

import asyncio
import http.client
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import start_http_server
from qdrant_client import AsyncQdrantClient

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    Retriever,
    ingest,
    telemetry,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import DimensionError, IndexUnavailableError, IngestError
from compressae_qdrant.index.retry import RetryPolicy
from compressae_qdrant.sources import open_source

SECRET = "confidential-4711"


class Metrics:
    """Collected data points, by the name of the instrument."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, name: str, **attributes: str) -> list[Any]:
        """Return the points of an instrument with some attributes; `db_system_name` stands for `db.system.name`."""
        data = self._reader.get_metrics_data()
        expected = {key.replace("_", "."): value for key, value in attributes.items()}
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if expected.items() <= dict(point.attributes or {}).items()
        ]

    def as_json(self) -> str:
        data = self._reader.get_metrics_data()
        return data.to_json() if data else ""


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    telemetry.use_provider(provider)
    yield Metrics(reader)
    telemetry.use_provider(None)
    provider.shutdown()


def test_a_search_is_measured(metrics: Metrics, model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(model, index)
    retriever.search(embeddings[0], limit=5, prefetch=40)
    retriever.search_batch(embeddings[:3], limit=5, prefetch=40)
    retriever.similar_to(7, limit=5, prefetch=40)
    for kind in ("search", "search_batch", "similar_to"):
        (whole,) = metrics.points("compressae.search.duration", compressae_search_kind=kind)
        assert whole.count == 1
        assert whole.sum > 0
    for name, count in (("search", 3), ("retrieve", 1)):
        (calls,) = metrics.points("db.client.operation.duration", db_system_name="qdrant_edge", db_operation_name=name)
        assert calls.count == count
    (candidates,) = metrics.points("compressae.search.candidates")
    assert (candidates.count, candidates.min, candidates.max) == (5, 40, 41)  # similar_to also finds the item itself
    (hits,) = metrics.points("compressae.search.hits")
    assert (hits.count, hits.max) == (5, 5)
    (planning,) = metrics.points("compressae.search.planning.duration")
    assert planning.count == 3
    assert metrics.points("compressae.search.rescoring.duration") == []
    retriever.search(embeddings[0], limit=5, rescore_in_engine=False)
    assert metrics.points("compressae.search.rescoring.duration")[0].count == 1


def test_a_failed_search_has_an_error_type(metrics: Metrics, model: CompresSAE, index: EdgeIndex) -> None:
    with pytest.raises(DimensionError):
        Retriever(model, index).search(np.ones(3))
    assert metrics.points("compressae.search.duration", error_type="DimensionError")[0].count == 1
    assert metrics.points("compressae.search.planning.duration", error_type="DimensionError")[0].count == 1


def test_embedding_of_a_text_query_is_measured(
    metrics: Metrics, model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    Retriever(model, index, lambda texts: embeddings[: len(texts)]).search(SECRET)
    assert metrics.points("compressae.search.embedding.duration")[0].count == 1
    assert SECRET not in metrics.as_json()


def test_an_async_search_is_measured(metrics: Metrics, model: CompresSAE, embeddings: FloatArray) -> None:
    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        await index.upsert(range(50), model.encode(embeddings[:50]))
        retriever = AsyncRetriever(model, index, in_flight=1)
        await asyncio.gather(*(retriever.search(x, limit=3) for x in embeddings[:4]))
        await retriever.search_batch(embeddings[:2], limit=3)
        await retriever.similar_to(3, limit=3)
        await client.close()

    asyncio.run(run())
    assert sum(point.count for point in metrics.points("compressae.search.duration")) == 6
    (queue,) = metrics.points("compressae.search.queue.duration")
    assert queue.count == 6
    assert queue.max > queue.min  # one search runs at a time and the others wait
    (calls,) = metrics.points(
        "db.client.operation.duration", db_system_name="qdrant", db_operation_name="search", db_collection_name="items"
    )
    assert calls.count == 6


def test_an_ingestion_is_measured(metrics: Metrics, model: CompresSAE, embeddings: FloatArray, tmp_path: Path) -> None:
    rows = [f'{{"id": {n}, "embedding": {x.tolist()}, "title": "{SECRET}"}}' for n, x in enumerate(embeddings[:300])]
    rows[100] = '{"id": 100, "embedding": [0, 0]}'
    (tmp_path / "catalog.jsonl").write_text("\n".join(rows))
    with EdgeIndex.create(tmp_path / "index", model) as index:
        ingest(open_source(tmp_path / "catalog.jsonl", on_error="skip"), model, index, batch_size=64)
    (items,) = metrics.points("compressae.ingest.items")
    (skipped,) = metrics.points("compressae.ingest.skipped")
    assert (items.value, skipped.value) == (299, 1)
    (encoding,) = metrics.points("compressae.ingest.encoding.duration")
    (size,) = metrics.points("compressae.ingest.request.size")
    (upserts,) = metrics.points("db.client.operation.duration", db_operation_name="upsert")
    assert encoding.count == size.count == upserts.count == 5
    assert 299 * 6 * 8 < size.sum < 299 * 1000
    text = metrics.as_json()
    assert SECRET not in text
    assert str(tmp_path) not in text


def test_failures_and_retries_are_counted(
    metrics: Metrics, model: CompresSAE, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        down = IndexUnavailableError("the server is unavailable")

        def fail(*_: object) -> None:
            raise down

        monkeypatch.setattr(index, "upsert", fail)
        with pytest.raises(IngestError):
            ingest(open_source(catalog), model, index, retry=RetryPolicy(3, 0.0, 0.0))
    (retries,) = metrics.points("compressae.retries", error_type="IndexUnavailableError")
    (failures,) = metrics.points("compressae.ingest.failures", error_type="IndexUnavailableError")
    assert (retries.value, failures.value) == (2, 1)
    assert metrics.points("compressae.ingest.items") == []


def test_prometheus_exposes_the_metrics_named_in_the_readme(
    model: CompresSAE, index: EdgeIndex, catalog: Path, embeddings: FloatArray
) -> None:
    """Every metric in the queries of the documentation exists."""
    provider = MeterProvider([PrometheusMetricReader()])
    telemetry.use_provider(provider)
    server, thread = start_http_server(0, "127.0.0.1")
    try:
        Retriever(model, index).search(embeddings[0])
        with EdgeIndex.create(index.journal.parent.parent / "other", model) as other:
            ingest(open_source(catalog), model, other)
        Retriever(model, index).search(embeddings[0], rescore_in_engine=False)
        telemetry.count("compressae.retries")
        telemetry.count("compressae.ingest.failures")
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", "/metrics")
        scraped = connection.getresponse().read().decode()
        connection.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        telemetry.use_provider(None)
        provider.shutdown()
    assert re.search(r'db_client_operation_duration_seconds_count\{.*db_operation_name="search".*\} 2\.0', scraped)
    assert re.search(r"compressae_ingest_items_total\{.*\} 600\.0", scraped)
    names = set(re.findall(r"^(\w+)[{ ]", scraped, re.MULTILINE))
    page = (Path(__file__).parents[1] / "docs/how-to/operate-on-a-server.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:db_client|compressae_search|compressae_ingest|compressae_retries)_\w+)", page))
    assert len(named) >= 8
    assert named - names == set()


def test_without_opentelemetry_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    telemetry.use_provider(None)
    try:
        assert len(Retriever(model, index).search(embeddings[0])) == 10
        telemetry.count("compressae.retries")
    finally:
        monkeypatch.undo()
        telemetry.use_provider(None)
