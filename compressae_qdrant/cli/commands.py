"""The commands: each reads its options, calls the library, and shows what came out."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, cast

import typer

from ..codes import SparseCodes
from ..embedders import load_embedder
from ..errors import ConfigError
from ..files import write_text
from ..index import open_index
from ..ingestion.ingest import IngestReport
from ..ingestion.ingest import ingest as ingest_source
from ..ingestion.sync import SyncReport
from ..ingestion.sync import sync as synchronise
from ..model.compressae import CompresSAE
from ..model.pursuit import ATOMS_PER_STEP
from ..search.retriever import Retriever
from ..search.settings import SearchOptions
from ..sources import sample_embeddings
from ..training import TrainConfig
from ..training import train as train_model
from ..training.distributed import default_device, join_process_group
from ..tuning.settings_file import Settings
from .hits import (
    ConceptOption,
    ExplainOption,
    WithinOption,
    WithinStrengthOption,
    show_hits,
    weights_of,
)
from .options import (
    AtomsOption,
    BackfillOption,
    ConfigOption,
    DeviceOption,
    EmbedderOption,
    EmbeddingOption,
    ExactOption,
    FirstStageOption,
    IdOption,
    IndexOption,
    JsonOption,
    KeepVanishedOption,
    MetadataOption,
    MethodOption,
    ModelOption,
    PrefetchOption,
    ScoringOption,
    SkipOption,
    SourceArgument,
    TargetRecallOption,
    TextOption,
    TrainingDeviceOption,
    columns_of,
    device_of,
    embedder_of,
    filter_of,
    item_id,
    method_of,
    open_or_create,
    query_of,
    scoring_of,
    source_of,
    wanted_settings,
)
from .output import progress_bar, show

__all__ = ["app", "example", "ingest"]

P = ParamSpec("P")

app = typer.Typer(
    help="Compress the embeddings of a catalog into k-sparse codes, keep the codes in Qdrant, and search them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Compress the embeddings of a catalog into k-sparse codes, keep the codes in Qdrant, and search them."""


