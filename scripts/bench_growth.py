"""Compare a catalog with a larger one that is made from it: building both, and searching both.

    python scripts/bench_growth.py                             # the shipped sample and a quickly trained model
    python scripts/bench_growth.py text.npy --model model --queries title.npy --items 1000000 --work growth

The larger catalog has mixtures of neighbouring items (`capacity_data.grow`). For both sizes the script loads and
optimises an index without navigation, one with it, and the navigation vectors with their graph alone. Then it times
whole searches: for items, which are left out of their own hits, and for the queries of a file, if one is given.

"Recall" is against the exact neighbours of the embeddings. "Found" is the share of the best items by codes, every
item scored, that a search finds: it is the recall of the first stage, whatever the codes can tell apart. The last
column is the median time relative to the same search of the smaller catalog.

Codes are kept in the work directory, so that a second run does not encode again.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe
from bench_data import load_catalog, load_or_train
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
SEARCHES = ("codes", "graph", "graph, twice the nodes")


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

    def without_own(self, number: int, ids: list[int]) -> list[int]:
        """Hits without the query itself."""
        return ids if self.own is None else [id for id in ids if id != self.own[number]]


def build(folder: Path, model: CompresSAE, codes: SparseCodes, navigation: NavigationSettings | None) -> EdgeIndex:
    """Load and optimise an index, and print its times."""
    started = time.perf_counter()
    index = EdgeIndex.create(folder, model, IndexSettings(navigation=navigation))
    for start in range(0, len(codes), LOAD):
        index.upsert(range(start, min(start + LOAD, len(codes))), codes[start : start + LOAD])
    loaded = time.perf_counter()
    index.optimize()
    done = time.perf_counter()
    name = "codes" if navigation is None else "codes and navigation"
    print(
        f"| {len(codes):,} | {name} | {loaded - started:.0f} | {done - loaded:.0f} | {done - started:.0f} |", flush=True
    )
    return index


def build_graph(folder: Path, model: CompresSAE, codes: SparseCodes, settings: NavigationSettings) -> None:
    """Load and optimise navigation vectors without codes, and print the time."""
    vectors = model.navigation_vectors(codes, min(settings.dim or NAVIGATION_DIM, model.max_navigation_dim))
    folder.mkdir()
    started = time.perf_counter()
    hnsw = qe.HnswIndexConfig(m=settings.m, ef_construct=settings.ef_construct, full_scan_threshold=10)
    dense_shard(folder, vectors, "Float16", quantisers()[f"TurboQuant {settings.bits:g} bit"], hnsw=hnsw).close()
    print(f"| {len(codes):,} | navigation alone | | | {time.perf_counter() - started:.0f} |", flush=True)


def queries_of(
    name: str, rows: FloatArray, own: npt.NDArray[np.int64] | None, x: FloatArray, codes: SparseCodes, model: CompresSAE
) -> Queries:
    """Queries with their exact neighbours and their best items by codes."""
    near = exact_neighbours(rows, x, max(LIMITS), own).tolist()
    found, _ = top(codes, asymmetric(model.atoms.detach().cpu().numpy(), rows), max(LIMITS) + 1)
    queries = Queries(name, rows, own, near, found.tolist())
    best = [queries.without_own(number, ids)[: max(LIMITS)] for number, ids in enumerate(queries.best)]
    return Queries(name, rows, own, near, best)


def options_of(search: str, limit: int) -> dict[str, Any]:
    """Options of a search."""
    if search == "codes":
        return {"first_stage": "codes"}
    nodes = {"navigation_ef": 2 * graph_sizes(limit).ef} if search.endswith("twice the nodes") else {}
    return {"first_stage": "graph", **nodes}


def measure(index: EdgeIndex, model: CompresSAE, items: int, asked: list[Queries], base: dict[Any, float]) -> None:
    """Print a table row for each search; `base` holds the times of the smaller catalog once it was measured."""
    retriever = Retriever(model, index)
    for limit in LIMITS:
        for search in SEARCHES:
            for queries in asked:
                wanted = limit + (queries.own is not None)
                options = options_of(search, wanted)
                for row in queries.rows:
                    retriever.search(row, wanted, with_payload=False, **options)
                times, found = [], []
                for number, row in enumerate(queries.rows):
                    started = time.perf_counter()
                    hits = retriever.search(row, wanted, with_payload=False, **options)
                    times.append(time.perf_counter() - started)
                    found.append(queries.without_own(number, [int(hit.id) for hit in hits])[:limit])
                p50, p95 = np.percentile(np.array(times) * 1e3, [50, 95])
                first = base.setdefault((limit, search, queries.name), p50)
                right, kept = (recall(found, truth, limit).mean() for truth in (queries.near, queries.best))
                print(
                    f"| {items:,} | {queries.name} | {limit} | {search} | {right:.4f} | {kept:.4f} | {p50:.2f} | "
                    f"{p95:.2f} | {p50 / first:.2f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", help="(n, d) .npy of embeddings; default: the shipped sample")
    parser.add_argument("--model", help="directory of a trained model; default: train a quick one")
    parser.add_argument("--items", type=int, help="items of the larger catalog (default: four times the catalog)")
    parser.add_argument("--queries", help="(q, d) .npy of queries that are not items")
    parser.add_argument("--count", type=int, default=200, help="number of queries of each kind (default: 200)")
    parser.add_argument("--work", help="directory for codes and indexes; default: a temporary one")
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
        base: dict[Any, float] = {}
        for items in (len(catalog), args.items or 4 * len(catalog)):
            x = np.asarray(grow(catalog, items, work / f"grown-{items}.npy"), np.float32)
            codes = codes_of(model, x, work / f"codes-{items}")
            asked = [queries_of("items", catalog[own], own, x, codes, model)]
            if others is not None:
                asked.append(queries_of("others", others, None, x, codes, model))
            del x
            folders = [work / f"{kind}-{items}" for kind in ("codes-alone", "both", "graph-alone")]
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            print("\n| items | index | load, s | optimise, s | together, s |\n|---|---|---|---|---|")
            build(folders[0], model, codes, None).close()
            build_graph(folders[2], model, codes, NavigationSettings())
            with build(folders[1], model, codes, NavigationSettings()) as index:
                print(
                    "\n| items | queries | hits | search | recall | found | p50 ms | p95 ms | p50, smaller = 1 |\n"
                    "|---|---|---|---|---|---|---|---|---|"
                )
                measure(index, model, items, asked, base)


if __name__ == "__main__":
    main()
