"""Sphinx extension: the command-line reference from the commands themselves, and Markdown tables in docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from typer.main import get_command

from compressae_qdrant.cli.program import app as cli

_CLI_PAGE = "reference/cli"
_BARS = re.compile(r"(?<![`|\\])\|(\w[^|`]*)\|")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _add_commands)
    app.connect("autodoc-process-docstring", _convert_markdown)
    return {"parallel_read_safe": True}


def _add_commands(_app: Sphinx, page: str, source: list[str]) -> None:
    """Append every command to the page of the command-line reference."""
    if page == _CLI_PAGE:
        source[0] += "\n".join(_command_lines("compressae", get_command(cli)))


def _command_lines(name: str, command: Any) -> Iterator[str]:
    """A command and its subcommands as MyST Markdown."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"\n## {name}\n"
    yield f"{_text(command.help)}\n"
    yield f"```\n{context.get_usage().removeprefix('Usage: ')}\n```\n"
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    if parameters:
        yield "| option | what it does | default |\n|---|---|---|"
        for parameter in parameters:
            yield f"| {_option(parameter)} | {_text(getattr(parameter, 'help', ''))} | {_default(parameter)} |"
    if command.epilog:
        yield f"\n```sh\n{command.epilog.removeprefix('Example: ')}\n```"
    for subname in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _command_lines(f"{name} {subname}", command.get_command(context, subname))


def _option(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(getattr(parameter, "show_default", None), str):
        return _text(parameter.show_default)
    if value is None or value is False or callable(value) or value == () or value == []:
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}`"


def _text(text: str | None) -> str:
    """Help as one Markdown paragraph, in which placeholders and table bars are plain text."""
    return re.sub(r"([|<>{}\[\]*_])", r"\\\1", " ".join((text or "").split()))


def _convert_markdown(
    _app: Sphinx, _kind: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Turn the Markdown tables of a docstring into reStructuredText, and keep |x| from being a substitution."""
    converted: list[str] = []
    table: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|") and line.rstrip().endswith("|"):
            table.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if table:
            converted += _list_table(table)
            table = []
        converted.append(_BARS.sub(r"\\|\1\\|", line))
    lines[:] = converted


def _list_table(rows: list[list[str]]) -> Iterator[str]:
    yield from ("", ".. list-table::", "   :header-rows: 1", "")
    for cells in rows:
        if not all(set(cell) <= set("-:") for cell in cells):
            for number, cell in enumerate(cells):
                yield f"   {'* -' if number == 0 else '  -'} {cell}"
    yield ""
