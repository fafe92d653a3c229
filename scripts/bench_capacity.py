"""Measure the bytes and times from which `compressae plan` estimates, up to a million items.

    python scripts/bench_capacity.py --work capacity                        # the shipped sample
    python scripts/bench_capacity.py text.npy --title title.npy --model model --work capacity

Encodes a catalog with 1,024, 4,096 and 16,384 latents, enlarges its codes to a million items (`capacity_data.jitter`),
loads them into the embedded engine, and loads dense vectors for comparison. Measures bytes and search times, fits the
constants of the formulas, and writes them to --out with a Markdown report on standard output. The exit code is 1 if
the formulas are more than a tenth off in bytes.

The work directory keeps all results, so an interrupted run resumes. `--build` does only the part that does not depend
on the machine's load, `--measure` only the timing. `--only graph` leaves out the indexes that are searched by codes and
the dense vectors, whose measurements then stay those of --out. `--fit` measures nothing: it fits the constants of --out
again, with the recalls of `--recall`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_data import load_catalog
from capacity_data import codes_of, grow, jitter, model_of, nearest
from capacity_graph import GraphIndexRun, graph_runs
from capacity_indexes import CodeIndexRun, DenseIndexRun, stored_code_cells, timed
from capacity_recall import recalls
from capacity_report import report, worst_bytes

from compressae_qdrant import CompresSAE, SparseCodes
from compressae_qdrant.capacity.fit import fit_constants
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import OVERSAMPLING, quantisers
from compressae_qdrant.evaluation.comparison import read_rows
from compressae_qdrant.files import write_text
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.costs import COSTS_FILE
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings
from compressae_qdrant.vectors import unit_rows

QUARTER, MILLION = 250_000, 1_000_000
LARGEST_ERROR = 0.1
SHIPPED = Path(__file__).parents[1] / "compressae_qdrant" / "capacity" / "measured.json"

SEARCH_COSTS = SHIPPED.parents[1] / "search" / COSTS_FILE
"""The part of the shipped constants by which a search compares first stages."""


def code_runs(catalog: int, largest: int, latents: list[int]) -> list[CodeIndexRun]:
    """Return the indexes of codes to measure, the largest last."""
    runs = [
        CodeIndexRun(16_000),
        CodeIndexRun(catalog),
        CodeIndexRun(catalog, k=16),
        CodeIndexRun(catalog, datatype="float16", timed=False),
        CodeIndexRun(catalog, datatype="float32", timed=False),
        *(CodeIndexRun(16_000, payload_bytes=size, timed=False) for size in (60, 200, 500, 1000)),
        CodeIndexRun(QUARTER),
        CodeIndexRun(QUARTER, segments=2),
        CodeIndexRun(MILLION),
        CodeIndexRun(catalog, k=64),
        CodeIndexRun(catalog, latents=1024),
        CodeIndexRun(catalog, latents=16_384),
        CodeIndexRun(QUARTER, latents=16_384),
        CodeIndexRun(MILLION, latents=16_384),
    ]
    smaller = [replace(run, items=min(run.items, largest)) for run in runs if run.latents in latents]
    return list(dict.fromkeys(smaller))


def dense_runs(catalog: int) -> list[DenseIndexRun]:
    """Return the indexes of dense vectors to measure: every kind of storage, several sizes and two dimensions."""
    kinds = quantisers()
    methods: dict[str, dict[str, Any]] = {
        "dense float32 + HNSW": {},
        **{
            name: {"quantization": kinds[name]} for name in ("scalar int8", *(f"TurboQuant {n} bit" for n in (4, 2, 1)))
        },
        "turbo4 stored": {"datatype": "Turbo4"},
    }
    sizes = [(16_000, 384), (catalog, 384), (catalog, 768), (QUARTER, 384)]
    return [
        DenseIndexRun(name, items, dim, **method)
        for items, dim in sizes
        for name, method in methods.items()
        if items < QUARTER or name == "dense float32 + HNSW"
    ]


class Bench:
    """The data, models and work directory of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work = Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        name, vectors = load_catalog([] if args.vectors is None else [args.vectors])
        print(f"Catalog: {name}", flush=True)
        self.catalog = unit_rows(vectors)
        self.largest: int = args.largest
        self.latents: list[int] = args.latents
        self.model_folder = None if args.model is None else Path(args.model)
        title = None if args.title is None else unit_rows(np.load(args.title))
        self.wide = None if title is None else unit_rows(np.concatenate([self.catalog, title], axis=1))
        self.notes = self.work / "measured.json"
        self.provisional: bool = args.provisional

    def codes(self, run: CodeIndexRun | GraphIndexRun, model: CompresSAE) -> SparseCodes:
        coded = codes_of(model, self.catalog, self.work / "codes")
        if run.items <= len(coded):
            return coded[: run.items]
        return jitter(coded, nearest(self.catalog, self.work / "neighbours.npy"), run.items)

    def model(self, latents: int, k: int) -> CompresSAE:
        given = self.model_folder if latents == 4096 else None
        folder = given or self.work / f"model-{latents}"
        model = model_of(self.catalog, latents, 32, folder)
        return model if k == model.k else model.with_k(k, self.catalog[:2000])

    def build_graphs(self) -> dict[str, Any]:
        """Build the indexes with a graph that are missing; returns the bytes of all."""
        model, builds = self.model(4096, 44), []
        for run in graph_runs(len(self.catalog), self.largest):
            builds.append(run.build(self.work, model, partial(self.codes, run, model), self.catalog))
            print(run.name, {name: value for name, value in builds[-1].items() if name != "run"}, flush=True)
        return {"graph_builds": builds}

    def measure_graphs(self) -> dict[str, Any]:
        """Return the times of searches by the graph, with a warm and with a cold page cache."""
        model, searches, cold = self.model(4096, 44), [], []
        queries = self._queries()
        for run in graph_runs(len(self.catalog), self.largest):
            if run.timed and run.built(self.work):
                searches += run.time(self.work, model, queries)
                cold += run.read_cold(self.work, model, queries)
                print(run.name, [round(row["p50_ms"], 2) for row in searches if row["run"] == searches[-1]["run"]],
                      [round(row["pages"]) for row in cold[-2:]], flush=True)  # fmt: skip
        return {"graph_searches": searches, "graph_cold": cold, "graph_machine": _machine(self.provisional)}

    def build(self) -> dict[str, Any]:
        """Build the indexes that are missing; returns the bytes of all."""
        builds, dense = [], []
        for run in code_runs(len(self.catalog), self.largest, self.latents):
            model = self.model(run.latents, run.k)
            builds.append(run.build(self.work, model, partial(self.codes, run, model)))
            print(run.name, {name: value for name, value in builds[-1].items() if name != "run"}, flush=True)
        for each in dense_runs(len(self.catalog)):
            if each.items <= self.largest and (each.dim == self.catalog.shape[1] or self.wide is not None):
                dense.append(each.build(self.work, partial(self._dense, each)))
                print(dense[-1], flush=True)
        return {
            "builds": builds,
            "dense_builds": dense,
            "stored_codes": stored_code_cells(self.work),
            "dense_dimension": 2,
            "oversampling": int(OVERSAMPLING),
        }

    def measure(self) -> dict[str, Any]:
        """Return the search times of all indexes that are built."""
        queries, searches, dense = self._queries(), [], []
        for run in code_runs(len(self.catalog), self.largest, self.latents):
            if run.timed and (self.work / run.name / "facts.json").exists():
                searches += run.time(self.work, self.model(run.latents, run.k), queries)
                print(run.name, [round(row["p50_ms"], 2) for row in searches[-6:]], flush=True)
        for each in dense_runs(len(self.catalog)):
            if each.built(self.work):
                dense += each.time(self.work, self._fields(each.dim)[self._own()])
                print(each.name, each.dim, each.items, [round(row["p50_ms"], 2) for row in dense[-2:]], flush=True)
        return {"searches": searches, "dense_searches": dense, "planning": _planning(queries)}

    def _own(self) -> npt.NDArray[np.int64]:
        return np.random.default_rng(2026).choice(len(self.catalog), 40, replace=False)

    def _queries(self) -> FloatArray:
        """Return the items that are searched for."""
        return self.catalog[self._own()]

    def _fields(self, dim: int) -> FloatArray:
        if dim == self.catalog.shape[1]:
            return self.catalog
        assert self.wide is not None
        return self.wide

    def _dense(self, run: DenseIndexRun) -> FloatArray:
        """Return the vectors of an index: of the enlarged catalog, or of both fields."""
        if run.dim != self.catalog.shape[1]:
            return self._fields(run.dim)[: run.items]
        grown = grow(self.catalog, max(QUARTER, len(self.catalog)), self.work / "grown.npy")
        return np.asarray(grown[: run.items], np.float32)


