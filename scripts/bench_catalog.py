"""Compare the whole pipeline with the paper's recipe on one catalog, in one run.

    python scripts/bench_catalog.py                     # the shipped sample
    python scripts/bench_catalog.py embeddings.npy --save model

Trains a model with the default settings (or loads --model), encodes every item by every method, scores exhaustively and
through the embedded engine, and measures recall against exact dense search for 500 random items. The paper's recipe
(random initial atoms, autoencoder only) is trained for the same number of seconds as ours. Pursuit is compared with a
plain implementation in torch. Prints Markdown.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_data import load_catalog

from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, SparseCodes, TrainConfig, train
from compressae_qdrant import scoring as similarity
from compressae_qdrant.codes import FloatArray, Scale
from compressae_qdrant.evaluation import evaluate_search
from compressae_qdrant.metrics import recall
from compressae_qdrant.model.config import Method
from compressae_qdrant.model.pursuit import ATOMS_PER_STEP
from compressae_qdrant.scoring import Scoring
from compressae_qdrant.search.settings import SearchOptions
from compressae_qdrant.vectors import exact_neighbours

SCALES: dict[Scoring, Scale] = {"sparse": "code", "reconstructed": "reconstruction", "asymmetric": "projection"}
"""Scale of the stored values that each scoring uses. Asymmetric scoring ranks best by projections."""


class Bench:
    """The queries, and their true neighbours by exact dense search."""

    def __init__(self, vectors: npt.NDArray[np.floating], queries: int, seed: int) -> None:
        self.vectors = vectors
        self.own = np.random.default_rng(seed).choice(len(vectors), queries, replace=False)
        x = vectors[self.own].astype(np.float32)
        self.queries: FloatArray = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.truth = exact_neighbours(x, vectors, 100, self.own).tolist()

    def exhaustive(self, atoms: FloatArray, codes: SparseCodes, scoring: Scoring) -> tuple[float, float]:
        """Return recall@100 and recall@10 of scoring every code, without an engine."""
        if scoring == "asymmetric":
            vectors = similarity.asymmetric(atoms, self.queries)
        elif scoring == "reconstructed":
            vectors = similarity.reconstructed(atoms, codes[self.own])
        else:
            vectors = similarity.sparse(codes[self.own])
        rows, _ = similarity.top(codes, vectors, 101)
        found = [
            [row for row in each if row != own] for each, own in zip(rows.tolist(), self.own.tolist(), strict=True)
        ]
        return float(recall(found, self.truth, 100).mean()), float(recall(found, self.truth, 10).mean())


def plain_pursuit(x: torch.Tensor, atoms: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthogonal matching pursuit in its plain form: one atom per step, all values solved again after each step."""
    support = torch.empty((len(x), 0), dtype=torch.int64)
    residual = x
    for _ in range(k):
        correlation = (residual @ atoms.T).abs()
        correlation.scatter_(1, support, -1.0)
        support = torch.cat([support, correlation.argmax(dim=1, keepdim=True)], dim=1)
        chosen = atoms[support]
        gram = chosen @ chosen.transpose(1, 2) + 1e-6 * torch.eye(support.shape[1])
        values = torch.linalg.solve(gram, chosen @ x.unsqueeze(2)).squeeze(2)
        residual = x - (values.unsqueeze(1) @ chosen).squeeze(1)
    return support, values


def plain_codes(vectors: npt.NDArray[np.floating], atoms: torch.Tensor, k: int) -> tuple[SparseCodes, float]:
    indices, values = [], []
    started = time.perf_counter()
    for start in range(0, len(vectors), 512):
        x = torch.nn.functional.normalize(torch.from_numpy(vectors[start : start + 512].astype(np.float32)), dim=1)
        support, raw = plain_pursuit(x, atoms, k)
        indices.append(support.numpy())
        values.append(raw.numpy())
    seconds = time.perf_counter() - started
    return SparseCodes(np.concatenate(indices), np.concatenate(values), len(atoms), "projection"), seconds


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n**{title}**\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def modes(bench: Bench, name: str, model: CompresSAE, pairs: list[tuple[Method, Scoring]]) -> list[list[str]]:
    atoms = model.atoms.detach().numpy()
    rows = []
    for method, scoring in pairs:
        codes = model.encode(bench.vectors, method, scale=SCALES[scoring])
        at100, at10 = bench.exhaustive(atoms, codes, scoring)
        rows.append([name, method, scoring, f"{at100:.4f}", f"{at10:.4f}"])
    return rows


def timed(training: Callable[[], CompresSAE]) -> tuple[CompresSAE, float]:
    started = time.perf_counter()
    model = training()
    return model, time.perf_counter() - started


def describe(args: argparse.Namespace, name: str) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    print(f"Catalog: {name}; k={args.k}, h={args.latents}; "
          f"{args.queries} queries, seed {args.seed}; {platform.machine()}, {torch.get_num_threads()} threads; "
          f"torch {version('torch')}, qdrant-edge-py {version('qdrant-edge-py')}; commit {commit.strip()}")  # fmt: skip


def train_both(args: argparse.Namespace, bench: Bench) -> tuple[CompresSAE, CompresSAE | None, list[list[str]]]:
    if args.model:
        return CompresSAE.load(args.model), None, []
    ours, seconds = timed(lambda: train(bench.vectors, TrainConfig(latents=args.latents, k=args.k), progress=True))
    if args.save:
        ours.save(args.save)
    rows = [training_row("ours, default settings", ours, seconds)]
    probe = 20
    _, pace = timed(lambda: train(bench.vectors, TrainConfig.paper(latents=args.latents, k=args.k, steps=probe)))
    _, start = timed(lambda: train(bench.vectors, TrainConfig.paper(latents=args.latents, k=args.k, steps=1)))
    steps = int((seconds - start) / (pace - start) * (probe - 1))
    recipe = TrainConfig.paper(latents=args.latents, k=args.k, steps=steps)
    paper, seconds = timed(lambda: train(bench.vectors, recipe, progress=True))
    rows.append(training_row(f"the paper's recipe, {steps:,} steps", paper, seconds))
    return ours, paper, rows


