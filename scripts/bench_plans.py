"""Compare query plans on one index: recall and latency of first stages of several sizes.

    python scripts/bench_plans.py                                    # the shipped sample and a quickly trained model
    python scripts/bench_plans.py text.npy [title.npy] --model model
    python scripts/bench_plans.py text.npy --model model --keep-dense --plan 1024,4 --plan 512,5

A plan is LATENTS,FACTOR[,MINIMUM]: the latents of the first stage, and FACTOR candidates for each hit but at least
MINIMUM (100 if left out). Several files are joined field by field. Each query runs with every plan in turn, so that
other load on the machine affects all plans alike. The queries are items drawn with seed 7, on which defaults may have
been tuned.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import load_catalog, load_or_train

from compressae_qdrant import EdgeIndex, IndexSettings, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.metrics import recall
from compressae_qdrant.vectors import exact_neighbours, unit_rows

PLANS = ["1024,3", "512,5,200", "512,3", "768,3", "1024,2", "1536,2", "256,10"]
LOAD = 4096


def settings_of(plan: str, limit: int) -> dict[str, Any]:
    """Return the search options of a plan for `limit` hits."""
    latents, factor, *minimum = (int(part) for part in plan.split(","))
    return {"first_stage_latents": latents, "prefetch": max(minimum[0] if minimum else 100, factor * limit)}


def measure(retriever: Retriever, queries: FloatArray, plans: dict[str, dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return the hits and the seconds of each plan, query by query."""
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
    parser.add_argument(
        "vectors",
        nargs="*",
        help="(n, d) .npy of embeddings, one for each field of an item; default: the shipped sample",
    )
    parser.add_argument("--model", help="directory of a trained model; default: train a quick one")
    parser.add_argument(
        "--plan", action="append", help=f"LATENTS,FACTOR[,MINIMUM], may be repeated; default: {' '.join(PLANS)}"
    )
    parser.add_argument(
        "--keep-dense",
        action="store_true",
        help="keep the original embeddings, and rescore three candidates per hit with them",
    )
    parser.add_argument("--queries", type=int, default=500, help="number of queries (default: 500)")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    x = unit_rows(vectors)
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
        print("\n| hits | plan | latents, candidates | recall | p50 ms | p95 ms |\n|---|---|---|---|---|---|")
        for limit in (100, 10):
            plans = {"default": {}, **{plan: settings_of(plan, limit + 1) for plan in args.plan or PLANS}}
            if not args.keep_dense:
                plans["exact"] = {"exact": True}
            for plan, (hits, seconds) in measure(retriever, x[own], plans, limit + 1).items():
                rows = [[row for row in each if row != mine] for each, mine in zip(hits, own.tolist(), strict=True)]
                p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
                options = ", ".join(str(value) for value in plans[plan].values())
                mean = recall(rows, truth, limit).mean()
                print(f"| {limit} | {plan} | {options} | {mean:.4f} | {p50:.2f} | {p95:.2f} |", flush=True)


if __name__ == "__main__":
    main()