def _planning(queries: FloatArray) -> list[dict[str, Any]]:
    """Return the times of planning a query, which the client does."""
    rows = []
    for latents, dim in ((1024, 384), (4096, 384), (16_384, 384), (4096, 768), (4096, 128)):
        planner = QueryPlanner(CompresSAE(ModelConfig(dim, latents, 32)))
        vectors = np.random.default_rng(dim).normal(size=(len(queries), dim)).astype(np.float32)
        calls = [partial(planner.plans, vector, search_settings()) for vector in vectors]
        rows.append({"latents": latents, "dim": dim, **timed(calls)})
    return rows


def _machine(provisional: bool) -> dict[str, Any]:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    facts = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "cpu": cpu, "cores": os.cpu_count(),
        "ram_gib": round(memory), "system": platform.platform(), "python": platform.python_version(),
        **{name: version(name) for name in ("qdrant-edge-py", "torch", "numpy")},
    }  # fmt: skip
    return facts | ({"note": "Times were measured on a busy machine and are provisional."} if provisional else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="?", help="(n, d) .npy of embeddings; default: the shipped sample")
    parser.add_argument(
        "--title", help="(n, d) .npy of a second field of the same items, for measurements with twice the dimensions"
    )
    parser.add_argument(
        "--model", help="directory of a model with 4,096 latents trained on the catalog; default: train a quick one"
    )
    parser.add_argument(
        "--work", default="bench-capacity", help="directory of all results, about 3 GB (default: bench-capacity)"
    )
    parser.add_argument(
        "--largest",
        type=int,
        default=MILLION,
        help="largest number of items; larger indexes are cut to it (default: 1,000,000)",
    )
    parser.add_argument(
        "--latents",
        type=int,
        nargs="+",
        default=[1024, 4096, 16_384],
        help="numbers of latents to measure (default: 1024 4096 16384)",
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="CPU threads for training and encoding (default: all cores)"
    )
    parser.add_argument("--recall", nargs=2, action="append", default=[], metavar=("DIM", "ROWS"),
                        help="dimensions, and a rows.json of bench_retrieval.py with the recalls for them")  # fmt: skip
    parser.add_argument("--only", choices=["graph"], help="measure only searches by the graph; keep everything else "
                        "of --out")  # fmt: skip
    parser.add_argument("--build", action="store_true", help="only build the indexes and measure their bytes")
    parser.add_argument("--measure", action="store_true", help="only time the indexes that are built")
    parser.add_argument("--fit", action="store_true", help="measure nothing; fit the measurements in --out again")
    parser.add_argument("--provisional", action="store_true", help="note in the results that the machine was busy")
    parser.add_argument("--out", type=Path, help="file of measurements and constants (default: the package's own, "
                        "or capacity.json in the work directory for the shipped sample)")  # fmt: skip
    args = parser.parse_args()
    if args.out is None:
        args.out = SHIPPED if args.vectors or args.fit else Path(args.work) / "capacity.json"
    torch.set_num_threads(args.threads)
    measured = json.loads(args.out.read_text()) if args.fit else _measured(args)
    if measured is None:
        return 0
    for dim, rows in args.recall:
        measured["recall"] = recalls(measured["recall"], int(dim), read_rows(Path(rows)))
    constants = fit_constants(measured)
    kept = {name: value for name, value in measured.items() if name not in ("format", "constants")}
    write_text(args.out, json.dumps({"format": 1, **kept, "constants": constants.to_json()}, indent=1) + "\n")
    if args.out.resolve() == SHIPPED.resolve():
        write_text(SEARCH_COSTS, json.dumps(constants.search.to_json(), indent=1) + "\n")
    print(report(measured, constants))
    return int(worst_bytes(measured, constants) > LARGEST_ERROR)


def _measured(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the measurements of this run and earlier ones; None after --build, while times are missing."""
    bench = Bench(args)
    measured: dict[str, Any] = json.loads(bench.notes.read_text()) if bench.notes.exists() else {}
    known = json.loads((args.out if args.out.exists() else SHIPPED).read_text())
    if args.only:
        kept = {name: value for name, value in known.items() if not name.startswith("graph_")}
        measured = kept | {name: value for name, value in measured.items() if name.startswith("graph_")}
    measured.setdefault("recall", known["recall"])
    if not args.measure:
        measured |= bench.build_graphs() | ({} if args.only else bench.build())
        write_text(bench.notes, json.dumps(measured, indent=1) + "\n")
    if not args.build:
        measured |= bench.measure_graphs()
        measured |= {} if args.only else bench.measure() | {"machine": _machine(args.provisional)}
    write_text(bench.notes, json.dumps(measured, indent=1) + "\n")
    return None if args.build else measured


if __name__ == "__main__":
    sys.exit(main())
