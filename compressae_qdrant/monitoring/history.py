"""The history of a monitor: a file with one JSON line for each report, and its plot."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..files import atomic_path
from ..lazy import needs_extra
from .checks import Report

__all__ = ["append_report", "plot_history", "read_history"]

_TITLES = {
    "cosine_loss": "cosine loss, 1 − cos(x, x̂)",
    "psi": "population stability index of latent use",
    "posting_mass": "posting mass",
    "dead_latents": "dead latents",
    "hot_latents": "hot latents",
    "recall": "recall@10, spot check",
}


def append_report(path: Path, report: Report, *, model: str, source: str, time: datetime) -> None:
    """Append a report to a history in one durable write.

    If a killed run left an incomplete last line, the line is ended first, so that it does not damage the new one.
    """
    line = {"time": time.isoformat(timespec="seconds"), "model": model, "source": source, "drifted": report.drifted}
    text = json.dumps({**line, **dataclasses.asdict(report)}, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_history(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the reports of a history, oldest first, and the number of incomplete lines, which are skipped.

    Raises:
        SourceError: the file cannot be read, or is not a history.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        raise SourceError(f"cannot read the history {path}: {exc}") from exc
    entries, broken = [], 0
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            broken += 1
            continue
        if entry is not None and not (isinstance(entry, dict) and {"time", "checks"} <= set(entry)):
            raise SourceError(f"line {number} of {path} is not a monitoring report; choose another history file")
        entries += [entry] if entry is not None else []
    return entries, broken


def plot_history(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot each measure with its expected value and threshold as a PNG; drifts are red.

    Reports are evenly spaced and labelled with their times, because batches may arrive at irregular intervals.

    Raises:
        MissingExtraError: Matplotlib is not installed (extra `plots`).
    """
    with needs_extra("plots", "a plot"):
        from matplotlib.figure import Figure

    names = [name for name in _TITLES if any(name in entry["checks"] for entry in entries)]
    if not names:
        raise SourceError("the history has no reports to plot; run compressae monitor first")
    rows = (len(names) + 1) // 2
    figure = Figure(figsize=(11, 2.6 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).reshape(-1)
    for name, axes in zip(names, grid, strict=False):
        checks = [(at, entry["checks"][name]) for at, entry in enumerate(entries) if name in entry["checks"]]
        at = [place for place, _ in checks]
        value, expected, threshold = (
            [check[what] for _, check in checks] for what in ("value", "expected", "threshold")
        )
        axes.fill_between(at, expected, threshold, color="0.85", label="expected to threshold")
        axes.plot(at, value, color="tab:blue", marker="o", markersize=4, label="measured")
        drifted = [(place, check["value"]) for place, check in checks if check["drifted"]]
        if drifted:
            axes.plot(*zip(*drifted, strict=True), "o", color="tab:red", label="drift")
        axes.set_title(_TITLES[name], fontsize=10)
        axes.grid(alpha=0.3)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes in grid[max(len(names) - 2, 0) : len(names)]:
        step = max(1, -(-len(entries) // 5))
        ticks = list(range(0, len(entries), step))
        axes.set_xticks(ticks, [entries[tick]["time"][:16].replace("T", "\n") for tick in ticks], fontsize=8)
        axes.tick_params(labelbottom=True)
    figure.suptitle(f"{len(entries)} reports, {sum(bool(entry['drifted']) for entry in entries)} with drift")
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
