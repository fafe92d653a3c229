"""Recall against bytes and latency: codes, Qdrant's quantisation, PCA, truncation and Faiss on the same vectors.

    python scripts/bench_retrieval.py text.npy [title.npy] --metadata items.parquet --out results
    python scripts/bench_retrieval.py ... --out results --measure times    # of the rows there, machine quiet
    python scripts/bench_retrieval.py --quick                        # a few minutes on the shipped sample

Several files are joined field by field, `concat(a, b) / sqrt(2)`. Queries are items drawn by --seed, those that
defaults were tuned on left out; truth is exact dense search, the item itself left out. Writes rows.json, table.md and
plots to --out, and goes on where it was: a row that is there is not measured again, nor is a model or a Faiss index
that is there trained again. Recall and bytes are exact on a busy machine, so times are measured by a run of their own.

`compressae evaluate --baselines` is the same code for a catalog and an index of your own.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from compressae_qdrant import CompresSAE, TrainConfig, load_sample, train
from compressae_qdrant import scoring as similarity
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.evaluation.baselines import baselines
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.evaluation.comparison import run
from compressae_qdrant.evaluation.methods import ComparedMethod, codes
from compressae_qdrant.evaluation.tables import write_report
from compressae_qdrant.files import write_text
from compressae_qdrant.metrics import agreement, paired_difference
from compressae_qdrant.search.planner import SearchOptions

TUNED_ON = (7, 11)
"""Seeds of the queries that EXPERIMENTS.md picked defaults by; they are never asked here."""

_KINDS = ("ours", "encoder", "paper", "baselines")
_STATISTICS_ITEMS = 20_000
"""Items whose codes tell how a model uses its latents with another k."""

Model = Callable[[], CompresSAE]
Configs = dict[str, tuple[str, SearchOptions]]


def ours(args: argparse.Namespace, bench: Bench, folder: Path) -> list[ComparedMethod]:
    """Ours at every k, and in every way at the first.

    A dictionary serves every k from its own on: the given model with the most non-zeros that aren't too many is used.
    """
    given = {model.k: model for model in map(CompresSAE.load, args.model)}
    found, every = [], []
    for k in args.k:
        model = _served(given, bench, k) or _trained(bench, folder / f"ours-k{k}", _settings(args, k))
        plain: Configs = {"two stages": ("ours, two stages", {}), "exhaustive": ("ours, exhaustive", {"exact": True})}
        found.append(codes(f"codes k={k}", plain, model))
        dense: Configs = {"originals on disk": ("ours, originals on disk", {})}
        found.append(codes(f"codes k={k}", dense, model, keep_dense=True))
        if k == args.k[0]:
            every = _every_config(k, model)
    return found + every


def _every_config(k: int, model: Model) -> list[ComparedMethod]:
    """Every method and scoring, each exhaustive, but pursuit with asymmetric scoring, which every k has."""
    exact: SearchOptions = {"exact": True}
    paper: Configs = {"reconstructed": ("ours, encoder", {**exact, "scoring": "reconstructed"})}
    fast: Configs = {"sparse": ("ours, encoder", {**exact, "scoring": "sparse"})}
    full: Configs = {"asymmetric": ("ours, encoder", exact)}
    refit: Configs = {"asymmetric": ("ours, refit", exact)}
    return [
        codes(f"codes k={k} by pursuit", paper, model, scale="reconstruction"),
        codes(f"codes k={k} by pursuit", fast, model, scale="code"),
        codes(f"codes k={k} by refit", refit, model, method="refit"),
        codes(f"codes k={k} by refit", paper, model, method="refit", scale="reconstruction"),
        codes(f"codes k={k} by encoder", full, model, method="encoder"),
        codes(f"codes k={k} by encoder", paper, model, method="encoder", scale="reconstruction"),
        codes(f"codes k={k} by encoder", fast, model, method="encoder", scale="code"),
    ]


def papers(args: argparse.Namespace, bench: Bench, folder: Path) -> list[ComparedMethod]:
    """The paper's recipe in its two modes."""
    given = {model.k: model for model in map(CompresSAE.load, args.paper_model)}
    found = []
    for k in args.paper_k:
        config = TrainConfig.paper(latents=args.latents, k=k, steps=args.paper_steps)
        model = _given(given, k) or _trained(bench, folder / f"paper-k{k}", config)
        found += _papers_modes(f"the paper k={k}", "the paper", model)
    return found


