"""A picture of the settings that a search measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..lazy import needs_extra
from .points import Goal, TrialPoint, front

__all__ = ["draw_front"]


def draw_front(file: Path, points: Sequence[TrialPoint], goal: Goal, chosen: TrialPoint | None) -> None:
    """Write a PNG of recall against bytes: all points, the Pareto front, the goal and the chosen point.

    Raises:
        MissingExtraError: Matplotlib is not installed (extra `plots`).
    """
    with needs_extra("plots", "a plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for latents in sorted({point.latents for point in points}):
        members = [point for point in points if point.latents == latents]
        sizes, recalls = [point.bytes for point in members], [point.recall for point in members]
        axes.scatter(sizes, recalls, s=12, alpha=0.5, label=f"{latents:,} latents")
    best = front(points)
    axes.step([point.bytes for point in best], [point.recall for point in best], where="post", color="black",
              linewidth=1, label="Pareto front")  # fmt: skip
    if goal.budget is not None:
        axes.axvline(goal.budget, color="tab:red", linestyle="--", label="budget")
    if goal.recall is not None:
        axes.axhline(goal.recall, color="tab:red", linestyle="--", label="target recall")
    if chosen is not None:
        axes.scatter([chosen.bytes], [chosen.recall], s=90, marker="*", color="tab:red", zorder=3, label="chosen")
        axes.annotate(f"k={chosen.k}, {chosen.first_stage}, {chosen.datatype}", (chosen.bytes, chosen.recall), (8, -12),
                      textcoords="offset points")  # fmt: skip
    axes.set_xlabel("bytes per item in memory, whole catalog")
    axes.set_ylabel(f"recall@{goal.depth} on the sample")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(file, dpi=120)
