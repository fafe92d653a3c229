"""Tables in Parquet files."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from .arrow_columns import column_values
from .columns import Columns
from .source import Row
from .tables import FileTable, check_names

__all__ = ["ParquetTable"]

_READ_ROWS: Final = 4096


class ParquetTable(FileTable):
    """The rows of one or more Parquet files, of which one is open at a time."""

    seekable = True

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        self._counts: list[int] = []
        self._file_names: dict[tuple[str, ...], Path] = {}
        for file in files:
            with pq.ParquetFile(file) as opened:
                self._counts.append(opened.metadata.num_rows)
                self._file_names.setdefault(tuple(opened.schema_arrow.names), file)
        self.names = list(dict.fromkeys(itertools.chain.from_iterable(self._file_names)))
        self.rows = sum(self._counts)
        self._starts = [0, *itertools.accumulate(self._counts)]

    def check(self, columns: Columns) -> None:
        """Check every file; payload columns may be missing from some of them."""
        for names, file in self._file_names.items():
            check_names(names, str(file))
        columns.check(self.names, self.name)
        if len(self._file_names) > 1:
            roles = Columns(id=columns.id, embedding=columns.embedding, text=columns.text, payload=())
            for names, file in self._file_names.items():
                roles.check(names, str(file))

    def place(self, number: int) -> str:
        """A row by its number, in a directory also by its number in its file."""
        if self.path in self.files:
            return f"row {number}"
        file = bisect.bisect_right(self._starts, number) - 1
        return f"row {number} (row {number - self._starts[file]} of {self.files[file].name})"

    def read(self, start: int, columns: Columns) -> Iterator[Row]:
        for path, first, count in zip(self.files, self._starts, self._counts, strict=False):
            if first + count > start:
                yield from _rows_of_file(path, first, start, columns)


def _rows_of_file(path: Path, first: int, start: int, columns: Columns) -> Iterator[Row]:
    # By default, INT96 timestamps become nanoseconds, in which years after 2262 wrap around.
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = list(itertools.accumulate(sizes))
        groups = [group for group, end in enumerate(ends) if first + end > start]
        number = first + (ends[groups[0]] - sizes[groups[0]] if groups else 0)
        needed = columns.needed(file.schema_arrow.names)
        uuids = _uuid_columns(file)
        for part in file.iter_batches(_READ_ROWS, row_groups=groups, columns=needed):
            fields = [(name, column_values(part.column(name), name in uuids)) for name in part.schema.names]
            names = [name for name, _ in fields]
            for row in range(max(0, start - number), len(part)):
                yield number + row, dict(zip(names, (values[row] for _, values in fields), strict=True))
            number += len(part)


def _uuid_columns(file: Any) -> set[str]:
    """Columns of 16 bytes that the file's schema declares as UUIDs."""
    schema = file.schema
    columns = (schema.column(number) for number in range(len(schema.names)))
    return {column.path for column in columns if column.logical_type.type == "UUID"}
