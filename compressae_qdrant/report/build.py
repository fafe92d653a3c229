"""Build a report from a catalog, a model and an index."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import torch

from ..capacity import Constants, Workload, load_constants, plan
from ..codes import SparseCodes
from ..errors import ConfigError, InvalidInputError
from ..evaluation.comparison import Row
from ..evaluation.temporary_index import temporary_index
from ..index import IndexSettings
from ..index.points import points_of
from ..index.protocol import CodeIndex
from ..index.results import IndexInfo
from ..metrics import bootstrap
from ..model.compressae import CompresSAE
from ..sources import Source
from .measurement import LIMIT, Searches, Truth, run_searches, true_neighbours
from .page import render_page
from .sample import Sample, draw_sample
from .sections import (
    concept_data,
    latency_data,
    latent_data,
    query_data,
    saved_data,
    segment_data,
    segment_field,
    training_data,
)
from .tradeoffs import benchmark_front, calculator_data, first_stage_of, planned_front, workload_of

__all__ = ["Progress", "ReportSettings", "build_report"]

Progress = Callable[[str, int | None], Callable[[int], None]]
"""Begins a stage, given its name and number of steps (None if unknown); returns a function to call with the steps
that were just done."""

_BATCH: Final = 1024
_SMALL: Final = 50_000
"""Items below which posting lists are so short that an item takes more bytes than in a large catalog."""
_STATISTICS_ITEMS: Final = 4096
"""Items whose codes give the latent use of a model with another k."""


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report."""

    title: str
    """Name of the catalog, for readers."""
    sample: int = 20_000
    """Maximum number of items to measure on. Encoding takes some seconds per 10,000 items at the default sizes."""
    queries: int = 300
    """Number of sample items used as queries. Each is searched for four times, a few milliseconds each."""
    concepts: int = 400
    """Maximum number of latents in the concept browser."""
    segment: str | None = None
    """Payload field to split recall by; None takes the text field with the fewest values."""
    other_k: tuple[int, ...] | None = None
    """Numbers of non-zeros to measure besides the model's own k; None takes k/2 and 2k. Each encodes the sample once
    more."""
    seed: int = 0
    """Random seed for drawing the sample and the queries."""

    def __post_init__(self) -> None:
        for name, minimum in (("sample", 1), ("queries", 1), ("concepts", 0)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {minimum}")


def build_report(
    source: Source,
    model: CompresSAE,
    settings: ReportSettings,
    *,
    index: CodeIndex | None = None,
    results: Sequence[Row] | None = None,
    progress: Progress = lambda _name, _steps: lambda _done: None,
) -> tuple[str, list[str]]:
    """Measure a catalog, and return the HTML of the report and the reasons for parts that were left out.

    Args:
        source: the catalog.
        model: the model of the catalog.
        settings: settings of the report.
        index: the index of the catalog. The report shows its size. Searches use it if the sample is the whole catalog,
            otherwise a temporary index of the sample.
        results: rows of a benchmark on the same catalog, for comparison with baselines. Without them, codes of other
            lengths are measured, and the baselines are those the planner knows from the benchmark's catalog.
        progress: called at the beginning of each stage.

    Raises:
        SourceError: the catalog cannot be read.
        DimensionError: the embeddings do not have the model's dimensions.
        InvalidInputError, ConfigError: the index is empty, or a setting is out of range.
        MissingExtraError: Jinja is not installed (extra `report`).
    """
    if index is not None and not index.count():
        raise InvalidInputError("the index is empty; ingest the catalog first, or report without an index")
    parts = _Parts()
    rows = source.rows
    read = progress("reading", min(settings.sample, rows) if rows is not None and source.seekable else rows)
    sample = draw_sample(source, settings.sample, seed=settings.seed, on_batch=lambda batch: read(len(batch.ids)))
    codes = _encode(model, sample, progress)
    truth = true_neighbours(sample, settings.queries, settings.seed)
    with _searchable(index, model, sample, codes) as searchable:
        searches = _searches(model, searchable, sample, truth, progress)
        info = (index or searchable).info()
    default = searches[0]
    workload, constants, first_stage = workload_of(model, info, sample), load_constants(), first_stage_of(info)
    if results:
        parts.add("front", benchmark_front(results))
    else:
        size = info.resident_bytes / info.items if info.resident_bytes and info.items == sample.catalog_items else None
        measured = [(f"codes k={model.k}, {one.name}", workload, size, one) for one in searches]
        for coder, searched in _other_lengths(model, settings, sample, truth, info, progress):
            measured.append((f"codes k={coder.k}, {searched.name}", replace(workload, k=coder.k), None, searched))
        parts.add("front", planned_front(workload, constants, measured, first_stage))
    parts.add("planner", calculator_data(workload, constants))
    parts.add("saved", saved_data(info, model.dim, sample.catalog_items),
              "Bytes saved: the size of the index is unknown; only an optimised embedded index has one.")  # fmt: skip
    parts.add("plans", latency_data(searches))
    field = settings.segment or segment_field(sample)
    if field is None:
        parts.omitted.append("Recall by segment: no payload field has few enough values; choose one with --segment.")
    else:
        parts.add("segments", segment_data(sample, truth, default, field),
                  f"Recall by segment: no value of {field!r} has enough queries; raise --queries, or choose another "
                  "--segment.")  # fmt: skip
    parts.add("queries", query_data(sample, truth, default, model, codes))
    parts.add("concepts", concept_data(sample, codes, model.concepts, settings.concepts))
    parts.add("training", training_data(model.history), "Training curve: the model has no training history.")
    parts.add("latents", latent_data(model, codes))
    page = render_page(
        title=settings.title, date=f"{datetime.now(UTC):%-d %B %Y}", version=version("compressae-qdrant"),
        headline=_headline(sample, info, model, default), standfirst=_standfirst(sample, info, model, default),
        graph=first_stage == "graph", dim=model.dim, latents=model.latents, k=model.k,
        dead=int((model.latent_use == 0).sum()),
        queries=len(truth.own), own_index=searchable is index, sample=sample, method=_method(info, model),
        million=_at_a_million(replace(workload, first_stage=first_stage), constants), named=model.concepts is not None,
        data=parts.data, omitted=parts.omitted,
    )  # fmt: skip
    return page, parts.omitted


class _Parts:
    """The data of a page, and the reasons for missing parts."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.omitted: list[str] = []

    def add(self, name: str, part: Any, reason: str = "") -> None:
        """Add a part; None is left out for the given reason."""
        if part is None:
            self.omitted.append(reason)
        else:
            self.data[name] = part


def _encode(model: CompresSAE, sample: Sample, progress: Progress) -> SparseCodes:
    advance = progress(f"encoding, k={model.k}", len(sample))
    parts = []
    for start in range(0, len(sample), _BATCH):
        parts.append(model.encode(sample.embeddings[start : start + _BATCH]))
        advance(len(parts[-1]))
    return SparseCodes.concatenate(parts)


@contextlib.contextmanager
def _searchable(index: CodeIndex | None, model: CompresSAE, sample: Sample, codes: SparseCodes) -> Iterator[CodeIndex]:
    """An index that holds exactly the sample: the given one if it does, otherwise a temporary one."""
    if index is not None and sample.whole and _holds_only(index, sample):
        yield index
        return
    settings = IndexSettings() if index is None else IndexSettings(datatype=index.settings.datatype)
    with _sample_index(model, sample, codes, settings) as temporary:
        yield temporary


def _holds_only(index: CodeIndex, sample: Sample) -> bool:
    """Whether the index holds the items of the sample and no others."""
    if index.count() != len(set(points_of(sample.ids))):
        return False
    starts = range(0, len(sample), _BATCH)
    return all(None not in index.hashes(sample.ids[start : start + _BATCH]) for start in starts)


def _sample_index(
    model: CompresSAE, sample: Sample, codes: SparseCodes, settings: IndexSettings
) -> contextlib.AbstractContextManager[CodeIndex]:
    return temporary_index(model, codes, settings, ids=sample.ids, payloads=sample.payloads)


def _searches(model: CompresSAE, index: CodeIndex, sample: Sample, truth: Truth, progress: Progress) -> list[Searches]:
    advance = progress("searching", 2 * len(truth.own))
    return [
        run_searches("default plan", model, index, sample, truth, {}, lambda: advance(1)),
        run_searches("exhaustive", model, index, sample, truth, {"exact": True}, lambda: advance(1)),
    ]


def _other_lengths(
    model: CompresSAE, settings: ReportSettings, sample: Sample, truth: Truth, info: IndexInfo, progress: Progress
) -> Iterator[tuple[CompresSAE, Searches]]:
    """The model with other numbers of non-zeros, each searched by the default plan in an index of the sample."""
    for k in settings.other_k if settings.other_k is not None else (model.k // 2, 2 * model.k):
        if 1 <= k < model.latents / 4:
            coder = model.with_k(k, sample.embeddings[:_STATISTICS_ITEMS])
            codes = _encode(coder, sample, progress)
            settings_of_k = IndexSettings(datatype=info.settings.datatype)
            with _sample_index(coder, sample, codes, settings_of_k) as index:
                yield coder, run_searches("default plan", coder, index, sample, truth, {})


def _standfirst(sample: Sample, info: IndexInfo, model: CompresSAE, searched: Searches) -> str:
    items, recall = sample.catalog_items, float(searched.recall.mean())
    text = f"{items:,} items of {model.dim:,} dimensions, each stored as {model.k} non-zeros of {model.latents:,}. "
    if info.resident_bytes:
        text += f"An item takes {info.resident_bytes / info.items:,.0f} bytes of memory instead of {4 * model.dim:,}. "
    return f"{text}A search finds {recall:.1%} of the ten items that exact dense search finds{_measured_on(sample)}."


def _measured_on(sample: Sample) -> str:
    """The note that figures are measured on a sample, if they are."""
    return "" if sample.whole else f", in a sample of {len(sample):,}"


def _at_a_million(workload: Workload, constants: Constants) -> str | None:
    """Bytes per item of the inverted index of a million items, as text; None unless this catalog is small and searched
    by it."""
    if workload.items > _SMALL or workload.first_stage == "graph":  # whose bytes hardly depend on the items
        return None
    return f"{plan(replace(workload, items=10**6), constants)[0].index_bytes / 10**6:,.0f}"


def _headline(
    sample: Sample, info: IndexInfo, model: CompresSAE, searched: Searches
) -> list[tuple[str, str, str, str]]:
    """Name, value, unit and note of the figures at the top of the report."""
    figures = []
    if info.resident_bytes:
        dense, codes, items = 4 * model.dim, info.resident_bytes / info.items, sample.catalog_items
        figures = [
            ("Smaller in memory", f"{dense / codes:.1f}", "times", f"{codes:,.0f} bytes per item instead of {dense:,}"),
            ("Memory saved", *_size((dense - codes) * items), f"all {items:,} items, one copy"),
        ]
    recall = bootstrap(searched.recall)
    median, where = float(np.median(searched.milliseconds)), _measured_on(sample)
    interval = f"95% interval {recall.low:.3f} to {recall.high:.3f}, against exact dense search{where}"
    return [
        *figures,
        (f"recall@{LIMIT}", f"{recall.mean:.3f}", "", interval),
        (
            "Median query",
            f"{median:.1f}",
            "ms",
            f"{LIMIT} hits, one query at a time, on the machine of this report{where}",
        ),
    ]


def _size(size: float) -> tuple[str, str]:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:,.3g}", unit
    return f"{size:,.0f}", "B"


def _method(info: IndexInfo, model: CompresSAE) -> list[tuple[str, str]]:
    return [
        ("Model", model.fingerprint),
        ("Shape", f"{model.dim:,} dimensions, {model.latents:,} latents, {model.k} non-zeros"),
        ("Index", f"{info.backend}, {info.settings.datatype} values"),
        ("Machine", f"{platform.machine()}, {torch.get_num_threads()} threads"),
        ("Python, torch", f"{platform.python_version()}, {torch.__version__}"),
        ("qdrant-edge-py", version("qdrant-edge-py")),
    ]
