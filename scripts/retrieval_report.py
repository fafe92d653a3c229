"""The results of bench_retrieval.py as a Markdown table and three plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from compressae_qdrant.files import write_text

__all__ = ["Row", "write_report"]

COLOURS = {
    "ours": "tab:red",
    "ours, originals on disk": "firebrick",
    "ours, by encoder": "lightcoral",
    "the paper": "tab:purple",
    "Qdrant, no rescoring": "tab:blue",
    "Qdrant, no originals": "navy",
    "Qdrant, originals on disk": "tab:cyan",
    "Faiss": "tab:green",
    "reduced": "tab:orange",
    "dense": "black",
}


@dataclass(frozen=True)
class Row:
    """One method, measured."""

    name: str
    family: str
    resident: float
    disk: float | None
    recall10: float
    recall100: float
    interval: tuple[float, float]
    p50_ms: float
    p95_ms: float
    queries_per_second: float
    build_seconds: float
    encode_seconds: float | None
    section: float
    tags: float

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From JSON."""
        low, high = data["interval"]
        return cls(**{**data, "interval": (low, high)})


def write_report(out: Path, catalog: str, rows: Sequence[Row], dense_bytes: int) -> None:
    """Write table.md, recall_bytes.png, recall_latency.png and recall_compression.png."""
    write_text(out / "table.md", _table(rows))
    title = f"{catalog}: recall@100 against exact dense search"
    _scatter(out / "recall_bytes.png", title, rows, "resident", "bytes an item in memory", front=True)
    _scatter(out / "recall_latency.png", title, rows, "p50_ms", "median time of one query for 101 hits, ms", front=True)
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    series = {
        "ours": "codes by pursuit, exhaustive",
        "the paper": "the paper's recipe",
        "reduced": "truncation and PCA",
    }
    for family, label in series.items():
        _factors(axes, [row for row in rows if row.family == family], dense_bytes, label, COLOURS[family])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("times smaller than dense float32, in memory")
    axes.set_ylabel("recall@100")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(title)
    figure.savefig(out / "recall_compression.png", dpi=120)


def _table(rows: Sequence[Row]) -> str:
    head = ["method", "B in memory", "B on disk", "recall@10", "recall@100 (95%)", "p50 / p95 ms", "queries/s",
            "build s", "encode s", "section", "tags nDCG@10"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in sorted(rows, key=lambda row: (list(COLOURS).index(row.family), row.resident)):
        low, high = row.interval
        cells = [
            row.name, f"{row.resident:,.0f}", "" if row.disk is None else f"{row.disk:,.0f}", f"{row.recall10:.3f}",
            f"{row.recall100:.4f} ({low:.3f}..{high:.3f})", f"{row.p50_ms:.1f} / {row.p95_ms:.1f}",
            f"{row.queries_per_second:,.0f}", f"{row.build_seconds:,.0f}",
            "" if row.encode_seconds is None else f"{row.encode_seconds:,.0f}", f"{row.section:.3f}", f"{row.tags:.3f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scatter(path: Path, title: str, rows: Sequence[Row], field: str, label: str, front: bool) -> None:
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots()
    for family, colour in COLOURS.items():
        points = [row for row in rows if row.family == family]
        if points:
            axes.scatter(
                [getattr(row, field) for row in points], [row.recall100 for row in points], color=colour, label=family,
                s=70 if family == "ours" else 30, zorder=3 if family == "ours" else 2,
            )  # fmt: skip
    if front:
        best = pareto([(getattr(row, field), row.recall100) for row in rows])
        axes.step([x for x, _ in best], [y for _, y in best], where="post", color="0.6", zorder=1, label="Pareto front")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("recall@100")
    axes.set_ylim(top=1.03)
    axes.set_xlim(right=axes.get_xlim()[1] * 1.4)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.canvas.draw()  # fixes the layout, so that labels can be kept apart in pixels
    _label(axes, [(row.name, getattr(row, field), row.recall100) for row in rows])
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _label(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names beside points, moved down until they cover no other name."""
    placed: list[tuple[float, float, float]] = []
    for name, x, y in sorted(points, key=lambda point: -point[2]):
        left, height = axes.transData.transform((x, y))
        at, width = height, 4.2 * len(name)
        while any(abs(at - other) < 8 and left < end and begin < left + width for begin, end, other in placed):
            at -= 3
        placed.append((left, left + width, at))
        axes.annotate(
            name, (x, y), (6, (at - height) * 72 / 100 - 2), textcoords="offset points", fontsize=6,
            arrowprops={"arrowstyle": "-", "color": "0.8", "linewidth": 0.5} if height - at > 9 else None,
        )  # fmt: skip


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no cheaper one beats, by cost."""
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


def _factors(axes: Axes, rows: Sequence[Row], dense_bytes: int, label: str, colour: str) -> None:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        way = row.name.rpartition(", ")[2] if ", " in row.name else row.name.split()[0]
        groups.setdefault(way, []).append(row)
    for marker, (way, members) in zip("os^D", groups.items(), strict=False):
        members.sort(key=lambda row: row.resident)
        axes.plot(
            [dense_bytes / row.resident for row in members], [row.recall100 for row in members], marker=marker,
            color=colour, label=f"{label.partition(',')[0]}: {way}",
        )  # fmt: skip