def example(text: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command, with an example after its help."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        # Whole in the list of commands, which would cut it at 45 letters.
        summary = (inspect.getdoc(function) or "").replace("\n", " ").partition(". ")[0].rstrip(".")
        app.command(epilog=f"Example: {text}", short_help=f"{summary}.")(function)
        return function

    return register


@example("compressae train sample --out model")
def train(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write the model to.")],
    latents: Annotated[int | None, typer.Option(help="h; chosen by the catalog's size if left out.")] = None,
    k: Annotated[int | None, typer.Option(help="Non-zeros of a code; 32 if left out.")] = None,
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal models.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the autoencoder phase.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of dictionary refinement.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items of a step, over all processes.")] = None,
    limit: Annotated[int, typer.Option(help="Items to train on at most, where they must be held in memory.")] = 500_000,
    device: TrainingDeviceOption = None,
    config: ConfigOption = None,
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Train a model on the embeddings of a catalog. After an interruption, the same command resumes the training.

    Other settings come from the [train] table of --config: every field of TrainConfig. For several GPUs, run `torchrun
    --nproc-per-node=4 -m compressae_qdrant train ...`; every process must be able to read the directory --out.
    """
    where = device_of(default_device(device))
    catalog = source_of(source, columns_of(None, embedding, text), embedder_of(text, embedder), None, skip_bad_rows)
    given = {
        "latents": latents, "k": k, "seed": seed, "steps": steps, "rounds": rounds, "batch_size": batch_size,
    }  # fmt: skip
    chosen = {**Settings.read(config).train, **{name: value for name, value in given.items() if value is not None}}
    training = TrainConfig(**chosen)
    with join_process_group(where) as group:
        model = train_model(
            sample_embeddings(catalog, limit, seed=training.seed),
            training,
            checkpoint=out / "training.checkpoint",
            progress=group.is_first and not json_output,
            device=where,
        )
        if not group.is_first:
            return
        model.save(out)
    assert model.history is not None
    facts = {
        "model": str(out),
        "fingerprint": model.fingerprint,
        "dim": model.dim,
        "latents": model.latents,
        "k": model.k,
        "notes": model.history.notes,
        "posting_mass": model.posting_mass,
        "dead_latents": int((model.latent_use == 0).sum()),
    } | ({"pursuit_loss": model.history.records[-1].pursuit_loss} if model.history.records else {})
    show(facts, json_output)


@example("compressae encode sample --model model --out codes.safetensors")
def encode(
    source: SourceArgument,
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write the codes to, in the catalog's order.")],
    method: MethodOption = "pursuit",
    atoms_per_step: AtomsOption = ATOMS_PER_STEP,
    device: DeviceOption = "cpu",
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Encode a catalog into a file of codes, without an index. The ids of its rows are written beside it, as JSON."""
    chosen, where = method_of(method), device_of(device)
    catalog = source_of(source, columns_of(id, embedding, text), embedder_of(text, embedder), metadata, skip_bad_rows)
    coder = CompresSAE.load(model, device=where)
    parts, ids, skipped = [], list[int | str](), 0
    with progress_bar("encode", catalog.rows, quiet=json_output) as advance:
        for batch in catalog.batches(2048):
            if batch.ids:
                parts.append(coder.encode(batch.embeddings, chosen, atoms_per_step=atoms_per_step))
                ids += batch.ids
            skipped += batch.skipped
            advance(batch)
    codes, file = SparseCodes.concatenate(parts), out.with_suffix(".ids.json")
    codes.save(out)
    write_text(file, json.dumps(ids) + "\n")
    facts = {
        "codes": str(out), "ids": str(file), "items": len(codes), "skipped": skipped, "bytes": codes.nbytes,
        "dense_bytes": 4 * coder.dim * len(codes),
    }  # fmt: skip
    show(facts, json_output)


@example("compressae ingest sample --model model --index index")
def ingest(
    source: SourceArgument,
    model: ModelOption,
    index: IndexOption,
    method: MethodOption = "pursuit",
    atoms_per_step: AtomsOption = ATOMS_PER_STEP,
    datatype: Annotated[
        str | None, typer.Option(help="Of index values: uint8, float16 or float32; uint8 if left out.")
    ] = None,
    keep_dense: Annotated[
        bool, typer.Option("--keep-dense", help="Keep the embeddings on disk too, and rescore the best hits by them.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Rows at once.")] = 2048,
    journal: Annotated[
        Path | None, typer.Option(help="File that notes progress; needed to resume on a server.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin with the first row whatever the journal says.")
    ] = False,
    config: ConfigOption = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="Write only what differs and delete what vanished, as `compressae sync`.")
    ] = False,
    keep_vanished: KeepVanishedOption = False,
    backfill: BackfillOption = False,
    device: DeviceOption = "cpu",
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Encode a catalog and load it into an index, which is made if it isn't there. Killed, the same command goes on."""
    chosen, where = method_of(method), device_of(device)
    catalog = source_of(source, columns_of(id, embedding, text), embedder_of(text, embedder), metadata, skip_bad_rows)
    coder = CompresSAE.load(model, device=where)
    wanted = wanted_settings(config, {"datatype": datatype or None, "keep_dense": keep_dense or None})
    with (
        open_or_create(index, coder, wanted) as opened,
        progress_bar("sync" if sync else "ingest", catalog.rows, quiet=json_output) as advance,
    ):
        report: IngestReport | SyncReport
        if sync:
            report = synchronise(
                catalog, coder, opened, delete=not keep_vanished, backfill=backfill, method=chosen,
                atoms_per_step=atoms_per_step, batch_size=batch_size, on_batch=advance,
            )  # fmt: skip
        else:
            report = ingest_source(
                catalog, coder, opened, journal=journal, method=chosen, atoms_per_step=atoms_per_step,
                batch_size=batch_size, restart=restart, on_batch=advance,
            )  # fmt: skip
        facts = dataclasses.asdict(report) | {"in_index": opened.count()}
    show(facts, json_output)


@example("compressae search 'text editor for programmers' --model model --index index --embedder all-MiniLM-L6-v2")
def search(
    query: Annotated[
        str, typer.Argument(help="A text (with --embedder), a vector as JSON, or an item id (with --like).")
    ],
    model: ModelOption,
    index: IndexOption,
    like: Annotated[bool, typer.Option("--like", help="The query is the id of an item: find similar ones.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Hits.")] = 10,
    scoring: ScoringOption = "asymmetric",
    exact: ExactOption = False,
    prefetch: PrefetchOption = None,
    first_stage_latents: FirstStageOption = None,
    target_recall: TargetRecallOption = None,
    config: ConfigOption = None,
    filter: Annotated[
        str | None,
        typer.Option(help='Qdrant filter as JSON: {"must": [{"key": "section", "match": {"value": "games"}}]}'),
    ] = None,
    concept: ConceptOption = None,
    within: WithinOption = None,
    within_strength: WithinStrengthOption = 0.0,
    explain: ExplainOption = False,
    embedder: EmbedderOption = None,
    json_output: JsonOption = False,
) -> None:
    """Search an index by text, by vector, or by an item of it."""
    asked = Settings.read(config).search
    scored_by = scoring_of(scoring)
    target = query if like else query_of(query)
    if not like and isinstance(target, str) and embedder is None:
        raise ConfigError(
            f"the query {query!r} is a text; say which model embeds texts by --embedder, or --like if it is an id"
        )
    if within_strength and within is None:
        raise ConfigError(f"--within-strength is {within_strength}, of no concept; name one by --within")
    coder = CompresSAE.load(model)
    with open_index(index, coder) as opened:
        retriever = Retriever(coder, opened, load_embedder(embedder) if embedder else None)
        given: dict[str, Any] = {
            "prefetch": prefetch,
            "first_stage_latents": first_stage_latents,
            "target_recall": target_recall,
        }
        if target_recall is not None:
            asked = {}
        elif prefetch is not None or first_stage_latents is not None:
            asked = {name: value for name, value in asked.items() if name != "target_recall"}
        settings: SearchOptions = {
            **cast(SearchOptions, {**asked, **{name: value for name, value in given.items() if value is not None}}),
            "scoring": scored_by, "exact": exact, "filter": filter_of(filter),
            "concepts": weights_of(concept), "within": within, "within_strength": within_strength,
        }  # fmt: skip
        if like:
            hits = retriever.similar_to(item_id(query, opened), limit, **settings)
        else:
            hits = retriever.search(target, limit, **settings)
        explained = retriever.explain(hits) if explain else None
    show_hits(hits, explained, json_output)


@example("compressae info --index index")
def info(
    index: Annotated[str | None, typer.Option("--index", "-i", help="An index to describe.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A model to describe.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Describe an index, a model, or both."""
    if index is None and model is None:
        raise ConfigError("there is nothing to describe; give --index, --model or both")
    facts: dict[str, Any] = {}
    if model is not None:
        coder = CompresSAE.load(model)
        facts["model"] = {
            "fingerprint": coder.fingerprint, "dim": coder.dim, "latents": coder.latents, "k": coder.k,
            "posting_mass": coder.posting_mass,
        }  # fmt: skip
    if index is not None:
        with open_index(index, coder if model is not None else None) as opened:
            facts["index"] = dataclasses.asdict(opened.info())
    show(facts, json_output)
