"""Tables in text files: JSON lines and CSV. A line that cannot be read is a malformed row."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from ..errors import RowError, SourceError
from .columns import Columns
from .source import Row
from .tables import FileTable

__all__ = ["CsvTable", "JsonLinesTable"]

_NAME_ROWS: Final = 1000
"""Rows of a JSON file that are read for the names of its columns."""
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS: Final = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
_MAX_DEPTH: Final = 64
"""Nested lists and objects in a line of JSON, of columns that are left out too; a payload has a lower limit."""
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]')
"""Brackets of JSON; a text is matched as a whole, because brackets in it do not count."""
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as Python's `surrogateescape` reads them."""


class JsonLinesTable(FileTable):
    """A file with one JSON object in each line; blank lines do not count."""

    complete = False

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        rows = [row for _, row in itertools.islice(self.read(0, Columns()), _NAME_ROWS)]
        self._refuse_array(rows)
        self.names = list(dict.fromkeys(name for row in rows if not isinstance(row, RowError) for name in row))
        if not self.names and rows:
            raise SourceError(f"{path} has no row with columns: {rows[0] or 'row 0 is an empty object'}")

    def read(self, start: int, columns: Columns) -> Iterator[Row]:  # noqa: ARG002 (a line is parsed as a whole)
        with _open(self.path) as file:
            for number, line in enumerate(line for line in file if line.strip()):
                if number >= start:
                    yield number, self._parse(number, line)

    def _parse(self, number: int, line: bytes) -> Mapping[str, Any] | RowError:
        place = f"row {number} of {self.path.name}"
        if _depth(line) > _MAX_DEPTH:
            return RowError(f"{place} is nested deeper than {_MAX_DEPTH} levels; flatten it", number)
        try:
            row = json.loads(line.decode(), object_pairs_hook=_object)
        except UnicodeDecodeError as exc:
            return RowError(f"{place} is not UTF-8 ({exc})", number)
        except ValueError as exc:
            return RowError(f"{place} is not JSON: {exc}", number)
        if not isinstance(row, dict):
            return RowError(f"{place} is a {type(row).__name__}, expected an object", number)
        return row

    def _refuse_array(self, rows: Sequence[Any]) -> None:
        """Raise a SourceError if the file is one JSON array, on one line or many."""
        if not rows or not isinstance(rows[0], RowError):
            return
        with _open(self.path) as file:
            line = next(line for line in file if line.strip()).strip()
        first = line[1:].lstrip()[:1]
        if line.startswith(b"[") and first in (b"", b"{"):
            raise SourceError(f"{self.path} is a JSON array; write one object in each line, for example by jq -c '.[]'")


def _depth(line: bytes) -> int:
    """How deep lists and objects are nested in a line of JSON, or a bound below `_MAX_DEPTH` that is cheap to compute.

    The parser recurses: a line of a thousand levels exhausts Python's stack, in whatever else runs at that moment.
    """
    if (bound := line.count(b"[") + line.count(b"{")) <= _MAX_DEPTH:
        return bound
    depth = deepest = 0
    for token in _BRACKETS.finditer(line):
        first = token[0][:1]
        depth += 1 if first in b"[{" else -1 if first in b"]}" else 0
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a field has the name {next(name for name in names if names.count(name) > 1)!r} twice")
    return fields


class CsvTable(FileTable):
    """A CSV file with a header. An empty field is a missing value.

    A column all of whose values are numbers, or all of whose values are booleans, is read as such, so that the catalog
    has the same content as in JSON lines. The file is read once more for that.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        csv.field_size_limit(1 << 24)  # an embedding as text is longer than the module's default
        with _text(path) as file:
            self.names = next(csv.reader(file), [])
        if any(map(_UNDECODED.search, self.names)):
            raise SourceError(f"the header of {path} is not UTF-8; convert the file")
        self._typed: dict[tuple[str, ...], list[Any]] = {}

    def read(self, start: int, columns: Columns) -> Iterator[Row]:
        needed = columns.needed(self.names)
        roles = {columns.id, columns.text, columns.embedding if columns.text is None else None}
        converters = self._converters(tuple(name for name in needed if name == columns.id or name not in roles))
        read = [name in needed for name in self.names]
        for number, values in self._records():
            if number < start:
                continue
            problem = self._problem(values, read)
            if problem is not None:
                yield number, RowError(f"row {number} of {self.path.name} {problem}", number)
                continue
            cells = ((name, values[position]) for position, name in enumerate(self.names) if name in needed)
            yield (
                number,
                {
                    name: converters.get(name, str)(value) if value else "" if name in roles else None
                    for name, value in cells
                },
            )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        with _text(self.path) as file:
            reader = csv.reader(file)
            next(reader, None)
            yield from enumerate(values for values in reader if values)

    def _problem(self, values: Sequence[str], read: Sequence[bool]) -> str | None:
        """What is wrong with a row, in the columns that are read."""
        if len(values) != len(self.names):
            return f"has {len(values)} fields, expected {len(self.names)}"
        cells = zip(self.names, values, read, strict=True)
        bad = next((name for name, value, needed in cells if needed and _UNDECODED.search(value)), None)
        return None if bad is None else f"has text in column {bad!r} that is not UTF-8"

    def _converters(self, names: tuple[str, ...]) -> dict[str, Any]:
        """What converts the values of each column that is not text."""
        if names not in self._typed:
            positions = {name: self.names.index(name) for name in names}
            numbers, booleans = set(names), set(names)
            for _, values in self._records():
                if not numbers and not booleans:
                    break
                if self._problem(values, [name in names for name in self.names]) is not None:
                    continue
                for name in numbers | booleans:
                    value = values[positions[name]]
                    if value and not _is_number(value):
                        numbers.discard(name)
                    if value and value not in _BOOLEANS:
                        booleans.discard(name)
            self._typed[names] = [numbers, booleans - numbers]
        numbers, booleans = self._typed[names]
        return {**dict.fromkeys(numbers, _number), **dict.fromkeys(booleans, _BOOLEANS.__getitem__)}


def _is_number(value: str) -> bool:
    """Whether a text is a number as JSON writes it, that 64 bits hold."""
    match = _NUMBER.fullmatch(value)
    if match is None:
        return False
    if match[1] or match[2]:
        return abs(float(value)) != float("inf")
    return len(value) < 20 or (len(value) == 20 and -(2**63) <= int(value) < 2**64)


def _number(value: str) -> int | float:
    match = cast(re.Match[str], _NUMBER.fullmatch(value))
    return float(value) if match[1] or match[2] else int(value)


def _open(path: Path) -> BinaryIO:
    """A text file, unpacked and without its byte order mark, which would become part of the first column's name."""
    with contextlib.ExitStack() as on_error:
        file = cast(BinaryIO, on_error.enter_context(_raw(path)))
        mark = file.read(3)
        if mark[:2] in _UTF16_MARKS:
            raise SourceError(f"{path} is in UTF-16; convert it to UTF-8")
        file.seek(0 if mark != _UTF8_MARK else 3)
        on_error.pop_all()
    return file


def _raw(path: Path) -> contextlib.AbstractContextManager[Any]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_open(path), encoding="utf-8", errors="surrogateescape", newline="")