def encoders(args: argparse.Namespace, bench: Bench, folder: Path) -> list[ComparedMethod]:
    """Ours trained for codes by the encoder alone, in the paper's two modes."""
    given = {model.k: model for model in map(CompresSAE.load, args.encoder_model)}
    found = []
    for k in [*given, *(k for k in args.encoder_k if k not in given)]:
        config = TrainConfig.for_encoder(latents=args.latents, k=k, steps=args.encoder_steps)
        model = _given(given, k) or _trained(bench, folder / f"encoder-k{k}", config)
        found += _papers_modes(f"codes k={k}, trained for the encoder", "ours for the encoder", model)
    return found


def _papers_modes(label: str, family: str, model: Model) -> list[ComparedMethod]:
    best: Configs = {"reconstructed": (f"{family}, reconstructed", {"exact": True, "scoring": "reconstructed"})}
    fast: Configs = {"sparse": (f"{family}, sparse", {"exact": True, "scoring": "sparse"})}
    return [
        codes(label, best, model, method="encoder", scale="reconstruction"),
        codes(label, fast, model, method="encoder", scale="code"),
    ]


def _given(given: dict[int, CompresSAE], k: int) -> Model | None:
    return None if k not in given else lambda: given[k]


def _served(given: dict[int, CompresSAE], bench: Bench, k: int) -> Model | None:
    """The given model for the most non-zeros that aren't more than k, with k of them."""
    fitting = [trained for trained in given if trained <= k]
    if not fitting:
        return None
    model = given[max(fitting)]
    return functools.cache(lambda: model if model.k == k else model.with_k(k, bench.vectors[:: _every(bench)]))


