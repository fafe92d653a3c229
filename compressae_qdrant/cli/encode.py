"""compressae encode: the codes of a catalog as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .groups import CatalogOptions, CodingOptions
from .inputs import open_catalog, parse_device, parse_method
from .options import (
    JsonOption,
    ModelOption,
    SourceArgument,
)
from .output import progress_bar, show

__all__ = ["encode"]


def encode(
    *,
    source: SourceArgument,
    model: ModelOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="File to write the codes to, in the catalog's order: "
                           "safetensors, or parquet if the name ends in .parquet.")
    ],
    coding: CodingOptions,
    columns: CatalogOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Encode a catalog into a file of codes, without an index.

    The item ids are written beside a safetensors file as JSON, in the same order; a parquet file has a column of them.

    Example:
        compressae encode sample --model model --out codes.safetensors
    """
    import pyarrow.parquet as pq

    from ..codes import SparseCodes
    from ..files import atomic_path, write_text
    from ..model.compressae import CompresSAE
    from ..sources import check_source

    chosen, target = parse_method(coding.method), parse_device(coding.device)
    catalog = open_catalog(source, columns, with_payload=False)
    coder = CompresSAE.load(model, device=target)
    parts, ids, skipped = [], list[int | str](), 0
    with progress_bar("encode", catalog.rows, quiet=json_output) as advance:
        for batch in check_source(catalog, coder.dim).batches(2048):
            if batch.ids:
                parts.append(coder.encode(batch.embeddings, chosen, atoms_per_step=coding.atoms_per_step))
                ids += batch.ids
            skipped += batch.skipped
            advance(batch)
    codes, ids_file = SparseCodes.concatenate(parts), out.with_suffix(".ids.json")
    if out.suffix == ".parquet":
        ids_file = out
        with atomic_path(out) as temporary:
            pq.write_table(codes.to_arrow(ids), temporary)
    else:
        codes.save(out)
        write_text(ids_file, json.dumps(ids) + "\n")
    facts = {
        "codes": str(out), "ids": str(ids_file), "items": len(codes), "skipped": skipped, "bytes": codes.nbytes,
        "dense_bytes": 4 * coder.dim * len(codes),
    }  # fmt: skip
    show(facts, json_output)
