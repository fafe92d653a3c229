"""compressae evaluate: recall of an index against exact dense search, by segment, and compared with baselines."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, InvalidInputError
from .groups import CatalogOptions, PlanOptions
from .inputs import open_catalog, parse_first_stage, parse_scoring
from .options import (
    IndexOption,
    JsonOption,
    ModelOption,
    SourceArgument,
)
from .output import as_is, print_json

if TYPE_CHECKING:
    from ..evaluation.bench import Bench
    from ..evaluation.methods import SearchConfig
    from ..index.results import IndexInfo, ItemId
    from ..search.settings import SearchOptions
    from ..sources import Source

__all__ = ["evaluate"]

_BYTES: Final = {
    "dense_bytes_per_item": "bytes per item: dense vectors",
    "resident_bytes_per_item": "  index, in memory",
    "index_bytes_per_item": "    inverted index",
    "navigation_bytes_per_item": "    navigation vectors and graph",
    "total_bytes_per_item": "  index and payloads, on disk",
}
_FEW_ITEMS: Final = 10
"""Items per latent below which the fixed size of a posting list adds visibly to the bytes per item."""
_MIN_QUERIES: Final = 10
"""Minimum number of queries of a segment that is marked as worse than the whole catalog."""


def evaluate(
    *,
    source: SourceArgument,
    model: ModelOption,
    index: IndexOption,
    queries: Annotated[int, typer.Option(help="Number of random items of the catalog used as queries.")] = 500,
    seed: Annotated[int, typer.Option(help="Random seed for drawing the queries.")] = 0,
    segment: Annotated[
        str | None,
        typer.Option(help="Payload field: also measure recall for each of its values, with at least 20 queries each."),
    ] = None,
    agree: Annotated[
        list[str] | None,
        typer.Option(
            help="Payload field: measure how often hits share the query's value of it, compared with dense search. May "
            "be repeated."
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="Also measure dense, quantised, PCA-reduced and truncated vectors. Needs --out."
        ),
    ] = False,
    relevance: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='JSON lines of judged queries: {"embedding": [...], "text": "red shoes", "relevant": {"sku-1": 2}}. '
            "Measures nDCG@10 of codes, words and their fusion, and chooses the weights of the fusion.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Directory to write a table and plots to.")
    ] = None,
    plan: PlanOptions,
    columns: CatalogOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure recall, latency and size of an index against exact dense search.

    The source must be the catalog that the index was loaded from: a file, or a collection of dense vectors.

    Example:
        compressae evaluate sample --model model --index index --segment section
    """
    from ..evaluation.bench import DEPTH
    from ..evaluation.methods import SearchConfig, searches
    from ..evaluation.relevance import measure_relevance, read_judgements
    from ..evaluation.timed_search import timed_search
    from ..index import open_index
    from ..model.compressae import CompresSAE
    from ..search.retriever import Retriever

    if baselines and out is None:
        raise ConfigError("--baselines needs --out DIRECTORY, the directory for the table and plots")
    settings: SearchOptions = {
        "scoring": parse_scoring(plan.scoring), "exact": plan.exact, "prefetch": plan.prefetch,
        "first_stage": parse_first_stage(plan.first_stage), "navigation_ef": plan.navigation_ef,
        "navigation_candidates": plan.navigation_candidates, "first_stage_latents": plan.first_stage_latents,
        "target_recall": plan.target_recall,
    }  # fmt: skip
    judged = None if relevance is None else read_judgements(relevance)
    catalog = open_catalog(source, columns)
    coder = CompresSAE.load(model)
    fields = list(dict.fromkeys([*(agree or []), *([segment] if segment else [])]))
    with open_index(index, coder) as opened:
        if not opened.count():
            raise InvalidInputError("the index is empty; load the catalog with compressae ingest first")
        ids, bench = _read(catalog, fields, queries, seed, segment, source)
        config = SearchConfig("this index", "ours", *searches(Retriever(coder, opened), settings, ids))
        retrieved, (p50, p95) = timed_search(config.search, bench.queries, DEPTH + 1)
        size = opened.info()
        facts = _facts(bench, bench.without_own(retrieved), agree or [], segment)
        facts |= {"p50_ms": p50, "p95_ms": p95, "items": size.items, "dense_bytes_per_item": 4 * coder.dim}
        if size.index_bytes is not None and size.total_bytes is not None:
            facts["index_bytes_per_item"] = size.index_bytes / size.items
            if size.navigation_bytes:
                facts["navigation_bytes_per_item"] = size.navigation_bytes / size.items
            if size.resident_bytes is not None:
                facts["resident_bytes_per_item"] = size.resident_bytes / size.items
            facts["total_bytes_per_item"] = size.total_bytes / size.items
        if judged is not None:
            facts["relevance"] = dataclasses.asdict(measure_relevance(Retriever(coder, opened), judged, settings))
        if out is not None:
            facts["files"] = _compare(bench, config, size, out, baselines, quiet=json_output)
    if json_output:
        print_json(facts)
    else:
        _show(facts, coder.latents)


