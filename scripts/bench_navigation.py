"""Compare what finds the candidates of a search: codes, the graph of navigation vectors, and TurboQuant with HNSW.

    python scripts/bench_navigation.py                                 # the shipped sample and a quickly trained model
    python scripts/bench_navigation.py text.npy [title.npy] --model model
    python scripts/bench_navigation.py text.npy --model model --queries title.npy   # queries that are not items

Several files are joined field by field. Every configuration answers the same queries on the embedded engine in one run,
and the last column is its time relative to searching by codes. "Resident" is what must stay in memory: navigation
vectors and graph where the graph is searched, the inverted index where codes are, quantised vectors and graph for
TurboQuant; the engine's tables of items (36 bytes for numeric ids) come on top everywhere.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_data import catalog_arguments, load_catalog, load_or_train

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import baselines
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.metrics import recall
from compressae_qdrant.vectors import exact_neighbours, unit_rows

LIMITS = (10, 100)
LOAD = 4096
IN_A_ROW = 50
WARM_UP = 1000
BATCH = 50
Search = Callable[[FloatArray, int], Sequence[int]]
SearchBatch = Callable[[FloatArray, int], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Row:
    """One configuration: its name, its bytes per item, and its search."""

    name: str
    resident: float
    search: Search
    search_batch: SearchBatch
    limits: tuple[int, ...] = LIMITS


@contextlib.contextmanager
def code_rows(model: CompresSAE, x: FloatArray, navigation: NavigationSettings) -> Iterator[list[Row]]:
    """Codes by every first stage, from one index that keeps the embeddings on disk."""
    with tempfile.TemporaryDirectory() as folder:
        settings = IndexSettings(keep_dense=True, navigation=navigation)
        with EdgeIndex.create(Path(folder) / "index", model, settings) as index:
            started = time.perf_counter()
            codes = model.encode(x)
            encoded = time.perf_counter()
            for start in range(0, len(codes), LOAD):
                part = codes[start : start + LOAD]
                index.upsert(range(start, start + len(part)), part, dense=x[start : start + len(part)])
            loaded = time.perf_counter()
            index.optimize()
            built = time.perf_counter()
            print(
                f"Encoded in {encoded - started:.0f} s, loaded in {loaded - encoded:.0f} s, optimised (inverted index "
                f"and graph) in {built - loaded:.0f} s"
            )
            info = index.info()
            assert info.index_bytes is not None
            assert info.navigation_bytes is not None
            postings, graph = info.index_bytes / len(x), info.navigation_bytes / len(x)
            retriever = Retriever(model, index)

            def row(name: str, resident: float, limits: tuple[int, ...] = LIMITS, **options: Any) -> Row:
                def search(query: FloatArray, limit: int) -> list[int]:
                    hits = retriever.search(query, limit, with_payload=False, **options)
                    return [int(hit.id) for hit in hits]

                def search_batch(queries: FloatArray, limit: int) -> list[list[int]]:
                    batch = retriever.search_batch(queries, limit, with_payload=False, **options)
                    return [[int(hit.id) for hit in hits] for hits in batch]

                return Row(name, resident, search, search_batch, limits)

            for query in x[:: max(1, len(x) // WARM_UP)]:  # a service has mapped the pages of its files
                retriever.search(query, 100, first_stage="graph", dense_candidates=0)
                retriever.search(query, 100, first_stage="graph")

            yield [
                row("codes, default plan", postings, first_stage="codes", dense_candidates=0),
                row("graph, default plan", graph, first_stage="graph", dense_candidates=0),
                row("codes, every item scored", postings, exact=True, dense_candidates=0),
                row("graph, default plan, ranked by the engine", graph, first_stage="graph", dense_candidates=0,
                    rescore_in_engine=True),
                row("graph, 100 nodes", graph, (10,), first_stage="graph", navigation_ef=100, dense_candidates=0),
                row("graph, 400 nodes", graph, first_stage="graph", navigation_ef=400, dense_candidates=0),
                row("graph, 900 nodes", graph, (100,), first_stage="graph", navigation_ef=900, dense_candidates=0),
                row("graph, default plan, none compared", graph, first_stage="graph", navigation_candidates=0,
                    dense_candidates=0),
                row("codes and graph", postings + graph, first_stage="both", dense_candidates=0),
                row("graph, default plan, originals", graph, first_stage="graph"),
                row("codes, default plan, originals", postings, first_stage="codes"),
            ]  # fmt: skip


@contextlib.contextmanager
def baseline_rows(x: FloatArray) -> Iterator[list[Row]]:
    """TurboQuant with HNSW on the embeddings, without and with originals."""
    with contextlib.ExitStack() as stack:
        rows = []
        for method in baselines(x.shape[1], quick=True):
            if not method.names[0].startswith("TurboQuant"):
                continue
            built = stack.enter_context(method.build(x))
            rows += [Row(config.name, built.resident, config.search, config.search_batch) for config in built.configs]
        yield rows


def measure(rows: Sequence[Row], queries: FloatArray, own: npt.NDArray[np.int64] | None,
            truth: list[list[int]], seconds: float) -> None:  # fmt: skip
    """Print a table row for each configuration.

    A configuration answers 50 queries in a row, as a service would, and then the next one does, so that other load on
    the machine hits all alike.
    """
    print(
        "\n| first stage | resident bytes | hits | recall | p50 ms | p95 ms | queries/s, 2 threads | in batches "
        "| p50, codes = 1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for limit in LIMITS:
        chosen = [row for row in rows if limit in row.limits]
        wanted = limit + (own is not None)
        times: list[list[float]] = [[] for _ in chosen]
        found: list[list[list[int]]] = [[] for _ in chosen]
        for first in range(0, len(queries), IN_A_ROW):
            for row, mine, hits in zip(chosen, times, found, strict=True):
                for number in range(first, min(first + IN_A_ROW, len(queries))):
                    started = time.perf_counter()
                    ids = row.search(queries[number], wanted)
                    mine.append(time.perf_counter() - started)
                    hits.append([id for id in ids if own is None or id != own[number]])
        base = float(np.median(times[0]))
        for row, mine, hits in zip(chosen, times, found, strict=True):
            p50, p95 = np.percentile(np.array(mine) * 1e3, [50, 95])
            rate = throughput(row.search, queries, wanted, seconds)
            batches = batch_throughput(row.search_batch, queries, wanted, seconds)
            print(
                f"| {row.name} | {row.resident:.1f} | {limit} | {recall(hits, truth, limit).mean():.4f} | {p50:.2f} | "
                f"{p95:.2f} | {rate:,.0f} | {batches:,.0f} | {np.median(mine) / base:.2f} |",
                flush=True,
            )


def throughput(search: Search, queries: FloatArray, limit: int, seconds: float) -> float:
    """Queries per second of two threads that search for so many seconds."""
    stop = time.perf_counter() + seconds
    counts = [0, 0]

    def work(worker: int) -> None:
        while time.perf_counter() < stop:
            search(queries[(2 * counts[worker] + worker) % len(queries)], limit)
            counts[worker] += 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def batch_throughput(search: SearchBatch, queries: FloatArray, limit: int, seconds: float) -> float:
    """Queries per second of one thread that searches for 50 queries at a time."""
    started, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        first = count % max(1, len(queries) - BATCH)
        count += len(search(queries[first : first + BATCH], limit))
    return count / elapsed


def main() -> None:
    parser = catalog_arguments(__doc__, count=500)
    parser.add_argument("--queries", help="(q, d) .npy of queries; default: items of the catalog")
    parser.add_argument("--dim", type=int, help="dimensions of the navigation vectors (default: 256)")
    parser.add_argument("--bits", type=float, default=1, help="bits per dimension: 1, 1.5, 2 or 4 (default: 1)")
    parser.add_argument("--m", type=int, default=8, help="links of the graph per item and layer (default: 8)")
    parser.add_argument("--k", type=int, help="non-zeros of a code (default: the model's)")
    parser.add_argument("--seconds", type=float, default=2, help="duration of each throughput run, s (default: 2)")
    parser.add_argument("--no-baselines", action="store_true", help="leave TurboQuant out")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    x = unit_rows(vectors)
    if args.k is not None:
        model = model.with_k(args.k, x[:20_000])
    random = np.random.default_rng(2026)
    own: npt.NDArray[np.int64] | None = None
    if args.queries is None:
        own = random.choice(len(x), min(args.count, len(x)), replace=False)
        queries = x[own]
    else:
        logged = np.load(args.queries, mmap_mode="r")
        queries = unit_rows(logged[np.sort(random.choice(len(logged), min(args.count, len(logged)), replace=False))])
    truth = exact_neighbours(queries, x, max(LIMITS), own).tolist()
    navigation = NavigationSettings(dim=args.dim, bits=args.bits, m=args.m)
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(code_rows(model, x, navigation))
        if not args.no_baselines:
            rows = rows + stack.enter_context(baseline_rows(x))
        measure(rows, queries, own, truth, args.seconds)


if __name__ == "__main__":
    main()
