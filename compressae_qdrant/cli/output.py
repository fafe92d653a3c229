"""Output of commands: tables, JSON, and progress on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..sources import Batch

__all__ = ["as_is", "print_json", "progress_bar", "show"]


@contextlib.contextmanager
def progress_bar(name: str, rows: int | None, *, quiet: bool) -> Iterator[Callable[[Batch], None]]:
    """Show a bar with rate and time left. The yielded function advances it by a batch; log messages appear above it."""
    bar = Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:,.0f} items/s"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True, highlight=False), disable=quiet,
    )  # fmt: skip
    task = bar.add_task(name, total=rows, rate=0.0)
    with bar, contextlib.nullcontext() if quiet else _log_messages(bar.console):
        yield lambda batch: bar.update(task, completed=batch.stop, rate=bar.tasks[task].speed or 0.0)


@contextlib.contextmanager
def _log_messages(console: Console) -> Iterator[None]:
    """Print what the package logs, such as retries and waiting for a server to finish indexing."""
    log = logging.getLogger("compressae_qdrant")
    handler, level = _ConsoleHandler(console), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(as_is(self.format(record)))


def as_is(text: str) -> Text:
    """Wrap text that is data, so that it is printed unchanged and never read as markup."""
    return Text(text)


def show(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts as a table of two columns or as JSON."""
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            for inner, each in value.items():
                table.add_row(f"{name} {inner.replace('_', ' ')}", as_is(number(each)))
        else:
            table.add_row(name.replace("_", " "), as_is(number(value)))
    Console().print(table)


def number(value: Any) -> str:
    """Format a value for a table."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


def print_json(value: Any) -> None:
    """Print a value as indented JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 (the output of a command line)
