"""Query plans beside each other: recall and time of a few first stages and numbers of candidates, on one index.

    python scripts/bench_plans.py text.npy [title.npy] --model model
    python scripts/bench_plans.py text.npy --model model --keep-dense --plan 1024,4 --plan 512,5

A plan is latents and candidates for each hit (at least 100, but 200 for the plan of before, "512,5,200"). Several files
are joined field by field. Every query is asked by all plans in turn, so that whatever else the machine does is spread
over them. Queries are of seed 7, which defaults may be tuned on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.metrics import recall
from compressae_qdrant.vectors import exact_neighbours, unit_rows

PLANS = ["1024,3", "512,5,200", "512,3", "768,3", "1024,2", "1536,2", "256,10"]
LOAD = 4096


def settings_of(plan: str, limit: int) -> dict[str, Any]:
    """Of a search for so many hits besides the query's own item."""
    latents, factor, *least = (int(part) for part in plan.split(","))
    return {"first_stage_latents": latents, "prefetch": max(least[0] if least else 100, factor * limit)}


def measured(retriever: Retriever, queries: FloatArray, plans: dict[str, dict[str, Any]], limit: int) -> dict[str, Any]:
    """Hits and seconds of every plan, query by query."""
    found: dict[str, Any] = {name: ([], []) for name in plans}
    for settings in plans.values():
        retriever.search(queries[0], limit, with_payload=False, **settings)
    for query in queries:
        for name, settings in plans.items():
            started = time.perf_counter()
            hits = retriever.search(query, limit, with_payload=False, **settings)
            found[name][1].append(time.perf_counter() - started)
            found[name][0].append([int(hit.id) for hit in hits])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="+", help="(n, d) .npy of embeddings, one for each field of an item")
    parser.add_argument("--model", required=True, help="directory of a trained model")
    parser.add_argument("--plan", action="append", help=f"LATENTS,FACTOR[,LEAST]; otherwise {' '.join(PLANS)}")
    parser.add_argument(
        "--keep-dense", action="store_true", help="keep the embeddings, which rescore three for each hit"
    )
    parser.add_argument("--queries", type=int, default=500)
    args = parser.parse_args()
    model = CompresSAE.load(args.model)
    x = unit_rows(np.concatenate([np.load(path) for path in args.vectors], axis=1))
    own = np.random.default_rng(7).choice(len(x), min(args.queries, len(x)), replace=False)
    truth = exact_neighbours(x[own], x, 100, own).tolist()
    codes = model.encode(x)
    with (
        tempfile.TemporaryDirectory() as folder,
        EdgeIndex.create(Path(folder) / "index", model, IndexSettings(keep_dense=args.keep_dense)) as index,
    ):
        for start in range(0, len(codes), LOAD):
            part = codes[start : start + LOAD]
            dense = x[start : start + len(part)] if args.keep_dense else None
            index.upsert(range(start, start + len(part)), part, dense=dense)
        index.optimize()
        retriever = Retriever(model, index)
        print("| hits | plan | latents, candidates | recall | p50 ms | p95 ms |\n|---|---|---|---|---|---|")
        for limit in (100, 10):
            plans = {"default": {}, **{plan: settings_of(plan, limit + 1) for plan in args.plan or PLANS}}
            if not args.keep_dense:
                plans["exact"] = {"exact": True}
            for name, (hits, seconds) in measured(retriever, x[own], plans, limit + 1).items():
                rows = [[row for row in each if row != mine] for each, mine in zip(hits, own.tolist(), strict=True)]
                p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
                asked = ", ".join(str(value) for value in plans[name].values())
                mean = recall(rows, truth, limit).mean()
                print(f"| {limit} | {name} | {asked} | {mean:.4f} | {p50:.2f} | {p95:.2f} |", flush=True)


if __name__ == "__main__":
    main()
