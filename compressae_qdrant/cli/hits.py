"""Hits of a search as a table or as JSON."""

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

__all__ = ["show_hits", "weights_of"]

_SHARES: Final = 4


def weights_of(options: Sequence[str] | None) -> dict[str, float] | None:
    """The weights of concepts given as NAME=WEIGHT."""
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
            raise ConfigError(f"--concept is {option!r}; write it as NAME=WEIGHT, such as game=0.3")
    return weights


def show_hits(hits: Sequence[Hit], explained: Sequence[Explanation] | None, as_json: bool) -> None:
    """Hits as a table or as JSON, with their explanations if there are any."""
    if as_json:
        listed: list[dict[str, Any]] = [{"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in hits]
        for one, explanation in zip(listed, explained or (), strict=bool(explained)):
            shares = [dataclasses.asdict(share) for share in explanation.shares]
            one["explanation"] = {"shares": shares, "remainder": explanation.remainder}
        print_json(listed)
        return
    if not hits:
        Console(stderr=True).print("no hits: nothing in the index meets the query, its filter and --within")
        return
    table = Table("score", "id", *([] if explained is None else ["why"]), "payload", box=None)
    for n, hit in enumerate(hits):
        why = [] if explained is None else [as_is(_why(explained[n]))]
        # A payload is data: shown as it is, never read as markup.
        payload = as_is(json.dumps(hit.payload, ensure_ascii=False))
        table.add_row(f"{hit.score:.4f}", as_is(str(hit.id)), *why, payload)
    Console().print(table)


def _why(explanation: Explanation) -> str:
    """The largest shares, and the sum of all else, so that the lines add up to the score."""
    named = explanation.shares[:_SHARES]
    rest = explanation.score - sum(share.share for share in named)
    return "\n".join([*map(_line, named), f"{rest:+.3f} all else"])


def _line(share: Share) -> str:
    name = share.name or f"latent {share.latent}"
    return f"{share.share:+.3f} {'not ' if share.opposed else ''}{name}"
