"""Compare first stages under filters that match 0.1, 1, 10 and 50% of the items.

    python scripts/bench_filters.py                                  # the shipped sample and a quickly trained model
    python scripts/bench_filters.py text.npy [title.npy] --model model [--items 1000000]
    python scripts/bench_filters.py text.npy --model model --walk --shares 0.01 0.05 0.3

Each item gets a random number in an indexed payload field, so a filter matches items that have nothing in common. The
truth is the exact neighbours among the items that match. TurboQuant (2 bit, HNSW, originals on disk) answers the same
queries in the same run, and the last column is the time relative to it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe
from bench_data import catalog_arguments, load_catalog, load_or_train
from capacity_data import codes_of, grow
from qdrant_client import models

from compressae_qdrant import EdgeIndex, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import dense_request, dense_shard, quantisers
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.metrics import recall
from compressae_qdrant.vectors import exact_neighbours, unit_rows

SHARES = (0.001, 0.01, 0.1, 0.5, 1.0)
PARTS = 1000
"""Numbers that items get; one of them matches 0.1% of the items."""
FIELD = "number"
LIMIT = 10
LOAD = 4096
IN_A_ROW = 25
Search = Callable[[FloatArray, int], list[int]]
"""A query and the number below which items match, to ids."""


class AlwaysWalked(NavigationSettings):
    """The graph is walked unless hardly any item matches."""

    @property
    def full_scan_kb(self) -> int:
        return 10


@dataclass(frozen=True)
class Way:
    """One way of searching."""

    name: str
    search: Search


def code_ways(retriever: Retriever) -> list[Way]:
    """Codes by each first stage."""

    def way(name: str, **options: Any) -> Way:
        def search(query: FloatArray, below: int) -> list[int]:
            condition = models.FieldCondition(key=FIELD, range=models.Range(lt=below))
            chosen = None if below == PARTS else models.Filter(must=[condition])
            hits = retriever.search(query, LIMIT + 1, filter=chosen, with_payload=False, **options)
            return [int(hit.id) for hit in hits]

        return Way(name, search)

    return [
        way("codes", first_stage="codes", dense_candidates=0),
        way("graph", first_stage="graph", dense_candidates=0),
        way("graph, originals", first_stage="graph"),
    ]


def turboquant_ways(shard: qe.EdgeShard) -> list[Way]:
    """TurboQuant without and with originals."""

    def way(name: str, *, rescore: bool) -> Way:
        def search(query: FloatArray, below: int) -> list[int]:
            condition = qe.FieldCondition(key=FIELD, range=qe.RangeFloat(lt=below))
            chosen = None if below == PARTS else qe.Filter(must=[condition])
            request = dense_request(query.tolist(), LIMIT + 1, rescore=rescore, filter=chosen)
            return [int(hit.id) for hit in shard.query(request)]

        return Way(name, search)

    return [way("TurboQuant 2 bit", rescore=False), way("TurboQuant 2 bit, originals", rescore=True)]


def measure(ways: list[Way], queries: FloatArray, truth: list[list[int]], own: list[int], below: int) -> None:
    """Print a row for each way; each answers some queries in a row, and then the next one does."""
    times: list[list[float]] = [[] for _ in ways]
    found: list[list[list[int]]] = [[] for _ in ways]
    for first in range(0, len(queries), IN_A_ROW):
        for way, mine, hits in zip(ways, times, found, strict=True):
            for row in range(first, min(first + IN_A_ROW, len(queries))):
                started = time.perf_counter()
                ids = way.search(queries[row], below)
                mine.append(time.perf_counter() - started)
                hits.append([id for id in ids if id != own[row]])
    base = float(np.median(times[-1]))
    for way, mine, hits in zip(ways, times, found, strict=True):
        p50, p95 = np.percentile(np.array(mine) * 1e3, [50, 95])
        print(
            f"| {below / PARTS:.1%} | {way.name} | {recall(hits, truth, LIMIT).mean():.4f} | {p50:.2f} | {p95:.2f} | "
            f"{np.median(mine) / base:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = catalog_arguments(__doc__, count=200)
    parser.add_argument("--items", type=int, help="items, made from the catalog if it has fewer (default: all)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, metavar="SHARE",
                        help="shares of the items that match (default: 0.001 0.01 0.1 0.5 1)")  # fmt: skip
    parser.add_argument("--walk", action="store_true",
                        help="walk the graph however few items match, as in a catalog of many millions")  # fmt: skip
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    catalog = unit_rows(vectors)
    random = np.random.default_rng(2026)
    with tempfile.TemporaryDirectory() as folder:
        work, items = Path(folder), args.items or len(catalog)
        grown = items > len(catalog)
        x = np.asarray(grow(catalog, items, work / "grown.npy"), np.float32) if grown else catalog[:items]
        numbers: npt.NDArray[np.int64] = random.integers(PARTS, size=items)
        own = random.choice(items, min(args.count, items), replace=False)
        navigation = AlwaysWalked() if args.walk else NavigationSettings()
        settings = IndexSettings(keep_dense=True, payload_fields={FIELD: "integer"}, navigation=navigation)
        codes = codes_of(model, x, work / "codes")
        turbo = work / "turboquant"
        turbo.mkdir()
        with EdgeIndex.create(work / "ours", model, settings) as index:
            for start in range(0, items, LOAD):
                ids = range(start, min(start + LOAD, items))
                payloads = [{FIELD: int(numbers[id])} for id in ids]
                index.upsert(ids, codes[start : start + LOAD], payloads, dense=x[start : start + LOAD])
            index.optimize()
            shard = dense_shard(turbo, x, "Float32", quantisers()["TurboQuant 2 bit"], {FIELD: numbers.tolist()})
            ways = code_ways(Retriever(model, index)) + turboquant_ways(shard)
            print(f"{items:,} items, {len(own)} queries, {LIMIT} hits\n")
            print("| items that match | search | recall@10 | p50 ms | p95 ms | p50, last row = 1 |")
            print("|---|---|---|---|---|---|")
            for share in args.shares:
                below = round(share * PARTS)
                matching = np.flatnonzero(numbers < below)
                # The query itself, which may match or not, is left out of the truth and of the hits.
                near = exact_neighbours(x[own], x[matching], LIMIT + 1)
                rows = matching[near].tolist()
                truth = [
                    [id for id in each if id != mine][:LIMIT] for each, mine in zip(rows, own.tolist(), strict=True)
                ]
                measure(ways, x[own], truth, own.tolist(), below)
            shard.close()


if __name__ == "__main__":
    main()
