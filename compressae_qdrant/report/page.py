"""Render the page of a report: one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any, Final

from ..errors import InvalidInputError
from ..lazy import needs_extra

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
"""In order of dependency: each uses only names of those before it."""


def render_page(**content: Any) -> str:
    """Render the HTML of a report from the variables of `page.html`.

    The template escapes texts. `data` is written as JSON with `<`, `>`, `&`, `'` and all non-ASCII characters escaped.
    The content security policy allows exactly the page's own styles and scripts, by their hashes, and no requests.

    Raises:
        InvalidInputError: the data holds NaN or an infinite number, which JSON cannot express.
        MissingExtraError: Jinja is not installed (extra `report`).
    """
    with needs_extra("report", "a report", "Jinja"):
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
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
        # Styles and scripts are files of this package, so they are not escaped.
        own = {"css": Markup(css), "head_script": Markup(head), "script": Markup(script)}  # noqa: S704
        return template.render(policy=policy, **own, **content)
    except ValueError as exc:
        raise InvalidInputError(f"the data of the report cannot be written as JSON: {exc}") from exc


def _script(names: tuple[str, ...]) -> str:
    """The scripts within one function, so that their names do not become globals of the page."""
    return f'(() => {{\n"use strict";\n{_joined(names, "js")}}})();\n'


def _joined(names: tuple[str, ...], kind: str) -> str:
    return "".join(_asset(f"{name}.{kind}") for name in names)


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
