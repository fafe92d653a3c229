"""Rows of a comparison as a Markdown table and as plots: recall against bytes, time and compression factor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..files import atomic_path, write_text
from .running import Row

__all__ = ["pareto", "table", "write_report"]


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str
    line: str = "-"


_STYLES: Final = {
    "ours, two stages": _Style("#c1121f", "o"),
    "ours, exhaustive": _Style("#c1121f", "D", ":"),
    "ours, originals on disk": _Style("#c1121f", "o"),
    "ours": _Style("#c1121f", "o", ""),
    "ours, refit": _Style("#e08a8f", "o", ""),
    "ours, encoder": _Style("#e08a8f", "s", ""),
    "the paper, reconstructed": _Style("#7b2cbf", "s"),
    "the paper, sparse": _Style("#b58be0", "s", "--"),
    "Qdrant, no rescoring": _Style("#1d4e89", "^"),
    "Qdrant, originals on disk": _Style("#1d4e89", "^"),
    "Qdrant, no originals": _Style("#1d4e89", "v", ""),
    "Faiss RaBitQ": _Style("#0f766e", "P"),
    "Faiss OPQ": _Style("#2a9d4a", "X"),
    "Faiss PQ": _Style("#8bc34a", "x"),
    "PCA": _Style("#e07a00", "d"),
    "truncation": _Style("#f4b860", "d", "--"),
    "dense": _Style("#222222", "h", ""),
}
"""How each family is drawn, and in which order the legend lists it."""

_FRONT: Final = "0.75"
_PAPERS_FIGURE: Final = (
    "ours, exhaustive", "ours, two stages", "the paper, reconstructed", "the paper, sparse", "PCA", "truncation",
)  # fmt: skip


def write_report(out: Path, catalog: str, rows: Sequence[Row], dense_bytes: int) -> list[Path]:
    """Write table.md, recall_bytes.png and recall_compression.png, and recall_latency.png once something was timed.

    Args:
        out: directory.
        catalog: its name, for titles.
        rows: what was measured.
        dense_bytes: bytes of an uncompressed item.

    Returns:
        The files.
    """
    title = f"{catalog}: share of the true top 100 that is found"
    files = [out / "table.md"]
    write_text(files[0], table(rows))
    disk = [row for row in rows if row.family.endswith("originals on disk") or row.family == "dense"]
    memory = [row for row in rows if not row.family.endswith("originals on disk")]
    panels = [("nothing but what is in memory", memory)]
    if any(row.family != "dense" for row in disk):
        panels.append(("originals on disk rescore the last candidates", disk))
    files.append(_draw(out / "recall_bytes.png", title, panels, lambda row: row.resident, "bytes an item in memory"))
    timed = [(name, [row for row in rows if row.timing]) for name, rows in panels]
    if any(rows for _, rows in timed):
        files.append(_draw(out / "recall_latency.png", title, timed, _p50, "median time of one query for 101 hits, ms"))
    drawn = [("bytes in memory against dense float32", [row for row in rows if row.family in _PAPERS_FIGURE])]
    if drawn[0][1]:
        files.append(_draw(out / "recall_compression.png", title, drawn, lambda row: dense_bytes / row.resident,
                           "times smaller than dense float32", front=False))  # fmt: skip
    return files


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown; columns of times only if something was timed."""
    fields = sorted({name for row in rows for name in row.quality})
    timed = any(row.timing for row in rows)
    head = ["method", "B in memory", "B on disk", "recall@10", "recall@100 (95%)", *fields]
    if timed:
        head += ["p50 / p95 ms", "queries/s", "build s", "encode s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        low, high = row.interval
        cells = [row.name, f"{row.resident:,.0f}", _number(row.disk, "{:,.0f}"), f"{row.recall10:.3f}",
                 f"{row.recall100:.4f} ({low:.3f}..{high:.3f})",
                 *(_number(row.quality.get(name), "{:.3f}") for name in fields)]  # fmt: skip
        if timed:
            times = row.timing
            cells += ["", "", "", ""] if times is None else [
                f"{times.p50_ms:.1f} / {times.p95_ms:.1f}", f"{times.queries_per_second:,.0f}",
                _number(times.build_seconds, "{:,.0f}"), _number(times.encode_seconds, "{:,.0f}"),
            ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, gain) those that no cheaper one equals or beats, by cost."""
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _p50(row: Row) -> float:
    assert row.timing is not None
    return row.timing.p50_ms


def _draw(
    file: Path,
    title: str,
    panels: Sequence[tuple[str, Sequence[Row]]],
    cost: Callable[[Row], float],
    label: str,
    *,
    front: bool = True,
) -> Path:
    widths = [1.6] + [1.0] * (len(panels) - 1)
    figure = Figure(figsize=(8 if len(panels) == 1 else 13, 6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for (name, rows), axis in zip(panels, axes, strict=True):
        points = [(cost(row), row.recall100) for row in rows]
        if front and points:
            best = pareto(points)
            axis.step([x for x, _ in best], [y for _, y in best], where="post", color=_FRONT, linewidth=6,
                      solid_joinstyle="round", zorder=0, label="Pareto front")  # fmt: skip
        for family, style in _STYLES.items():
            members = sorted((row for row in rows if row.family == family), key=cost)
            if members:
                x, y = [cost(row) for row in members], [row.recall100 for row in members]
                axis.plot(x, y, style.line or "none", color=style.colour, marker=style.marker, markersize=6,
                          linewidth=1.3, label=family)  # fmt: skip
        axis.set_xscale("log", base=2)
        _ticks(axis, [x for x, _ in points])
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(label)
        axis.set_ylabel("recall@100")
        axis.grid(alpha=0.25)
        axis.legend(loc="lower right" if front else "lower left", fontsize=8, framealpha=0.9)
        figure.canvas.draw()  # fixes the layout, so that labels can be kept apart in pixels
        _label(axis, [(row, cost(row)) for row in rows])
    figure.suptitle(title, fontsize=12)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return file


def _ticks(axis: Axes, values: Sequence[float]) -> None:
    if values:
        axis.set_xlim(min(values) / 1.25, max(values) * 1.35)
    low, high = axis.get_xlim()
    marks = [step * 2.0**power for power in range(-6, 20) for step in (1, 1.5) if low <= step * 2.0**power <= high]
    axis.xaxis.set_major_locator(FixedLocator(marks if len(marks) < 16 else marks[::2]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))


def _label(axis: Axes, points: Sequence[tuple[Row, float]]) -> None:
    """Short names beside points; one that would cover a name or a point tries other sides, and is left out at last."""
    taken = [(*_pixels(axis, x, row), 5.0, 5.0) for row, x in points]
    for row, x in sorted(points, key=lambda point: (not point[0].family.startswith("ours"), -point[0].recall100)):
        text = _short(row)
        at_x, at_y = _pixels(axis, x, row)
        width, height = 3.1 * len(text) + 2, 5.5
        for dx, dy in ((0, 12), (0, -13), (width + 8, 0), (-width - 8, 0), (width + 6, -9), (-width - 6, 9)):
            box = (at_x + dx, at_y + dy, width, height)
            if not any(abs(box[0] - x) < box[2] + w and abs(box[1] - y) < box[3] + h for x, y, w, h in taken):
                taken.append(box)
                style = _STYLES.get(row.family, _Style("black", "o"))
                axis.annotate(text, (at_x + dx, at_y + dy), xycoords="figure pixels", ha="center", va="center",
                              fontsize=7, color=style.colour)  # fmt: skip
                break


def _pixels(axis: Axes, x: float, row: Row) -> tuple[float, float]:
    left, up = axis.transData.transform((x, row.recall100))
    return float(left), float(up)


def _short(row: Row) -> str:
    """What tells a point from the others of its family."""
    found = re.search(r"k=\d+", row.name)
    if found:
        return found[0]
    name = re.sub(r" \+ (originals|HNSW)|, no originals|^Faiss |^TurboQuant |^PCA |^truncation ", "", row.name)
    return name.replace("dense float32", "float32").replace("RaBitQ ", "").replace(" stored", "")