def training_row(name: str, model: CompresSAE, seconds: float) -> list[str]:
    assert model.history is not None
    last = model.history.records[-1]
    dead = int((model.latent_use == 0).sum())
    return [name, f"{seconds:.0f}", f"{last.encoder_loss:.4f}", f"{last.pursuit_loss:.4f}", f"{model.posting_mass:.3f}",
            f"{dead:,}"]  # fmt: skip


def pursuits(bench: Bench, model: CompresSAE) -> tuple[SparseCodes, list[list[str]]]:
    atoms = model.atoms.detach()
    plain, seconds = plain_codes(bench.vectors, atoms, model.k)
    slow = len(plain) / seconds
    reference, _ = bench.exhaustive(atoms.numpy(), plain, "asymmetric")
    rows = [["plain torch, one atom per step", f"{slow:,.0f}", "1.0x", f"{reference:.4f}", ""]]
    default = plain
    for atoms_per_step in (1, 2, 3, 4, 8):
        started = time.perf_counter()
        codes = model.encode(bench.vectors, atoms_per_step=atoms_per_step)
        rate = len(codes) / (time.perf_counter() - started)
        at100, _ = bench.exhaustive(atoms.numpy(), codes, "asymmetric")
        rows.append([f"ours, {atoms_per_step} per step", f"{rate:,.0f}", f"{rate / slow:.1f}x", f"{at100:.4f}",
                     f"{at100 - reference:+.4f}"])  # fmt: skip
        default = codes if atoms_per_step == ATOMS_PER_STEP else default
    return default, rows


def engine(bench: Bench, model: CompresSAE, codes: SparseCodes) -> tuple[list[list[str]], str]:
    rows = []
    with tempfile.TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model) as index:
        started = time.perf_counter()
        for start in range(0, len(codes), 4096):
            part = codes[start : start + 4096]
            index.upsert(range(start, start + len(part)), part)
        index.optimize()
        rate = len(codes) / (time.perf_counter() - started)
        info = index.info()
        assert info.index_bytes is not None
        assert info.total_bytes is not None
        retriever = Retriever(model, index)
        plans: list[tuple[str, SearchOptions]] = [
            ("two stages, default", {"with_payload": False}),
            ("256 latents, 300 candidates", {"first_stage_latents": 256, "prefetch": 300, "with_payload": False}),
            ("64 latents, 1,000 candidates", {"first_stage_latents": 64, "prefetch": 1000, "with_payload": False}),
            ("exact", {"exact": True, "with_payload": False}),
        ]
        for name, settings in plans:
            cells = [name]
            for limit in (100, 10):
                report = evaluate_search(
                    lambda vector, limit: [
                        hit.id
                        for hit in retriever.search(vector, limit, **settings)  # noqa: B023
                    ],
                    bench.queries,
                    bench.truth,
                    own=bench.own.tolist(),
                    depths=[limit],
                )
                low, high = report.interval[limit]
                cells += [
                    f"{report.recall[limit]:.4f} ({low:.4f}..{high:.4f})",
                    f"{report.p50_ms:.1f} / {report.p95_ms:.1f}",
                ]
            rows.append(cells)
    indexed, stored = info.index_bytes / len(codes), info.total_bytes / len(codes)
    size = (f"uint8 index of {indexed:.1f} bytes per item, {stored:.1f} bytes per item on disk without payloads, "
            f"loaded and optimised at {rate:,.0f} items/s")  # fmt: skip
    return rows, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", help="(n, d) .npy of embeddings; default: the shipped sample")
    parser.add_argument("--latents", type=int, default=4096, help="number of latents (default: 4096)")
    parser.add_argument("--k", type=int, default=32, help="non-zeros of a code (default: 32)")
    parser.add_argument("--queries", type=int, default=500, help="number of queries (default: 500)")
    parser.add_argument("--seed", type=int, default=7, help="random seed for drawing the queries (default: 7)")
    parser.add_argument("--model", help="directory of a trained model, to use instead of training one")
    parser.add_argument("--save", help="directory to save the trained model in")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    describe(args, name)
    bench = Bench(vectors, args.queries, args.seed)
    ours, paper, rows = train_both(args, bench)
    if rows:
        table(
            "Training", ["model", "seconds", "held-out loss, encoder", "pursuit", "posting mass", "dead latents"], rows
        )
    codes, rows = pursuits(bench, ours)
    table("Pursuit encoding", ["implementation", "items/s", "ratio", "recall@100", "difference"], rows)
    pairs: list[tuple[Method, Scoring]] = [
        ("encoder", "sparse"), ("encoder", "reconstructed"), ("encoder", "asymmetric"),
        ("refit", "reconstructed"), ("refit", "asymmetric"), ("pursuit", "reconstructed"), ("pursuit", "asymmetric"),
    ]  # fmt: skip
    rows = [] if paper is None else modes(bench, "the paper's recipe", paper, pairs[:3])
    table("Exhaustive scoring", ["model", "codes", "scoring", "recall@100", "recall@10"],
          rows + modes(bench, "ours", ours, pairs))  # fmt: skip
    rows, size = engine(bench, ours, codes)
    table(f"Through the embedded engine, asymmetric: {size}",
          ["plan", "recall@100", "p50 / p95 ms, 101 hits", "recall@10", "p50 / p95 ms, 11 hits"], rows)  # fmt: skip


if __name__ == "__main__":
    main()
