"""Tables as numbered rows with named columns: what all kinds share."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import pyarrow as pa

from ..errors import ConfigError, SourceError
from .columns import Columns
from .identity import file_identity
from .source import Row

__all__ = ["FileTable", "Table", "check_names", "read_rows", "reading"]

_FILE_ADVICE: Final = "check that the file is complete and its text is UTF-8"


class Table(ABC):
    """Numbered rows with named columns.

    Args:
        name: what messages call the table.
        identity: see `Source.identity`.
    """

    seekable: bool = False
    """Whether reading can start at a row without reading the rows before it."""
    complete: ClassVar[bool] = True
    """Whether `names` holds every column; the first rows of a file of objects may not show all."""
    advice: ClassVar[str] = _FILE_ADVICE
    """What to do when reading fails."""

    def __init__(self, name: str, identity: str) -> None:
        self.name, self.identity = name, identity
        self.names: list[str] = []
        self.rows: int | None = None

    @abstractmethod
    def read(self, start: int, columns: Columns) -> Iterator[Row]:
        """The rows from number `start` on, with the cells of at least the columns that are needed."""

    def check(self, columns: Columns) -> None:
        """Check that the table has the columns, and no two of one name.

        Raises:
            SourceError: it does not.
        """
        check_names(self.names, self.name)
        columns.check(self.names, self.name, complete=self.complete)

    def place(self, number: int) -> str:
        """What error messages call a row."""
        return f"row {number}"


class FileTable(Table):
    """A table in one or more files of one kind."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        identity = hashlib.sha256(" ".join(map(file_identity, files)).encode()).hexdigest()[:16]
        super().__init__(str(path), identity)
        self.path, self.files = path, files


def check_names(names: Sequence[str], table: str) -> None:
    """Raise a SourceError if two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"{table} has two columns of the name {twice[0]!r}; rename or remove one of them")


def read_rows(table: Table, start: int, columns: Columns) -> Iterator[Row]:
    """The rows of a table from number `start` on. An error while reading names the last row that was read."""
    rows, number = table.read(start, columns), start
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
