"""compressae concepts: what the latents of a model stand for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from .inputs import open_catalog, parse_method
from .options import (
    EmbedderOption,
    EmbedderSettingsOption,
    EmbeddingOption,
    IdOption,
    JsonOption,
    MetadataOption,
    MethodOption,
    ModelOption,
    SkipOption,
    TextOption,
)
from .output import as_is, print_json, progress_bar

if TYPE_CHECKING:
    from ..model.concepts import Concept

__all__ = ["concepts"]

_TITLES: Final = 3


def concepts(
    model: ModelOption,
    source: Annotated[
        str | None, typer.Argument(help="Catalog to find the concepts on; without one, those found before are shown.")
    ] = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Only those with this word.")] = None,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Concepts to show, the most used first.")] = 20,
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
    embedder_option: EmbedderSettingsOption = None,
    metadata: MetadataOption = None,
    skip_bad_rows: SkipOption = False,
    json_output: JsonOption = False,
) -> None:
    """Find what each latent of a model stands for, and show it.

    Each concept has its strongest items, how often it is used, and a name. They are stored as concepts.json in the
    directory of the model. Names that you edit there are kept when the command runs again.

    Example:
        compressae concepts sample --model model
    """
    from ..concepts import find_concepts
    from ..model.compressae import CompresSAE
    from ..model.concepts import Concepts

    coder = CompresSAE.load(model)
    found = Concepts.load(model, coder.fingerprint) if source is None else None
    if source is not None:
        catalog = open_catalog(
            source, id=id, embedding=embedding, text=text, embedder=embedder, embedder_options=embedder_option,
            metadata=metadata, skip_bad_rows=skip_bad_rows,
        )  # fmt: skip
        with progress_bar("concepts", catalog.rows, quiet=json_output) as advance:
            found = find_concepts(
                catalog, coder, keep=keep, fields=None if fields is None else fields.split(","),
                stop_words="english" if stop_words else None, known=Concepts.load_previous(model, coder.fingerprint),
                method=parse_method(method), on_batch=advance,
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
    if not shown:
        Console(stderr=True).print(as_is(f"no concept has {search!r} in its name, its terms or its items' titles"))
        return
    table = Table("latent", "name", box=None)
    for column in ("main of", "items", "share", "strength"):
        table.add_column(column, justify="right")
    table.add_column("strongest items")
    for concept in shown:
        table.add_row(
            concept.key, as_is(concept.name), f"{concept.main:,}", f"{concept.items:,}",
            f"{concept.items / found.items:.2%}", f"{concept.strength:.3f}", as_is("; ".join(_titles(concept, search))),
        )  # fmt: skip
    Console().print(table)


def _titles(concept: Concept, search: str | None) -> list[str]:
    """A few titles of its strongest items; first those that have the word which is searched for."""
    titles = list(dict.fromkeys(item.title for item in concept.strongest))
    if search is not None:
        titles.sort(key=lambda title: search.casefold() not in title.casefold())
    return titles[:_TITLES]
