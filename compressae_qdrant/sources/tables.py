"""Tables in files, as numbered rows: parquet, JSON lines and CSV."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import itertools
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError, RowError, SourceError
from .identity import file_identity
from .source import Row

__all__ = ["Table", "column_values", "open_table", "read_rows", "reading"]

_READ_ROWS: Final = 4096
_FILE_ADVICE: Final = "check that the file is complete and its text is UTF-8"


def open_table(path: Path) -> Table:
    """Open a table in a file, or in a directory of parquet files.

    Raises:
        SourceError: there is no such file, or it is of an unknown kind.
    """
    if not path.exists():
        raise SourceError(f"there is no table at {path}; check the path")
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise SourceError(f"there is no .parquet file in {path}; pass a file, or a directory of parquet files")
        return _Parquet(path, files)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    kinds: dict[str, type[_FileTable]] = {
        ".parquet": _Parquet,
        ".jsonl": _JsonLines,
        ".ndjson": _JsonLines,
        ".csv": _Csv,
    }
    if kind not in kinds:
        raise SourceError(
            f"{path.name} is of an unknown kind; expected .parquet, .jsonl, .csv (the last two also as .gz) or .npy"
        )
    return kinds[kind](path, [path])


def read_rows(table: Table, start: int) -> Iterator[Row]:
    """The rows of a table from number `start` on. An error while reading names the last row that was read."""
    rows, number = table.read(start), start
    while True:
        with reading(table.name, number, table.advice):
            row = next(rows, None)
        if row is None:
            return
        yield row
        number = row[0] + 1


@contextlib.contextmanager
def reading(name: object, from_row: int | None = None, advice: str = _FILE_ADVICE) -> Iterator[None]:
    """Raise a SourceError for a table that is damaged, truncated or not in UTF-8.

    Args:
        name: file or other name of the table.
        from_row: number of the next row to read.
        advice: what to do about the error.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException, ValueError) as exc:
        if isinstance(exc, ConfigError):
            raise
        where = f" after row {from_row - 1}" if from_row else ""
        reason = str(exc).partition(" Detail: Python exception")[0].removesuffix(".")  # Arrow appends a traceback
        raise SourceError(f"can't read {name}{where}: {reason}; {advice}") from exc


class Table(ABC):
    """Numbered rows with named columns.

    Args:
        name: what messages call the table.
        identity: see `Source.identity`.
    """

    seekable: bool = False
    """Whether reading can start at a row without reading the rows before it."""
    advice: ClassVar[str] = _FILE_ADVICE
    """What to do when reading fails."""

    def __init__(self, name: str, identity: str) -> None:
        self.name, self.identity = name, identity
        self.names: list[str] = []
        self.rows: int | None = None

    @abstractmethod
    def read(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on."""


class _FileTable(Table):
    """A table in one or more files of one kind."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        identity = hashlib.sha256(" ".join(map(file_identity, files)).encode()).hexdigest()[:16]
        super().__init__(str(path), identity)
        self.path, self.files = path, files


class _Parquet(_FileTable):
    seekable = True

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        opened = [pq.ParquetFile(file) for file in files]
        self.names = opened[0].schema_arrow.names
        self._counts = [file.metadata.num_rows for file in opened]
        self.rows = sum(self._counts)
        for file in opened:
            file.close()

    def read(self, start: int) -> Iterator[Row]:
        first = 0
        for path, count in zip(self.files, self._counts, strict=True):
            if first + count > start:
                yield from self._read_file(path, first, start)
            first += count

    def _read_file(self, path: Path, first: int, start: int) -> Iterator[Row]:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = list(itertools.accumulate(sizes))
            groups = [group for group, end in enumerate(ends) if first + end > start]
            number = first + (ends[groups[0]] - sizes[groups[0]] if groups else 0)
            for part in file.iter_batches(_READ_ROWS, row_groups=groups):
                fields = [column_values(part.column(name)) for name in part.schema.names]
                for values in zip(*fields, strict=True):
                    if number >= start:
                        yield number, dict(zip(part.schema.names, values, strict=True))
                    number += 1


class _JsonLines(_FileTable):
    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        for _, row in self.read(0):
            if not isinstance(row, RowError):
                self.names = list(row)
                break

    def read(self, start: int) -> Iterator[Row]:
        with _text(self.path) as file:
            for number, line in enumerate(line for line in file if line.strip()):
                if number >= start:
                    yield number, self._parse(number, line)

    def _parse(self, number: int, line: str) -> Mapping[str, Any] | RowError:
        try:
            row = json.loads(line)
        except ValueError as exc:
            return RowError(f"row {number} of {self.path.name} is not JSON: {exc}", number)
        if not isinstance(row, dict):
            return RowError(f"row {number} of {self.path.name} is a {type(row).__name__}, expected an object", number)
        return row


class _Csv(_FileTable):
    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        csv.field_size_limit(1 << 24)  # an embedding as text is longer than the module's default
        with _text(path) as file:
            self.names = next(csv.reader(file), [])

    def read(self, start: int) -> Iterator[Row]:
        with _text(self.path) as file:
            reader = csv.reader(file)
            next(reader, None)
            for number, values in enumerate(values for values in reader if values):
                if number < start:
                    continue
                if len(values) != len(self.names):
                    message = f"row {number} of {self.path.name} has {len(values)} fields, expected {len(self.names)}"
                    yield number, RowError(message, number)
                else:
                    yield number, dict(zip(self.names, values, strict=True))


def column_values(column: Any) -> Sequence[Any]:
    """A column as Python values. Vectors stay NumPy rows, which is far faster than lists of numbers."""
    if isinstance(column, pa.FixedShapeTensorArray):
        column = column.storage
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) and not column.null_count:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return cast(Sequence[Any], flat.reshape(len(column), kind.list_size))
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_floating(kind.value_type):
        flat, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return [flat[a:b] if ok else None for a, b, ok in zip(offsets[:-1], offsets[1:], valid, strict=True)]
    return cast(Sequence[Any], column.to_pylist())


def _text(path: Path) -> TextIO:
    # Spreadsheets begin UTF-8 text with a byte order mark, which would become part of the first column's name.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
