"""Events of an A/B test, streamed from a file into totals of each user."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from .statistics import Moments

__all__ = ["Event", "UserTotals", "read_events"]

_COLUMNS: Final = ("user", "variant", "event")
_DATE: Final = re.compile(r"\d{8}", re.ASCII)
_SECONDS: Final = re.compile(r"-?\d+(\.\d*)?", re.ASCII)


@dataclass(frozen=True)
class Event:
    """Something that a user saw or did."""

    user: str
    variant: str
    kind: str
    """"exposure" or "click"."""
    time: datetime | None = None
    """When, where the events have a column of times."""


@dataclass
class UserTotals:
    """Exposures and clicks of every user so far, and their sums. Memory grows with users, not with events; a look
    costs nothing, as sums are kept up with each event."""

    users: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Variant, exposures and clicks by user."""
    crossed: set[str] = field(default_factory=set)
    """Users seen in more than one variant; they count for none."""
    _sums: dict[str, tuple[int, int, int, int, int, int]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Count one event.

        Raises:
            SourceError: it is neither an exposure nor a click.
        """
        if event.kind not in ("exposure", "click"):
            raise SourceError(
                f"event {event.kind!r} of user {event.user!r} is neither 'exposure' nor 'click'; rename or drop it"
            )
        if event.user in self.crossed:
            return
        variant, exposures, clicks = self.users.get(event.user, (event.variant, 0, 0))
        self._change(variant, exposures, clicks, -1)
        if variant != event.variant:
            self.crossed.add(event.user)
            del self.users[event.user]
            return
        exposures, clicks = exposures + (event.kind == "exposure"), clicks + (event.kind == "click")
        self.users[event.user] = (variant, exposures, clicks)
        self._change(variant, exposures, clicks, 1)

    def moments(self) -> dict[str, Moments]:
        """Sums of each variant, over users who were exposed."""
        return {variant: Moments(*sums) for variant, sums in self._sums.items() if sums[0]}

    def _change(self, variant: str, e: int, c: int, sign: int) -> None:
        """Add or take away what one user contributes; whoever wasn't exposed contributes nothing."""
        if e:
            n, es, cs, es2, cs2, both = self._sums.get(variant, (0, 0, 0, 0, 0, 0))
            self._sums[variant] = (
                n + sign, es + sign * e, cs + sign * c, es2 + sign * e * e, cs2 + sign * c * c, both + sign * e * c,
            )  # fmt: skip


def read_events(path: str | Path, time: str | None = None) -> Iterator[Event]:
    """The events of a .parquet, .csv or .jsonl file, in its order, streamed.

    Args:
        path: the file.
        time: column of the times: dates, ISO 8601 texts, or seconds since 1970, as numbers or texts. A text of eight
            digits is a date, 20260131.

    Raises:
        SourceError: the file is missing, of another kind, lacks a column or a value, or its times go back.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"there are no events at {path}; check the path")
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise SourceError(f"{path.name} is of an unknown kind; known are {', '.join(readers)}")
    wanted = (*_COLUMNS, *([time] if time is not None else []))
    before: datetime | None = None
    for number, row in enumerate(readers[path.suffix](path, wanted)):
        missing = [name for name in wanted if name not in row]
        if missing:
            raise SourceError(f"row {number} of {path} has no {', '.join(missing)}; events have {', '.join(wanted)}")
        user, variant, kind = (row[name] for name in _COLUMNS)
        if any(value is None or value == "" for value in (user, variant, kind)):
            raise SourceError(f"row {number} of {path} lacks a user, variant or event; mend it")
        at = None if time is None else _time(row[time], f"row {number} of {path}")
        if at is not None and before is not None and at < before:
            raise SourceError(f"row {number} of {path} is of {at}, the row before of {before}; sort the events by time")
        before = at
        yield Event(str(user), str(variant), str(kind), at)


def _time(value: Any, where: str) -> datetime:
    try:
        if isinstance(value, str) and _SECONDS.fullmatch(value) and not _DATE.fullmatch(value):
            value = float(value)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = value.isoformat()
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (ValueError, TypeError, OverflowError, OSError) as exc:
        raise SourceError(f"{where} has no readable time ({exc}); write ISO 8601 or seconds since 1970") from exc
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in wanted if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(f"{path} has no column {', '.join(missing)}; events have {', '.join(wanted)}")
            for batch in file.iter_batches(columns=list(wanted)):
                yield from batch.to_pylist()
    except pa.ArrowException as exc:
        raise SourceError(f"can't read {path}: {exc}") from exc


def _csv(path: Path, _: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _jsonl(path: Path, _: Sequence[str]) -> Iterator[Mapping[str, Any]]:
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
