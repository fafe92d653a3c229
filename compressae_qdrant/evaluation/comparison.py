"""Measure methods side by side: recall, bytes, quality and times, kept in a file so that a run can be resumed.

Recall and bytes do not depend on the load of the machine, but times do. So the two can be measured by separate runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np

from ..errors import ConfigError, ModelFileError
from ..files import write_text
from ..metrics import agreement, bootstrap, recall
from .bench import DEPTH, Bench
from .methods import BuiltIndex, ComparedMethod, SearchConfig
from .timed_search import timed_search

__all__ = ["Row", "Timing", "load_rows", "read_rows", "run", "save_rows"]

_FILE: Final = "rows.json"
_FIRST: Final = 10
"""Hits of the search that recall@10 is measured on; an engine may consider fewer candidates for it than for 100."""


@dataclass(frozen=True)
class Timing:
    """Times of one row."""

    p50_ms: float
    """Median time of one query for 101 hits, ms."""
    p95_ms: float
    """95th percentile of the same, ms."""
    queries_per_second: float
    """Queries per second in one batch of all queries, for 11 hits each."""
    build_seconds: float | None
    """See `BuiltIndex.build_seconds`."""
    encode_seconds: float | None
    """See `BuiltIndex.encode_seconds`."""


@dataclass(frozen=True)
class Row:
    """Measurements of one search configuration."""

    name: str
    """Name of the search configuration."""
    family: str
    """Group of rows that share a colour, a marker and a line in plots."""
    resident: float
    """Bytes per item in memory."""
    disk: float | None
    """Bytes per item on disk; None for a method that lives in memory alone."""
    recall10: float
    """Mean recall@10 of searches for 10 hits."""
    recall100: float
    """Mean recall@100 of searches for 100 hits."""
    interval: tuple[float, float]
    """95% bootstrap interval of `recall100` over queries."""
    quality: dict[str, float]
    """Agreement of the first ten hits with the query item (`metrics.agreement`), by payload field."""
    timing: Timing | None = None
    """Times; None until they are measured."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Create a row from its JSON form."""
        timing = data.get("timing")
        interval = (data["interval"][0], data["interval"][1])
        return cls(**{**data, "interval": interval, "timing": None if timing is None else Timing(**timing)})


def load_rows(out: Path, bench: Bench) -> list[Row]:
    """Read the rows that a directory holds already.

    Raises:
        ModelFileError: `rows.json` is damaged or was written by another version.
        ConfigError: the rows were measured on another catalog or with other queries.
    """
    file = out / _FILE
    if not file.exists():
        return []
    identity, rows = _read(file)
    if identity != bench.identity:
        raise ConfigError(
            f"{file} was measured on another catalog or other queries ({identity}, not {bench.identity}); choose "
            "another directory, or delete the file to measure again"
        )
    return rows


def read_rows(file: Path) -> list[Row]:
    """Read the rows of any `rows.json`.

    Raises:
        ModelFileError: the file is missing, damaged or was written by another version.
    """
    return _read(file)[1]


def run(
    bench: Bench,
    methods: Sequence[ComparedMethod],
    out: Path,
    *,
    measure: Literal["recall", "times", "both"] = "recall",
    remeasure: Collection[str] = (),
    log: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure what the rows in `out` lack, one method after another, and save after each row.

    Args:
        bench: the catalog, the queries and their true neighbours.
        methods: the methods in order; a method with nothing left to measure is not built.
        out: directory of `rows.json`.
        measure: "recall" measures recall, bytes and quality of missing rows; "times" measures times of existing rows
            that lack them; "both" does both.
        remeasure: names of rows to measure again even if they exist.
        log: called with one line of text for each measured row.

    Returns:
        All rows of `out`: those of `methods` first, in their order.
    """
    rows = {row.name: row for row in load_rows(out, bench) if row.name not in remeasure}
    for method in methods:
        incomplete = [name for name in method.names if _lacks(rows.get(name), measure)]
        if not incomplete:
            continue
        with method.build(bench.vectors) as built:
            for config in built.configs:
                if config.name in incomplete:
                    row = rows.get(config.name) or _row(bench, config, built)
                    rows[config.name] = row if measure == "recall" else _timed(bench, row, config, built)
                    # Another run may have added rows to the same directory in the meantime.
                    saved = {each.name: each for each in load_rows(out, bench)} | {config.name: rows[config.name]}
                    save_rows(out, bench, list(saved.values()))
                    log(_line(rows[config.name]))
    rows = {row.name: row for row in load_rows(out, bench)} | rows
    order = [name for method in methods for name in method.names if name in rows]
    return [rows[name] for name in dict.fromkeys([*order, *rows])]


def save_rows(out: Path, bench: Bench, rows: Sequence[Row]) -> None:
    """Write `rows.json`."""
    content = {"bench": bench.identity, "catalog": bench.name, "rows": [asdict(row) for row in rows]}
    write_text(out / _FILE, json.dumps(content, indent=1) + "\n")


def _read(file: Path) -> tuple[str, list[Row]]:
    """The identity of the benchmark that the rows were measured on, and the rows."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["bench"]), [Row.from_json(data) for data in content["rows"]]
    except FileNotFoundError as exc:
        raise ModelFileError(
            f"{file} does not exist; give the rows.json that `compressae evaluate --out` or bench_retrieval.py wrote"
        ) from exc
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise ModelFileError(f"{file} does not hold rows of this version ({exc}); delete it to measure again") from exc


def _lacks(row: Row | None, measure: Literal["recall", "times", "both"]) -> bool:
    if row is None:
        return measure != "times"
    return measure != "recall" and row.timing is None


def _row(bench: Bench, config: SearchConfig, built: BuiltIndex) -> Row:
    queries = bench.queries[: bench.drawn]
    found = bench.without_own(config.search_batch(queries, DEPTH + 1))
    first = bench.without_own(config.search_batch(queries, _FIRST + 1))
    truth, own = bench.truth[: bench.drawn], bench.own[: bench.drawn].tolist()
    deep = bootstrap(recall(found, truth, DEPTH))
    quality = {name: agreement(first, own, values) for name, values in bench.fields.items()}
    quality = {name: each[np.isfinite(each)] for name, each in quality.items()}
    return Row(
        config.name, config.family, built.resident, built.disk, float(recall(first, truth, _FIRST).mean()), deep.mean,
        (deep.low, deep.high), {name: float(each.mean()) for name, each in quality.items() if len(each)},
    )  # fmt: skip


def _timed(bench: Bench, row: Row, config: SearchConfig, built: BuiltIndex) -> Row:
    queries = bench.queries[: bench.drawn]
    _, (p50, p95) = timed_search(config.search, queries, DEPTH + 1)
    started = time.perf_counter()
    config.search_batch(queries, _FIRST + 1)
    rate = len(queries) / (time.perf_counter() - started)
    return replace(row, timing=Timing(p50, p95, rate, built.build_seconds, built.encode_seconds))


def _line(row: Row) -> str:
    times = "" if row.timing is None else f", p50 {row.timing.p50_ms:.2f} ms"
    return f"{row.name}: {row.resident:.0f} B, recall@100 {row.recall100:.4f}, @10 {row.recall10:.4f}{times}"
