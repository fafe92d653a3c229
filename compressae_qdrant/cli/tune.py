"""compressae tune: find settings for a memory budget or a recall."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import ConfigError
from .groups import EmbeddingOptions
from .inputs import open_catalog
from .options import (
    JsonOption,
    SourceArgument,
)
from .output import print_json

if TYPE_CHECKING:
    from ..tuning import Goal, TrialPoint, TuneResult

__all__ = ["tune"]


def tune(
    *,
    source: SourceArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="TOML file to write the chosen settings to.")
    ],
    budget: Annotated[
        float | None, typer.Option(help="Maximum memory per item, in bytes. Give this or --recall.")
    ] = None,
    recall: Annotated[
        float | None, typer.Option(help="Recall to reach with the least memory, from 0 to 1. Give this or --budget.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Number of hits that recall is measured at.")] = 100,
    items: Annotated[
        int | None,
        typer.Option(
            help="Number of items in the whole catalog, if SOURCE is a part of it.", show_default="rows of SOURCE"
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Maximum number of items to train and measure on.")] = 20_000,
    queries: Annotated[int, typer.Option(help="Number of items of the sample used as queries.")] = 300,
    k: Annotated[list[int], typer.Option(help="Non-zeros of a code (k) to try. May be repeated.")] = [8, 16, 30, 60],  # noqa: B006
    latents: Annotated[
        list[int], typer.Option(help="Latents of the model (h) to try. May be repeated.")
    ] = [1024, 2048, 4096, 8192],  # noqa: B006
    datatype: Annotated[
        list[str], typer.Option(help="Types of the values in the index to try. May be repeated.")
    ] = ["uint8", "float16", "float32"],  # noqa: B006
    first_stage: Annotated[
        list[str], typer.Option(metavar="[graph|codes]", help="What finds the candidates of a search: the graph of "
                                "navigation vectors, or the inverted index of the codes. May be repeated."),
    ] = ["graph", "codes"],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Optimiser steps of each short training.")] = 200,
    rounds: Annotated[int, typer.Option(help="Rounds of dictionary refinement of each short training.")] = 6,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes after which no further training is started.", show_default="no limit")
    ] = None,
    work: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="Working directory, from which the same command resumes.")
    ] = Path("tune"),
    seed: Annotated[
        int, typer.Option(help="Random seed for drawing the sample and the queries, and for training.")
    ] = 0,
    columns: EmbeddingOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Find settings that fit a memory budget or reach a recall, on a sample of the catalog.

    The command searches k, latents, datatype and query plan, and writes the best combination to a file for --config
    of `train`, `ingest` and `search`. If it is interrupted, run it again: it resumes where it stopped.

    Example:
        compressae tune sample --budget 150 --out tuned.toml
    """
    from ..capacity import load_constants
    from ..sources import draw_embeddings
    from ..tuning import Goal, SearchSpace, TargetCatalog, choose, draw_front, front
    from ..tuning import tune as search_settings

    goal = Goal(budget, recall, depth)
    catalog = open_catalog(source, columns)
    rows, catalog_rows = draw_embeddings(catalog, sample, seed=seed)
    items = items or catalog_rows
    space = SearchSpace(
        latents=tuple(latents), k=tuple(k), datatypes=tuple(datatype),  # type: ignore[arg-type]  # checked inside
        first_stages=tuple(first_stage), steps=steps, rounds=rounds,  # type: ignore[arg-type]  # checked inside
    )  # fmt: skip
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False), disable=json_output,
    )  # fmt: skip
    with bar:
        task = bar.add_task("tune", total=1.0)
        result = search_settings(
            rows, work, goal, TargetCatalog(items, load_constants()), space, queries=queries, seed=seed,
            minutes=minutes,
            progress=lambda stage, share: bar.update(task, description=stage, completed=share),
        )  # fmt: skip
    picture = work / "front.png"
    try:
        chosen = choose(result.points, goal)
    except ConfigError:
        if result.points:
            draw_front(picture, result.points, goal, None)
        raise
    draw_front(picture, result.points, goal, chosen)
    chosen.settings().write(out, _comment(chosen, goal, items, len(rows)))
    if json_output:
        print_json({
            "chosen": chosen.to_json(), "front": [point.to_json() for point in front(result.points)],
            "points": len(result.points), "trainings": result.trainings, "stopped": result.stopped, "left": result.left,
            "config": str(out), "plot": str(picture),
        })  # fmt: skip
        return
    _show(result, chosen, goal)
    console = Console(highlight=False)
    console.print(f"settings: {out}, plot: {picture}", markup=False)
    console.print(f"next: compressae train {source} --config {out} --out model", markup=False)


def _show(result: TuneResult, chosen: TrialPoint, goal: Goal) -> None:
    from ..tuning import front

    table = Table(
        "", "k", "h", "index", "first stage", "candidates", "bytes per item", f"recall@{goal.depth}", "p50 ms", box=None
    )
    for column in table.columns[1:]:
        column.justify = "right"
    shown = front(result.points)
    for point in shown if chosen in shown else sorted([*shown, chosen], key=lambda point: point.bytes):
        table.add_row(
            "chosen" if point == chosen else "", str(point.k), f"{point.latents:,}", point.datatype,
            "graph" if point.first_stage_latents is None else f"{point.first_stage_latents:,} latents",
            f"{point.prefetch:,}", f"{point.bytes:.0f}", f"{point.recall:.4f}", f"{point.ms:.1f}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    left = f"; {result.left} not started (--minutes)" if result.left else ""
    console.print(
        f"{result.trainings} trainings, {len(result.points)} settings measured, {result.stopped} "
        f"trainings stopped early{left}"
    )


def _comment(chosen: TrialPoint, goal: Goal, items: int, sample: int) -> str:
    target = f"at most {goal.budget:g} bytes per item" if goal.budget is not None else f"recall {goal.recall:g}"
    return (
        f"compressae tune: {target}. After a short training on {sample:,} items: recall@{goal.depth} "
        f"{chosen.recall:.4f},\n{chosen.bytes:.0f} bytes per item in memory and p50 {chosen.ms:.1f} ms planned for "
        f"{items:,} items.\nMore items lower recall, and a full training raises it: evaluate the model that you train."
    )
