"""Recall against bytes and latency: codes, Qdrant's quantisation, PCA, truncation and Faiss on the same vectors.

    python scripts/bench_retrieval.py text.npy [title.npy] --metadata items.parquet --out results
    python scripts/bench_retrieval.py --quick            # a few minutes on the shipped sample

Several files are joined field by field, `concat(a, b) / sqrt(2)`. Queries are items drawn by --seed, those that
defaults were tuned on left out; truth is exact dense search, the item itself left out. A row that is in the output
directory already is not run again, and models trained once are kept there. Writes table.md, rows.json, three plots.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from retrieval_report import Row, write_report
from rivals import Built, rivals

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, TrainConfig, load_sample, train
from compressae_qdrant.codes import FloatArray, Scale
from compressae_qdrant.evaluation import evaluate_search, exact_neighbours
from compressae_qdrant.files import write_text
from compressae_qdrant.model import Method
from compressae_qdrant.query_planning import SearchOptions

TUNED_ON = (7, 11)
"""Seeds of the queries that EXPERIMENTS.md picked defaults by; they are never asked here."""


@dataclass
class Catalog:
    """Vectors, queries, truth, and what the queries' items are labelled with."""

    name: str
    vectors: FloatArray
    own: Any
    truth: list[list[int]]
    sections: list[str]
    tags: list[set[str]]

    @classmethod
    def of(cls, name: str, vectors: FloatArray, payloads: Sequence[dict[str, Any]], queries: int, seed: int) -> Catalog:
        """Draw the queries and find the truth."""
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        free = np.ones(len(vectors), bool)
        for tuned in TUNED_ON:
            free[np.random.default_rng(tuned).choice(len(vectors), 500, replace=False)] = False
        own = np.random.default_rng(seed).choice(np.flatnonzero(free), queries, replace=False)
        truth = exact_neighbours(vectors[own], vectors, 100, own).tolist()
        sections = [str(payload["section"]) for payload in payloads]
        return cls(name, vectors, own, truth, sections, [set(payload["tags"] or ()) for payload in payloads])

    def task_quality(self, found: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Share of the top 10 in the query's section, and nDCG@10 of sharing a debtag with it."""
        discounts = 1 / np.log2(np.arange(2, 12))
        sections, gains = [], []
        for own, rows in zip(self.own.tolist(), found, strict=True):
            sections.append(np.mean([self.sections[row] == self.sections[own] for row in rows[:10]]))
            if self.tags[own]:
                shared = np.array([bool(self.tags[row] & self.tags[own]) for row in rows[:10]])
                gains.append(shared @ discounts[: len(shared)] / discounts.sum())
        return float(np.mean(sections)), float(np.mean(gains))


@dataclass
class Codes:
    """Codes of one model by one method in the embedded engine, asked in several ways."""

    label: str
    family: str
    model: Callable[[], CompresSAE]
    method: Method
    scale: Scale
    ways: dict[str, SearchOptions]
    keep_dense: bool = False
    encode_seconds: float = field(default=0.0, init=False)

    def build(self, catalog: Catalog) -> Iterator[tuple[str, Built]]:
        """The index, once for every way of asking it."""
        model = self.model()
        started = time.perf_counter()
        codes = model.encode(catalog.vectors, self.method, scale=self.scale)
        self.encode_seconds = time.perf_counter() - started
        settings = IndexSettings(scale=self.scale, keep_dense=self.keep_dense)
        with (
            tempfile.TemporaryDirectory() as folder,
            EdgeIndex.create(Path(folder) / "index", model, settings) as index,
        ):
            for start in range(0, len(codes), 4096):
                part = codes[start : start + 4096]
                dense = catalog.vectors[start : start + len(part)] if self.keep_dense else None
                index.upsert(range(start, start + len(part)), part, dense=dense)
            index.optimize()
            seconds = time.perf_counter() - started
            info = index.info()
            assert info.index_bytes is not None
            assert info.total_bytes is not None
            resident, disk = info.index_bytes / len(codes), info.total_bytes / len(codes)
            for way, options in self.ways.items():
                search, batch = _searches(Retriever(model, index), options)
                yield f"{self.label}, {way}", Built(search, batch, resident, disk, seconds)


def _searches(retriever: Retriever, options: SearchOptions) -> tuple[Any, Any]:
    asked: SearchOptions = {**options, "with_payload": False}

    def search(vector: FloatArray, limit: int) -> list[Any]:
        return [hit.id for hit in retriever.search(vector, limit, **asked)]

    def search_batch(vectors: FloatArray, limit: int) -> list[list[Any]]:
        return [[hit.id for hit in hits] for hits in retriever.search_batch(vectors, limit, **asked)]

    return search, search_batch


def measure(catalog: Catalog, name: str, family: str, built: Built, encode_seconds: float | None) -> Row:
    """One row: every query alone, then all of them as one batch."""
    queries = catalog.vectors[catalog.own]
    report = evaluate_search(built.search, queries, catalog.truth, own=catalog.own.tolist())
    started = time.perf_counter()
    found = built.search_batch(queries, 11)
    rate = len(queries) / (time.perf_counter() - started)
    kept = [[row for row in rows if row != own] for rows, own in zip(found, catalog.own.tolist(), strict=True)]
    section, tags = catalog.task_quality(kept)
    return Row(
        name=name, family=family, resident=built.resident, disk=built.disk, recall10=report.recall[10],
        recall100=report.recall[100], interval=report.interval[100], p50_ms=report.p50_ms, p95_ms=report.p95_ms,
        queries_per_second=rate, build_seconds=built.seconds, encode_seconds=encode_seconds, section=section, tags=tags,
    )  # fmt: skip


def code_rows(catalog: Catalog, args: argparse.Namespace, out: Path) -> list[Codes]:
    """Ours and the paper's at every k."""
    rows = []
    for k in args.k:
        ours = _trained(catalog, out / "models" / f"ours-k{k}", _settings(args, k, paper=False))
        paper = _trained(catalog, out / "models" / f"paper-k{k}", _settings(args, k, paper=True))
        ways: dict[str, SearchOptions] = {"two stages": {}, "exhaustive": {"exact": True}}
        rows.append(Codes(f"codes k={k}", "ours", ours, "pursuit", "projection", ways))
        rescored: dict[str, SearchOptions] = {"originals on disk": {}, "originals on disk, 2,000": {"prefetch": 2000}}
        rows.append(Codes(f"codes k={k}", "ours, originals on disk", ours, "pursuit", "projection", rescored, True))
        if k == args.k[0]:
            one: dict[str, SearchOptions] = {"exhaustive": {"exact": True}}
            rows.append(Codes(f"codes k={k} by refit", "ours, by encoder", ours, "refit", "projection", one))
            rows.append(_papers_modes(f"codes k={k} by encoder, paper's mode", "ours, by encoder", ours))
        if k in args.paper_k:
            rows += _papers_both(f"the paper k={k}", paper)
    return rows


def _papers_modes(label: str, family: str, model: Callable[[], CompresSAE]) -> Codes:
    ways: dict[str, SearchOptions] = {"reconstructed": {"exact": True, "scoring": "reconstructed"}}
    return Codes(label, family, model, "encoder", "reconstruction", ways)


def _papers_both(label: str, model: Callable[[], CompresSAE]) -> list[Codes]:
    sparse: dict[str, SearchOptions] = {"sparse": {"exact": True, "scoring": "sparse"}}
    return [_papers_modes(label, "the paper", model), Codes(label, "the paper", model, "encoder", "code", sparse)]


def _settings(args: argparse.Namespace, k: int, paper: bool) -> TrainConfig:
    if paper:
        return TrainConfig.paper(latents=args.latents, k=k, steps=150 if args.quick else args.paper_steps)
    if args.quick:
        return TrainConfig(latents=args.latents, k=k, steps=300, rounds=8, round_items=8192, encoder_steps=100)
    return TrainConfig(latents=args.latents, k=k)


def _trained(catalog: Catalog, folder: Path, config: TrainConfig) -> Callable[[], CompresSAE]:
    def load() -> CompresSAE:
        if not folder.exists():
            print(f"training {folder.name}", flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            train(catalog.vectors, config, progress=True, checkpoint=folder.with_suffix(".checkpoint")).save(folder)
        return CompresSAE.load(folder)

    return load


def main() -> None:
    args = _arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    catalog = _catalog(args)
    kept = out / "rows.json"
    rows = [Row.of(data) for data in json.loads(kept.read_text())] if kept.exists() else []

    def note(row: Row) -> None:
        rows.append(row)
        write_text(kept, json.dumps([asdict(each) for each in rows], indent=1) + "\n")
        print(f"{row.name}: {row.resident:.0f} B, recall@100 {row.recall100:.4f}, @10 {row.recall10:.4f}, "
              f"p50 {row.p50_ms:.1f} ms, {row.build_seconds:.0f} s", flush=True)  # fmt: skip

    done = {row.name for row in rows}
    for codes in code_rows(catalog, args, out):
        if {f"{codes.label}, {way}" for way in codes.ways} - done:
            for name, built in codes.build(catalog):
                if name not in done:
                    note(measure(catalog, name, codes.family, built, codes.encode_seconds))
    for rival in rivals(catalog.vectors.shape[1], args.quick):
        if rival.name not in done:
            note(measure(catalog, rival.name, rival.family, rival.build(catalog.vectors), None))
    write_report(out, catalog.name, rows, 4 * catalog.vectors.shape[1])
    print((out / "table.md").read_text())


def _catalog(args: argparse.Namespace) -> Catalog:
    if args.quick or not args.vectors:
        sample = load_sample()
        queries = min(args.queries, 200)
        return Catalog.of("the shipped sample", np.asarray(sample.embeddings, np.float32),
                          [dict(payload) for payload in sample.payloads], queries, args.seed)  # fmt: skip
    fields = [np.load(path).astype(np.float32) for path in args.vectors]
    joined = np.concatenate(fields, axis=1) / np.sqrt(len(fields))
    payloads = pq.read_table(args.metadata, columns=["section", "tags"]).to_pylist()
    return Catalog.of(" + ".join(Path(path).stem for path in args.vectors), joined, payloads, args.queries, args.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", help="(n, d) .npy, one for each field of an item")
    parser.add_argument("--metadata", help="parquet with section and tags, row for row")
    parser.add_argument("--out", default="bench-retrieval", help="directory of results, models and plots")
    parser.add_argument("--k", type=int, nargs="+", default=[32, 16, 64], help="non-zeros; the first gets extra rows")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--paper-steps", type=int, default=3000, help="of the paper's recipe")
    parser.add_argument("--paper-k", type=int, nargs="*", default=[32], help="non-zeros of the paper's recipe")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--quick", action="store_true", help="the shipped sample, short training, fewer rivals")
    args = parser.parse_args()
    if args.vectors and not args.metadata and not args.quick:
        parser.error("--metadata is needed beside vectors: sections and tags measure the task")
    if args.quick:
        args.k = args.k[:1]
    return args


if __name__ == "__main__":
    main()
