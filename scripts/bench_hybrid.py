"""nDCG@10 of dense search, codes, words (BM25) and their fusion, side by side, and the bytes of the text index.

    python scripts/bench_hybrid.py                                   # the shipped sample
    python scripts/bench_hybrid.py --embeddings text.npy --queries title.npy --catalog items.parquet --model model

With --catalog, queries are titles, embedded in --queries; relevant is every item with that title. Items are searched
by the embedding of their text, and by its words: without the title, with which the text begins (body), and with it
(text). With the sample, queries are items, by their embedding and the words of their title; relevant is every other
item with the same tags, at least two.

Weights of the fusion are chosen on other queries than those that are reported.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_data import load_or_train

from compressae_qdrant import EdgeIndex, IndexSettings, Retriever, load_sample
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.metrics import bootstrap, ndcg
from compressae_qdrant.vectors import unit_rows

LIMIT = 10
WEIGHTS = (0.1, 0.25, 0.5, 1.0)
"""Weights of the words, where the codes have weight 1."""
CONSTANTS = (2, 10, 60)


@dataclass
class Task:
    """Items, queries, and which items are relevant to a query."""

    embeddings: FloatArray
    """(n, d) of the items."""
    words: dict[str, list[str]]
    """Text of each item by field; each field is searched for words by itself."""
    queries: FloatArray
    """(n, d) of the queries."""
    texts: list[str]
    """Words of each query."""
    keys: list[Hashable]
    """Query and items with the same key are relevant to each other; None for a row that is no query."""
    exclude_self: bool
    """Whether the query is an item, which is then left out."""


def catalog_task(embeddings: str, queries: str, catalog: str) -> Task:
    """Titles as queries for the descriptions of a catalog."""
    import pyarrow.parquet as pq

    table = pq.read_table(catalog, columns=["title", "text"])
    titles, texts = table["title"].to_pylist(), table["text"].to_pylist()
    bodies = [text.removeprefix(title).strip() for title, text in zip(titles, texts, strict=True)]
    return Task(
        unit_rows(np.load(embeddings)), {"body": bodies, "text": texts},
        unit_rows(np.load(queries)), titles,
        [title if body else None for title, body in zip(titles, bodies, strict=True)], exclude_self=False,
    )  # fmt: skip


def sample_task() -> Task:
    """Items of the sample as queries for items with the same tags."""
    sample = load_sample()
    titles = [str(payload["title"]) for payload in sample.payloads]
    keys: list[Hashable] = [
        tuple(sorted(payload.get("tags") or ())) if len(payload.get("tags") or ()) > 1 else None
        for payload in sample.payloads
    ]
    embeddings = unit_rows(np.asarray(sample.embeddings, np.float32))
    return Task(embeddings, {"title": titles}, embeddings, titles, keys, exclude_self=True)


def text_index_bytes(root: Path, field: str) -> int:
    """Allocated bytes of the files of a field's text index in an embedded index."""
    return sum(
        Path(folder, name).stat().st_blocks * 512
        for folder, _, names in os.walk(root)
        for name in names
        if any(part.endswith(f"-{field[:8]}-text") for part in Path(folder).parts)
    )


