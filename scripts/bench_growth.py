"""Compare a catalog with a larger one that is made from it: building both, and searching both.

    python scripts/bench_growth.py                             # the shipped sample and a quickly trained model
    python scripts/bench_growth.py text.npy --model model --queries title.npy --items 1000000 --work growth

The larger catalog has mixtures of neighbouring items (`capacity_data.grow`). For both sizes the script loads and
optimises an index without navigation, one with it, and the navigation vectors with their graph alone. Then it times
whole searches: for items, which are left out of their own hits, and for the queries of a file, if one is given.

"Recall" is against the exact neighbours of the embeddings. "Found" is the share of the best items by codes, every
item scored, that a search finds: it is the recall of the first stage, whatever the codes can tell apart. The last
column is the median time relative to the same search of the smaller catalog.

Codes and indexes are kept in the work directory, so that a second run does not encode again.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe
from bench_data import catalog_arguments, load_catalog, load_or_train
from capacity_data import codes_of, grow

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import dense_shard, quantisers
from compressae_qdrant.index.settings import NAVIGATION_DIM, NavigationSettings
from compressae_qdrant.metrics import recall
from compressae_qdrant.scoring import asymmetric, top
from compressae_qdrant.search.defaults import graph_sizes
from compressae_qdrant.vectors import exact_neighbours, unit_rows

LIMITS = (10, 100)
LOAD = 4096
IN_A_ROW = 50
NODES = {"graph": 1.0, "graph, 1.5 times the nodes": 1.5, "graph, twice the nodes": 2.0}
"""Searches by the graph, and the nodes that they keep relative to the default of a small catalog."""


@dataclass(frozen=True)
class Queries:
    """Queries, and what a search for them should find."""

    name: str
    rows: FloatArray
    own: npt.NDArray[np.int64] | None
    """Items that the queries are; None if they are not items."""
    near: list[list[int]]
    """Exact neighbours of each query."""
    best: list[list[int]]
    """Best items of each query by codes, every item scored."""


@dataclass(frozen=True)
class Size:
    """A catalog's index, and the queries that it is asked."""

    items: int
    retriever: Retriever
    asked: list[Queries]


def build(folder: Path, model: CompresSAE, codes: SparseCodes, navigation: NavigationSettings | None) -> None:
    """Load and optimise an index, and print its times."""
    started = time.perf_counter()
    with EdgeIndex.create(folder, model, IndexSettings(navigation=navigation)) as index:
        for start in range(0, len(codes), LOAD):
            index.upsert(range(start, min(start + LOAD, len(codes))), codes[start : start + LOAD])
        loaded = time.perf_counter()
        index.optimize()
        done = time.perf_counter()
    name = "codes" if navigation is None else "codes and navigation"
    print(
        f"| {len(codes):,} | {name} | {loaded - started:.0f} | {done - loaded:.0f} | {done - started:.0f} |", flush=True
    )


def build_graph(folder: Path, model: CompresSAE, codes: SparseCodes, settings: NavigationSettings) -> None:
    """Load and optimise navigation vectors without codes, and print the time."""
    vectors = model.navigation_vectors(codes, min(settings.dim or NAVIGATION_DIM, model.max_navigation_dim))
    folder.mkdir()
    started = time.perf_counter()
    hnsw = qe.HnswIndexConfig(m=settings.m, ef_construct=settings.ef_construct, full_scan_threshold=10)
    dense_shard(folder, vectors, "Float16", quantisers()[f"TurboQuant {settings.bits:g} bit"], hnsw=hnsw).close()
    print(f"| {len(codes):,} | navigation alone | | | {time.perf_counter() - started:.0f} |", flush=True)


