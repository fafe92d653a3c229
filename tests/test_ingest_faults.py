"""Ingestion over a failing network: through a proxy that breaks connections, into a sink that refuses requests."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, QdrantIndex, SparseCodes, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, ConfigError, IndexUnavailableError, IngestError
from compressae_qdrant.index.retry import RetryPolicy
from compressae_qdrant.ingestion.sync import sync

from .support.fault_proxy import faulty
from .support.sink import Sink, serving, serving_grpc

QUICK = RetryPolicy(attempts=4, first_seconds=0.005, longest_seconds=0.02)
HOPELESS = RetryPolicy(attempts=2, first_seconds=0.001)


def _client(port: int, *, grpc: bool = False) -> QdrantClient:
    options = {f"grpc.{which}_reconnect_backoff_ms": 20 for which in ("initial", "min", "max")}
    return QdrantClient(
        host="127.0.0.1", port=port, grpc_port=port, prefer_grpc=grpc, grpc_options=options, timeout=1,
        check_compatibility=False, verify=False,  # plain HTTP; loading certificates would take 0.2 s
    )  # fmt: skip


def _assert_all_stored(sink: Sink, codes: SparseCodes) -> None:
    assert sorted(sink.points) == list(range(len(codes)))
    for item, point in sink.points.items():
        indices, values = codes.row(item)
        assert point["vector"]["code"]["indices"] == indices.tolist()
        np.testing.assert_array_equal(np.array(point["vector"]["code"]["values"], np.float32), values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "grpc"), [*((seed, False) for seed in range(20)), *((seed, True) for seed in range(6))]
)
def test_no_item_is_lost_or_wrong(
    seed: int, grpc: bool, tmp_path: Path, model: CompresSAE, catalog: Path, embeddings: FloatArray, caplog: Any
) -> None:
    caplog.set_level(logging.ERROR)
    sink = Sink(seed, failures=0.3)
    stops: list[str] = []
    with (
        serving(sink) as port,
        serving_grpc(sink) as grpc_port,
        faulty(grpc_port if grpc else port, seed, share=0.3) as (proxied, faults),
    ):
        sink.failures = 0.0
        QdrantIndex.create(_client(port), "items", model, owns_client=True).close()
        sink.failures = 0.3
        for _ in range(60):
            try:
                with QdrantIndex.open(_client(proxied, grpc=grpc), "items", model, owns_client=True) as index:
                    report = ingest(open_source(catalog), model, index, journal=tmp_path / "journal", batch_size=40,
                                    retry=QUICK)  # fmt: skip
                break
            except IngestError as exc:
                stops.append(str(exc))
                said = r"Rows before (\d+) are|failed at rows 0-39 |All (600) rows|did not accept a first write"
                rows = re.search(said, str(exc))
                assert rows is not None
                before = int(rows[1] or rows[2] or 0)
                assert set(range(before)) <= set(sink.points)
            except IndexUnavailableError as exc:
                stops.append(str(exc))
    assert report.rows == 600
    assert sink.refused or faults
    _assert_all_stored(sink, model.encode(embeddings))


@pytest.mark.slow
def test_every_kind_of_fault_occurs(tmp_path: Path, model: CompresSAE, catalog: Path) -> None:
    """The fault plans of the seeds above contain every kind of fault."""
    expected = {"reset", "truncate", "delay", "drop", "429", "500", "503"}
    occurred: Counter[str] = Counter()
    for seed in range(20):
        if expected <= set(occurred):
            break
        sink = Sink(seed)
        with serving(sink) as port:
            QdrantIndex.create(_client(port), "items", model, owns_client=True).close()
            sink.failures = 0.3
            with faulty(port, seed, share=0.3) as (proxied, faults):
                for _ in range(4):
                    with (
                        contextlib.suppress(IngestError, IndexUnavailableError),
                        QdrantIndex.open(_client(proxied), "items", model, owns_client=True) as index,
                    ):
                        ingest(open_source(catalog), model, index, batch_size=40, retry=QUICK)
            occurred.update({str(status): count for status, count in sink.refused.items()})
            occurred.update(faults)
    assert expected <= set(occurred)


def test_an_unavailable_server_stops_a_run_that_is_resumed(tmp_path: Path, model: CompresSAE, catalog: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.full_from = 200
        with pytest.raises(IngestError, match=r"failed at rows 200-299 after 2 attempts .*Rows before 200 are in"):
            ingest(open_source(catalog), model, index, journal=tmp_path / "j", batch_size=100, retry=HOPELESS)
        sink.full_from = None
        report = ingest(open_source(catalog), model, index, journal=tmp_path / "j", batch_size=100)
        assert (report.resumed_from, report.items) == (200, 400)


def test_failing_optimisers_leave_all_items_in_the_index(tmp_path: Path, model: CompresSAE, catalog: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.statuses = ["red"]
        with pytest.raises(IngestError, match=r"optimisers .* failed.*All 600 rows are in the index"):
            ingest(open_source(catalog), model, index, journal=tmp_path / "j")
        sink.statuses = []
        report = ingest(open_source(catalog), model, index, journal=tmp_path / "j")
        assert (report.resumed_from, report.items, len(sink.points)) == (600, 0, 600)


def test_a_sync_retries_pages_that_fail(
    tmp_path: Path, model: CompresSAE, catalog: Path, embeddings: FloatArray
) -> None:
    sink = Sink(seed=1)
    policy = RetryPolicy(attempts=40, first_seconds=0.001, longest_seconds=0.002)
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.failures = 0.4
        assert sync(open_source(catalog), model, index, retry=policy).added == 600
        np.save(catalog, embeddings[:350])
        report = sync(open_source(catalog), model, index, batch_size=50, retry=policy)
    assert (report.unchanged, report.deleted) == (350, 250)
    assert sum(sink.refused.values()) > 5
    assert sorted(sink.points) == list(range(350))


def test_an_invalid_request_is_not_retried() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise CodeIndexError("no")

    with pytest.raises(CodeIndexError):
        RetryPolicy(first_seconds=0).run(refuse)
    assert len(calls) == 1


def test_waits_grow_up_to_a_limit_and_obey_the_server() -> None:
    policy = RetryPolicy(attempts=9, first_seconds=1, longest_seconds=5)
    error = IndexUnavailableError("away")
    for failures, limit in ((1, 1), (2, 2), (3, 4), (4, 5), (20, 5)):
        waits = [policy.wait(failures, error) for _ in range(300)]
        assert 0.9 * limit < max(waits) <= limit
        assert min(waits) < 0.1 * limit
    assert policy.wait(1, IndexUnavailableError("busy", retry_after=7)) == 7
    with pytest.raises(ConfigError, match="attempts must be at least 1"):
        RetryPolicy(attempts=0)


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (413, "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes"),
        (429, "Rate limiting exceeded: request larger than rate limiter capacity, please try to split your request"),
    ],
)
def test_a_request_that_is_too_large_is_split(
    status: int, text: str, grpc: bool, model: CompresSAE, catalog: Path, embeddings: FloatArray
) -> None:
    sink = Sink()
    with serving(sink) as port, serving_grpc(sink) as grpc_port:
        QdrantIndex.create(_client(port), "items", model, owns_client=True).close()
        sink.max_points, sink.too_large, sink.complaints = 30, status, {status: text}
        client = _client(grpc_port if grpc else port, grpc=grpc)
        with QdrantIndex.open(client, "items", model, owns_client=True) as index:
            report = ingest(open_source(catalog), model, index, batch_size=200, retry=HOPELESS)
    assert report.items == 600
    _assert_all_stored(sink, model.encode(embeddings))


def test_a_row_that_is_too_large_by_itself_is_named(model: CompresSAE, catalog: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.max_points = 0
        with pytest.raises(IngestError, match=r"item 0 is too large for the server by itself: about .* its payload"):
            ingest(open_source(catalog), model, index, batch_size=8, retry=HOPELESS)
    assert not sink.points


def test_a_request_above_the_limit_is_not_sent(model: CompresSAE, catalog: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.max_points = 10
        ingest(open_source(catalog), model, index, batch_size=300, max_request_bytes=10 * 250)
        assert not sink.refused
        with pytest.raises(ConfigError, match="max_request_bytes is 0"):
            ingest(open_source(catalog), model, index, restart=True, max_request_bytes=0)


@pytest.mark.parametrize("grpc", [False, True])
def test_a_read_only_key_is_found_before_anything_is_encoded(
    grpc: bool, model: CompresSAE, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink()
    with serving(sink) as port, serving_grpc(sink) as grpc_port:
        QdrantIndex.create(_client(port), "items", model, owns_client=True).close()
        sink.read_only = True
        monkeypatch.setattr(CompresSAE, "encode", None)
        client = _client(grpc_port if grpc else port, grpc=grpc)
        with QdrantIndex.open(client, "items", model, owns_client=True) as index:
            for load in (ingest, sync):
                with pytest.raises(IngestError, match=r"refuses writes .*No rows were written; set QDRANT_API_KEY"):
                    load(open_source(catalog), model, index)


def test_pages_are_as_small_as_strict_mode_demands(model: CompresSAE, catalog: Path, embeddings: FloatArray) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.strict = {"enabled": True, "max_query_limit": 100}
        assert sync(open_source(catalog), model, index).added == 600
        np.save(catalog, embeddings[:350])
        assert sync(open_source(catalog), model, index).deleted == 250
        assert [len(ids) for ids in index.scan()] == [100, 100, 100, 50]


def test_optimisers_that_are_switched_off_end_a_load_at_once(model: CompresSAE, catalog: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:
        sink.statuses, sink.optimizers = ["grey"], {"max_optimization_threads": 0}
        with pytest.raises(IngestError, match=r"switched off \(max_optimization_threads is 0\).*All 600 rows are in"):
            ingest(open_source(catalog), model, index)


def test_an_interruption_does_not_wait_for_the_server(model: CompresSAE, catalog: Path, tmp_path: Path) -> None:
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as index:

        def interrupt(batch: Any) -> None:
            if batch.stop == 100:
                sink.delays["PUT points"] = 0.5
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            ingest(open_source(catalog), model, index, journal=tmp_path / "j", batch_size=50, on_batch=interrupt)
        found = re.fullmatch(r"interrupted: rows before (\d+) are in the index; run .*", caught.value.__notes__[0])
        assert found is not None
        assert int(found[1]) >= 100
        sink.delays.clear()
        assert ingest(open_source(catalog), model, index, journal=tmp_path / "j").resumed_from == int(found[1])
