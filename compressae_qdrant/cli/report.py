"""compressae report: write a page that shows what compression saved and lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .groups import CatalogOptions
from .inputs import open_catalog
from .options import (
    JsonOption,
    ModelOption,
    SourceArgument,
)
from .output import show

__all__ = ["report"]


def report(
    *,
    source: SourceArgument,
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="HTML file to write.")],
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            "-i",
            metavar="LOCATION",
            help="Index of the catalog. Without it, a temporary index of the sample is built.",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File rows.json with baselines to show, written by `compressae evaluate --baselines --out`.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.", show_default="the name of SOURCE")] = None,
    segment: Annotated[
        str | None, typer.Option(help="Payload field to split recall by.", show_default="chosen from the fields")
    ] = None,
    sample: Annotated[int, typer.Option(help="Maximum number of items to measure on.")] = 20_000,
    queries: Annotated[int, typer.Option(help="Number of items of the sample used as queries.")] = 300,
    concepts: Annotated[int, typer.Option(help="Maximum number of latents in the concept browser.")] = 400,
    seed: Annotated[int, typer.Option(help="Random seed for drawing the sample and the queries.")] = 0,
    columns: CatalogOptions,
    json_output: JsonOption = False,
) -> None:
    """Write one HTML page that shows what compression saved and what it lost.

    The page is one file with everything in it: it opens in any browser and loads nothing from the network.

    Example:
        compressae report sample --model model --index index --out report.html
    """
    from ..evaluation.comparison import read_rows
    from ..files import write_text
    from ..index import open_index
    from ..model.compressae import CompresSAE
    from ..report import ReportSettings, build_report

    catalog = open_catalog(source, columns)
    coder = CompresSAE.load(model)
    rows = None if results is None else read_rows(results)
    settings = ReportSettings(
        title=title or Path(source).stem, sample=sample, queries=queries, concepts=concepts, segment=segment, seed=seed
    )
    with contextlib.ExitStack() as stack:
        opened = None if index is None else stack.enter_context(open_index(index, coder))
        begin = stack.enter_context(_stages(quiet=json_output))
        page, omitted = build_report(catalog, coder, settings, index=opened, results=rows, progress=begin)
    write_text(out, page)
    facts: dict[str, Any] = {"report": str(out), "bytes": len(page.encode())}
    show(facts | ({"left_out": omitted} if omitted or json_output else {}), json_output)


@contextlib.contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str, int | None], Callable[[int], None]]]:
    """Show a bar for each stage. The yielded function begins a stage and returns the function that advances its bar."""
    bars = Progress(
        TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=Console(stderr=True, highlight=False), disable=quiet,
    )  # fmt: skip
    with bars:

        def begin(name: str, steps: int | None) -> Callable[[int], None]:
            task = bars.add_task(name, total=steps)
            return lambda done: bars.advance(task, done)

        yield begin
