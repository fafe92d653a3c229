"""Rows of a comparison as a Markdown table, and as plots of recall against bytes, time and compression factor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..files import write_text
from .comparison import Row

__all__ = ["table", "write_report"]

_PAPERS_FIGURE: Final = (
    "ours, exhaustive", "ours, two stages", "ours for the encoder, reconstructed", "ours for the encoder, sparse",
    "the paper, reconstructed", "the paper, sparse", "PCA", "truncation",
)  # fmt: skip
_IN_MEMORY: Final = "without original vectors"
_WITH_ORIGINALS: Final = "rescored with original vectors on disk"


def write_report(out: Path, catalog: str, rows: Sequence[Row], dense_bytes: int) -> list[Path]:
    """Write table.md, recall_bytes.png, recall_compression.png and, if any row was timed, recall_latency.png.

    Args:
        out: directory of the files.
        catalog: name of the catalog, for titles.
        rows: the measured rows.
        dense_bytes: bytes of an uncompressed embedding.

    Returns:
        The files that were written.

    Raises:
        MissingExtraError: Matplotlib is not installed (extra `plots`).
    """
    from .plots import Panel, draw  # needs the extra `plots`

    title = f"{catalog}: recall of the true top 100"
    write_text(out / "table.md", table(rows))
    memory = [row for row in rows if not row.family.endswith("originals on disk")]
    disk = [row for row in rows if row.family.endswith("originals on disk") or row.family == "dense"]
    panels = [(_IN_MEMORY, memory)] + [(_WITH_ORIGINALS, disk)] * any(row.family != "dense" for row in disk)
    files = [out / "table.md"]
    by_bytes = [Panel(name, [(row, row.resident) for row in shown]) for name, shown in panels]
    files.append(draw(out / "recall_bytes.png", title, by_bytes, "bytes per item in memory"))
    if any(row.timing for row in rows):
        by_time = [
            Panel(name, [(row, row.timing.p50_ms) for row in shown if row.timing], joined=False)
            for name, shown in panels
        ]
        label = "median latency of a query for 101 hits, ms"
        files.append(draw(out / "recall_latency.png", title, [panel for panel in by_time if panel.points], label))
    factors = [(row, dense_bytes / row.resident) for row in rows if row.family in _PAPERS_FIGURE]
    if factors:
        panel = Panel("memory relative to dense float32", factors, front=False)
        files.append(draw(out / "recall_compression.png", title, [panel], "compression factor against dense float32"))
    return files


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with columns of times if any row was timed."""
    fields = sorted({name for row in rows for name in row.quality})
    timed = any(row.timing for row in rows)
    head = ["method", "bytes in memory", "bytes on disk", "recall@10", "recall@100 (95%)", *fields]
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


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