def build_all(work: Path, model: CompresSAE, codes: SparseCodes) -> None:
    """Build the three indexes of one size, and print a table of their times."""
    folders = {kind: work / f"{kind}-{len(codes)}" for kind in ("codes-alone", "graph-alone", "both")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    print("\n| items | index | load, s | optimise, s | together, s |\n|---|---|---|---|---|")
    build(folders["codes-alone"], model, codes, None)
    build_graph(folders["graph-alone"], model, codes, NavigationSettings())
    build(folders["both"], model, codes, NavigationSettings())


def queries_of(
    name: str, rows: FloatArray, own: npt.NDArray[np.int64] | None, x: FloatArray, codes: SparseCodes, model: CompresSAE
) -> Queries:
    """Queries with their exact neighbours and their best items by codes."""
    near = exact_neighbours(rows, x, max(LIMITS), own).tolist()
    found, _ = top(codes, asymmetric(model.atoms.detach().cpu().numpy(), rows), max(LIMITS) + 1)
    best = [without(own, number, ids)[: max(LIMITS)] for number, ids in enumerate(found.tolist())]
    return Queries(name, rows, own, near, best)


def without(own: npt.NDArray[np.int64] | None, number: int, ids: list[int]) -> list[int]:
    """Hits of a query without the item that it is."""
    return ids if own is None else [id for id in ids if id != own[number]]


def options_of(search: str, limit: int) -> dict[str, Any]:
    """Options of a search."""
    if search == "codes":
        return {"first_stage": "codes"}
    return {"first_stage": "graph", "navigation_ef": round(NODES[search] * graph_sizes(limit).ef)}


def measure(sizes: Sequence[Size]) -> None:
    """Print a table row for each search of each size.

    All sizes answer 50 queries in turn, so that other load on the machine hits all alike.
    """
    print("\n| items | queries | hits | search | recall | found | p50 ms | p95 ms | p50, smaller = 1 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for limit in LIMITS:
        for search in ("codes", *NODES):
            for kind, queries in enumerate(sizes[0].asked):
                wanted = limit + (queries.own is not None)
                options = options_of(search, wanted)
                times: list[list[float]] = [[] for _ in sizes]
                found: list[list[list[int]]] = [[] for _ in sizes]
                for timed in (False, True):
                    for first in range(0, len(queries.rows), IN_A_ROW):
                        for size, mine, hits in zip(sizes, times, found, strict=True):
                            for number in range(first, min(first + IN_A_ROW, len(queries.rows))):
                                started = time.perf_counter()
                                each = size.retriever.search(
                                    queries.rows[number], wanted, with_payload=False, **options
                                )
                                if timed:
                                    mine.append(time.perf_counter() - started)
                                    hits.append(without(queries.own, number, [int(hit.id) for hit in each])[:limit])
                for size, mine, hits in zip(sizes, times, found, strict=True):
                    p50, p95 = np.percentile(np.array(mine) * 1e3, [50, 95])
                    truth = size.asked[kind]
                    shares = [recall(hits, true, limit).mean() for true in (truth.near, truth.best)]
                    figures = f"{shares[0]:.4f} | {shares[1]:.4f} | {p50:.2f} | {p95:.2f}"
                    ratio = np.median(mine) / np.median(times[0])
                    print(
                        f"| {size.items:,} | {queries.name} | {limit} | {search} | {figures} | {ratio:.2f} |",
                        flush=True,
                    )


def main() -> None:
    parser = catalog_arguments(__doc__, count=200)
    parser.add_argument("--items", type=int, help="items of the larger catalog (default: four times the catalog)")
    parser.add_argument("--queries", help="(q, d) .npy of queries that are not items")
    parser.add_argument("--work", help="directory for codes and indexes; default: a temporary one")
    parser.add_argument("--measure", action="store_true", help="only search the indexes that --work has")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    catalog = unit_rows(vectors)
    random = np.random.default_rng(2026)
    own = random.choice(len(catalog), min(args.count, len(catalog)), replace=False)
    others: FloatArray | None = None
    if args.queries is not None:
        logged = np.load(args.queries, mmap_mode="r")
        others = unit_rows(logged[np.sort(random.choice(len(logged), min(args.count, len(logged)), replace=False))])
    with contextlib.ExitStack() as stack:
        work = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        sizes = []
        for items in (len(catalog), args.items or 4 * len(catalog)):
            x = np.asarray(grow(catalog, items, work / f"grown-{items}.npy"), np.float32)
            codes = codes_of(model, x, work / f"codes-{items}")
            asked = [queries_of("items", catalog[own], own, x, codes, model)]
            if others is not None:
                asked.append(queries_of("others", others, None, x, codes, model))
            del x
            if not args.measure:
                build_all(work, model, codes)
            index = stack.enter_context(EdgeIndex.open(work / f"both-{items}", model))
            sizes.append(Size(items, Retriever(model, index), asked))
        measure(sizes)


if __name__ == "__main__":
    main()
