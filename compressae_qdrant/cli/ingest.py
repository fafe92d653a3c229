"""compressae ingest: a catalog as codes in an index."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .groups import CodingOptions, LoadOptions, StorageOptions
from .inputs import index_settings, open_catalog, open_or_create, parse_device, parse_method, request_bytes
from .options import (
    INDEX,
    MAX_REQUEST_MB,
    BatchSizeOption,
    ConfigOption,
    IndexOption,
    JsonOption,
    MaxRequestOption,
    ModelOption,
    PatienceOption,
    SourceArgument,
)
from .output import progress_bar, show

__all__ = ["ingest"]


def ingest(
    *,
    source: SourceArgument,
    model: ModelOption,
    index: IndexOption,
    config: ConfigOption = None,
    storage: StorageOptions,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File that records progress. Resuming on a server needs one; the embedded engine "
            "keeps its own.", rich_help_panel=INDEX,
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start at the first row even if the journal says otherwise.",
                     rich_help_panel=INDEX),
    ] = False,
    trust_journal: Annotated[
        bool,
        typer.Option("--trust-journal", help="Continue although items that the journal confirms are no longer in the "
                     "index, because they were deleted on purpose.", rich_help_panel=INDEX),
    ] = False,
    coding: CodingOptions,
    batch_size: BatchSizeOption = 2048,
    max_request_mb: MaxRequestOption = MAX_REQUEST_MB,
    patience: PatienceOption = None,
    columns: LoadOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Encode a catalog and load it into an index, which is created if it does not exist.

    If the command is interrupted, run it again: it resumes where it stopped. To update an index that was loaded
    before, use `compressae sync`.

    Example:
        compressae ingest sample --model model --index index
    """
    from ..ingestion.ingest import ingest as ingest_catalog
    from ..model.compressae import CompresSAE
    from ..sources import check_source

    chosen, target = parse_method(coding.method), parse_device(coding.device)
    catalog = open_catalog(source, columns)
    coder = CompresSAE.load(model, device=target)
    catalog = check_source(catalog, coder.dim, batch_size)
    settings = index_settings(config, **storage.given())
    with (
        open_or_create(index, coder, settings) as opened,
        progress_bar("ingest", catalog.rows, quiet=json_output) as advance,
    ):
        report = ingest_catalog(
            catalog, coder, opened, journal=journal, method=chosen, atoms_per_step=coding.atoms_per_step,
            batch_size=batch_size, restart=restart, trust_journal=trust_journal, on_batch=advance,
            max_request_bytes=request_bytes(max_request_mb), patience=patience,
        )  # fmt: skip
        facts = dataclasses.asdict(report) | {"in_index": opened.count()}
    show(facts, json_output)
