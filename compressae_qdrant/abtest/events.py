"""Events of an A/B test: read from a file as a stream, and added up for each user."""

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
    """An exposure or a click of a user."""

    user: str
    variant: str
    kind: str
    """"exposure" or "click"."""
    time: datetime | None = None
    """Time of the event, if the events have a column of times."""


@dataclass
class UserTotals:
    """Exposures and clicks of every user so far, and their sums over users.

    Memory grows with the number of users, not of events. Sums are updated with each event, so reading them is cheap.
    """

    users: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Variant, number of exposures and number of clicks of each user."""
    crossed: set[str] = field(default_factory=set)
    """Users with events in more than one variant; they are left out of all sums."""
    _sums: dict[str, tuple[int, int, int, int, int, int]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Count one event.

        Raises:
            SourceError: the event is neither an exposure nor a click.
        """
        if event.kind not in ("exposure", "click"):
            raise SourceError(
                f"event {event.kind!r} of user {event.user!r} is neither 'exposure' nor 'click'; rename or remove it"
            )
        if event.user in self.crossed:
            return
        variant, exposures, clicks = self.users.get(event.user, (event.variant, 0, 0))
        self._update(variant, exposures, clicks, -1)
        if variant != event.variant:
            self.crossed.add(event.user)
            del self.users[event.user]
            return
        exposures, clicks = exposures + (event.kind == "exposure"), clicks + (event.kind == "click")
        self.users[event.user] = (variant, exposures, clicks)
        self._update(variant, exposures, clicks, 1)

    def moments(self) -> dict[str, Moments]:
        """Sums of each variant over its users with at least one exposure."""
        return {variant: Moments(*sums) for variant, sums in self._sums.items() if sums[0]}

    def _update(self, variant: str, e: int, c: int, sign: int) -> None:
        """Add (sign 1) or subtract (sign -1) a user's exposures e and clicks c, if the user was exposed."""
        if e:
            n, es, cs, es2, cs2, both = self._sums.get(variant, (0, 0, 0, 0, 0, 0))
            self._sums[variant] = (
                n + sign, es + sign * e, cs + sign * c, es2 + sign * e * e, cs2 + sign * c * c, both + sign * e * c,
            )  # fmt: skip


def read_events(path: str | Path, time: str | None = None) -> Iterator[Event]:
    """Read the events of a .parquet, .csv or .jsonl file as a stream, in the order of the file.

    A user id that is a UUID is one user in all its spellings.

    Args:
        path: the file.
        time: column of times: dates, ISO 8601 texts, or seconds since 1970 as numbers or texts. A text of eight digits
            such as 20260131 is a date.

    Raises:
        SourceError: the file does not exist, has another format, lacks a column or value, or is not sorted by time.
    """
    from ..index.ids import canonical_uuid  # loads the engine's client, which `assign` does not need

    path = Path(path)
    if not path.exists():
        raise SourceError(f"there is no file of events at {path}; check the path")
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise SourceError(f"{path.name} has an unknown format; use one of {', '.join(readers)}")
    columns = (*_COLUMNS, *([time] if time is not None else []))
    previous: datetime | None = None
    for number, row in enumerate(readers[path.suffix](path, columns)):
        missing = [name for name in columns if name not in row]
        if missing:
            raise SourceError(f"row {number} of {path} lacks {', '.join(missing)}; events need {', '.join(columns)}")
        user, variant, kind = (row[name] for name in _COLUMNS)
        if any(value is None or value == "" for value in (user, variant, kind)):
            raise SourceError(f"row {number} of {path} lacks a user, variant or event; complete or remove it")
        at = None if time is None else _time(row[time], f"row {number} of {path}")
        if at is not None and previous is not None and at < previous:
            raise SourceError(
                f"row {number} of {path} has time {at}, before {previous} of the previous row; sort the events by time"
            )
        previous = at
        yield Event(canonical_uuid(str(user)) or str(user), str(variant), str(kind), at)


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
        raise SourceError(f"{where} has no readable time ({exc}); use ISO 8601 or seconds since 1970") from exc
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(f"{path} lacks {', '.join(missing)}; events need {', '.join(columns)}")
            for batch in file.iter_batches(columns=list(columns)):
                yield from batch.to_pylist()
    except pa.ArrowException as exc:
        raise SourceError(f"cannot read {path}: {exc}") from exc


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
                    raise SourceError(f"line {number + 1} of {path} is not a JSON object; make it one")
                yield row
