"""Compare recall, bytes and latency of codes, Qdrant's quantisation, PCA, truncation and Faiss on the same vectors.

    python scripts/bench_retrieval.py text.npy [title.npy] --metadata items.parquet --out results
    python scripts/bench_retrieval.py ... --out results --measure times    # times of these rows, on a quiet machine
    python scripts/bench_retrieval.py --quick                        # a few minutes on the shipped sample

Several files are joined field by field, `concat(a, b) / sqrt(2)`. Queries are random items, without those on which
defaults were tuned; their true neighbours come from exact dense search, without the item itself. Writes rows.json,
table.md and plots to --out. A later run with the same --out resumes: it does not repeat rows, models and Faiss indexes
that exist. Recall and bytes do not depend on the machine's load, so times are measured in a run of their own.

`compressae evaluate --baselines` runs the same comparison for your own catalog and index.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_data import load_catalog, load_labels, quick_config

from compressae_qdrant import CompresSAE, TrainConfig, train
from compressae_qdrant import scoring as similarity
from compressae_qdrant.evaluation.baselines import baselines
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.evaluation.comparison import run
from compressae_qdrant.evaluation.methods import ComparedMethod, codes
from compressae_qdrant.evaluation.tables import write_report
from compressae_qdrant.files import write_text
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.metrics import agreement, paired_difference
from compressae_qdrant.search.settings import SearchOptions

TUNED_ON = (7, 11)
"""Seeds of the queries on which defaults were tuned (EXPERIMENTS.md); these queries are left out."""

_KINDS = ("ours", "encoder", "paper", "baselines")
_STATISTICS_ITEMS = 20_000
"""Number of items whose codes give the latents' usage of a model with another k."""

Model = Callable[[], CompresSAE]
Configs = dict[str, tuple[str, SearchOptions]]


def ours(args: argparse.Namespace, bench: Bench, folder: Path) -> list[ComparedMethod]:
    """Our codes: the default methods for every k, and all methods for the first k.

    A dictionary can be used for its own k and every larger one. Of the given models, the one with the largest k that
    does not exceed the required k is used.
    """
    given = {model.k: model for model in map(CompresSAE.load, args.model)}
    found, every = [], []
    for k in args.k:
        model = _model_for(given, bench, k) or _trained(bench, folder / f"ours-k{k}", _settings(args, k))
        plain: Configs = {"two stages": ("ours, two stages", {}), "exhaustive": ("ours, exhaustive", {"exact": True})}
        found.append(codes(f"codes k={k}", plain, model))
        graph: Configs = {"graph": ("ours, graph", {"first_stage": "graph"})}
        found.append(codes(f"codes k={k}", graph, model, navigation=NavigationSettings()))
        dense: Configs = {"originals on disk": ("ours, originals on disk", {})}
        found.append(codes(f"codes k={k}", dense, model, keep_dense=True))
        both: Configs = {"graph, originals on disk": ("ours, graph, originals on disk", {"first_stage": "graph"})}
        found.append(codes(f"codes k={k}", both, model, keep_dense=True, navigation=NavigationSettings()))
        if k == args.k[0]:
            every = _every_config(k, model)
    return found + every


def _every_config(k: int, model: Model) -> list[ComparedMethod]:
    """All methods and scorings, exhaustively, except pursuit with asymmetric scoring, which is measured for every k."""
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
    """The paper's recipe, in its two scoring modes."""
    given = {model.k: model for model in map(CompresSAE.load, args.paper_model)}
    found = []
    for k in args.paper_k:
        config = TrainConfig.paper(latents=args.latents, k=k, steps=args.paper_steps)
        model = _given(given, k) or _trained(bench, folder / f"paper-k{k}", config)
        found += _papers_modes(f"the paper k={k}", "the paper", model)
    return found


def encoders(args: argparse.Namespace, bench: Bench, folder: Path) -> list[ComparedMethod]:
    """Our models trained for encoding by the encoder alone, in the paper's two scoring modes."""
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


def _model_for(given: dict[int, CompresSAE], bench: Bench, k: int) -> Model | None:
    """Return the given model with the largest k of at most `k`, set to `k` non-zeros, or None."""
    fitting = [trained for trained in given if trained <= k]
    if not fitting:
        return None
    model = given[max(fitting)]
    return functools.cache(lambda: model if model.k == k else model.with_k(k, bench.vectors[:: _every(bench)]))


