"""The page: one file, everything in it, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..errors import InvalidInputError

__all__ = ["render_page"]

_STYLES: Final = ("tokens", "page", "charts", "tools", "print")
_SCRIPTS: Final = (
    "dom",
    "scales",
    "chart",
    "kinds",
    "sections",
    "concepts",
    "queries",
    "planner",
    "calculator",
    "main",
)
"""In order: each uses only what comes before it."""


def render_page(**content: Any) -> str:
    """The HTML of a report; see `page.html` for what it shows.

    Texts are escaped by the template. `data` is written as JSON in which no `<`, `>`, `&`, `'` or character beyond
    ASCII is left as it is. The policy allows exactly the styles and scripts that the page carries, by their hashes,
    and no request at all.

    Raises:
        InvalidInputError: the data holds NaN or an infinite number, which JSON doesn't have.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": True}
    css = _joined(_STYLES, "css")
    head = _script(("theme",))
    script = _script(_SCRIPTS)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(css)}",
            f"script-src {_hash(head)} {_hash(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = environment.from_string(_asset("page.html"))
    try:
        return template.render(policy=policy, css=_ours(css), head_script=_ours(head), script=_ours(script), **content)
    except ValueError as exc:
        raise InvalidInputError(f"the report's data can't be written as JSON: {exc}") from exc


def _script(names: tuple[str, ...]) -> str:
    """Files as one function, so that their names don't become the page's globals."""
    return f'(() => {{\n"use strict";\n{_joined(names, "js")}}})();\n'


def _joined(names: tuple[str, ...], kind: str) -> str:
    return "".join(_asset(f"{name}.{kind}") for name in names)


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _ours(text: str) -> Markup:
    """A file of this package, as it is."""
    return Markup(text)  # noqa: S704


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
