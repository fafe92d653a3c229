"""compressae sync: an index made equal to a catalog."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .groups import CodingOptions, LoadOptions, StorageOptions
from .inputs import index_settings, open_catalog, open_or_create, parse_device, parse_method, request_bytes
from .options import (
    MAX_REQUEST_MB,
    BackfillOption,
    BatchSizeOption,
    ConfigOption,
    IndexOption,
    JsonOption,
    KeepVanishedOption,
    MaxRequestOption,
    ModelOption,
    PatienceOption,
    SourceArgument,
)
from .output import progress_bar, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model.compressae import CompresSAE
    from ..sources import Source

__all__ = ["run_sync", "sync"]


def sync(
    *,
    source: SourceArgument,
    model: ModelOption,
    index: IndexOption,
    config: ConfigOption = None,
    keep_vanished: KeepVanishedOption = False,
    backfill: BackfillOption = False,
    storage: StorageOptions,
    coding: CodingOptions,
    batch_size: BatchSizeOption = 2048,
    max_request_mb: MaxRequestOption = MAX_REQUEST_MB,
    patience: PatienceOption = None,
    columns: LoadOptions,
    json_output: JsonOption = False,
) -> None:
    """Make an index equal to a catalog: add, rewrite and delete the items that differ.

    Items that have not changed are not encoded again. The index is created if it does not exist.

    Example:
        compressae sync catalog.parquet --model model --index index
    """
    from ..model.compressae import CompresSAE

    chosen, target = parse_method(coding.method), parse_device(coding.device)
    catalog = open_catalog(source, columns)
    settings = index_settings(config, **storage.given())
    run_sync(
        catalog, CompresSAE.load(model, device=target), index, settings, quiet=json_output, delete=not keep_vanished,
        backfill=backfill, method=chosen, atoms_per_step=coding.atoms_per_step, batch_size=batch_size,
        max_request_bytes=request_bytes(max_request_mb), patience=patience,
    )  # fmt: skip


def run_sync(
    catalog: Source, coder: CompresSAE, index: str, settings: Mapping[str, Any], *, quiet: bool, **options: Any
) -> None:
    """Synchronise an index with a catalog, with a progress bar, and show the report. `options` are the library's."""
    from ..ingestion.sync import sync as synchronise
    from ..sources import check_source

    catalog = check_source(catalog, coder.dim)
    with (
        open_or_create(index, coder, settings) as opened,
        progress_bar("sync", catalog.rows, quiet=quiet) as advance,
    ):
        report = synchronise(catalog, coder, opened, on_batch=advance, **options)
        facts = dataclasses.asdict(report) | {"in_index": opened.count()}
    show(facts, quiet)