def _read(
    catalog: Source, fields: list[str], queries: int, seed: int, segment: str | None, name: str
) -> tuple[dict[ItemId, int], Bench]:
    """Read the catalog: the row of each id, and the benchmark."""
    import numpy as np

    from ..evaluation.bench import Bench

    batches = list(catalog.batches(8192))
    if not batches:
        raise InvalidInputError(f"{name} has no rows; evaluate on the catalog that the index was loaded from")
    payloads = [payload for batch in batches for payload in batch.payloads]
    present = {field for payload in payloads for field in payload}
    unknown = [field for field in fields if field not in present]
    if unknown:
        raise InvalidInputError(
            f"no item of {name} has the field {', '.join(map(repr, unknown))}; its fields are "
            f"{', '.join(sorted(present))}"
        )
    ids = {id: row for row, id in enumerate(id for batch in batches for id in batch.ids)}
    columns = {field: [payload.get(field) for payload in payloads] for field in fields}
    vectors = np.concatenate([batch.embeddings for batch in batches])
    return ids, Bench.of(name, vectors, columns, queries, seed, segment=segment)


def _facts(bench: Bench, retrieved: list[list[int]], agree: list[str], segment: str | None) -> dict[str, Any]:
    import numpy as np

    from ..evaluation.bench import DEPTH
    from ..metrics import agreement, bootstrap, by_segment, paired_difference, recall

    drawn = bench.drawn
    depths = {depth: recall(retrieved, bench.truth, depth) for depth in (10, DEPTH)}
    means = {depth: bootstrap(each[:drawn]) for depth, each in depths.items()}
    facts: dict[str, Any] = {
        "queries": drawn,
        "recall": {depth: mean.mean for depth, mean in means.items()},
        "interval": {depth: [mean.low, mean.high] for depth, mean in means.items()},
    }
    own = bench.own[:drawn].tolist()
    for field in agree:
        ours, dense = (agreement(rows[:drawn], own, bench.fields[field]) for rows in (retrieved, bench.truth))
        difference = paired_difference(ours, dense)
        facts.setdefault("agreement", {})[field] = {
            "dense": float(np.nanmean(dense)), "index": float(np.nanmean(ours)), "difference": difference.mean,
            "interval": [difference.low, difference.high],
        }  # fmt: skip
    if segment is not None:
        segments = by_segment(depths[DEPTH], bench.values(segment))
        facts["segments"] = [
            {"value": each.value, "queries": each.queries, "recall": each.recall.mean,
             "interval": [each.recall.low, each.recall.high]}
            for each in segments
        ]  # fmt: skip
    return facts


