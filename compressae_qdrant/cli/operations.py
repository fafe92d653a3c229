"""The commands that keep a catalog in service: sync, migrate, deploy, rollback."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..deployment import deploy as deploy_collection
from ..deployment import drop_previous
from ..deployment import rollback as roll_back
from ..errors import ConfigError
from ..index import IndexSettings
from ..index.location import connect
from ..ingestion.migrate import add_codes
from ..model.compressae import CompresSAE
from ..model.pursuit import ATOMS_PER_STEP
from .commands import example, ingest
from .options import (
    AtomsOption,
    ConfigOption,
    DeviceOption,
    EmbedderOption,
    EmbeddingOption,
    IdOption,
    IndexOption,
    JsonOption,
    KeepVanishedOption,
    MetadataOption,
    MethodOption,
    ModelOption,
    SkipOption,
    SourceArgument,
    TextOption,
    collection_of_source,
    columns_of,
    device_of,
    embedder_of,
    source_of,
    wanted_settings,
)
from .output import progress_bar, show

__all__: list[str] = []

AliasOption = Annotated[str, typer.Option("--alias", "-a", help="http://host:6333/alias (key: QDRANT_API_KEY).")]


@example("compressae sync catalog.parquet --model model --index index")
def sync(
    source: SourceArgument,
    model: ModelOption,
    index: IndexOption,
    keep_vanished: KeepVanishedOption = False,
    method: MethodOption = "pursuit",
    atoms_per_step: AtomsOption = ATOMS_PER_STEP,
    batch_size: Annotated[int, typer.Option(help="Rows at once.")] = 2048,
    config: ConfigOption = None,
    device: DeviceOption = "cpu",
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Make an index equal to a catalog: add what is new, write what changed, delete what vanished."""
    ingest(
        source, model, index, method, atoms_per_step, batch_size=batch_size, sync=True, keep_vanished=keep_vanished,
        config=config, device=device, id=id, embedding=embedding, text=text, embedder=embedder, metadata=metadata,
        skip_bad_rows=skip_bad_rows, json_output=json_output,
    )  # fmt: skip


@example(
    "compressae migrate 'http://localhost:6333/items?vector=text' --model model --index http://localhost:6333/codes"
)
def migrate(
    source: Annotated[str, typer.Argument(help="Collection with dense vectors: http://host:6333/items?vector=name.")],
    model: ModelOption,
    index: Annotated[str | None, typer.Option("--index", "-i", help="Where the codes go; see `ingest`.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Instead: beside the dense vectors, in the same collection.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --in-place: encode points that have codes already too.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Points at once.")] = 2048,
    config: ConfigOption = None,
    device: DeviceOption = "cpu",
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Encode a collection of dense vectors into an index, with payloads, while the collection goes on serving.

    Interrupted, the same command goes on: what is in already and unchanged is not encoded again. Run it once more
    before the switch to bring over what changed meanwhile. Nothing is deleted on either side. --in-place adds a sparse
    vector to the collection itself, and encodes the points that have none.
    """
    if in_place != (index is None):
        raise ConfigError("codes go to --index, or beside the vectors that they are made from (--in-place); give one")
    if index is not None:
        ingest(source, model, index, sync=True, keep_vanished=True, backfill=True, batch_size=batch_size, config=config,
               device=device, skip_bad_rows=skip_bad_rows, json_output=json_output)  # fmt: skip
        return
    coder = CompresSAE.load(model, device=device_of(device))
    client, collection, vector = collection_of_source(source)
    try:
        with progress_bar("migrate", None, quiet=json_output) as advance:
            report = add_codes(
                client, collection, vector, coder, again=again, batch_size=batch_size, on_batch=advance,
                settings=IndexSettings(**wanted_settings(config, {})), on_error="skip" if skip_bad_rows else "raise",
            )  # fmt: skip
    finally:
        client.close()
    show(dataclasses.asdict(report), json_output)


@example("compressae deploy catalog.parquet --model new --live-model old --alias http://localhost:6333/items")
def deploy(
    source: SourceArgument,
    model: ModelOption,
    alias: AliasOption,
    live_model: Annotated[
        Path | None, typer.Option("--live-model", help="Model of what is live, to compare recall with.")
    ] = None,
    least_recall: Annotated[float, typer.Option(help="Recall@10 below which nothing is switched.")] = 0.8,
    tolerance: Annotated[float, typer.Option(help="How much lower than the live recall is accepted.")] = 0.01,
    journal: Annotated[Path | None, typer.Option(help="File that notes the progress of the load.")] = None,
    config: ConfigOption = None,
    device: DeviceOption = "cpu",
    shards: Annotated[int | None, typer.Option(help="Of the new collection; 1 if left out.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of each shard; 1 if left out.")] = None,
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    metadata: MetadataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Build a collection for a new model beside the live one, verify it, and switch the alias in one step."""
    catalog = source_of(source, columns_of(id, embedding, text), embedder_of(text, embedder), metadata, False)
    coder = CompresSAE.load(model, device=device_of(device))
    client, name = connect(alias)
    try:
        with progress_bar("deploy", catalog.rows, quiet=json_output) as advance:
            report = deploy_collection(
                catalog, coder, client, name,
                live_model=None if live_model is None else CompresSAE.load(live_model),
                settings=IndexSettings(**wanted_settings(config, {"shards": shards, "replicas": replicas})),
                journal=journal,
                least_recall=least_recall, tolerance=tolerance, on_batch=advance,
            )  # fmt: skip
    finally:
        client.close()
    show(dataclasses.asdict(report), json_output)


@example("compressae rollback --alias http://localhost:6333/items")
def rollback(
    alias: AliasOption,
    drop: Annotated[
        bool, typer.Option("--drop-previous", help="Instead: delete what was live before, for good.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Point an alias back to what was live before the last deploy; done twice, it is undone."""
    client, name = connect(alias)
    try:
        if drop:
            facts = {"dropped": drop_previous(client, name)}
        else:
            live, before = roll_back(client, name)
            facts = {"live": live, "previous": before}
    finally:
        client.close()
    show(facts, json_output)
