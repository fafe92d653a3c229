"""compressae concepts: what the latents of a model stand for."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..concepts import Concepts, find_concepts
from ..errors import ConfigError
from ..model import CompresSAE
from .commands import example
from .options import (
    EmbedderOption,
    EmbeddingOption,
    IdOption,
    JsonOption,
    MetadataOption,
    MethodOption,
    ModelOption,
    SkipOption,
    TextOption,
    columns_of,
    embedder_of,
    method_of,
    source_of,
)
from .output import as_is, print_json, progress_bar

__all__ = ["concepts"]


@example("compressae concepts sample --model model")
def concepts(
    model: ModelOption,
    source: Annotated[
        str | None, typer.Argument(help="Catalog to find the concepts on; without one, those found before are shown.")
    ] = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Only those with this word.")] = None,
    top: Annotated[int, typer.Option("--top", "-n", help="Concepts to show, the most used first.")] = 20,
    keep: Annotated[int, typer.Option(help="Strongest items of each concept to keep.")] = 20,
    fields: Annotated[
        str | None,
        typer.Option(help="Payload fields that give the names, as title,text; all texts if left out."),
    ] = None,
    stop_words: Annotated[bool, typer.Option(help="Whether texts are English, whose small words name nothing.")] = True,
    method: MethodOption = "pursuit",
    id: IdOption = "id",
    embedding: EmbeddingOption = "embedding",
    text: TextOption = None,
    embedder: EmbedderOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Find what each latent stands for: its strongest items, its use, a name. Kept as concepts.json in the model's
    directory; edit names there, they are kept when this runs again."""
    coder = CompresSAE.load(model)
    found = Concepts.load(model, coder.fingerprint) if source is None else None
    if source is not None:
        columns = columns_of(id, embedding, text)
        catalog = source_of(source, columns, embedder_of(text, embedder), metadata, skip_bad_rows)
        with progress_bar("concepts", catalog.rows, quiet=json_output) as advance:
            found = find_concepts(
                catalog, coder, keep=keep, fields=None if fields is None else fields.split(","),
                stop_words="english" if stop_words else None, known=Concepts.before(model, coder.fingerprint),
                method=method_of(method), on_batch=advance,
            )  # fmt: skip
        found.save(model)
    if found is None:
        raise ConfigError(f"the model at {model} has no concepts yet; find them on a catalog: compressae concepts "
                          f"catalog.parquet --model {model}")  # fmt: skip
    shown = (found.most_used() if search is None else found.search(search))[:top]
    if json_output:
        listed = [dataclasses.asdict(concept) for concept in shown]
        print_json({"fingerprint": found.fingerprint, "items": found.items, "concepts": listed})
        return
    table = Table("latent", "name", "items", "share", "strength", "strongest items", box=None)
    for concept in shown:
        titles = "; ".join(item.title for item in concept.strongest[:3])
        table.add_row(
            concept.key, as_is(concept.name), f"{concept.items:,}", f"{concept.items / found.items:.2%}",
            f"{concept.strength:.3f}", as_is(titles),
        )  # fmt: skip
    Console().print(table)