class Bench:
    """Searches one task in all ways."""

    def __init__(self, task: Task, retriever: Retriever, members: dict[Hashable, list[int]]) -> None:
        self.task, self.retriever, self.members = task, retriever, members

    def score(self, rows: Sequence[int], rankings: Sequence[Sequence[Any]]) -> FloatArray:
        """(q,) nDCG@10 of the rankings of some queries."""
        left_out = [row if self.task.exclude_self else None for row in rows]
        grades = [
            {item: 1.0 for item in self.members[self.task.keys[row]] if item != one}
            for row, one in zip(rows, left_out, strict=True)
        ]
        found = [[item for item in ranking if item != one] for ranking, one in zip(rankings, left_out, strict=True)]
        return ndcg(found, grades, LIMIT)

    def dense(self, rows: Sequence[int]) -> list[list[int]]:
        """Rankings by exact search of the embeddings."""
        scores = self.task.queries[list(rows)] @ self.task.embeddings.T
        return [np.argsort(-row)[: LIMIT + 1].tolist() for row in scores]

    def codes(self, rows: Sequence[int], **options: Any) -> list[list[Any]]:
        """Rankings by a search of the index."""
        texts = [self.task.texts[row] for row in rows] if options.pop("words", False) else None
        found = []
        for start in range(0, len(rows), 50):
            part = slice(start, start + 50)
            hits = self.retriever.search_batch(
                self.task.queries[list(rows[part])], LIMIT + 1, with_payload=False,
                text=None if texts is None else texts[part], **options,
            )  # fmt: skip
            found += [[hit.id for hit in each] for each in hits]
        return found


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", help="(n, d) .npy of the items")
    parser.add_argument("--queries", help="(n, d) .npy of the titles")
    parser.add_argument("--catalog", help="parquet file with the columns title and text")
    parser.add_argument("--model", help="directory of a model; by default one is trained")
    parser.add_argument("--language", help="language of the text index; by default words are taken as they are")
    parser.add_argument("--count", type=int, default=1000, help="queries to report, and half as many to choose weights")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    task = sample_task() if args.catalog is None else catalog_task(args.embeddings, args.queries, args.catalog)
    model = load_or_train(args.model, task.embeddings)
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(task.keys):
        if key is not None:
            members[key].append(row)
    least = 2 if task.exclude_self else 1
    usable = [row for row, key in enumerate(task.keys) if key is not None and len(members[key]) >= least]
    rows = np.random.default_rng(args.seed).permutation(usable)[: args.count + args.count // 2].tolist()
    chosen_on, reported = rows[: len(rows) // 3], rows[len(rows) // 3 :]
    with tempfile.TemporaryDirectory() as folder:
        settings = IndexSettings(text_fields=dict.fromkeys(task.words, args.language))
        with EdgeIndex.create(Path(folder) / "index", model, settings) as index:
            fields = list(task.words)
            for start in range(0, len(task.embeddings), 4096):
                part = slice(start, start + 4096)
                texts = zip(*(task.words[field][part] for field in fields), strict=True)
                payloads = [dict(zip(fields, each, strict=True)) for each in texts]
                codes = model.encode(task.embeddings[part])
                index.upsert(range(start, start + len(codes)), codes, payloads)
            index.optimize()
            print_bytes(task, Path(folder))
            report(Bench(task, Retriever(model, index), members), chosen_on, reported)


def report(bench: Bench, chosen_on: Sequence[int], reported: Sequence[int]) -> None:
    """Choose the weights on some queries and print nDCG@10 of all ways on others."""
    ways: dict[str, Any] = {"dense, exact": None, "codes": {}}
    for field in bench.task.words:
        k, weight = choose(bench, chosen_on, field)
        words: dict[str, Any] = {"words": True, "text_fields": [field]}
        ways |= {
            f"words of {field} (BM25)": {**words, "code_weight": 0},
            f"codes and {field}, RRF, default": words,
            f"codes and {field}, RRF, k={k}, weight {weight:g}": {
                "words": True, "text_fields": {field: weight}, "fusion_k": k,
            },
            f"codes and {field}, DBSF": {**words, "fusion": "dbsf"},
        }  # fmt: skip
    print(f"\n{len(reported)} other queries\n\n| ranking | nDCG@10 | 95% interval |\n|---|---|---|")
    for name, options in ways.items():
        rankings = bench.dense(reported) if options is None else bench.codes(reported, **options)
        estimate = bootstrap(bench.score(reported, rankings))
        print(f"| {name} | {estimate.mean:.4f} | {estimate.low:.4f} to {estimate.high:.4f} |", flush=True)


def choose(bench: Bench, rows: Sequence[int], field: str) -> tuple[int, float]:
    """The constant of the fusion and the weight of the words that rank best for some queries."""
    grid = {
        (k, weight): float(
            bench.score(rows, bench.codes(rows, words=True, text_fields={field: weight}, fusion_k=k)).mean()
        )
        for k, weight in itertools.product(CONSTANTS, WEIGHTS)
    }
    print(f"\nnDCG@10 of {len(rows)} queries by fusion constant k and weight of the words of {field}\n")
    print(f"| k | {' | '.join(map(str, WEIGHTS))} |\n|{'---|' * (1 + len(WEIGHTS))}")
    for k in CONSTANTS:
        print(f"| {k} | {' | '.join(f'{grid[k, weight]:.4f}' for weight in WEIGHTS)} |", flush=True)
    return max(grid, key=grid.__getitem__)


def print_bytes(task: Task, root: Path) -> None:
    """Print the size of each text index."""
    print("| text index | bytes | an item | a word | words an item | text bytes an item |\n|---|---|---|---|---|---|")
    for field, texts in task.words.items():
        size, words = text_index_bytes(root, field), sum(len(text.split()) for text in texts)
        items, length = len(texts), sum(len(text.encode()) for text in texts)
        print(
            f"| {field} | {size:,} | {size / items:.0f} | {size / max(words, 1):.2f} | {words / items:.1f} | "
            f"{length / items:.0f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
