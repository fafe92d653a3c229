"""Commands made from functions: the docstring is the help, and its last section is an example."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Final, get_type_hints

import typer
from typer.core import TyperCommand
from typer.main import get_command

from .options import OUTPUT

__all__ = ["SETTINGS", "Command", "InterruptedCommandError", "add_command", "build_command"]

SETTINGS: Final[dict[str, Any]] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "rich_markup_mode": None,
}
"""Settings of every Typer application here: plain text, `-h`, and errors that `main` reports."""
_EXAMPLE: Final = "\n\nExample:\n"
_DESCRIBED_DEFAULT: Final = re.compile(r"(?<=\[default: )\((.+)\)(?=[;\]])")
"""A default that is given in words; click puts it in parentheses."""
_ORDER: Final = {"Arguments": -2, "Options": -1, OUTPUT: 1}
"""Headings that come before or after the others, which keep the order of the function's parameters."""


class InterruptedCommandError(Exception):
    """A command was interrupted; its text says what the command had done, as far as that is known."""


class Command(TyperCommand):
    """A command whose help lists its options under headings, and ends with an example that is never wrapped."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:  # Typer would end without a word
            raise InterruptedCommandError(" ".join(getattr(exc, "__notes__", ()))) from exc

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, text = record
                sections.setdefault(_section(parameter), []).append((name, _DESCRIBED_DEFAULT.sub(r"\1", text)))
        for name in sorted(sections, key=lambda name: _ORDER.get(name, 0)):
            with formatter.section(name):
                formatter.write_dl(sections[name])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (the signature is click's)
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(textwrap.indent(f"{self.epilog}\n", " " * formatter.current_indent))


def _section(parameter: Any) -> str:
    """The heading that a parameter is listed under."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    if parameter.name == "help":
        return OUTPUT
    return getattr(parameter, "rich_help_panel", None) or "Options"


def add_command(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Add a function to an application as a command: its docstring holds the help and then an example."""
    text, _, example = (inspect.getdoc(function) or "").partition(_EXAMPLE)
    summary = text.replace("\n", " ").partition(". ")[0].rstrip(".")
    app.command(
        name, cls=Command, help=text, short_help=f"{summary}.", epilog=textwrap.dedent(example).strip() or None
    )(_expand_groups(function))  # fmt: skip


def _expand_groups(function: Callable[..., None]) -> Callable[..., None]:
    """A function with the fields of each group of options as parameters, in the place of the group.

    A group of options is a parameter whose type is a class of `groups`.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}

    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        function(**values)

    parameters = dict[str, inspect.Parameter]()
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            found = {field.name: (types[field.name], field.default) for field in fields(groups[name])}
        else:
            found = {name: (hints[name], parameter.default)}
        for each, (hint, default) in found.items():
            parameters[each] = inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
    call.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return call


def build_command(name: str, target: typer.Typer | Callable[..., None]) -> Any:
    """Make the click command of a function, or the group of a Typer application that holds several commands."""
    if isinstance(target, typer.Typer):
        return get_command(target)
    app = typer.Typer(**SETTINGS)
    add_command(app, name, target)
    return get_command(app)
