"""The indexes of bench_capacity.py: each is built once in its own folder, measured in bytes, and timed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import dense_bytes, dense_request, dense_shard
from compressae_qdrant.files import write_text
from compressae_qdrant.index.settings import Datatype
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

__all__ = ["OPENED", "CodeIndexRun", "DenseIndexRun", "stored_code_cells", "timed"]

_QUERIES = 40
_MIN_REPEATS, _MAX_REPEATS = 3, 25
_PLAN_SECONDS = 1.5
"""Time limit for one plan on one index, once it has the minimum number of repeats."""
_PLANS: list[tuple[int | None, int]] = [(64, 200), (256, 200), (1024, 100), (512, 1000), (1024, 505), (None, 200)]
"""First-stage latents (None: all of them, "one stage" in the tables) and candidates of each plan."""

OPENED = """
import json, re, sys
from pathlib import Path
import qdrant_edge as qe
def resident():
    status = Path("/proc/self/status").read_text()
    return sum(int(re.search(rf"{name}:\\s+(\\d+)", status)[1]) for name in ("RssAnon", "RssFile")) * 1024
before = resident()
shard = qe.EdgeShard.load(sys.argv[1])
print(resident() - before)
shard.close()
"""


@dataclass(frozen=True)
class CodeIndexRun:
    """An index of codes in the embedded engine."""

    items: int
    latents: int = 4096
    k: int = 32
    datatype: Datatype = "uint8"
    segments: int = 1
    """Segments to ask for; the measurements say how many the engine made."""
    payload_bytes: int = 0
    """Bytes of each item's JSON payload; 0 stores none."""
    timed: bool = True
    """Whether searches are timed, or only bytes are measured."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        payload = f"-p{self.payload_bytes}" if self.payload_bytes else ""
        return f"codes-h{self.latents}-k{self.k}-{self.datatype}-s{self.segments}{payload}-n{self.items}"

    def build(self, work: Path, model: CompresSAE, codes: Callable[[], SparseCodes]) -> dict[str, Any]:
        """Build the index if it does not exist; returns its bytes."""
        folder = work / self.name
        facts = folder / "facts.json"
        if not facts.exists():
            payloads = payloads_of(self.items, self.payload_bytes)
            rows = codes()
            started = time.perf_counter()
            settings = IndexSettings(datatype=self.datatype, segments=self.segments, navigation=None)
            with EdgeIndex.create(folder, model, settings) as index:
                for start in range(0, self.items, 4096):
                    part = rows[start : start + 4096]
                    index.upsert(range(start, start + len(part)), part, payloads[start : start + len(part)] or None)
                index.optimize()
                info = index.info()
            seconds = time.perf_counter() - started
            use = np.bincount(rows.indices.ravel(), minlength=self.latents)
            np.save(folder / "postings.npy", use)
            opened = subprocess.run(
                [sys.executable, "-c", OPENED, str(folder / "shard")], capture_output=True, text=True, check=True
            )
            measured = {
                "index_bytes": info.index_bytes,
                "disk_bytes": info.total_bytes,
                "opened_bytes": int(opened.stdout),
                "posting_mass": float(((use / self.items) ** 2).sum()),
                "load_items_per_second": self.items / seconds,
            }
            write_text(facts, json.dumps(measured, indent=1) + "\n")
        return {"run": self._run(model, folder), **json.loads(facts.read_text())}

    def time(self, work: Path, model: CompresSAE, queries: FloatArray) -> list[dict[str, Any]]:
        """Return the times of every plan."""
        rows: list[dict[str, Any]] = []
        with EdgeIndex.open(work / self.name, model) as index:
            use = np.load(work / self.name / "postings.npy")
            planner = QueryPlanner(model)
            for first_stage_latents, prefetch in _PLANS:
                settings = search_settings(
                    limit=10,
                    prefetch=prefetch,
                    first_stage_latents=first_stage_latents,
                    exact=first_stage_latents is None,
                    with_payload=False,
                )
                plans = [planner.plans(query, settings)[0] for query in queries[:_QUERIES]]
                walked = [int(use[plan.first_stage.indices].sum()) for plan in plans if plan.first_stage is not None]
                rows.append({
                    "run": self._run(model, work / self.name),
                    "first_stage_latents": first_stage_latents or self.latents, "prefetch": prefetch,
                    "postings": float(np.mean(walked)), **timed([partial(index.search, plan) for plan in plans]),
                })  # fmt: skip
        return rows

    def _run(self, model: CompresSAE, folder: Path) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "timed"}
        return settings | {"dim": model.dim, "segments": _segments(folder)}


def _segments(folder: Path) -> int:
    """Count the segments that hold postings; the engine may make a different number than requested."""
    sizes = [
        sum(file.stat().st_size for file in index.iterdir())
        for index in folder.glob("shard/segments/*/vector_index-code")
    ]
    return sum(size > max(sizes) / 20 for size in sizes)


@dataclass(frozen=True)
class DenseIndexRun:
    """An index of dense vectors in the embedded engine, with the settings of the evaluation's baselines."""

    name: str
    items: int
    dim: int
    datatype: str = "Float32"
    quantization: Any = None

    def build(self, work: Path, vectors: Callable[[], FloatArray]) -> dict[str, Any]:
        """Build the index if it does not exist; returns its bytes."""
        folder = self._folder(work)
        facts = folder.with_suffix(".json")
        if not facts.exists():
            folder.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            shard = dense_shard(folder, vectors(), self.datatype, self.quantization)
            shard.close()
            resident, disk = dense_bytes(folder, quantised=self.quantization is not None)
            seconds = time.perf_counter() - started
            measured = {"index_bytes": resident, "disk_bytes": disk, "load_items_per_second": self.items / seconds}
            write_text(facts, json.dumps(measured, indent=1) + "\n")
        return {"run": self._run(), **json.loads(facts.read_text())}

    def time(self, work: Path, queries: FloatArray) -> list[dict[str, Any]]:
        """Return the times of searches for ten hits, without and with rescoring."""
        shard = qe.EdgeShard.load(str(self._folder(work)))
        rows = []
        for rescore in (False, True) if self.quantization is not None else (False,):
            requests = [dense_request(query.tolist(), 10, rescore=rescore) for query in queries[:_QUERIES]]
            rows.append(
                {"run": self._run(), "rescored": rescore, **timed([partial(shard.query, each) for each in requests])}
            )
        shard.close()
        return rows

    def built(self, work: Path) -> bool:
        """Whether the index exists."""
        return self._folder(work).with_suffix(".json").exists()

    def _run(self) -> dict[str, Any]:
        return {"method": self.name, "items": self.items, "dim": self.dim}

    def _folder(self, work: Path) -> Path:
        return work / f"dense-{self.name.replace(' ', '-')}-d{self.dim}-n{self.items}"


