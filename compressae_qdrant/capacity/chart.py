"""A picture of a capacity plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..lazy import needs_extra
from .planner import GIB, Estimate

__all__ = ["draw_plan"]


def draw_plan(file: Path, estimates: Sequence[Estimate], title: str) -> None:
    """Write a PNG of bars: memory, disk and queries/s per core of each method, and its cost if there are prices.

    Raises:
        MissingExtraError: Matplotlib is not installed (extra `plots`).
    """
    with needs_extra("plots", "a plot"):
        from matplotlib.figure import Figure
    panels = [
        ("memory of all replicas, GiB", [each.replicas * each.resident_bytes / GIB for each in estimates]),
        ("disk of all replicas, GiB", [each.replicas * each.disk_bytes / GIB for each in estimates]),
        ("queries/s per core", [each.queries_per_core for each in estimates]),
    ]
    costs = [each.usd for each in estimates if each.usd is not None]
    if len(costs) == len(estimates):
        panels.append(("USD per month", costs))
    figure = Figure(figsize=(3.2 * len(panels) + 2, 0.32 * len(estimates) + 1.6), layout="constrained")
    for axes, (label, values) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        colours = ["tab:red" if each.name.startswith("codes") else "tab:blue" for each in estimates]
        bars = axes.barh([each.name for each in estimates], values, color=colours)
        axes.bar_label(bars, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values], padding=3)
        axes.margins(x=0.25)
        axes.set_xlabel(label)
        if label.startswith("queries"):
            axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    figure.suptitle(title)
    figure.savefig(file, dpi=120)
