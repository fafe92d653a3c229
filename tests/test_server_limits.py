"""Limits of a server: sizes and rates of requests, filters without an index, optimisers that make no progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, QdrantIndex, SparseCodes, ingest, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import deploy
from compressae_qdrant.errors import (
    CodeIndexError,
    CompresSAEError,
    ConfigError,
    ExactCountError,
    IndexUnavailableError,
    IngestError,
    RequestTooLargeError,
    UnsupportedFilterError,
)
from compressae_qdrant.index.qdrant import steps
from compressae_qdrant.index.qdrant.errors import client_errors
from compressae_qdrant.index.retry import RetryPolicy

from .support.sink import Sink, serving, serving_grpc

PATIENT = RetryPolicy(attempts=20, first_seconds=0.001, longest_seconds=0.002)
RATE = (
    "Rate limiting exceeded: Write rate limit exceeded, request larger than rate limiter capacity, please try to split"
)
BATCH = 'Wrong input: Limit exceeded 2048 > 100 for "upsert limit". Help: Reduce the "upsert limit" parameter'


def _client(port: int, **options: Any) -> QdrantClient:
    return QdrantClient(host="127.0.0.1", port=port, check_compatibility=False, verify=False, **options)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture(params=["rest", "grpc"])
def index(request: pytest.FixtureRequest, sink: Sink, model: CompresSAE) -> Iterator[QdrantIndex]:
    with serving(sink) as port, serving_grpc(sink) as grpc_port:
        QdrantIndex.create(_client(port), "items", model, owns_client=True).close()
        by_grpc = request.param == "grpc"
        client = _client(port, grpc_port=grpc_port, prefer_grpc=by_grpc)
        with QdrantIndex.open(client, "items", model, owns_client=True) as opened:
            yield opened


@pytest.mark.parametrize(("status", "text"), [(413, "length too large: found 9 bytes"), (429, RATE), (400, BATCH)])
def test_a_direct_upsert_is_split_to_what_the_server_accepts(
    index: QdrantIndex, sink: Sink, codes: SparseCodes, status: int, text: str
) -> None:
    sink.max_points, sink.too_large, sink.complaints = 7, status, {status: text}
    index.upsert(range(100), codes[:100], [{"n": n} for n in range(100)])
    assert {id: point["payload"] for id, point in sink.points.items()} == {n: {"n": n} for n in range(100)}
    refused = sink.refused[status]
    index.upsert(range(100, 200), codes[:100], [{"n": n} for n in range(100)])
    assert len(sink.points) == 200
    assert sink.refused[status] - refused < refused  # later requests are smaller
    sink.max_points = 0
    with pytest.raises(
        RequestTooLargeError, match="item 300 is too large for the server by itself: its payload takes 10"
    ):
        index.upsert([300, 301], codes[:2], [{"n": 300}, {"n": 301}])


def test_a_direct_upsert_is_never_larger_than_a_server_accepts(
    index: QdrantIndex, sink: Sink, codes: SparseCodes
) -> None:
    index._requests.max_bytes = 2000
    before = len(sink.calls)
    index.upsert(range(100), codes[:100])
    assert sorted(sink.points) == list(range(100))
    sizes = [int(headers["content-length"]) for method, path, headers in sink.calls[before:] if method == "PUT"]
    assert all(size <= 2000 for size in sizes)


def test_an_async_upsert_is_split(sink: Sink, model: CompresSAE, codes: SparseCodes) -> None:
    async def run() -> None:
        with serving(sink) as port:
            client = AsyncQdrantClient(host="127.0.0.1", port=port, check_compatibility=False, verify=False)
            made = await AsyncQdrantIndex.create(client, "items", model)
            sink.max_points = 7
            await made.upsert(range(50), codes[:50])
            assert len(sink.points) == 50
            sink.max_points = 0
            with pytest.raises(RequestTooLargeError, match="item 7 is too large"):
                await made.upsert([7], codes[:1])
            await client.close()

    asyncio.run(run())


def test_reads_are_split(model: CompresSAE, sink: Sink, codes: SparseCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as made:
        made.upsert(range(20), codes[:20])
        answer = Sink.answer

        def limited(self: Sink, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
            return (413, None) if len(body.get("ids", ())) > 6 else answer(self, method, path, body)

        monkeypatch.setattr(Sink, "answer", limited)
        assert made.hashes([*range(18, 22), *range(10)]) == ["", "", None, None, *[""] * 10]


def test_each_request_of_a_batch_is_repeated_by_itself(
    index: QdrantIndex, sink: Sink, model: CompresSAE, catalog: Path
) -> None:
    """A rate limit lets a few requests pass at a time. Repeating the whole batch would never end."""
    sink.busy = 200
    report = ingest(open_source(catalog), model, index, batch_size=600, max_request_bytes=3000, retry=PATIENT)
    assert (report.items, len(sink.points)) == (600, 600)
    assert sink.busy < 160


def test_deploy_limits_requests_too(model: CompresSAE, catalog: Path) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(ConfigError, match="max_request_bytes is 0; it must be at least 1"):
        deploy(open_source(catalog), model, client, "items", max_request_bytes=0)
    client.close()


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("kinds", ["keyword", "integer, float", None])
def test_a_filter_without_an_index_is_named(transport: str, kinds: str | None) -> None:
    suffix = "" if kinds is None else f" of one of the following types: [{kinds}]"
    text = f'Index required but not found for "meta.shop"{suffix}. Help: Create an index for this key'
    with pytest.raises(UnsupportedFilterError) as caught, client_errors("search", "items"):
        raise _refusal(transport, 400, text)
    kind = (kinds or "keyword").partition(",")[0]
    assert "tests the field 'meta.shop', which has no payload index" in str(caught.value)
    assert f"client.create_payload_index('items', 'meta.shop', '{kind}')" in str(caught.value)
    assert f"IndexSettings(payload_fields={{'meta.shop': '{kind}'}})" in str(caught.value)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize(
    ("status", "text", "kind", "setting"),
    [
        (429, RATE, RequestTooLargeError, "write_rate_limit"),
        (429, RATE.replace("Write", "Read"), RequestTooLargeError, "read_rate_limit"),
        (400, BATCH, RequestTooLargeError, "upsert_max_batchsize"),
        (429, "Write rate limit exceeded: Operation requires 10 tokens but only 0.0 were available. Retry after 60s",
         IndexUnavailableError, ""),
        (400, 'Limit exceeded 100 > 50 for "limit". Help: Reduce the "limit" parameter to or below 50.', CodeIndexError,
         "max_query_limit"),
        (400, "Exact search disabled!. Help: Set exact=false.", ExactCountError, "search_allow_exact"),
    ],
)  # fmt: skip
def test_limits_of_strict_mode_are_named(
    transport: str, status: int, text: str, kind: type[CodeIndexError], setting: str
) -> None:
    with pytest.raises(kind) as caught, client_errors("upsert into", "items"):
        raise _refusal(transport, status, text)
    assert type(caught.value) is kind
    assert setting in str(caught.value)
    if isinstance(caught.value, IndexUnavailableError) and transport == "grpc":
        assert caught.value.retry_after == 60


class _GrpcError(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # untyped
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return [("retry-after", "60")] if "Retry after" in self._details else None

    add_callback = cancel = initial_metadata = is_active = time_remaining = lambda *_: None


def _refusal(transport: str, status: int, text: str) -> Exception:
    if transport == "grpc":
        codes = {400: grpc.StatusCode.INVALID_ARGUMENT, 429: grpc.StatusCode.RESOURCE_EXHAUSTED}
        return _GrpcError(codes[status], text)
    content = json.dumps({"status": {"error": text}}).encode()
    return UnexpectedResponse(status, "Refused", content, httpx.Headers())


def test_the_progress_of_optimisers_is_observed(
    model: CompresSAE, sink: Sink, codes: SparseCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(steps, "_MAX_POLL_SECONDS", 0.02)
    monkeypatch.setattr(steps, "_DETAIL_SECONDS", 0.0)
    monkeypatch.setattr(steps, "_PATIENCE_SECONDS", 0.3)
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as made:
        monkeypatch.setattr(Sink, "_status", lambda self: "green" if self.progress[0] == 40 else "yellow")
        sink.progress = list(range(41))
        made.optimize()  # for longer than the patience, but never without progress
        sink.progress = [3]
        with pytest.raises(CodeIndexError, match=r"made no progress for 0\.3 s .* wait longer by patience="):
            made.optimize()
        with pytest.raises(CodeIndexError, match=r"made no progress for 0\.1 s"):
            made.optimize(patience=0.1)
        with pytest.raises(CompresSAEError, match="patience is 'long'; it must be a finite number"):
            made.optimize(patience="long")  # type: ignore[arg-type]


def test_older_servers_report_only_a_state(
    model: CompresSAE, sink: Sink, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(steps, "_MAX_POLL_SECONDS", 0.02)
    monkeypatch.setattr(steps, "_DETAIL_SECONDS", 0.0)
    monkeypatch.setattr(steps, "_BLIND_PATIENCE_SECONDS", 0.2)
    answer = Sink.answer

    def old(self: Sink, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (404, None) if path.endswith("/optimizations") else answer(self, method, path, body)

    monkeypatch.setattr(Sink, "answer", old)
    with serving(sink) as port, QdrantIndex.create(_client(port), "items", model, owns_client=True) as made:
        sink.statuses = ["yellow"]
        with pytest.raises(IngestError, match=r"made no progress for 0\.2 s .*All 600 rows are in the index"):
            ingest(open_source(catalog), model, made)
        with pytest.raises(IngestError, match=r"made no progress for 0\.05 s"):
            ingest(open_source(catalog), model, made, patience=0.05)


def test_rows_of_an_upsert_keep_their_vectors(model: CompresSAE, sink: Sink, embeddings: FloatArray) -> None:
    """Splitting takes rows out of every array of the batch."""
    from compressae_qdrant import IndexSettings

    with serving(sink) as port:
        settings = IndexSettings(keep_dense=True)
        with QdrantIndex.create(_client(port), "items", model, settings, owns_client=True) as made:
            codes = model.encode(embeddings[:20])
            made.upsert(range(20), codes, None, embeddings[:20])
            whole = dict(sink.points)
            sink.points.clear()
            sink.max_points = 3
            made.upsert(range(20), codes, None, embeddings[:20])
    assert sink.points == whole
    np.testing.assert_allclose(whole[19]["vector"]["dense"], embeddings[19], atol=1e-6)
