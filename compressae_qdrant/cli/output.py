"""What commands show: tables for people, JSON for programs, progress on standard error."""

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
    """A bar with rate and time left; call what it gives with each batch. Notices of the package are shown above it."""
    bar = Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:,.0f} items/s"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True, highlight=False), disable=quiet,
    )  # fmt: skip
    task = bar.add_task(name, total=rows, rate=0.0)
    with bar, contextlib.nullcontext() if quiet else _noticing(bar.console):
        yield lambda batch: bar.update(task, completed=batch.stop, rate=bar.tasks[task].speed or 0.0)


@contextlib.contextmanager
def _noticing(console: Console) -> Iterator[None]:
    """Show what the package logs: what is tried again, and that a server is still at work when all is in."""
    log = logging.getLogger("compressae_qdrant")
    handler, level = _Notices(console), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Notices(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(as_is(self.format(record)))


def as_is(text: str) -> Text:
    """Text that is data: shown as it is, never read as markup."""
    return Text(text)


def show(facts: dict[str, Any], as_json: bool) -> None:
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
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 (a command line talks)
