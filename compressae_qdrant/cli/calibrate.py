"""compressae calibrate: measure recall and cost of query plans, so that searches can name a recall."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import InvalidInputError
from .groups import EmbeddingOptions
from .inputs import open_catalog, parse_method
from .options import (
    JsonOption,
    MethodOption,
    ModelOption,
    SourceArgument,
)
from .output import print_json

if TYPE_CHECKING:
    from ..model.calibration import CalibratedPlan, Calibration

__all__ = ["calibrate"]

_TARGETS = (0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)


def calibrate(
    *,
    source: SourceArgument,
    model: ModelOption,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            metavar="LOCATION",
            help="Index of the catalog to measure times on. Without it, times are estimated.",
        ),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            help="Number of items in the whole catalog. Used only without --index.", show_default="rows of SOURCE"
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Maximum number of items to measure recall on.")] = 65_536,
    queries: Annotated[int, typer.Option(help="Number of items of the sample used as queries.")] = 500,
    seed: Annotated[int, typer.Option(help="Random seed for drawing the sample and the queries.")] = 17,
    limit: Annotated[
        list[int] | None,
        typer.Option(
            "--limit",
            "-n",
            help="Number of hits to measure recall at. May be repeated.",
            show_default="1, 10, 20, 50, 100",
        ),
    ] = None,
    keep_dense: Annotated[
        bool,
        typer.Option(
            "--keep-dense",
            help="Rescore the top hits with the original embeddings kept on disk. Used only without --index.",
        ),
    ] = False,
    navigation: Annotated[
        bool,
        typer.Option(
            "--navigation/--no-navigation",
            help="Measure plans by the graph too. Used only without --index, which has a graph or not.",
        ),
    ] = True,
    method: MethodOption = "pursuit",
    constants: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measurements of scripts/bench_capacity.py on your hardware. Used only without --index.",
            show_default="the measurements shipped with the package",
        ),
    ] = None,
    columns: EmbeddingOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure recall and cost of query plans, for searches that name a recall.

    Plans by the graph and by codes are measured, and the best are stored with the model. `compressae search
    --target-recall 0.9` then uses the cheapest plan whose measured recall is at least 0.9 with 95% confidence.

    Example:
        compressae calibrate sample --model model --index index
    """
    from ..capacity import load_constants
    from ..evaluation.calibrate import LIMITS
    from ..evaluation.calibrate import calibrate as measure
    from ..index import open_index
    from ..index.settings import NavigationSettings
    from ..model.calibration import CALIBRATION_FILE
    from ..model.compressae import CompresSAE
    from ..sources import draw_embeddings

    coder, chosen = CompresSAE.load(model), parse_method(method)
    catalog = open_catalog(source, columns)
    rows, catalog_rows = draw_embeddings(catalog, sample, seed=seed)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False), disable=json_output,
    )  # fmt: skip
    with bar, contextlib.ExitStack() as stack:
        task = bar.add_task("calibrate", total=1.0)
        opened = None if index is None else stack.enter_context(open_index(index, coder))
        calibration = measure(
            coder, rows, opened, items=items or catalog_rows, limits=limit or LIMITS, queries=queries, seed=seed,
            keep_dense=keep_dense, method=chosen,
            navigation=NavigationSettings() if navigation else None, constants=load_constants(constants),
            progress=lambda stage, share: bar.update(task, description=stage, completed=share),
        )  # fmt: skip
        bar.update(task, completed=1.0)
    calibration.save(model)
    by_target = {
        n: {target: plan for target in _TARGETS if (plan := _cheapest_plan(calibration, target, n))}
        for n in calibration.limits
    }
    if json_output:
        print_json({
            "file": str(model / CALIBRATION_FILE), "items": calibration.items, "queries": calibration.queries,
            "keep_dense": calibration.keep_dense, "times": calibration.times, "plans": len(calibration.plans),
            "targets": {
                n: {
                    target: {
                        "first_stage": plan.first_stage, "navigation_ef": plan.navigation_ef,
                        "first_stage_latents": plan.first_stage_latents, "prefetch": plan.prefetch, "ms": plan.ms,
                        "recall": plan.recall[n].mean, "low": plan.recall[n].low,
                    }
                    for target, plan in plans.items()
                }
                for n, plans in by_target.items()
            },
        })  # fmt: skip
        return
    table = Table(
        "hits",
        "target",
        "first stage",
        "latents or ef",
        "candidates",
        "recall",
        "recall, 95% sure",
        "ms of one core",
        box=None,
    )
    for column in table.columns:
        column.justify = "right"
    for n, plans in by_target.items():
        for target, plan in plans.items():
            table.add_row(
                str(n), f"{target:g}", plan.first_stage, f"{plan.navigation_ef or plan.first_stage_latents:,}",
                f"{plan.prefetch:,}",
                f"{plan.recall[n].mean:.4f}", f"{plan.recall[n].low:.4f}", f"{plan.ms:.2f}",
            )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{calibration.items:,} items, {calibration.queries:,} queries, times: {calibration.times}; "
        f"saved to {model / CALIBRATION_FILE}",
        markup=False,
    )


def _cheapest_plan(calibration: Calibration, target: float, limit: int) -> CalibratedPlan | None:
    try:
        return calibration.choose(target, limit, keep_dense=calibration.keep_dense)
    except InvalidInputError:
        return None
