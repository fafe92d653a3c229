"""compressae delete and drop: items of an index, or all of it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .inputs import item_id, parse_filter
from .options import IndexOption, JsonOption
from .output import show

__all__ = ["delete", "drop"]

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def delete(
    index: IndexOption,
    filter: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Qdrant filter on payload fields: {"must": [{"key": "section", "match": {"value": "games"}}]}.',
        ),
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="ID", help="Id of an item to delete. May be repeated.")
    ] = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Delete items from an index, by their ids or by a filter.

    The number of items is shown and confirmed first. A filter without conditions is refused: `compressae drop` deletes
    a whole index.

    Example:
        compressae delete --index index --filter '{"must": [{"key": "section", "match": {"value": "games"}}]}' --yes
    """
    from ..index import open_index
    from ..index.filters import check_deletion

    if (filter is None) == (not item):
        raise ConfigError("give either --filter or --item, which name the items to delete, and not both")
    condition = parse_filter(filter)
    if condition is not None:
        check_deletion(condition, all_items=False)
    with open_index(index) as opened:
        ids = [item_id(text, opened) for text in item or ()]
        if condition is None:
            found = [each for each, content in zip(ids, opened.hashes(ids), strict=True) if content is not None]
            matching = len(dict.fromkeys(found))
        else:
            matching = opened.count(condition)
        _confirm(f"Delete {matching:,} items from {index}?", yes or not matching)
        deleted = matching if condition is None else opened.delete_by_filter(condition)
        if condition is None:
            opened.delete(ids)
        opened.flush()
        facts = {"deleted": deleted, "in_index": opened.count()}
    show(facts, json_output)


def drop(
    index: IndexOption,
    aliases: Annotated[
        bool,
        typer.Option("--aliases", help="Also drop a collection that aliases point to, together with these aliases."),
    ] = False,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Delete a whole index: its directory, or its collection on a server.

    The number of items is shown and confirmed first. An adopted collection, which has data of others, is refused.

    Example:
        compressae drop --index index --yes
    """
    from ..index import QdrantIndex, open_index

    with open_index(index) as opened:
        items = opened.count()
        _confirm(f"Delete the index {index} with its {items:,} items?", yes)
        options: dict[str, Any] = {"aliases": aliases} if isinstance(opened, QdrantIndex) else {}
        opened.drop(**options)
    show({"dropped": index, "items": items}, json_output)


def _confirm(question: str, yes: bool) -> None:
    """Ask a question on the terminal, unless it is answered already.

    Raises:
        ConfigError: there is no terminal, or the answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(f"{question} There is no terminal to confirm this; add --yes")
    if not typer.confirm(question, err=True):
        raise ConfigError("nothing was deleted")
