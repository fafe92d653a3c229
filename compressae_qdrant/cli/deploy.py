"""compressae deploy and rollback: which collection an alias points to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .groups import LoadOptions
from .inputs import index_settings, open_catalog, parse_device, request_bytes
from .options import (
    INDEX,
    MAX_REQUEST_MB,
    AliasOption,
    ConfigOption,
    DeviceOption,
    JsonOption,
    MaxRequestOption,
    ModelOption,
    NavigationOption,
    PatienceOption,
    SourceArgument,
)
from .output import progress_bar, show

__all__ = ["deploy", "rollback"]

_VERIFICATION = "Verification options"


def deploy(
    *,
    source: SourceArgument,
    model: ModelOption,
    alias: AliasOption,
    config: ConfigOption = None,
    live_model: Annotated[
        Path | None,
        typer.Option(
            "--live-model", metavar="DIRECTORY", rich_help_panel=_VERIFICATION,
            help="Model of the live collection. With it, the new recall is compared with the live one.",
        ),
    ] = None,
    min_recall: Annotated[
        float,
        typer.Option(
            help="Minimum recall@10 of the new collection, from 0 to 1. Below it, the alias is not switched.",
            rich_help_panel=_VERIFICATION,
        ),
    ] = 0.8,
    tolerance: Annotated[
        float,
        typer.Option(
            help="How far the new recall@10 may be below the live one.", rich_help_panel=_VERIFICATION
        ),
    ] = 0.01,
    shards: Annotated[
        int | None,
        typer.Option(help="Shards of the new collection.", show_default="1", rich_help_panel=INDEX),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="Copies of each shard.", show_default="1", rich_help_panel=INDEX),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that records the progress of the load.", rich_help_panel=INDEX),
    ] = None,
    navigation: NavigationOption = None,
    max_request_mb: MaxRequestOption = MAX_REQUEST_MB,
    patience: PatienceOption = None,
    device: DeviceOption = "cpu",
    columns: LoadOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Build a collection for a new model, verify it, and switch the alias to it.

    The live collection serves until the switch, which is one step. It is kept afterwards, and `compressae rollback`
    switches back to it.

    Example:
        compressae deploy catalog.parquet --model new --live-model old --alias http://localhost:6333/items
    """
    from ..deployment import deploy as deploy_collection
    from ..index import IndexSettings
    from ..index.location import connect
    from ..model.compressae import CompresSAE
    from ..sources import check_source

    catalog = open_catalog(source, columns)
    coder = CompresSAE.load(model, device=parse_device(device))
    catalog = check_source(catalog, coder.dim)
    client, name = connect(alias)
    try:
        with progress_bar("deploy", catalog.rows, quiet=json_output) as advance:
            report = deploy_collection(
                catalog, coder, client, name,
                live_model=None if live_model is None else CompresSAE.load(live_model),
                settings=IndexSettings(
                    **index_settings(config, shards=shards, replicas=replicas, navigation=navigation)
                ),
                journal=journal,
                min_recall=min_recall, tolerance=tolerance, on_batch=advance,
                max_request_bytes=request_bytes(max_request_mb), patience=patience,
            )  # fmt: skip
    finally:
        client.close()
    show(dataclasses.asdict(report), json_output)


def rollback(
    alias: AliasOption,
    drop: Annotated[
        bool,
        typer.Option(
            "--drop-previous", help="Delete the previous collection permanently, and do not change the alias."
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Point an alias back to the collection that was live before the last deploy.

    A second rollback undoes the first.

    Example:
        compressae rollback --alias http://localhost:6333/items
    """
    from ..deployment import drop_previous
    from ..deployment import rollback as roll_back
    from ..index.location import connect

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
