"""Output of commands: tables, JSON, and progress on standard error."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..sources import Batch

__all__ = ["Advance", "as_is", "print_json", "progress_bar", "show"]


class Advance:
    """Moves a bar: call it with each batch, and `expect` once the number of rows is known."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task
        self._started = time.monotonic()
        self._done = 0

    def expect(self, rows: int | None) -> None:
        """Set the number of rows."""
        self._bar.update(self._task, total=rows)

    def add(self, rows: int) -> None:
        """Advance by so many rows."""
        self._bar.advance(self._task, rows)

    def __call__(self, batch: Batch) -> None:
        """Show that the rows of a batch are done. The rate is of this run's rows, without those of an earlier run."""
        self._done += batch.stop - batch.start
        rate = self._done / max(time.monotonic() - self._started, 1e-3)
        total = self._bar.tasks[self._task].total
        left = None if total is None else max(0.0, total - batch.stop) / max(rate, 1e-9)
        self._bar.update(self._task, completed=batch.stop, rate=f"{rate:,.0f} items/s", left=_clock(left))


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{dt.timedelta(seconds=round(seconds))} left"


@contextlib.contextmanager
def progress_bar(name: str, rows: int | None, *, quiet: bool) -> Iterator[Advance]:
    """Show a bar with rate and time left. The yielded object advances it by a batch; log messages appear above it."""
    bar = Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"), console=Console(stderr=True, highlight=False), disable=quiet,
    )  # fmt: skip
    task = bar.add_task(name, total=rows, rate="", left="")
    with bar, contextlib.nullcontext() if quiet else _log_messages(bar.console):
        yield Advance(bar, task)


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
    """Print a value as indented JSON on standard output, in ASCII if the output is not UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    print(json.dumps(value, indent=2, ensure_ascii=encoding != "utf8"))  # noqa: T201 (the output of a command line)
