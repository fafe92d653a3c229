"""The indexes of bench_capacity.py that are searched by the graph: bytes, times, and pages read from a cold disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from capacity_indexes import OPENED, timed

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.files import write_text
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.search.defaults import GraphSizes
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

__all__ = ["GraphIndexRun", "bytes_read", "forget", "graph_runs"]

QUARTER, MILLION = 250_000, 1_000_000
_LOAD_ITEMS = 4096
_QUERIES = 40
_PLANS = [
    GraphSizes(*sizes) for sizes in (
        (16, 100, 100), (16, 200, 200), (16, 400, 400), (36, 200, 200), (60, 200, 200), (120, 200, 0), (120, 400, 0),
        (120, 450, 450), (200, 200, 0), (200, 900, 900), (300, 300, 0), (500, 500, 0),
    )
]  # fmt: skip
"""What each search that is timed looks at."""
_COLD = [GraphSizes(16, 200, 200), GraphSizes(120, 450, 450)]
"""Searches whose reads from a cold disk are measured."""
_COLD_OPENINGS, _COLD_QUERIES = 6, 5
"""Times that an index is opened with nothing of it in the page cache, and queries each time: few, as each warms it."""


@dataclass(frozen=True)
class GraphIndexRun:
    """An index of codes with navigation vectors, in the embedded engine."""

    items: int
    navigation_dim: int = 256
    bits: float = 1
    m: int = 8
    ef_construct: int = 256
    keep_dense: bool = False
    """Whether embeddings are kept and rank the graph's candidates; for sizes of up to the catalog's."""
    timed: bool = True
    """Whether searches are timed, or only bytes are measured."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        dense = "-dense" if self.keep_dense else ""
        return f"graph-d{self.navigation_dim}-b{self.bits:g}-m{self.m}{dense}-n{self.items}"

    def built(self, work: Path) -> bool:
        """Whether the index exists."""
        return (work / self.name / "facts.json").exists()

    def build(
        self, work: Path, model: CompresSAE, codes: Callable[[], SparseCodes], embeddings: FloatArray
    ) -> dict[str, Any]:
        """Build the index if it does not exist; returns its bytes."""
        folder = work / self.name
        facts = folder / "facts.json"
        if not facts.exists():
            rows = codes()
            settings = IndexSettings(
                navigation=NavigationSettings(
                    dim=self.navigation_dim, bits=self.bits, m=self.m, ef_construct=self.ef_construct
                ),
                keep_dense=self.keep_dense,
            )
            started = time.perf_counter()
            with EdgeIndex.create(folder, model, settings) as index:
                _load(index, rows, embeddings if self.keep_dense else None)
                loaded = time.perf_counter()
                index.optimize()
                optimised = time.perf_counter()
                info = index.info()
            opened = subprocess.run(
                [sys.executable, "-c", OPENED, str(folder / "shard")], capture_output=True, text=True, check=True
            )
            vectors = sum(file.stat().st_size for file in _quantised(folder))
            assert info.navigation_bytes is not None
            measured = {
                "vector_bytes": vectors,
                "link_bytes": info.navigation_bytes - vectors,
                "index_bytes": info.index_bytes,
                "disk_bytes": info.total_bytes,
                "opened_bytes": int(opened.stdout),
                "load_items_per_second": self.items / (loaded - started),
                "optimise_seconds": optimised - loaded,
            }
            write_text(facts, json.dumps(measured, indent=1) + "\n")
        # The links of jittered items, which are closer to each other than real ones, take fewer bytes.
        synthetic = self.items > len(embeddings)
        return {"run": self._run(model), "synthetic": synthetic, **json.loads(facts.read_text())}

    def time(self, work: Path, model: CompresSAE, queries: FloatArray) -> list[dict[str, Any]]:
        """Return the times of every search, with the page cache as warm as it gets."""
        rows: list[dict[str, Any]] = []
        with EdgeIndex.open(work / self.name, model) as index:
            for sizes in _PLANS:
                plans = self._plans(index, model, queries[:_QUERIES], sizes)
                times = timed([partial(index.search, plan) for plan in plans])
                rows.append({
                    "run": self._run(model), "prefetch": sizes.candidates, "ef": sizes.ef, "compared": sizes.compared,
                    "fetched": plans[0].is_rescored_here,
                    **times,
                })  # fmt: skip
        return rows

    def read_cold(self, work: Path, model: CompresSAE, queries: FloatArray) -> list[dict[str, Any]]:
        """Return what searches read from disk, and their times, when the page cache holds nothing of the index.

        The pinned graph and navigation vectors are read when the index is opened and do not count.
        """
        rows: list[dict[str, Any]] = []
        for sizes in _COLD:
            pages, cold, warm = [], [], []
            for opening in range(_COLD_OPENINGS):
                forget(work / self.name)
                with EdgeIndex.open(work / self.name, model) as index:
                    some = queries[opening * _COLD_QUERIES : (opening + 1) * _COLD_QUERIES]
                    plans = self._plans(index, model, some, sizes)
                    for plan in plans:
                        before, started = bytes_read(), time.perf_counter()
                        index.search(plan)
                        cold.append((time.perf_counter() - started) * 1e3)
                        pages.append((bytes_read() - before) / 4096)
                    for plan in plans:
                        started = time.perf_counter()
                        index.search(plan)
                        warm.append((time.perf_counter() - started) * 1e3)
            rows.append({
                "run": self._run(model), "prefetch": sizes.candidates, "compared": sizes.compared,
                "pages": float(np.mean(pages)),
                "cold_ms": float(np.median(cold)), "warm_ms": float(np.median(warm)),
            })  # fmt: skip
        return rows

    def _plans(
        self, index: EdgeIndex, model: CompresSAE, queries: FloatArray, sizes: GraphSizes
    ) -> Sequence[QueryPlan]:
        planner = QueryPlanner(model, self.keep_dense, self.navigation_dim, index.projection)
        settings = search_settings(
            10, first_stage="graph", prefetch=sizes.candidates, navigation_ef=sizes.ef,
            navigation_candidates=sizes.compared, with_payload=False,
        )  # fmt: skip
        return [planner.plans(query, settings)[0] for query in queries]  # one by one, as most searches come

    def _run(self, model: CompresSAE) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "timed"}
        return settings | {"dim": model.dim, "latents": model.latents, "k": model.k}


