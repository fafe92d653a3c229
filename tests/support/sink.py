"""A fake Qdrant server that records what ingestion sends, over REST and gRPC.

It implements only the calls that ingestion makes, and keeps the points it accepts in memory.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc as rpc
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server

__all__ = ["Sink", "serving", "serving_grpc"]


class Sink:
    """The state of the fake server: accepted points, recorded calls, and planned failures."""

    def __init__(self, seed: int = 0, failures: float = 0.0) -> None:
        self.points: dict[Any, dict[str, Any]] = {}
        self.config: dict[str, Any] | None = None
        """The body that created the collection."""
        self.fields: dict[str, Any] = {}
        """Schema of each indexed payload field."""
        self.shard_keys: list[Any] = []
        self.down: set[tuple[str, str]] = set()
        """Method and end of the path of calls that are answered with 503."""
        self.refuses: set[tuple[str, str]] = set()
        """Method and end of the path of calls that are answered with 400."""
        self.ignores: set[tuple[str, str]] = set()
        """Method and end of the path of calls that are answered as if they took effect."""
        self.deaf_to: list[tuple[str, str]] = []
        """Method and end of the path of calls that take effect but whose answer is 503, each once."""
        self.failures = failures
        self.full_from: int | None = None
        """Upserts of this id or a larger one are refused with status 503."""
        self.max_points: int | None = None
        """Upserts of more points are refused with status `too_large`."""
        self.too_large = 413
        self.complaints: dict[int, str] = {}
        """Texts of refusals by status; a 429 with a text has no Retry-After."""
        self.read_only = False
        """Whether writes are refused with status 403."""
        self.busy = 0
        """Upserts to refuse with status 429 and a time to wait, each after one that is accepted."""
        self.progress: list[int] = []
        """Steps that running optimisers have done, one number for each question; the last one stays."""
        self.strict: dict[str, Any] = {}
        """Strict mode of the collection."""
        self.optimizers: dict[str, Any] = {}
        """Further settings of the optimisers."""
        self.delays: dict[str, float] = {}
        """Seconds to wait before an answer, by method and end of the path, such as "PUT points"."""
        self.refused: dict[int, int] = {}
        """Number of refused calls by HTTP status."""
        self.statuses: list[str] = []
        """Collection statuses to report, one for each call; the last one stays until the collection is updated."""
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of each REST call."""
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the HTTP status and the result of one call."""
        end = path.partition("?")[0].rpartition("/")[2]
        time.sleep(self.delays.get(f"{method} {end}", 0.0))
        with self._lock:
            if self.read_only and (method == "PUT" or end == "delete"):
                return 403, None
            if method == "PUT" and self.max_points is not None and len(body.get("points", ())) > self.max_points:
                self.refused[self.too_large] = self.refused.get(self.too_large, 0) + 1
                return self.too_large, None
            if method == "PUT" and "points" in body and self.busy:
                self.busy -= 1
                if self.busy % 2:
                    return 429, None
            if body.get("limit", 0) > self.strict.get("max_query_limit", 1 << 60):
                return 400, None
            if (
                method == "PUT"
                and self.full_from is not None
                and any(p["id"] >= self.full_from for p in body.get("points", ()))
            ):
                return 503, None
            if self.config is None and method == "GET" and not path.endswith(("/exists", "/aliases")):
                return 404, None
            if (method, end) in self.down:
                return 503, None
            if (method, end) in self.refuses:
                return 400, None
            if (method, end) in self.ignores:
                return 200, {"operation_id": 1, "status": "completed"}
            if end == "shards" and body["shard_key"] in self.shard_keys:
                return 400, None
            if (method, end) in self.deaf_to:
                self.deaf_to.remove((method, end))
                self._act(method, path, body)
                return 503, None
            fate = self._random.random()
            if fate < self.failures:
                status = self._random.choice([429, 500, 503])
                self.refused[status] = self.refused.get(status, 0) + 1
                if fate < self.failures / 2 and status != 429:
                    self._act(method, path, body)  # the call fails after it took effect
                return status, None
            return 200, self._act(method, path, body)

    def _act(self, method: str, path: str, body: dict[str, Any]) -> Any:
        path = path.partition("?")[0]
        if path.endswith("/aliases"):
            return {"aliases": []}
        if path.endswith("/optimizations"):
            return self._progress()
        if path.endswith("/exists"):
            return {"exists": self.config is not None}
        if path.endswith("/points/delete"):
            for point in body["points"]:
                self.points.pop(point, None)
            return {"operation_id": 1, "status": "completed"}
        if path.endswith("/points") and method == "POST":
            return [{**self.points[id], "vector": None} for id in body["ids"] if id in self.points]
        if path.endswith("/points/scroll"):
            return self._page(body["limit"], body.get("offset"))
        if path.endswith("/points") and method == "PUT":
            for point in body["points"]:
                self.points[point["id"]] = point
            return {"operation_id": 1, "status": "completed"}
        if path.endswith("/points/count"):
            return {"count": len(self.points)}
        if path.endswith("/index") and method == "PUT":
            self.fields[body["field_name"]] = body["field_schema"]
            return {"operation_id": 1, "status": "completed"}
        if path.endswith("/shards") and method == "PUT":
            self.shard_keys.append(body["shard_key"])
            return True
        if path.endswith("/cluster"):
            shards = [{"shard_id": n, "shard_key": key, "points_count": 0, "state": "Active"}
                      for n, key in enumerate(self.shard_keys)]  # fmt: skip
            return {"peer_id": 1, "shard_count": len(shards), "local_shards": shards, "remote_shards": [],
                    "shard_transfers": []}  # fmt: skip
        if "/vectors/" in path and method == "PUT":
            assert self.config is not None
            self.config.setdefault("sparse_vectors", {})[path.rpartition("/")[2]] = {}
            return {"operation_id": 1, "status": "completed"}
        if method == "DELETE":
            self.config, self.fields, self.shard_keys, self.points = None, {}, [], {}
            return True
        if method == "PUT":
            self.config, self.fields, self.shard_keys, self.points = body, {}, [], {}
            return True
        if method == "PATCH":
            self.statuses = []
            assert self.config is not None
            self.config["metadata"] = {**(self.config.get("metadata") or {}), **(body.get("metadata") or {})}
            return True
        assert self.config is not None
        return {
            "status": self._status(),
            "optimizer_status": "ok", "segments_count": 1, "payload_schema": self._schema(),
            "indexed_vectors_count": len(self.points), "points_count": len(self.points),
            "config": {
                "params": {"vectors": self.config.get("vectors"),
                           "sparse_vectors": self.config.get("sparse_vectors")},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                                     "default_segment_number": 0, "flush_interval_sec": 5, **self.optimizers},
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "metadata": self.config.get("metadata"),
                "strict_mode_config": self.strict,
            },
        }  # fmt: skip

    def _schema(self) -> dict[str, Any]:
        """The indexed payload fields as a server reports them."""
        return {
            name: {"data_type": schema["type"], "params": schema, "points": 0} if isinstance(schema, dict)
            else {"data_type": schema, "points": 0} for name, schema in self.fields.items()
        }  # fmt: skip

    def _progress(self) -> dict[str, Any]:
        done = self.progress.pop(0) if len(self.progress) > 1 else self.progress[0]
        tree = {"name": "vectors", "done": done, "total": 100, "children": []}
        running = {"uuid": "00000000-0000-0000-0000-000000000001", "optimizer": "indexing", "status": "optimizing",
                   "segments": [], "progress": {"name": "indexing", "children": [tree]}}  # fmt: skip
        summary = {"queued_optimizations": 0, "queued_segments": 0, "queued_points": 0, "idle_segments": 0}
        return {"summary": summary, "running": [running]}

    def _status(self) -> str:
        """Return the next collection status."""
        if not self.statuses:
            return "green"
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def _page(self, limit: int, offset: Any) -> dict[str, Any]:
        ids = sorted(id for id in self.points if offset is None or id >= offset)
        page = [{**self.points[id], "vector": None} for id in ids[:limit]]
        return {"points": page, "next_page_offset": ids[limit] if len(ids) > limit else None}


@contextlib.contextmanager
def serving(sink: Sink) -> Iterator[int]:
    """Serve a sink over REST; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sink.calls.append((self.command, self.path, {name.lower(): text for name, text in self.headers.items()}))
            status, result = sink.answer(self.command, self.path, json.loads(body) if body else {})
            said = "ok" if status == 200 else {"error": sink.complaints.get(status, "as planned")}
            text = json.dumps({"result": result, "status": said, "time": 0.0}).encode()
            with contextlib.suppress(OSError):  # the client may have closed the connection
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if status == 429 and status not in sink.complaints:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _handle  # noqa: N815 (names that the base class expects)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore connections that the fault proxy broke."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Points(PointsServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802 (name that the service defines)
        points = [GrpcToRest.convert_point_struct(point).model_dump(mode="json") for point in request.points]
        _result_of(self._sink, context, "PUT", "/points", {"points": points})
        return grpc.PointsOperationResponse(result=grpc.UpdateResult(status=grpc.UpdateStatus.Completed))

    def Count(self, request: Any, context: Any) -> Any:  # noqa: N802
        count = _result_of(self._sink, context, "POST", "/points/count", {})["count"]
        return grpc.CountResponse(result=grpc.CountResult(count=count))

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        ids = [point.num if point.HasField("num") else point.uuid for point in request.ids]
        found = _result_of(self._sink, context, "POST", "/points", {"ids": ids})
        records = [models.Record(id=point["id"], payload=point.get("payload")) for point in found]
        return grpc.GetResponse(result=list(map(RestToGrpc.convert_record, records)))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        points = [point.num if point.HasField("num") else point.uuid for point in request.points.points.ids]
        _result_of(self._sink, context, "POST", "/points/delete", {"points": points})
        return grpc.PointsOperationResponse(result=grpc.UpdateResult(status=grpc.UpdateStatus.Completed))


