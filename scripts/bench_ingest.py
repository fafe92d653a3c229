"""Measure the client's side of an ingestion: upload rate and peak memory.

    python scripts/bench_ingest.py [--items 1000000]

Random items go to a fake server that accepts every call, over REST and gRPC, and stores nothing; it runs in a separate
process. Prints the items/s of our upserts and of `QdrantClient.upload_points` with the same codes, measured in turns,
and the peak memory of ingesting 50,000 and --items items, each in a new process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import grpc as rpc
import numpy as np
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, SparseCodes, ingest, open_source
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.sources import Batch

DIM, LATENTS, K = 64, 4096, 32
BATCH, ROUNDS = 2048, 3
_SERVERS: list[Any] = []


def serve(manifest: dict[str, Any], ports: Connection) -> None:
    """Run the fake server; sends its REST and gRPC ports through `ports`."""
    collection = {
        "status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {},
        "indexed_vectors_count": 0, "points_count": 0,
        "config": {
            "params": {"sparse_vectors": {"code": {}}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                                 "default_segment_number": 0, "flush_interval_sec": 5},
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "metadata": {"compressae": manifest},
        },
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                left -= len(self.rfile.read(min(left, 1 << 16)))
            result = collection if self.command == "GET" else {"operation_id": 1, "status": "completed"}
            result = {"aliases": []} if self.path == "/aliases" else result
            text = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = handle_any  # noqa: N815 (names that the base class expects)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.send((server.server_address[1], serve_grpc(collection)))
    server.serve_forever()


def serve_grpc(collection: dict[str, Any]) -> int:
    """Answer the same calls over gRPC; returns the port. Requests are not parsed, so that the server costs little."""
    done = grpc.PointsOperationResponse(result=grpc.UpdateResult(status=grpc.UpdateStatus.Completed))
    described = grpc.GetCollectionInfoResponse(
        result=RestToGrpc.convert_collection_info(models.CollectionInfo(**collection))
    )

    def answering(text: bytes) -> Any:
        return rpc.unary_unary_rpc_method_handler(lambda *_: text)

    handlers = [
        rpc.method_handlers_generic_handler("qdrant.Points", {"Upsert": answering(done.SerializeToString())}),
        rpc.method_handlers_generic_handler(
            "qdrant.Collections", {"Get": answering(described.SerializeToString()), "ListAliases": answering(b"")}
        ),
    ]
    server = rpc.server(ThreadPoolExecutor(4), handlers, options=[("grpc.max_receive_message_length", -1)])
    port = int(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    _SERVERS.append(server)  # a server without references is stopped
    return port


def model() -> CompresSAE:
    """Return an untrained model; the quality of its codes does not matter here."""
    return CompresSAE(ModelConfig(DIM, LATENTS, K))


def upload(ports: tuple[int, int], codes: SparseCodes, *, grpc: bool) -> None:
    """Upload the same codes with `upload_points` and with our upserts in turns; prints the median rate of each."""
    client = QdrantClient(
        host="127.0.0.1", port=ports[0], grpc_port=ports[1], prefer_grpc=grpc, timeout=60, check_compatibility=False
    )
    index = QdrantIndex.open(client, "items")

    def points() -> Iterator[models.PointStruct]:
        for row in range(len(codes)):
            indices, values = codes.row(row)
            vector = models.SparseVector(indices=indices.tolist(), values=values.tolist())
            yield models.PointStruct(id=row, vector={"code": vector}, payload={})

    def theirs() -> None:
        client.upload_points("items", points(), batch_size=BATCH, parallel=1, wait=True)

    def ours(workers: int) -> None:
        starts = range(0, len(codes), BATCH)
        with ThreadPoolExecutor(workers) as pool:
            list(
                pool.map(
                    lambda at: index.upsert(range(at, min(at + BATCH, len(codes))), codes[at : at + BATCH]), starts
                )
            )

    methods: dict[str, Callable[[], None]] = {
        "QdrantClient.upload_points": theirs,
        "ours, one request at a time": lambda: ours(1),
        f"ours, {index.parallel_upserts} parallel requests": lambda: ours(index.parallel_upserts),
    }
    speeds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            started = time.perf_counter()
            method()
            speeds[name].append(len(codes) / (time.perf_counter() - started))
    client.close()
    print(f"\n| upload over {'gRPC' if grpc else 'REST'} | items/s | ratio |\n|---|---|---|")
    base = median(speeds["QdrantClient.upload_points"])
    for name, each in speeds.items():
        print(f"| {name} | {median(each):,.0f} | {median(each) / base:.1f}x |", flush=True)


def ingest_once(port: int, path: str) -> None:
    """Ingest a file and print the peak memory of this process in MB, without and with the file's mapped pages."""
    own = 0

    def sample(_: Batch) -> None:
        nonlocal own
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        own = max(own, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    client = QdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
    started = time.perf_counter()
    report = ingest(open_source(path), model(), QdrantIndex.open(client, "items"), method="encoder", restart=True,
                    on_batch=sample)  # fmt: skip
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {report.items:,} | {own / 1024:,.0f} | {peak:,.0f} | {report.items / seconds:,.0f} |", flush=True)
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="items to ingest (default: 1,000,000)")
    parser.add_argument("--child", nargs=2, metavar=("PORT", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        ingest_once(int(args.child[0]), args.child[1])
        return
    print(
        "Catalog: random items made for this run; "
        f"d={DIM}, h={LATENTS}, k={K}; qdrant-client {version('qdrant-client')}, torch {version('torch')}"
    )
    receiver, sender = multiprocessing.Pipe()
    manifest = Manifest.of(model(), IndexSettings(scale="projection")).to_json()
    sink = multiprocessing.get_context("spawn").Process(target=serve, args=(manifest, sender), daemon=True)
    sink.start()
    ports = receiver.recv()
    random = np.random.default_rng(0)
    sample = random.normal(size=(min(40_000, args.items), DIM)).astype(np.float32)
    codes = model().encode(sample, "encoder")
    for by_grpc in (False, True):
        upload(ports, codes, grpc=by_grpc)
    print(
        "\n| items ingested | peak MB of the client | with the file's mapped pages | items/s |\n|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for items in (50_000, args.items):
            path = Path(folder) / f"{items}.npy"
            rows = np.lib.format.open_memmap(path, "w+", np.float32, (items, DIM))
            for start in range(0, items, 100_000):
                rows[start : start + 100_000] = random.normal(size=(min(100_000, items - start), DIM))
            rows.flush()
            subprocess.run([sys.executable, __file__, "--child", str(ports[0]), str(path)], check=True)
    sink.terminate()


if __name__ == "__main__":
    main()
