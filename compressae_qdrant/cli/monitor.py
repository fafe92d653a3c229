"""compressae monitor: whether new items, or what an index holds, are still what the model was trained for."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, ModelFileError
from .inputs import open_catalog
from .options import (
    EmbedderOption,
    EmbedderSettingsOption,
    EmbeddingOption,
    IdOption,
    JsonOption,
    MetadataOption,
    ModelOption,
    SkipOption,
    TextOption,
)
from .output import as_is, number, print_json, show

if TYPE_CHECKING:
    from ..model.baseline import Baseline
    from ..model.compressae import CompresSAE
    from ..model.concepts import Concepts
    from ..monitoring import Observation, Report, Tolerances

__all__ = ["monitor"]

_MEASURES: Final = {
    "cosine_loss": "cosine loss, 1 - cos",
    "psi": "psi: stability of latent use",
    "posting_mass": "posting mass",
    "dead_latents": "dead latents",
    "hot_latents": "hot latents",
    "recall": "recall@10, spot check",
}
_QUALITY: Final = {"cosine_loss", "recall"}
"""Measures of how well items are coded; the others are of which latents they use."""


def monitor(
    model: ModelOption,
    source: Annotated[
        str | None, typer.Argument(help="New items: a file, a dense collection, 'sample'; see `compressae train`.")
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", "-i", help="Instead of a source: a live index, of which a sample is drawn.")
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Payload field: compare each of its values apart, too.")
    ] = None,
    sample: Annotated[int, typer.Option(help="Items looked at, drawn at random.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
    tolerance: Annotated[
        str, typer.Option(help="What isn't worth an alarm, as loss=0.1,psi=0.1,posting_mass=0.1,latents=0.005,"
                          "recall=0.02,errors=4.")
    ] = "",
    history: Annotated[Path | None, typer.Option(help="File of reports to add this one to.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of every measure over the reports of the history.")] = None,
    make: Annotated[
        bool,
        typer.Option("--make-baseline", help="Measure the model's baseline on the source (items that it was not "
                     "trained on) and keep it with the model, replacing the one of its training."),
    ] = False,
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    embedder_option: EmbedderSettingsOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
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
        raise ConfigError(f"--sample is {sample}; look at one item at least")
    if plot is not None and history is None:
        raise ConfigError("--plot draws the reports of a history; name its file by --history")
    allowed = _tolerances(tolerance)
    coder = CompresSAE.load(model)
    if not make:
        _check_baseline(coder, model, segment)
    if source is None:
        assert index is not None
        if make:
            raise ConfigError("a baseline is made from embeddings; give a source of items the model was not trained on")
        with open_index(index, coder) as opened:
            seen: Observation = observe_index(coder, opened, sample, field=segment, seed=seed)
    else:
        catalog = open_catalog(
            source, id=id, embedding=embedding, text=text, embedder=embedder, embedder_options=embedder_option,
            metadata=metadata, skip_bad_rows=skip_bad_rows,
        )  # fmt: skip
        embeddings, segments = sample_source(catalog, sample, field=segment, seed=seed)
        if make:
            made = make_baseline(coder, embeddings, source=source, segments=segments, field=segment, seed=seed)
            made.save(model / BASELINE_FILE)
            show(_described(made, model), json_output)
            return
        seen = observe(coder, embeddings, segments)
    assert coder.baseline is not None
    report = check(coder, seen, coder.baseline, allowed, seed=seed)
    now = datetime.now(UTC)
    if history is not None:
        append_report(history, report, model=coder.fingerprint, source=source or index or "", time=now)
    if plot is not None and history is not None:
        entries, broken = read_history(history)
        plot_history(entries, plot)
        if broken:
            Console(stderr=True).print(f"{broken} unfinished lines of {history} were left out")
    if json_output:
        facts = {"time": now.isoformat(timespec="seconds"), "model": coder.fingerprint, "drifted": report.drifted}
        print_json(facts | {"reasons": report.reasons} | dataclasses.asdict(report))
    else:
        _print(report, coder.concepts)
    if report.drifted:
        raise typer.Exit(1)


def _check_baseline(coder: CompresSAE, model: Path, segment: str | None) -> None:
    """Refuse a model without the baseline that this takes, before anything is read."""
    if coder.baseline is None:
        raise ModelFileError(
            f"the model at {model} has no baseline (it was saved by an older version, or trained on too few items); "
            f"make one from items that it was not trained on: compressae monitor ITEMS --model {model} --make-baseline"
        )
    if segment is not None and coder.baseline.segment_field != segment:
        raise ConfigError(
            f"the baseline knows no segments by {segment!r}, so what is usual for one can't be told; make one: "
            f"compressae monitor ITEMS --model {model} --make-baseline --segment {segment}"
        )


def _described(baseline: Baseline, model: Path) -> dict[str, Any]:
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
            raise ConfigError(f"--tolerance has {part!r}; write it as loss=0.1,recall=0.02") from exc
    unknown = set(given) - known
    if unknown:
        raise ConfigError(f"--tolerance names {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return Tolerances(**given)


def _print(report: Report, concepts: Concepts | None) -> None:
    table = Table("items", "measure", box=None)
    for column in ("value", "expected", "threshold"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, part in (("", report), *report.segments.items()):
        for measure, found in part.checks.items():
            table.add_row(
                as_is(name or "all"), _MEASURES.get(measure, measure), number(found.value), number(found.expected),
                number(found.threshold), "DRIFT" if found.drifted else "ok",
            )  # fmt: skip
    console = Console()
    console.print(table)
    for measure, why in report.left_out.items():
        console.print(as_is(f"{measure}: not known, {why}"))
    for what, latents in (("hot", report.hot_latents), ("dead", report.dead_latents)):
        if latents:
            console.print(as_is(f"{what} latents: {', '.join(_called(latent, concepts) for latent in latents)}"))
    verdict = f"drift: {', '.join(report.reasons)}" if report.drifted else "no drift"
    console.print(as_is(f"{report.items:,} items against {report.baseline}: {verdict}"))
    if report.drifted:
        console.print(as_is(_next(report)))


def _called(latent: int, concepts: Concepts | None) -> str:
    concept = None if concepts is None else concepts.of_latent(latent)
    return f"{latent} ({concept.name})" if concept is not None else str(latent)


def _next(report: Report) -> str:
    """What to do about a drift: it depends on whether items are found worse, or other ones came."""
    measures = {reason.rpartition(": ")[2] for reason in report.reasons}
    if measures & _QUALITY:
        return (
            "Items of this kind are coded worse: train on a catalog that has them (compressae train), and see what "
            "that brings before queries go there (compressae deploy)."
        )
    return (
        "Other items than before, coded as well as before; searches take longer where postings grow. If they are here "
        "to stay, train with them, or make them the baseline (--make-baseline)."
    )
