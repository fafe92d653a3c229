"""Measure what a query costs in the client: planning, the request, the connection, and reading the hits.

    python scripts/bench_client.py                                   # a stand-in that answers at once
    python scripts/bench_client.py --url http://localhost:6333       # a server, whose own time is subtracted

Without --url, a process on this machine stands in for the server: it reads a request and answers with the same points
each time. "Retriever" is `Retriever.search` from the embedding to the hits. "qdrant-client" sends the same request by
the client's `query_batch_points`, with its models made from lists, and leaves planning out, and ranking where the
client ranks. "Bare exchange" sends the finished bytes and reads nothing of the answer but the server's time, so it is
the part that no client can save. All take turns in one run, by REST and by gRPC. "Client" is the Retriever's time less
the bare exchange, and the last column is the time of planning and qdrant-client relative to the Retriever's.

With --url, an index of random items is made on the server and dropped at the end. The column "server" is
then the server's own time of the query, as its answers state it, and "client" is the Retriever's time less that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import grpc as rpc
import httpx
import numpy as np
import numpy.typing as npt
import orjson
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, Retriever
from compressae_qdrant.index.manifest import VECTOR_NAME, Manifest
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.qdrant.queries import _lists, _request
from compressae_qdrant.index.qdrant.steps import Watch
from compressae_qdrant.index.qdrant.wire import grpc_query, rest_queries
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.defaults import RESCORED_HERE, graph_sizes
from compressae_qdrant.search.settings import SearchOptions

LIMITS = (10, 100)
STAGES = ("codes", "graph")
ITEMS = 1_000_000
"""Items that the stand-in says it has; the default plan depends on it."""
SETTINGS = IndexSettings(navigation=NavigationSettings())
LATENTS_USED, NON_ZEROS = 600, 44
"""Latents that the candidates of a search use, about as on a real catalog, and non-zeros of each code."""
QUERY_BATCH = "/qdrant.Points/QueryBatch"


class Shape(NamedTuple):
    """What an answer holds."""

    points: int
    """Hits, or candidates that the client ranks."""
    coded: bool
    """Whether they come with their codes."""

    @classmethod
    def of(cls, stage: str, limit: int) -> Self:
        """The answer to a default search."""
        candidates = graph_sizes(limit).candidates
        coded = stage == "graph" and candidates <= RESCORED_HERE
        return cls(candidates if coded else limit, coded)

    def hits(self) -> list[dict[str, Any]]:
        """Points with the payload of a small catalog."""
        random = np.random.default_rng(2)
        found = [
            {
                "id": row, "version": 1, "score": 1 - row / 1000,
                "payload": {"__compressae_id": f"item-{row}", "title": "A title of some words", "section": "libs",
                            "size": 1000 + row},
            }
            for row in range(self.points)
        ]  # fmt: skip
        for hit in found if self.coded else ():
            indices = np.sort(random.choice(LATENTS_USED, NON_ZEROS, replace=False)).tolist()
            values = random.standard_normal(NON_ZEROS).astype(np.float32).tolist()
            hit["vector"] = {VECTOR_NAME: {"indices": indices, "values": values}}
        return found


def rest_answer(shape: Shape) -> bytes:
    """A whole HTTP response."""
    body = json.dumps({"result": [{"points": shape.hits()}], "status": "ok", "time": 0.0}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def grpc_answer(shape: Shape) -> bytes:
    """A serialised response."""
    points = []
    for hit in shape.hits():
        point = grpc.ScoredPoint(
            id=grpc.PointId(num=hit["id"]), score=hit["score"], payload=RestToGrpc.convert_payload(hit["payload"])
        )
        for name, code in hit.get("vector", {}).items():
            sparse = point.vectors.vectors.vectors[name].sparse
            sparse.indices.extend(code["indices"])
            sparse.values.extend(code["values"])
        points.append(point)
    answer: bytes = grpc.QueryBatchResponse(result=[grpc.BatchResult(result=points)]).SerializeToString()
    return answer


def serve(ports: Connection) -> None:
    """Run the stand-in: a REST port and a gRPC port for each kind of answer, sent through `ports`."""
    found, servers = {}, []
    for shape in {Shape.of(stage, limit) for stage in STAGES for limit in LIMITS}:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=accept, args=(listener, rest_answer(shape)), daemon=True).start()
        answer = grpc_answer(shape)
        server = rpc.server(ThreadPoolExecutor(1))
        method = rpc.unary_unary_rpc_method_handler(lambda _request, _context, answer=answer: answer)
        server.add_generic_rpc_handlers((rpc.method_handlers_generic_handler("qdrant.Points", {"QueryBatch": method}),))
        found[shape] = (listener.getsockname()[1], server.add_insecure_port("127.0.0.1:0"))
        server.start()
        servers.append(server)  # a server without references stops
    ports.send(found)
    threading.Event().wait()


def accept(listener: socket.socket, answer: bytes) -> None:
    """Serve each connection in a thread."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer_all, args=(connection, answer), daemon=True).start()


