"""Print the hits of a search as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from .output import as_is, print_json

if TYPE_CHECKING:
    from ..index import Hit
    from ..scoring import Explanation, Share
    from ..search import Group

__all__ = ["show_hits", "weights_of"]

_SHARES: Final = 4
"""Shares listed for each hit."""


def weights_of(
    options: Sequence[str] | None, option_name: str = "--concept", example: str = "game=0.3"
) -> dict[str, float] | None:
    """Parse weights, of concepts or of fields, given as NAME=WEIGHT; None if there are none."""
    if not options:
        return None
    weights: dict[str, float] = {}
    for option in options:
        name, _, weight = option.rpartition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"{option_name} is {option!r}; write it as NAME=WEIGHT, such as {example}")
    return weights


def show_hits(
    hits: Sequence[Hit],
    explained: Sequence[Explanation] | None,
    as_json: bool,
    groups: Sequence[Group] | None = None,
) -> None:
    """Print hits as a table or as JSON, with their explanations and the groups they are of if given."""
    group_of = [group.id for group in groups or () for _ in group.hits]
    if as_json:
        listed: list[dict[str, Any]] = [{"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in hits]
        for entry, group in zip(listed, group_of, strict=groups is not None):
            entry["group"] = group
        for entry, explanation in zip(listed, explained or (), strict=bool(explained)):
            entry["explanation"] = {
                "shares": [dataclasses.asdict(share) for share in explanation.shares],
                "remainder": explanation.remainder,
                "first_stage": explanation.first_stage,
            }
        print_json(listed)
        return
    if not hits:
        Console(stderr=True).print("no hits: no item matches the query, --filter and --within")
        return
    extra = [*([] if groups is None else ["group"]), *([] if explained is None else ["explanation"])]
    table = Table("score", "id", *extra, "payload", box=None)
    for n, hit in enumerate(hits):
        column = [] if groups is None else [as_is(str(group_of[n]))]
        column += [] if explained is None else [as_is(_explanation_text(explained[n]))]
        payload = as_is(json.dumps(hit.payload, ensure_ascii=False))
        table.add_row(f"{hit.score:.4f}", as_is(str(hit.id)), *column, payload)
    Console().print(table)


def _explanation_text(explanation: Explanation) -> str:
    """One line for each of the largest shares and one for the rest, so that the lines add up to the score."""
    named = explanation.shares[:_SHARES]
    rest = explanation.score - sum(share.share for share in named)
    return "\n".join([*map(_line, named), f"{rest:+.3f} other latents"])


def _line(share: Share) -> str:
    name = share.name or f"latent {share.latent}"
    return f"{share.share:+.3f} {'not ' if share.opposed else ''}{name}"