def graph_runs(catalog: int, largest: int) -> list[GraphIndexRun]:
    """Return the indexes with a graph to measure, the largest last."""
    runs = [
        GraphIndexRun(16_000),
        *(GraphIndexRun(16_000, navigation_dim=dim, timed=False) for dim in (64, 128, 192)),
        *(GraphIndexRun(16_000, bits=bits, timed=False) for bits in (1.5, 2, 4)),
        *(GraphIndexRun(16_000, m=m, timed=False) for m in (6, 10, 16)),
        GraphIndexRun(catalog),
        GraphIndexRun(QUARTER),
        GraphIndexRun(catalog, m=16),
        GraphIndexRun(catalog, navigation_dim=192),
        GraphIndexRun(catalog, keep_dense=True),
        GraphIndexRun(MILLION),
    ]
    kept = [run for run in runs if run.items <= largest and not (run.keep_dense and run.items > catalog)]
    return list(dict.fromkeys(kept))


def _load(index: EdgeIndex, codes: SparseCodes, embeddings: FloatArray | None) -> None:
    """Load codes. The engine gets the navigation vectors that the package computes for them."""
    for start in range(0, len(codes), _LOAD_ITEMS):
        part = codes[start : start + _LOAD_ITEMS]
        dense = None if embeddings is None else embeddings[start : start + len(part)]
        index.upsert(range(start, start + len(part)), part, dense=dense)


def _quantised(folder: Path) -> Iterator[Path]:
    """The files of quantised navigation vectors."""
    return folder.glob("shard/segments/*/vector_storage-navigation/quantized*")


def forget(folder: Path) -> None:
    """Drop the files of a closed index from the page cache."""
    for root, _, names in os.walk(folder):
        for name in names:
            with Path(root, name).open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """Bytes that this process has made the system read from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