def answer_all(connection: socket.socket, answer: bytes) -> None:
    """Answer each request on a connection once its body has been read."""
    with connection, connection.makefile("rb") as requests:
        while requests.readline():
            size = 0
            while (line := requests.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            requests.read(size)
            connection.sendall(answer)


@contextmanager
def stand_in() -> Iterator[dict[Shape, tuple[int, int]]]:
    """The stand-in's ports for REST and gRPC, by what they answer."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()


def client_of(url: str, grpc_port: int | None, **options: Any) -> QdrantClient:
    """A client of a server by REST, or by gRPC if its port is given."""
    return QdrantClient(
        url=url, grpc_port=grpc_port or 6334, prefer_grpc=grpc_port is not None, check_compatibility=False, **options
    )


class NeverDue(Watch):
    """Leaves out the look at the collection every two seconds, which the stand-in does not answer."""

    def is_due(self) -> bool:
        return False


@dataclass(frozen=True)
class Case:
    """One row of the table: a first stage and a limit, by one protocol of one server."""

    retriever: Retriever
    client: QdrantClient
    collection: str
    queries: npt.NDArray[np.float32]
    limit: int
    stage: Any
    exchange: Callable[[list[models.QueryRequest]], Callable[[], float]]
    """Makes a function that sends finished requests and returns the server's own time in seconds."""

    @property
    def options(self) -> SearchOptions:
        """The default search; the model is random, so the sizes that a trained one has by default are given."""
        if self.stage == "codes":
            return {"first_stage": "codes"}
        sizes = graph_sizes(self.limit)
        return {"first_stage": "graph", "prefetch": sizes.candidates, "navigation_ef": sizes.ef}

    def plan(self, row: int) -> QueryPlan:
        """The plan of a query."""
        (plan,) = self.retriever._queries.plans(self.queries[[row]], self.limit, self.options, ITEMS)
        return plan

    def search(self, row: int) -> None:
        """From the embedding to the hits, as users do."""
        assert len(self.retriever.search(self.queries[row], self.limit, **self.options)) == self.limit

    def by_client(self, request: models.QueryRequest) -> None:
        """The client's own way, from its models made of lists."""
        self.client.query_batch_points(self.collection, [request])

    def measure(self, rounds: int) -> str:
        """A row of the table: medians in milliseconds, all ways taking turns; the first tenth warms up."""
        plans = [self.plan(row) for row in range(len(self.queries))]
        bare = [self.exchange([_request(plan, None, _lists)]) for plan in plans]
        seconds = np.empty((rounds, 5))
        for number in range(rounds):
            row = number % len(plans)
            marks = [time.perf_counter()]
            for step in (
                lambda: self.plan(row),  # noqa: B023 (called at once)
                lambda: self.search(row),  # noqa: B023
                lambda: self.by_client(_request(plans[row], None, _lists)),  # noqa: B023
            ):
                step()
                marks.append(time.perf_counter())
            server = bare[row]()
            seconds[number] = [*np.diff(marks), time.perf_counter() - marks[-1], server]
        plan, search, theirs, exchange, server = np.median(seconds[rounds // 10 :], axis=0) * 1e3
        return (
            f"{self.stage} | {self.limit} | {plan:.2f} | {search:.2f} | {theirs:.2f} | {exchange:.2f} | {server:.2f} | "
            f"{search - (server or exchange):.2f} | {(plan + theirs) / search:.1f}"
        )


def rest_exchange(url: str, collection: str) -> Callable[[list[models.QueryRequest]], Callable[[], float]]:
    """Sends finished requests by REST."""
    http = httpx.Client(base_url=url, headers={"Content-Type": "application/json"})

    def prepare(requests: list[models.QueryRequest]) -> Callable[[], float]:
        body = rest_queries(requests).model_dump_json()
        path = f"/collections/{collection}/points/query/batch"
        return lambda: float(orjson.loads(http.post(path, content=body).content)["time"])

    return prepare


def grpc_exchange(target: str, collection: str) -> Callable[[list[models.QueryRequest]], Callable[[], float]]:
    """Sends finished requests by gRPC."""
    call = rpc.insecure_channel(target).unary_unary(
        QUERY_BATCH, response_deserializer=grpc.QueryBatchResponse.FromString
    )

    def prepare(requests: list[models.QueryRequest]) -> Callable[[], float]:
        points = [grpc_query(request, collection) for request in requests]
        batch = grpc.QueryBatchPoints(collection_name=collection, query_points=points).SerializeToString()
        return lambda: float(call(batch).time)

    return prepare


def print_table(cases: Iterator[tuple[str, Case]], rounds: int) -> None:
    """Measure all cases; times are medians in milliseconds."""
    print(
        "\n| protocol | first stage | hits | planning | Retriever | qdrant-client | bare exchange | server | client | "
        "ratio |\n|" + "---|" * 10
    )
    for protocol, case in cases:
        print(f"| {protocol} | {case.measure(rounds)} |", flush=True)


def stand_in_cases(model: CompresSAE, queries: npt.NDArray[np.float32]) -> Iterator[tuple[str, Case]]:
    """Cases against the stand-in."""
    manifest = Manifest.of(model, SETTINGS)
    with stand_in() as ports:
        for limit, stage in itertools.product(LIMITS, STAGES):
            rest_port, grpc_port = ports[Shape.of(stage, limit)]
            url = f"http://127.0.0.1:{rest_port}"
            for protocol, client, exchange in (
                ("REST", client_of(url, None), rest_exchange(url, "items")),
                ("gRPC", client_of(url, grpc_port), grpc_exchange(f"127.0.0.1:{grpc_port}", "items")),
            ):
                index = QdrantIndex(client, "items", manifest, model=model)
                index._watch = NeverDue()
                retriever = Retriever(model, index)
                retriever._count.update(ITEMS)
                yield protocol, Case(retriever, client, "items", queries, limit, stage, exchange)


def server_cases(
    model: CompresSAE, queries: npt.NDArray[np.float32], url: str, grpc_port: int, items: int
) -> Iterator[tuple[str, Case]]:
    """Cases against a server, on an index of random items."""
    name = f"bench_client_{uuid.uuid4().hex[:8]}"
    rest, fast = client_of(url, None, timeout=600), client_of(url, grpc_port, timeout=600)
    index = QdrantIndex.create(rest, name, model, SETTINGS)
    try:
        random = np.random.default_rng(1)
        for start in range(0, items, 4096):
            ids = range(start, min(start + 4096, items))
            x = random.standard_normal((len(ids), queries.shape[1])).astype(np.float32)
            payloads = [{"title": "A title of some words", "section": "libs", "size": row} for row in ids]
            index.upsert(ids, model.encode(x), payloads)
        index.optimize()
        for protocol, client, exchange in (
            ("REST", rest, rest_exchange(url, name)),
            ("gRPC", fast, grpc_exchange(f"{httpx.URL(url).host}:{grpc_port}", name)),
        ):
            retriever = Retriever(model, QdrantIndex.open(client, name, model))
            for limit in LIMITS:
                for stage in STAGES:
                    yield protocol, Case(retriever, client, name, queries, limit, stage, exchange)
    finally:
        rest.delete_collection(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=768, help="dimensions of the embeddings (default: 768)")
    parser.add_argument("--latents", type=int, default=4096, help="latents of the model (default: 4096)")
    parser.add_argument("--rounds", type=int, default=500, help="queries of each kind (default: 500)")
    parser.add_argument("--url", help="address of a server for REST; default: a stand-in")
    parser.add_argument("--grpc-port", type=int, default=6334, help="the server's port for gRPC (default: 6334)")
    parser.add_argument("--items", type=int, default=20_000, help="random items of the server's index (default: 20000)")
    args = parser.parse_args()
    model = CompresSAE(ModelConfig(args.dim, args.latents, NON_ZEROS))
    queries = np.random.default_rng(0).standard_normal((100, args.dim)).astype(np.float32)
    print(f"qdrant-client {version('qdrant-client')}, {args.dim} dimensions, {args.latents} latents")
    if args.url is None:
        print_table(stand_in_cases(model, queries), args.rounds)
    else:
        print_table(server_cases(model, queries, args.url, args.grpc_port, args.items), args.rounds)


if __name__ == "__main__":
    main()
