"""compressae tune: settings for a byte budget or a wanted recall."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import ConfigError
from .inputs import open_catalog
from .options import (
    EmbedderOption,
    EmbedderSettingsOption,
    EmbeddingOption,
    JsonOption,
    SourceArgument,
    TextOption,
)
from .output import print_json

if TYPE_CHECKING:
    from ..tuning import Goal, TrialPoint, TuneResult

__all__ = ["tune"]


def tune(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="TOML to write the chosen settings to.")],
    budget: Annotated[float | None, typer.Option(help="Bytes an item in memory, at most; or:")] = None,
    recall: Annotated[float | None, typer.Option(help="Recall to reach with the fewest bytes.")] = None,
    depth: Annotated[int, typer.Option(help="Hits, and the k of recall@k.")] = 100,
    items: Annotated[int | None, typer.Option(help="Of the whole catalog, if the source is a part of it.")] = None,
    sample: Annotated[int, typer.Option(help="Items to search settings on.")] = 20_000,
    queries: Annotated[int, typer.Option(help="Items of the sample that are searched for.")] = 300,
    k: Annotated[list[int], typer.Option(help="Non-zeros to train for.")] = [8, 16, 32, 64],  # noqa: B006
    latents: Annotated[list[int], typer.Option(help="h to train.")] = [1024, 2048, 4096, 8192],  # noqa: B006
    datatype: Annotated[list[str], typer.Option(help="Of index values.")] = ["uint8", "float16", "float32"],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Of each short training.")] = 200,
    rounds: Annotated[int, typer.Option(help="Of dictionary refinement in each.")] = 6,
    minutes: Annotated[float | None, typer.Option(help="Begin no further training after these.")] = None,
    work: Annotated[Path, typer.Option(help="Directory of the search; the same command goes on from it.")] = Path(
        "tune"
    ),
    seed: Annotated[int, typer.Option(help="Of the draw and the trainings.")] = 0,
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    embedder_option: EmbedderSettingsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Find settings that fit a memory budget or reach a recall, on a sample of the catalog.

    The command searches k, latents, datatype and query plan, and writes the best combination to a file for --config of
    `train`, `ingest` and `search`. If it is interrupted, run it again: it resumes where it stopped.

    Example:
        compressae tune sample --budget 150 --out tuned.toml
    """
    from ..capacity import load_constants
    from ..sources import draw_embeddings
    from ..tuning import Goal, SearchSpace, TargetCatalog, choose, draw_front, front
    from ..tuning import tune as search_settings

    goal = Goal(budget, recall, depth)
    catalog = open_catalog(source, embedding=embedding, text=text, embedder=embedder, embedder_options=embedder_option)
    rows, there = draw_embeddings(catalog, sample, seed=seed)
    whole = items or there
    space = SearchSpace(latents=tuple(latents), k=tuple(k), datatypes=tuple(datatype), steps=steps, rounds=rounds)  # type: ignore[arg-type]  # checked inside
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False), disable=json_output,
    )  # fmt: skip
    with bar:
        task = bar.add_task("tune", total=1.0)
        found = search_settings(
            rows, work, goal, TargetCatalog(whole, load_constants()), space, queries=queries, seed=seed,
            minutes=minutes,
            progress=lambda doing, share: bar.update(task, description=doing, completed=share),
        )  # fmt: skip
    picture = work / "front.png"
    try:
        chosen = choose(found.points, goal)
    except ConfigError:
        if found.points:
            draw_front(picture, found.points, goal, None)
        raise
    draw_front(picture, found.points, goal, chosen)
    chosen.settings().write(out, _comment(chosen, goal, whole, len(rows)))
    if json_output:
        print_json({
            "chosen": chosen.to_json(), "front": [point.to_json() for point in front(found.points)],
            "points": len(found.points), "trainings": found.trainings, "stopped": found.stopped, "left": found.left,
            "config": str(out), "plot": str(picture),
        })  # fmt: skip
        return
    _show(found, chosen, goal)
    console = Console(highlight=False)
    console.print(f"settings: {out}, plot: {picture}", markup=False)
    console.print(f"next: compressae train {source} --config {out} --out model", markup=False)


def _show(found: TuneResult, chosen: TrialPoint, goal: Goal) -> None:
    from ..tuning import front

    table = Table(
        "", "k", "h", "index", "first stage", "candidates", "B an item", f"recall@{goal.depth}", "p50 ms", box=None
    )
    for column in table.columns[1:]:
        column.justify = "right"
    shown = front(found.points)
    for point in shown if chosen in shown else sorted([*shown, chosen], key=lambda point: point.bytes):
        table.add_row(
            "chosen" if point == chosen else "", str(point.k), f"{point.latents:,}", point.datatype,
            str(point.first_stage_latents), f"{point.prefetch:,}", f"{point.bytes:.0f}", f"{point.recall:.4f}",
            f"{point.ms:.1f}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    left = f", {found.left} left for another run" if found.left else ""
    console.print(
        f"{found.trainings} trainings measured in {len(found.points)} ways, {found.stopped} stopped early{left}"
    )


def _comment(chosen: TrialPoint, goal: Goal, items: int, sample: int) -> str:
    wanted = f"at most {goal.budget:g} bytes an item" if goal.budget is not None else f"recall {goal.recall:g}"
    return (
        f"compressae tune: {wanted}. After a short training on {sample:,} items: recall@{goal.depth} "
        f"{chosen.recall:.4f},\n{chosen.bytes:.0f} bytes per item in memory and p50 {chosen.ms:.1f} ms planned for "
        f"{items:,} items.\nMore items make recall lower, a full training makes it higher: evaluate what you train."
    )
