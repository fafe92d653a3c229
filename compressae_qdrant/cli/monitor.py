"""compressae monitor: detect when items differ from the items that a model was trained for."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, ModelFileError
from .groups import CatalogOptions
from .inputs import open_catalog
from .options import (
    JsonOption,
    ModelOption,
)
from .output import as_is, number, print_json, show

if TYPE_CHECKING:
    from ..model.baseline import Baseline
    from ..model.compressae import CompresSAE
    from ..model.concepts import Concepts
    from ..monitoring import Observation, Report, Tolerances

__all__ = ["monitor"]

_MEASURES: Final = {
    "cosine_loss": "cosine loss (1 - cos)",
    "psi": "psi, population stability index",
    "posting_mass": "posting mass",
    "dead_latents": "dead latents",
    "hot_latents": "hot latents",
    "recall": "recall@10 (spot check)",
}
_QUALITY: Final = {"cosine_loss", "recall"}
"""Measures of the quality of codes; the others measure which latents are used."""


def monitor(
    *,
    model: ModelOption,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="New items to check: any kind of source that `compressae train` reads."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option("--index", "-i", metavar="LOCATION", help="Live index to check a sample of, in place of SOURCE."),
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Payload field: also compare the items of each of its values.")
    ] = None,
    sample: Annotated[int, typer.Option(help="Maximum number of items to check, drawn at random.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Random seed for drawing the items.")] = 0,
    tolerance: Annotated[
        str, typer.Option(help="Changes that do not count as drift, as NAME=VALUE,NAME=VALUE.",
                          show_default="loss=0.1,psi=0.1,posting_mass=0.1,latents=0.005,recall=0.02,errors=4")
    ] = "",
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to append the report to, as one line of JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG file to plot the reports of --history to.")
    ] = None,
    make: Annotated[
        bool,
        typer.Option("--make-baseline", help="Make a new baseline from SOURCE, which must hold items that the model "
                     "was not trained on, and replace the baseline stored with the model."),
    ] = False,
    columns: CatalogOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Compare new items or a live index with the baseline stored with the model.

    Exit code 1 means drift: a measure is beyond its threshold.

    Example:
        compressae monitor new-items.parquet --model model --history monitor.jsonl --plot monitor.png
    """
    from ..index import open_index
    from ..model.baseline import BASELINE_FILE
    from ..model.compressae import CompresSAE
    from ..monitoring import (
        append_report,
        check,
        make_baseline,
        observe,
        observe_index,
        plot_history,
        read_history,
        sample_source,
    )

    if (source is None) == (index is None):
        raise ConfigError("give either a source of new items or --index, and not both")
    if sample < 1:
        raise ConfigError(f"--sample is {sample}; it must be at least 1")
    if plot is not None and history is None:
        raise ConfigError("--plot plots the reports of a history; also give --history FILE")
    allowed = _tolerances(tolerance)
    coder = CompresSAE.load(model)
    if not make:
        _check_baseline(coder, model, segment)
    if source is None:
        assert index is not None
        if make:
            raise ConfigError(
                "--make-baseline needs embeddings, not --index; give a source of items that the model was not "
                "trained on"
            )
        with open_index(index, coder) as opened:
            observation: Observation = observe_index(coder, opened, sample, field=segment, seed=seed)
    else:
        catalog = open_catalog(source, columns)
        embeddings, segments = sample_source(catalog, sample, field=segment, seed=seed)
        if make:
            baseline = make_baseline(coder, embeddings, source=source, segments=segments, field=segment, seed=seed)
            baseline.save(model / BASELINE_FILE)
            show(_baseline_facts(baseline, model), json_output)
            return
        observation = observe(coder, embeddings, segments)
    assert coder.baseline is not None
    report = check(coder, observation, coder.baseline, allowed, seed=seed)
    now = datetime.now(UTC)
    if history is not None:
        append_report(history, report, model=coder.fingerprint, source=source or index or "", time=now)
    if plot is not None and history is not None:
        entries, broken = read_history(history)
        plot_history(entries, plot)
        if broken:
            Console(stderr=True).print(f"skipped {broken} incomplete lines of {history}")
    if json_output:
        facts = {"time": now.isoformat(timespec="seconds"), "model": coder.fingerprint, "drifted": report.drifted}
        print_json(facts | {"reasons": report.reasons} | dataclasses.asdict(report))
    else:
        _print(report, coder.concepts)
    if report.drifted:
        raise typer.Exit(1)


