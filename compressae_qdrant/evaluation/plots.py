"""Plots of a comparison: recall against a cost, with the Pareto front and a label beside each point."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..files import atomic_path
from ..lazy import needs_extra
from ..metrics import pareto_front
from .comparison import Row

with needs_extra("plots", "a plot"):
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    from matplotlib.transforms import Bbox

__all__ = ["Panel", "draw", "figure"]


_Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str
    line: str = "-"


_STYLES: Final = {
    "ours, two stages": _Style("#c1121f", "o"),
    "ours, exhaustive": _Style("#c1121f", "D", ":"),
    "ours, graph": _Style("#c1121f", "h", "--"),
    "ours, originals on disk": _Style("#c1121f", "o"),
    "ours, graph, originals on disk": _Style("#c1121f", "h", "--"),
    "ours": _Style("#c1121f", "*", "none"),
    "ours, refit": _Style("#d9777d", "p", "none"),
    "ours, encoder": _Style("#d9777d", "s", "none"),
    "ours for the encoder, reconstructed": _Style("#d9777d", "s"),
    "ours for the encoder, sparse": _Style("#e5a5a9", "s", "--"),
    "the paper, reconstructed": _Style("#7b2cbf", "s"),
    "the paper, sparse": _Style("#b58be0", "s", "--"),
    "Qdrant, no rescoring": _Style("#1d4e89", "^"),
    "Qdrant, originals on disk": _Style("#1d4e89", "^"),
    "Qdrant, no originals": _Style("#1d4e89", "v", "none"),
    "Faiss RaBitQ": _Style("#0f766e", "P"),
    "Faiss OPQ": _Style("#2a9d4a", "X"),
    "Faiss PQ": _Style("#7aa82f", "x"),
    "PCA": _Style("#e07a00", "d"),
    "truncation": _Style("#c98a1b", "d", "--"),
    "dense": _Style("#222222", "h", "none"),
}
"""Style of each family, in the order of the legend."""
_OTHER: Final = _Style("#555555", "o", "none")

_DPI: Final = 130
_TEXT: Final = 7
_FRONT: Final = "0.82"
_FLOOR: Final = 0.002
"""Offset of 1 - recall, whose logarithm is the vertical axis, so that a recall of 1 is finite."""
_RECALLS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
_MARGIN: Final = 2.0
"""Pixels between labels."""
_SIDES: Final = 16
"""Directions in which a place for a label is tried."""
_LINE_PENALTY: Final = 3.0
"""Penalty of each line pixel under a label, as pixels of distance from its point."""
_REPEAT_DISTANCE: Final = 90.0
"""Pixels within which a label is not repeated in the same colour."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    """Title above the axes."""
    points: Sequence[tuple[Row, float]]
    """Rows and their costs."""
    front: bool = True
    """Whether to draw the Pareto front of low costs."""
    joined: bool = True
    """Whether to join the points of a family by lines."""


def draw(file: Path, title: str, panels: Sequence[Panel], label: str) -> Path:
    """Write `figure` to a PNG file."""
    drawn = figure(title, panels, label)
    with atomic_path(file) as temporary:
        drawn.savefig(temporary, format="png", dpi=_DPI)
    return file


def figure(title: str, panels: Sequence[Panel], label: str) -> Figure:
    """Draw recall@100 of the rows of each panel against their costs.

    Both axes are logarithmic, the vertical one in 1 - recall: halving the missed share is a step of the same size
    everywhere.

    Args:
        title: title of the figure.
        panels: the panels, from left to right.
        label: label of the cost axis.
    """
    widths = [1.55] + [1.0] * (len(panels) - 1)
    drawing = Figure(figsize=(10 if len(panels) == 1 else 15, 6.6), dpi=_DPI, layout="constrained")
    axes = drawing.subplots(1, len(panels), squeeze=False, width_ratios=widths[: len(panels)])[0]
    drawn: dict[str, Artist] = {}
    for panel, axis in zip(panels, axes, strict=True):
        _scales(axis, panel)
        if panel.front:
            best = pareto_front(
                [(cost, row.recall100) for row, cost in panel.points],
                cost=lambda point: point[0],
                gains=lambda point: point[1:],
            )
            drawn["Pareto front"] = axis.step(
                [*(x for x, _ in best), axis.get_xlim()[1]], [*(y for _, y in best), best[-1][1]], where="post",
                color=_FRONT, linewidth=5, solid_joinstyle="round", zorder=0,
            )[0]  # fmt: skip
        for family, members in _families(panel):
            style = _STYLES.get(family, _OTHER)
            drawn[family] = axis.plot(
                [cost for _, cost in members], [row.recall100 for row, _ in members], color=style.colour,
                marker=style.marker, markersize=8 if style.marker == "*" else 5.5, linewidth=1.3,
                linestyle=style.line if panel.joined else "none",
            )[0]  # fmt: skip
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel(label)
        axis.set_ylabel("recall@100")
        axis.grid(alpha=0.25)
    names = [name for name in dict.fromkeys(("Pareto front", *_STYLES, *drawn)) if name in drawn]
    drawing.legend([drawn[name] for name in names], names, loc="outside right center", fontsize=8, frameon=False)
    drawing.suptitle(title, fontsize=12)
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()  # type: ignore[no-untyped-call]  # fixes the layout, so that labels can be placed in pixels
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    drawing.set_layout_engine("none")
    for panel, axis in zip(panels, axes, strict=True):
        _label_points(renderer, axis, panel)
    return drawing


def _families(panel: Panel) -> Iterator[tuple[str, list[tuple[Row, float]]]]:
    """The families of a panel in the order of the legend, each with its points by bytes."""
    present = [row.family for row, _ in panel.points]
    for family in dict.fromkeys([*(name for name in _STYLES if name in present), *present]):
        yield family, sorted((p for p in panel.points if p[0].family == family), key=lambda p: (p[0].resident, p[1]))


def _scales(axis: Axes, panel: Panel) -> None:
    costs, recalls = [cost for _, cost in panel.points], [row.recall100 for row, _ in panel.points]
    axis.set_xscale("log", base=2)
    axis.set_xlim(min(costs) / 1.2, max(costs) * 1.25)
    low, high = axis.get_xlim()
    halves = 1 if math.log2(high / low) > 4 else 2
    steps = range(math.floor(halves * math.log2(low)), math.ceil(halves * math.log2(high)) + 1)
    marks = [2.0 ** (step // halves) * (1 + step % halves / 2) for step in steps]
    axis.xaxis.set_major_locator(FixedLocator([mark for mark in marks if low <= mark <= high]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axis.set_yscale("function", functions=(_missed_log, _missed_exp))
    bottom, top = _missed_log(np.array([min(recalls), max(recalls)], np.float64))
    room = 0.06 * max(top - bottom, 0.3)
    lowest, highest = _missed_exp(np.array([bottom - room, top + room]))
    axis.set_ylim(max(float(lowest), 0.0), min(float(highest), 1.0))
    axis.yaxis.set_major_locator(FixedLocator([mark for mark in _RECALLS if lowest <= mark <= highest]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _missed_log(recall: _Pixels) -> _Pixels:
    missed: _Pixels = -np.log(np.maximum(1 + _FLOOR - recall, _FLOOR))
    return missed


def _missed_exp(value: _Pixels) -> _Pixels:
    recall: _Pixels = 1 + _FLOOR - np.exp(-value)
    return recall


def _label_points(renderer: RendererAgg, axis: Axes, panel: Panel) -> None:
    """Place a short label beside each point, overlapping no other label or point, and as little of lines as possible.

    A label without a free place is left out, as is one that repeats the label of a near point of the same colour.
    """
    frame = axis.get_window_extent(renderer).padded(-3)
    pixels = {id(row): axis.transData.transform((cost, row.recall100)) for row, cost in panel.points}
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels.values()]
    lines = _line_pixels(axis, panel)
    labels: list[tuple[str, str, _Pixels]] = []
    ours_first = sorted(panel.points, key=lambda p: (not p[0].family.startswith("ours"), -p[0].recall100))
    for row, _ in ours_first:
        text, point = _short(row), pixels[id(row)]
        colour = _STYLES.get(row.family, _OTHER).colour
        if any(t == text and c == colour and np.hypot(*(point - where)) < _REPEAT_DISTANCE for t, c, where in labels):
            continue
        probe = axis.text(0, 0, text, fontsize=_TEXT)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        places = []
        for distance in (9.0, 14.0, 20.0, 28.0):
            for side in range(_SIDES):
                angle = 2 * math.pi * side / _SIDES
                # The distance is from the point to the nearest edge of the label, in every direction.
                x = point[0] + math.cos(angle) * (distance + extent.width / 2)
                y = point[1] + math.sin(angle) * (distance + extent.height / 2)
                box = Bbox.from_bounds(x - extent.width / 2, y - extent.height / 2, extent.width, extent.height)
                padded = box.padded(_MARGIN)
                inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
                if inside and not any(padded.overlaps(other) for other in taken):
                    covered = (lines[:, 0] > padded.x0) & (lines[:, 0] < padded.x1)
                    covered &= (lines[:, 1] > padded.y0) & (lines[:, 1] < padded.y1)
                    places.append((distance + _LINE_PENALTY * int(covered.sum()), x, y, box))
        if places:
            _, x, y, box = min(places, key=lambda place: place[0])
            taken.append(box)
            labels.append((text, colour, point))
            axis.annotate(
                text, (x, y), xycoords="figure pixels", ha="center", va="center", fontsize=_TEXT, color=colour
            )


def _line_pixels(axis: Axes, panel: Panel) -> _Pixels:
    """(p, 2) pixels of the lines between points, about every fourth one."""
    pixels = [np.empty((0, 2))]
    for family, members in _families(panel):
        if panel.joined and _STYLES.get(family, _OTHER).line != "none":
            path = axis.transData.transform([(cost, row.recall100) for row, cost in members])
            for start, end in itertools.pairwise(path):
                steps = max(2, int(np.hypot(*(end - start)) / 4))
                pixels.append(start + np.linspace(0, 1, steps)[:, None] * (end - start))
    return np.concatenate(pixels)


def _short(row: Row) -> str:
    """The part of a row's name that distinguishes it within its family."""
    if row.family in ("ours", "ours, refit", "ours, encoder"):
        return row.name.rpartition(", ")[2]
    found = re.search(r"k=\d+", row.name)
    if found:
        return found[0]
    name = re.sub(r" \+ (originals|HNSW)|, no originals|^Faiss |^TurboQuant |^PCA |^truncation ", "", row.name)
    return name.replace("dense float32", "float32").replace("RaBitQ ", "").replace(" stored", "")
