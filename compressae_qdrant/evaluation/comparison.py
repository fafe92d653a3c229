"""Rows of a comparison: recall, bytes and quality of every contender, and its times, kept in a file and resumable.

Recall and bytes are the same on a busy machine; times are not. So they are measured apart, and either can be done
without the other.
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
from .methods import Built, Contender, Way
from .timed_search import timed_search

__all__ = ["Row", "Timing", "load_rows", "read_rows", "run", "save_rows"]

_FILE: Final = "rows.json"
_FIRST: Final = 10
"""Hits of a second search, for so few: it may look at fewer candidates than the first of a search for many."""


@dataclass(frozen=True)
class Timing:
    """How long one row takes."""

    p50_ms: float
    """Median time of one query for 101 hits."""
    p95_ms: float
    queries_per_second: float
    """Of a batch of all queries for 11 hits."""
    build_seconds: float | None
    encode_seconds: float | None


@dataclass(frozen=True)
class Row:
    """One way to ask one index, measured."""

    name: str
    family: str
    resident: float
    """Bytes an item in memory."""
    disk: float | None
    """Bytes an item on disk; None where the method lives in memory alone."""
    recall10: float
    """Of a search for ten."""
    recall100: float
    interval: tuple[float, float]
    """95% of recall100, over queries."""
    quality: dict[str, float]
    """Agreement of the first ten with the query's item, by payload field."""
    timing: Timing | None = None

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From JSON."""
        timing = data.get("timing")
        interval = (data["interval"][0], data["interval"][1])
        return cls(**{**data, "interval": interval, "timing": None if timing is None else Timing(**timing)})


def load_rows(out: Path, bench: Bench) -> list[Row]:
    """The rows that are in a directory already.

    Raises:
        ModelFileError: their file is damaged or another version's.
        ConfigError: they were measured on another catalog or with other queries.
    """
    file = out / _FILE
    if not file.exists():
        return []
    identity, rows = _read(file)
    if identity != bench.identity:
        raise ConfigError(
            f"{file} holds rows of another catalog or other queries ({identity}, not {bench.identity}); choose another "
            "directory, or delete it to measure again"
        )
    return rows


def read_rows(file: Path) -> list[Row]:
    """The rows of any `rows.json`, to show them.

    Raises:
        ModelFileError: the file is missing, damaged or another version's.
    """
    return _read(file)[1]


def run(
    bench: Bench,
    contenders: Sequence[Contender],
    out: Path,
    *,
    measure: Literal["recall", "times", "both"] = "recall",
    again: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure what the rows in `out` lack, one contender after another, and keep each row at once.

    Args:
        bench: what is measured on.
        contenders: in order; those with nothing to measure are not even built.
        out: directory of `rows.json`.
        measure: recall, bytes and quality of rows that are missing; times of rows that are there without them; or both
            of rows that lack either.
        again: names of rows to measure anew even if they are there.
        say: called with a line for each row.

    Returns:
        All rows of `out`, those of `contenders` first and in their order.
    """
    rows = {row.name: row for row in load_rows(out, bench) if row.name not in again}
    for contender in contenders:
        wanted = [name for name in contender.names if _lacks(rows.get(name), measure)]
        if not wanted:
            continue
        with contender.build(bench.vectors) as built:
            for way in built.ways:
                if way.name in wanted:
                    row = rows.get(way.name) or _row(bench, way, built)
                    rows[way.name] = row if measure == "recall" else _timed(bench, row, way, built)
                    # Another run may have added rows to the same directory meanwhile.
                    kept = {each.name: each for each in load_rows(out, bench)} | {way.name: rows[way.name]}
                    save_rows(out, bench, list(kept.values()))
                    say(_line(rows[way.name]))
    rows = {row.name: row for row in load_rows(out, bench)} | rows
    order = [name for contender in contenders for name in contender.names if name in rows]
    return [rows[name] for name in dict.fromkeys([*order, *rows])]


def save_rows(out: Path, bench: Bench, rows: Sequence[Row]) -> None:
    """Write `rows.json`."""
    content = {"bench": bench.identity, "catalog": bench.name, "rows": [asdict(row) for row in rows]}
    write_text(out / _FILE, json.dumps(content, indent=1) + "\n")


def _read(file: Path) -> tuple[str, list[Row]]:
    """What rows were measured on, and they."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return str(kept["bench"]), [Row.of(data) for data in kept["rows"]]
    except FileNotFoundError as exc:
        raise ModelFileError(
            f"there is no file {file}; give rows.json of bench_retrieval.py or evaluate --out"
        ) from exc
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise ModelFileError(f"{file} holds no rows of this version ({exc}); delete it to measure again") from exc


def _lacks(row: Row | None, measure: Literal["recall", "times", "both"]) -> bool:
    if row is None:
        return measure != "times"
    return measure != "recall" and row.timing is None


def _row(bench: Bench, way: Way, built: Built) -> Row:
    queries = bench.queries[: bench.drawn]
    found = bench.without_own(way.search_batch(queries, DEPTH + 1))
    first = bench.without_own(way.search_batch(queries, _FIRST + 1))
    truth, own = bench.truth[: bench.drawn], bench.own[: bench.drawn].tolist()
    deep = bootstrap(recall(found, truth, DEPTH))
    quality = {name: agreement(first, own, values) for name, values in bench.fields.items()}
    quality = {name: each[np.isfinite(each)] for name, each in quality.items()}
    return Row(
        way.name, way.family, built.resident, built.disk, float(recall(first, truth, _FIRST).mean()), deep.mean,
        (deep.low, deep.high), {name: float(each.mean()) for name, each in quality.items() if len(each)},
    )  # fmt: skip


def _timed(bench: Bench, row: Row, way: Way, built: Built) -> Row:
    queries = bench.queries[: bench.drawn]
    _, (p50, p95) = timed_search(way.search, queries, DEPTH + 1)
    started = time.perf_counter()
    way.search_batch(queries, _FIRST + 1)
    rate = len(queries) / (time.perf_counter() - started)
    return replace(row, timing=Timing(p50, p95, rate, built.build_seconds, built.encode_seconds))


def _line(row: Row) -> str:
    times = "" if row.timing is None else f", p50 {row.timing.p50_ms:.2f} ms"
    return f"{row.name}: {row.resident:.0f} B, recall@100 {row.recall100:.4f}, @10 {row.recall10:.4f}{times}"