def _every(bench: Bench) -> int:
    return max(1, len(bench.vectors) // _STATISTICS_ITEMS)


def _trained(bench: Bench, folder: Path, config: TrainConfig) -> Model:
    """A model that is trained, or loaded, once it is needed, and then stays."""

    @functools.cache
    def load() -> CompresSAE:
        if not folder.exists():
            print(f"training {folder.name}", flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            train(bench.vectors, config, checkpoint=folder.with_suffix(".checkpoint")).save(folder)
        return CompresSAE.load(folder)

    return load


def _settings(args: argparse.Namespace, k: int) -> TrainConfig:
    if args.quick:
        return TrainConfig(latents=args.latents, k=k, steps=300, rounds=8, round_items=8192, encoder_steps=100)
    return TrainConfig(latents=args.latents, k=k)


def task_quality(bench: Bench, models: list[CompresSAE], out: Path) -> None:
    """Write task.md: what the first ten have in common with the query's item, dense and by codes, query by query.

    Codes are searched exhaustively, without an engine: what the default plan loses is in the other table.
    """
    truth = [rows[:10] for rows in bench.truth]
    own = bench.own.tolist()
    lines = [
        "| codes | field | queries | dense | codes | difference (95%) | relative |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in models:
        stored = model.encode(bench.vectors)
        vectors = similarity.asymmetric(model.atoms.detach().numpy(), bench.queries)
        found = bench.without_own(similarity.top(stored, vectors, 11)[0].tolist())
        for field, values in bench.fields.items():
            dense, ours = agreement(truth, own, values), agreement(found, own, values)
            counted = np.isfinite(dense)
            base, mine, gap = dense[counted].mean(), ours[counted].mean(), paired_difference(ours, dense)
            absolute = f"{gap.mean:+.4f} ({gap.low:+.4f}..{gap.high:+.4f})"
            relative = f"{gap.mean / base:+.2%} ({gap.low / base:+.2%}..{gap.high / base:+.2%})"
            counts = f"k={model.k} | {field} | {counted.sum():,} | {base:.4f} | {mine:.4f}"
            lines.append(f"| {counts} | {absolute} | {relative} |")
            print(lines[-1], flush=True)
    write_text(out / "task.md", "\n".join(lines) + "\n")


def main() -> None:
    args = _arguments()
    out = Path(args.out)
    name, vectors, fields = _catalog(args)
    tuned = [
        np.random.default_rng(seed).choice(len(vectors), min(500, len(vectors)), replace=False) for seed in TUNED_ON
    ]
    avoid = [] if args.quick else np.concatenate(tuned).tolist()
    bench = Bench.of(name, vectors, fields, args.queries, args.seed, avoid=avoid)
    if args.task:
        task_quality(bench, [CompresSAE.load(folder) for folder in args.model], out)
        return
    kinds = {
        "ours": lambda: ours(args, bench, out / "models"),
        "encoder": lambda: encoders(args, bench, out / "models"),
        "paper": lambda: papers(args, bench, out / "models"),
        "baselines": lambda: baselines(bench.vectors.shape[1], out / "faiss", quick=args.quick),
    }
    found = [method for kind in _KINDS if kind in args.only for method in kinds[kind]()]
    found = [method for method in found if any(re.search(args.match, name) for name in method.names)]
    rows = run(bench, found, out, measure=args.measure, log=_log)
    write_report(out, bench.name, rows, 4 * bench.vectors.shape[1])
    print((out / "table.md").read_text(encoding="utf-8"))


def _log(line: str) -> None:
    print(line, flush=True)


def _catalog(args: argparse.Namespace) -> tuple[str, FloatArray, dict[str, list[Any]]]:
    """Name, vectors, and the fields that the task is judged by."""
    if args.quick or not args.vectors:
        sample = load_sample()
        fields = {name: [payload[name] for payload in sample.payloads] for name in ("section", "tags")}
        return "the shipped sample", np.asarray(sample.embeddings, np.float32), fields
    parts = [np.load(path).astype(np.float32) for path in args.vectors]
    columns = pq.read_table(args.metadata, columns=["section", "tags"]).to_pydict()
    return " + ".join(Path(path).stem for path in args.vectors), np.concatenate(parts, axis=1), columns


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", help="(n, d) .npy of unit-norm rows, one for each field of an item")
    parser.add_argument("--metadata", help="parquet with section and tags, row for row")
    parser.add_argument(
        "--out", default="bench-retrieval", help="directory of results, models, Faiss indexes and plots"
    )
    parser.add_argument(
        "--measure",
        choices=("recall", "times", "both"),
        default="recall",
        help="recall, bytes and quality of rows that lack them; times of rows in --out; or both, on a quiet machine",
    )
    parser.add_argument(
        "--task", action="store_true", help="only compare sections and tags, of each --model with dense"
    )
    parser.add_argument(
        "--model",
        nargs="*",
        default=[],
        help="ours, trained already: one serves its own k and every larger one that no other is nearer to",
    )
    parser.add_argument("--encoder-model", nargs="*", default=[], help="of TrainConfig.for_encoder(), each for its k")
    parser.add_argument("--paper-model", nargs="*", default=[], help="of the paper's recipe, each for its k")
    parser.add_argument(
        "--k", type=int, nargs="+", default=[32, 8, 16, 20, 48, 64, 80], help="the first gets extra rows"
    )
    parser.add_argument("--encoder-k", type=int, nargs="*", default=[], help="besides those of --encoder-model")
    parser.add_argument("--encoder-steps", type=int, default=1500, help="of TrainConfig.for_encoder()")
    parser.add_argument("--paper-k", type=int, nargs="*", default=[8, 16, 32, 64], help="of the paper's recipe")
    parser.add_argument("--paper-steps", type=int, default=3000, help="of the paper's recipe")
    parser.add_argument("--only", nargs="+", choices=_KINDS, default=_KINDS, help="measure these kinds; rows stay")
    parser.add_argument("--match", default="", help="measure rows whose name this regular expression finds")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument(
        "--quick", action="store_true", help="the shipped sample, short training, fewer baselines, all at once"
    )
    args = parser.parse_args()
    if args.vectors and not args.metadata and not args.quick:
        parser.error("--metadata is needed beside vectors: sections and tags measure the task")
    if args.quick:
        args.measure, args.k, args.paper_k, args.encoder_k = "both", [32], [32], [32]
        args.paper_steps = args.encoder_steps = 150
        args.queries = min(args.queries, 200)
    return args


if __name__ == "__main__":
    main()