def timed(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Return the median time of the calls in ms, CPU time included, and the spread of repeated calls.

    Each call runs once to warm up; then all run repeatedly in turn. The spread is the 95th percentile of a call's time
    over the call's median.
    """
    for call in calls:
        call()
    times: list[list[float]] = []
    began, cpu = time.perf_counter(), time.process_time()
    while len(times) < _MIN_REPEATS or (len(times) < _MAX_REPEATS and time.perf_counter() - began < _PLAN_SECONDS):
        row = []
        for call in calls:
            started = time.perf_counter()
            call()
            row.append((time.perf_counter() - started) * 1e3)
        times.append(row)
    ms = np.array(times)
    return {
        "p50_ms": float(np.median(ms)),
        "cpu_ms": (time.process_time() - cpu) * 1e3 / ms.size,
        "p95_over_p50": float(np.quantile(ms / np.median(ms, axis=0), 0.95)),
    }


def stored_code_cells(work: Path) -> list[dict[str, Any]]:
    """Return the mean number of storage cells of a code for several lengths, from 256 random codes of each length."""
    notes = work / "stored_codes.json"
    if not notes.exists():
        lengths = (8, 16, *range(19, 25), 32, *range(43, 49), 56, 64, *range(68, 75))
        rows = [{"latents": h, "k": k, "cells": _cells(h, k, 256)} for h in (1024, 4096, 16_384) for k in lengths]
        write_text(notes, json.dumps(rows) + "\n")
    found: list[dict[str, Any]] = json.loads(notes.read_text())
    return found


def _cells(latents: int, k: int, items: int) -> float:
    random = np.random.default_rng(k)
    indices = np.stack([random.choice(latents, k, replace=False) for _ in range(items)])
    codes = SparseCodes(indices, random.normal(size=(items, k)), latents)
    model = CompresSAE(ModelConfig(8, latents, k))
    with tempfile.TemporaryDirectory() as folder:
        with EdgeIndex.create(Path(folder) / "index", model) as index:
            index.upsert(range(items), codes)
        masks = Path(folder).glob("index/shard/segments/*/vector_storage-code/store/bitmask.dat")
        return max(int(np.unpackbits(np.fromfile(mask, np.uint8)).sum()) for mask in masks) / items


def payloads_of(items: int, size: int) -> list[dict[str, Any]]:
    """Return payloads of `size` bytes of JSON, made of words so that they compress like text."""
    if not size:
        return []
    words = [f"word{number * 7919 % 10_007}" for number in range(size // 4)]
    random = np.random.default_rng(size)
    wanted = size - len(json.dumps({"title": ""}))
    return [{"title": " ".join(words[i] for i in random.permutation(len(words)))[:wanted]} for _ in range(items)]
