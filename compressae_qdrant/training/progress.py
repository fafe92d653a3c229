"""Progress bars of a training on standard error: one for each phase, with loss, items per second and time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from torch import Tensor

__all__ = ["Progress", "ProgressBars"]


class ProgressBars:
    """The progress bars of one training; nothing is drawn if `shown` is false."""

    def __init__(self, shown: bool) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:>8,.0f} items/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    @contextlib.contextmanager
    def phase(self, name: str, total: int, done: int, items: int) -> Iterator[Progress]:
        """A bar for a phase of `total` steps of `items` items each, of which `done` are done already."""
        task = self._rich.add_task(name, total=total, completed=done, loss=float("nan"), rate=0.0)
        yield Progress(self._rich, task, items)


@dataclass
class Progress:
    """The progress bar of one phase."""

    rich: RichProgress
    task: TaskID
    items: int

    def advance(self, loss: Tensor) -> None:
        """Count a step as done. The loss is copied from the device only if the bar is shown."""
        if self.rich.disable:
            return
        task = self.rich.tasks[self.task]
        self.rich.update(self.task, advance=1, loss=float(loss), rate=(task.speed or 0.0) * self.items)