def _compare(bench: Bench, config: SearchConfig, size: IndexInfo, out: Path, baselines: bool, quiet: bool) -> list[str]:
    """Write a table and plots of the index and, optionally, of baselines. Baselines measured before are kept."""
    from ..evaluation.baselines import baselines as all_baselines
    from ..evaluation.comparison import run
    from ..evaluation.methods import BuiltIndex, ComparedMethod
    from ..evaluation.tables import write_report

    if size.resident_bytes is None or size.total_bytes is None:
        raise ConfigError(
            "--out plots recall against bytes, which a Qdrant server does not report; evaluate an embedded index"
        )
    built = BuiltIndex([config], size.resident_bytes / size.items, size.total_bytes / size.items, None)
    own = ComparedMethod((config.name,), lambda _: contextlib.nullcontext(built))
    others = all_baselines(bench.vectors.shape[1], quick=True) if baselines else []
    log = Console(stderr=True, quiet=quiet, highlight=False, markup=False).print
    rows = run(bench, [own, *others], out, measure="both", remeasure=[config.name], log=log)
    return [str(file) for file in write_report(out, bench.name, rows, 4 * bench.vectors.shape[1])]


def _show(facts: dict[str, Any], latents: int) -> None:
    from ..evaluation.bench import DEPTH

    console = Console(highlight=False)
    table = Table("measure", "value", "95% interval", box=None)
    for depth, mean in facts["recall"].items():
        table.add_row(f"recall@{depth}", f"{mean:.4f}", _interval(facts["interval"][depth]))
    for field, each in facts.get("agreement", {}).items():
        table.add_row(
            as_is(f"hits with equal {field}, dense / index"), f"{each['dense']:.4f} / {each['index']:.4f}", ""
        )
        table.add_row("  difference", f"{each['difference']:+.4f}", _interval(each["interval"]))
    table.add_row("latency p50 / p95", f"{facts['p50_ms']:.2f} / {facts['p95_ms']:.2f} ms", "")
    table.add_row("queries / items", f"{facts['queries']:,} / {facts['items']:,}", "")
    for name, title in _BYTES.items():
        if name in facts:
            table.add_row(title, f"{facts[name]:,.1f}", "")
    console.print(table)
    if (
        "navigation_bytes_per_item" not in facts
        and "index_bytes_per_item" in facts
        and facts["items"] < _FEW_ITEMS * latents
    ):
        console.print(as_is(
            f"This index is small, so the fixed size of its {latents:,} posting lists adds to the bytes per item. "
            "Estimate a larger catalog with `compressae plan`."
        ))  # fmt: skip
    if "segments" in facts:
        least = facts["interval"][DEPTH][0]
        segments = Table("segment, worst first", "recall@100", "95% interval", box=None)
        segments.add_column("queries", justify="right")
        segments.add_column("")
        for each in facts["segments"]:
            below = each["queries"] >= _MIN_QUERIES and each["interval"][1] < least
            segments.add_row(
                as_is(each["value"]), f"{each['recall']:.4f}", _interval(each["interval"]), f"{each['queries']:,}",
                "below the catalog" if below else "",
            )  # fmt: skip
        console.print(segments)
    if "relevance" in facts:
        _show_relevance(console, facts["relevance"])
    for file in facts.get("files", []):
        console.print(as_is(file))


def _show_relevance(console: Console, facts: dict[str, Any]) -> None:
    table = Table(f"ranking, {facts['queries']:,} judged queries", "nDCG@10", "95% interval", box=None)
    for name, each in facts["rankings"].items():
        table.add_row(name, f"{each['mean']:.4f}", _interval([each["low"], each["high"]]))
    console.print(table)
    if facts["choice"] is not None:
        weight, k = facts["choice"]["word_weight"], facts["choice"]["fusion_k"]
        console.print(as_is(f"The best weights: fusion_k={k} and weight {weight:g} for text fields, 1 for codes."))


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.4f} .. {bounds[1]:.4f}"
