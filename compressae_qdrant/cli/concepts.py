"""compressae concepts: find and list what the latents of a model stand for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from .groups import CatalogOptions
from .inputs import open_catalog, parse_method
from .options import (
    JsonOption,
    MethodOption,
    ModelOption,
)
from .output import as_is, print_json, progress_bar

if TYPE_CHECKING:
    from ..model.concepts import Concept

__all__ = ["concepts"]

_TITLES: Final = 3


def concepts(
    *,
    model: ModelOption,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Catalog to find concepts in, of any kind that `compressae train` reads. Without it, the concepts "
            "stored with the model are listed.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", "-s", help="List only concepts with this word in the name, the terms or the titles of items."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", "-n", min=1, help="Maximum number of concepts to list, the most used first.")
    ] = 20,
    keep: Annotated[int, typer.Option(help="Number of strongest items to store for each concept.")] = 20,
    fields: Annotated[
        str | None,
        typer.Option(
            help="Payload fields that the names are made from, separated by commas: title,text.",
            show_default="all fields that hold texts",
        ),
    ] = None,
    stop_words: Annotated[bool, typer.Option(help="Leave English stop words (the, of, and) out of the names.")] = True,
    method: MethodOption = "pursuit",
    columns: CatalogOptions,
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
    known = Concepts.load(model, coder.fingerprint) if source is None else None
    if source is not None:
        catalog = open_catalog(source, columns)
        with progress_bar("concepts", catalog.rows, quiet=json_output) as advance:
            known = find_concepts(
                catalog, coder, keep=keep, fields=None if fields is None else fields.split(","),
                stop_words="english" if stop_words else None, known=Concepts.load_previous(model, coder.fingerprint),
                method=parse_method(method), on_batch=advance,
            )  # fmt: skip
        known.save(model)
    if known is None:
        raise ConfigError(f"the model at {model} has no concepts yet; find them in a catalog: compressae concepts "
                          f"catalog.parquet --model {model}")  # fmt: skip
    shown = (known.most_used() if search is None else known.search(search))[:top]
    if json_output:
        listed = [dataclasses.asdict(concept) for concept in shown]
        print_json({"fingerprint": known.fingerprint, "items": known.items, "concepts": listed})
        return
    if not shown:
        Console(stderr=True).print(
            as_is(f"no concept has {search!r} in its name, its terms or the titles of its items")
        )
        return
    table = Table("latent", "name", box=None)
    for column in ("main in", "items", "share", "strength"):
        table.add_column(column, justify="right")
    table.add_column("strongest items")
    for concept in shown:
        table.add_row(
            concept.key, as_is(concept.name), f"{concept.main:,}", f"{concept.items:,}",
            f"{concept.items / known.items:.2%}", f"{concept.strength:.3f}", as_is("; ".join(_titles(concept, search))),
        )  # fmt: skip
    Console().print(table)


def _titles(concept: Concept, search: str | None) -> list[str]:
    """The first titles of the strongest items; those with the search word come first."""
    titles = list(dict.fromkeys(item.title for item in concept.strongest))
    if search is not None:
        titles.sort(key=lambda title: search.casefold() not in title.casefold())
    return titles[:_TITLES]