class _Collections(CollectionsServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def ListAliases(self, request: Any, context: Any) -> Any:  # noqa: N802
        _result_of(self._sink, context, "GET", "/aliases", {})
        return grpc.ListAliasesResponse()

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = models.CollectionInfo(**_result_of(self._sink, context, "GET", "", {}))
        return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def CollectionClusterInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        shards = _result_of(self._sink, context, "GET", "/cluster", {})["local_shards"]
        keys = [RestToGrpc.convert_shard_key(shard["shard_key"]) for shard in shards]
        return grpc.CollectionClusterInfoResponse(
            peer_id=1, shard_count=len(keys), local_shards=[grpc.LocalShardInfo(shard_key=key) for key in keys]
        )


def _result_of(sink: Sink, context: Any, method: str, path: str, body: dict[str, Any]) -> Any:
    """Return the result of a call, or abort it with the gRPC status that matches its HTTP status."""
    status, result = sink.answer(method, path, body)
    if status == 429:
        context.set_trailing_metadata((("retry-after", "0"),))
    if status != 200:
        codes = {
            400: rpc.StatusCode.INVALID_ARGUMENT, 403: rpc.StatusCode.PERMISSION_DENIED,
            413: rpc.StatusCode.OUT_OF_RANGE, 429: rpc.StatusCode.RESOURCE_EXHAUSTED,
            500: rpc.StatusCode.INTERNAL, 503: rpc.StatusCode.UNAVAILABLE,
        }  # fmt: skip
        context.abort(codes[status], sink.complaints.get(status, "as planned"))
    return result


@contextlib.contextmanager
def serving_grpc(sink: Sink) -> Iterator[int]:
    """Serve a sink over gRPC; yields the port. The collection must have been created over REST before."""
    server = rpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    add_PointsServicer_to_server(_Points(sink), server)
    add_CollectionsServicer_to_server(_Collections(sink), server)
    port = int(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