def _every(bench: Bench) -> int:
    return max(1, len(bench.vectors) // _STATISTICS_ITEMS)


def _trained(bench: Bench, folder: Path, config: TrainConfig) -> Model:
    """Return a function that trains or loads the model at its first call, and caches it."""

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
        return quick_config(args.latents, k)
    return TrainConfig(latents=args.latents, k=k)


def task_quality(bench: Bench, models: list[CompresSAE], out: Path) -> None:
    """Write task.md: how often the top ten share the query item's labels, with dense vectors and with codes.

    Codes are searched exhaustively, without an engine. The other table shows the effect of the default query plan.
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
    name, vectors = load_catalog([] if args.quick else args.vectors)
    print(f"Catalog: {name}", flush=True)
    vectors = np.asarray(vectors, np.float32)
    fields = load_labels(None if args.quick or not args.vectors else args.metadata)
    name = (
        "the shipped sample" if args.quick or not args.vectors else " + ".join(Path(file).stem for file in args.vectors)
    )
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "vectors",
        nargs="*",
        help="(n, d) .npy of unit-norm rows, one for each field of an item; default: the shipped sample",
    )
    parser.add_argument("--metadata", help="parquet with section and tags, row by row as the embeddings")
    parser.add_argument(
        "--out", default="bench-retrieval", help="directory of results, models, Faiss indexes and plots"
    )
    parser.add_argument(
        "--measure",
        choices=("recall", "times", "both"),
        default="recall",
        help="recall, bytes and quality of rows that lack them (default); times of the rows in --out; or both",
    )
    parser.add_argument(
        "--task",
        action="store_true",
        help="only compare how well each --model and dense vectors preserve sections and tags",
    )
    parser.add_argument(
        "--model",
        nargs="*",
        default=[],
        help="directories of our trained models; each is used for its own k and larger ones, up to the k of the next",
    )
    parser.add_argument(
        "--encoder-model",
        nargs="*",
        default=[],
        help="directories of models trained with TrainConfig.for_encoder(), each used for its own k",
    )
    parser.add_argument(
        "--paper-model",
        nargs="*",
        default=[],
        help="directories of models trained by the paper's recipe, each used for its own k",
    )
    parser.add_argument(
        "--k",
        type=int,
        nargs="+",
        default=[32, 8, 16, 20, 48, 64, 80],
        help="values of k to measure; the first is measured with all methods",
    )
    parser.add_argument(
        "--encoder-k",
        type=int,
        nargs="*",
        default=[],
        help="values of k to train with TrainConfig.for_encoder(), in addition to --encoder-model",
    )
    parser.add_argument(
        "--encoder-steps",
        type=int,
        default=1500,
        help="steps of a training with TrainConfig.for_encoder() (default: 1500)",
    )
    parser.add_argument(
        "--paper-k", type=int, nargs="*", default=[8, 16, 32, 64], help="values of k for the paper's recipe"
    )
    parser.add_argument(
        "--paper-steps", type=int, default=3000, help="training steps of the paper's recipe (default: 3000)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_KINDS,
        default=_KINDS,
        help="measure only these kinds of methods; other rows are kept",
    )
    parser.add_argument("--match", default="", help="measure only rows whose name matches this regular expression")
    parser.add_argument("--latents", type=int, default=4096, help="number of latents (default: 4096)")
    parser.add_argument("--queries", type=int, default=500, help="number of queries (default: 500)")
    parser.add_argument("--seed", type=int, default=2026, help="random seed for drawing the queries (default: 2026)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the shipped sample, short training, fewer baselines; recall and times in one run",
    )
    args = parser.parse_args()
    if args.vectors and not args.metadata and not args.quick:
        parser.error("--metadata is needed with embeddings: it has the section and tags of each item")
    if args.quick:
        args.measure, args.k, args.paper_k, args.encoder_k = "both", [32], [32], [32]
        args.paper_steps = args.encoder_steps = 150
        args.queries = min(args.queries, 200)
    return args


if __name__ == "__main__":
    main()
