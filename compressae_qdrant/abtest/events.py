"""Events of an A/B test, streamed from a file into totals of each user."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from .statistics import Moments

__all__ = ["UserTotals", "read_events"]

_COLUMNS: Final = ("user", "variant", "event")


@dataclass
class UserTotals:
    """Exposures and clicks of every user so far. Memory grows with users, not with events."""

    users: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Variant, exposures and clicks by user."""
    crossed: set[str] = field(default_factory=set)
    """Users seen in more than one variant; they count for none."""

    def add(self, user: str, variant: str, event: str) -> None:
        """Count one event, "exposure" or "click".

        Raises:
            SourceError: it is neither.
        """
        if event not in ("exposure", "click"):
            raise SourceError(f"event {event!r} of user {user!r} is neither 'exposure' nor 'click'; rename or drop it")
        if user in self.crossed:
            return
        known, exposures, clicks = self.users.get(user, (variant, 0, 0))
        if known != variant:
            self.crossed.add(user)
            del self.users[user]
            return
        self.users[user] = (variant, exposures + (event == "exposure"), clicks + (event == "click"))

    def moments(self) -> dict[str, Moments]:
        """Sums of each variant, over users who were exposed."""
        columns: dict[str, tuple[list[int], list[int]]] = {}
        for variant, exposures, clicks in self.users.values():
            if exposures:
                of_variant = columns.setdefault(variant, ([], []))
                of_variant[0].append(exposures)
                of_variant[1].append(clicks)
        return {variant: Moments.of(*lists) for variant, lists in columns.items()}


def read_events(path: str | Path) -> Iterator[tuple[str, str, str]]:
    """User, variant and event of each row of a .parquet, .csv or .jsonl file, in its order.

    Raises:
        SourceError: the file is missing, of another kind, or lacks one of the columns user, variant, event.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"there are no events at {path}; check the path")
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise SourceError(f"{path.name} is of an unknown kind; known are {', '.join(readers)}")
    for number, row in enumerate(readers[path.suffix](path)):
        try:
            user, variant, event = (row[name] for name in _COLUMNS)
        except KeyError as exc:
            raise SourceError(
                f"row {number} of {path} has no {exc}; events have columns {', '.join(_COLUMNS)}"
            ) from exc
        if user is None or variant is None or event is None:
            raise SourceError(f"row {number} of {path} lacks a user, variant or event; mend it")
        yield str(user), str(variant), str(event)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(f"{path} has no column {', '.join(missing)}; events have {', '.join(_COLUMNS)}")
            for batch in file.iter_batches(columns=list(_COLUMNS)):
                yield from batch.to_pylist()
    except pa.ArrowException as exc:
        raise SourceError(f"can't read {path}: {exc}") from exc


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as exc:
                    raise SourceError(f"line {number + 1} of {path} is not JSON: {exc}") from exc
                if not isinstance(row, dict):
                    raise SourceError(f"line {number + 1} of {path} is no object; an event is one")
                yield row
