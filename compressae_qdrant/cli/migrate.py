"""compressae migrate: from a collection of dense vectors to codes."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ..errors import ConfigError
from .groups import LoadOptions, PayloadOptions
from .inputs import collection_of_source, index_settings, open_catalog, parse_device, request_bytes
from .options import (
    MAX_REQUEST_MB,
    BatchSizeOption,
    ConfigOption,
    DeviceOption,
    JsonOption,
    MaxRequestOption,
    ModelOption,
    NavigationOption,
    PatienceOption,
    SkipOption,
)
from .output import progress_bar, show
from .sync import run_sync

__all__ = ["migrate"]


def migrate(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Qdrant collection with dense vectors: http://host:6333/items?vector=NAME."
        ),
    ],
    model: ModelOption,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", "-i", metavar="LOCATION",
            help="Index to write the codes to: a directory, or http://host:6333/collection. Give this or --in-place.",
        ),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="Add the codes to the source collection itself, as a sparse vector of each point."
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="With --in-place: also encode the points that already have codes."
        ),
    ] = False,
    config: ConfigOption = None,
    navigation: NavigationOption = None,
    batch_size: BatchSizeOption = 2048,
    max_request_mb: MaxRequestOption = MAX_REQUEST_MB,
    patience: PatienceOption = None,
    device: DeviceOption = "cpu",
    skip_bad_rows: SkipOption = False,
    columns: PayloadOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Encode a collection of dense vectors while it stays in service.

    Codes and payloads go to --index, or with --in-place to the collection itself. If the command is interrupted, run it
    again: points that were written and have not changed are not encoded again. Run it once more before you switch to
    the codes, to bring over later changes. It deletes nothing on either side.

    Example:
        compressae migrate 'http://localhost:6333/items?vector=text' --model model --index index
    """
    from ..model.compressae import CompresSAE

    if in_place != (index is None):
        raise ConfigError("give either --index, the index to write codes to, or --in-place, and not both")
    settings = index_settings(config, navigation=navigation)
    if index is None and columns != PayloadOptions():
        raise ConfigError(
            "--payload, --drop, --rename and --binary need --index: with --in-place the payload stays as it is"
        )
    if index is not None:
        catalog = open_catalog(source, LoadOptions(**dataclasses.asdict(columns), skip_bad_rows=skip_bad_rows))
        coder = CompresSAE.load(model, device=parse_device(device))
        run_sync(
            catalog, coder, index, settings, quiet=json_output, delete=False, backfill=True, batch_size=batch_size,
            max_request_bytes=request_bytes(max_request_mb), patience=patience,
        )  # fmt: skip
        return
    from ..index import IndexSettings
    from ..ingestion.migrate import add_codes

    coder = CompresSAE.load(model, device=parse_device(device))
    client, collection, vector = collection_of_source(source)
    try:
        with progress_bar("migrate", None, quiet=json_output) as advance:
            report = add_codes(
                client, collection, vector, coder, again=again, batch_size=batch_size, on_batch=advance,
                on_start=advance.expect, max_request_bytes=request_bytes(max_request_mb), patience=patience,
                settings=IndexSettings(**settings), on_error="skip" if skip_bad_rows else "raise",
            )  # fmt: skip
    finally:
        client.close()
    show(dataclasses.asdict(report), json_output)