def _check_baseline(coder: CompresSAE, model: Path, segment: str | None) -> None:
    """Check that the model has the baseline that is needed, before anything is read."""
    if coder.baseline is None:
        raise ModelFileError(
            f"the model at {model} has no baseline (it was saved by an older version, or trained on too few items); "
            f"make one from items that it was not trained on: compressae monitor ITEMS --model {model} --make-baseline"
        )
    if segment is not None and coder.baseline.segment_field != segment:
        raise ConfigError(
            f"the baseline was made without segments by {segment!r}; make one with them: "
            f"compressae monitor ITEMS --model {model} --make-baseline --segment {segment}"
        )


def _baseline_facts(baseline: Baseline, model: Path) -> dict[str, Any]:
    from ..model.baseline import BASELINE_FILE

    return {
        "baseline": str(model / BASELINE_FILE),
        "model": baseline.fingerprint,
        "items": len(baseline),
        "segments": len(baseline.segments),
        "cosine_loss": float(baseline.losses.mean()),
    }


def _tolerances(text: str) -> Tolerances:
    from ..monitoring import Tolerances

    known = {field.name for field in dataclasses.fields(Tolerances)}
    given: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            given[name.strip()] = float(value)
        except ValueError as exc:
            raise ConfigError(
                f"--tolerance has {part!r}; write it as NAME=VALUE, such as loss=0.1,recall=0.02"
            ) from exc
    unknown = set(given) - known
    if unknown:
        raise ConfigError(f"--tolerance names {', '.join(sorted(unknown))}; the names are {', '.join(sorted(known))}")
    return Tolerances(**given)


def _print(report: Report, concepts: Concepts | None) -> None:
    table = Table("items", "measure", box=None)
    for column in ("value", "expected", "threshold"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, part in (("", report), *report.segments.items()):
        for measure, result in part.checks.items():
            table.add_row(
                as_is(name or "all"), _MEASURES.get(measure, measure), number(result.value), number(result.expected),
                number(result.threshold), "DRIFT" if result.drifted else "ok",
            )  # fmt: skip
    console = Console()
    console.print(table)
    for measure, why in report.left_out.items():
        console.print(as_is(f"{measure}: not measured, because {why}"))
    for kind, latents in (("hot", report.hot_latents), ("dead", report.dead_latents)):
        if latents:
            console.print(as_is(f"{kind} latents: {', '.join(_latent_label(latent, concepts) for latent in latents)}"))
    verdict = f"drift: {', '.join(report.reasons)}" if report.drifted else "no drift"
    console.print(as_is(f"{report.items:,} items compared with {report.baseline}: {verdict}"))
    if report.drifted:
        console.print(as_is(_advice(report)))


def _latent_label(latent: int, concepts: Concepts | None) -> str:
    concept = None if concepts is None else concepts.of_latent(latent)
    return f"{latent} ({concept.name})" if concept is not None else str(latent)


def _advice(report: Report) -> str:
    """What to do about a drift, depending on whether the quality of codes or only the use of latents changed."""
    measures = {reason.rpartition(": ")[2] for reason in report.reasons}
    if measures & _QUALITY:
        return (
            "The model encodes these items worse. Train a model on a catalog that includes them (compressae train), "
            "and verify it before it serves queries (compressae deploy)."
        )
    return (
        "The items differ from the baseline, but the model encodes them equally well. Longer postings make searches "
        "slower. If the change is permanent, train with these items or make a new baseline (--make-baseline)."
    )
