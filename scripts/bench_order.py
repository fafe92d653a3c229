"""Measure what the order of the items on disk is worth to a search that finds nothing in the page cache.

    python scripts/bench_order.py                              # the shipped sample and a quickly trained model
    python scripts/bench_order.py text.npy --model model [--items 250000]

The engine stores the points of an optimised segment in the order of their ids. The script loads the same items three
times: in random order, in the order of the catalog, and in the order of cells of items that are near each other (by
halving the navigation vectors along their main direction, down to 16 items: one page of codes). "Pages" are what a
query reads from the disk, of 4 KiB.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_data import catalog_arguments, load_catalog, load_or_train
from capacity_data import codes_of, grow
from capacity_graph import bytes_read, forget

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index.settings import NAVIGATION_DIM
from compressae_qdrant.metrics import recall
from compressae_qdrant.vectors import exact_neighbours, unit_rows

LIMITS = (10, 100)
LOAD = 4096
CELL = 16
IN_A_ROW = 5
"""Queries after each opening: few, as each of them warms the page cache."""
Rows = npt.NDArray[np.int64]


def cell_order(vectors: FloatArray) -> Rows:
    """Rows in an order in which near vectors are close to each other."""
    parts, done = [np.arange(len(vectors))], []
    while parts:
        rows = parts.pop()
        if len(rows) <= CELL:
            done.append(rows)
            continue
        part = vectors[rows] - vectors[rows].mean(axis=0)
        direction = part[np.linalg.norm(part, axis=1).argmax()]
        for _ in range(5):  # power iteration for the direction of the largest variance
            direction = part.T @ (part @ direction)
            direction /= np.linalg.norm(direction) or 1.0
        order = rows[np.argsort(part @ direction, kind="stable")]
        half = len(order) // (2 * CELL) * CELL or CELL
        parts += [order[half:], order[:half]]
    return np.concatenate(done)


def build(folder: Path, model: CompresSAE, codes: SparseCodes, x: FloatArray, order: Rows) -> EdgeIndex:
    """An index whose ids are positions in `order`."""
    index = EdgeIndex.create(folder, model, IndexSettings(keep_dense=True))
    for start in range(0, len(order), LOAD):
        rows = order[start : start + LOAD]
        index.upsert(range(start, start + len(rows)), codes[rows], dense=x[rows])
    index.optimize()
    return index


def measure(
    name: str, folder: Path, model: CompresSAE, queries: FloatArray, own: Rows, truth: list[list[int]], order: Rows
) -> None:
    """Print a row for each search; `order` turns ids into rows of the catalog."""
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (("codes", {"dense_candidates": 0}), ("originals", {}))
    for ranked_by, options in kinds:
        for limit in LIMITS:
            cold: list[float] = []
            warm: list[float] = []
            pages, found = [], []
            for first in range(0, len(queries), IN_A_ROW):
                numbers = range(first, min(first + IN_A_ROW, len(queries)))
                forget(folder)
                with EdgeIndex.open(folder, model) as index:
                    retriever = Retriever(model, index)
                    for times in (cold, warm):
                        for number in numbers:
                            before, started = bytes_read(), time.perf_counter()
                            hits = retriever.search(
                                queries[number], limit + 1, first_stage="graph", with_payload=False, **options
                            )
                            times.append(time.perf_counter() - started)
                            if times is cold:
                                pages.append((bytes_read() - before) / 4096)
                                rows = order[[int(hit.id) for hit in hits]].tolist()
                                found.append([row for row in rows if row != own[number]])
            print(
                f"| {name} | {ranked_by} | {limit} | {recall(found, truth, limit).mean():.4f} | {np.mean(pages):.0f} | "
                f"{np.median(cold) * 1e3:.2f} | {np.median(warm) * 1e3:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = catalog_arguments(__doc__, count=200)
    parser.add_argument("--items", type=int, help="items, made from the catalog if it has fewer (default: all)")
    parser.add_argument("--work", help="directory for codes and indexes; default: a temporary one")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    catalog = unit_rows(vectors)
    items = args.items or len(catalog)
    random = np.random.default_rng(2026)
    with contextlib.ExitStack() as stack:
        work = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        x = np.asarray(grow(catalog, items, work / f"grown-{items}.npy"), np.float32)
        codes = codes_of(model, x, work / f"codes-{items}")
        navigation = model.navigation_vectors(codes, min(NAVIGATION_DIM, model.max_navigation_dim))
        own = random.choice(items, min(args.count, items), replace=False)
        truth = exact_neighbours(x[own], x, max(LIMITS), own).tolist()
        print(f"{items:,} items, {len(own)} queries\n")
        print("| order | ranked by | hits | recall | pages read | p50 ms, nothing cached | again |")
        print("|---|---|---|---|---|---|---|")
        orders = {"random": random.permutation(items), "catalog": np.arange(items), "cells": cell_order(navigation)}
        for order_name, order in orders.items():
            folder = work / f"order-{order_name}-{items}"
            shutil.rmtree(folder, ignore_errors=True)
            build(folder, model, codes, x, order).close()
            measure(order_name, folder, model, x[own], own, truth, order)


if __name__ == "__main__":
    main()
