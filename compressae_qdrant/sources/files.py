"""Catalogs in files: parquet, JSON lines, CSV, and a NumPy matrix with a table beside it."""

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

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..embedders import Embedder
from ..errors import ConfigError, RowError, SourceError
from .source import Batch, Columns, OnError, Row, Source, batches_of, file_identity

__all__ = ["open_source"]

_READ_ROWS: Final = 4096


def open_source(
    path: str | Path,
    *,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    embedder: Embedder | None = None,
    metadata: str | Path | None = None,
    on_error: OnError = "raise",
) -> Source:
    """A catalog in a file.

    Args:
        path: `.parquet` (or a directory of such files, read in the order of their names), `.jsonl`, `.csv`, both also
            with `.gz`, or `.npy`.
        columns: which columns hold what. With `columns.text`, texts are embedded on the way.
        embedder: needed for `columns.text`.
        metadata: for `.npy`, a table with the ids and payloads of its rows, in the same order.
        on_error: what a malformed row does: stop with its number, or be left out and counted.

    Raises:
        SourceError: the file is missing, of an unknown kind, or lacks a column.
        ConfigError: settings contradict each other.
    """
    path = Path(path)
    if columns.text is not None and embedder is None:
        raise ConfigError(
            f"column {columns.text!r} holds text but there is no embedder; give one, or an embedding column"
        )
    if not path.exists():
        raise SourceError(f"there is no catalog at {path}; check the path")
    with _reading(path):
        if path.suffix == ".npy":
            table = None if metadata is None else _table(Path(metadata))
            return _MatrixSource(path, table, columns, on_error)
        if metadata is not None:
            raise ConfigError(f"metadata belongs to a .npy file, but the catalog is {path.name}; leave it out")
        return _TableSource(_table(path), columns, embedder, on_error)


@contextlib.contextmanager
def _reading(path: Path, from_row: int | None = None) -> Iterator[None]:
    """Map what readers raise for a file that is damaged, cut off, or not in UTF-8."""
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException, ValueError) as exc:
        if isinstance(exc, ConfigError):
            raise
        where = "" if from_row is None else f" beyond row {from_row - 1}"
        raise SourceError(f"can't read {path}{where}: {exc}; is it whole, and its text UTF-8?") from exc


class _Table(ABC):
    """Numbered rows of files of one kind."""

    seekable: ClassVar = False

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path, self.files = path, files
        self.identity = hashlib.sha256(" ".join(map(file_identity, files)).encode()).hexdigest()[:16]
        self.names: list[str] = []
        self.rows: int | None = None

    @abstractmethod
    def read(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on."""


class _Parquet(_Table):
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
                fields = [_values(part.column(name)) for name in part.schema.names]
                for values in zip(*fields, strict=True):
                    if number >= start:
                        yield number, dict(zip(part.schema.names, values, strict=True))
                    number += 1


class _JsonLines(_Table):
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


class _Csv(_Table):
    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path, files)
        csv.field_size_limit(1 << 24)  # a wide embedding written out is longer than the module's default
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
                    complaint = f"row {number} of {self.path.name} has {len(values)} fields, expected {len(self.names)}"
                    yield number, RowError(complaint, number)
                else:
                    yield number, dict(zip(self.names, values, strict=True))


class _TableSource:
    """A table that has the embeddings, or texts to embed, in a column."""

    def __init__(self, table: _Table, columns: Columns, embedder: Embedder | None, on_error: OnError) -> None:
        if not table.names:
            raise SourceError(f"{table.path} has no rows; there is nothing to read")
        columns.check(table.names, str(table.path))
        self._table, self._columns, self._embedder, self._on_error = table, columns, embedder, on_error
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        if self._dim is None:
            found = (batch for batch in self.batches(1) if len(batch.ids))
            first = next(found, None)
            if first is None:
                raise SourceError(f"{self._table.path} has no usable row; there is nothing to read")
            self._dim = int(first.embeddings.shape[1])
        return self._dim

    @property
    def rows(self) -> int | None:
        return self._table.rows

    @property
    def seekable(self) -> bool:
        return self._table.seekable

    @property
    def identity(self) -> str:
        return f"{self._table.identity} {self._columns}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        rows = _read(self._table, start)
        return batches_of(rows, self._columns, size, start, self._embedder, self._on_error)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return None


class _MatrixSource:
    """A NumPy matrix, read through a memory map, and perhaps a table of what its rows are."""

    def __init__(self, path: Path, table: _Table | None, columns: Columns, on_error: OnError) -> None:
        self._vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._vectors.ndim != 2 or not np.issubdtype(self._vectors.dtype, np.floating):
            raise SourceError(
                f"{path} holds {self._vectors.dtype} of shape {self._vectors.shape}, expected (n, d) floats"
            )
        self._table = table
        self._columns = Columns(
            id=columns.id if table is not None else None, embedding=_MATRIX, payload=columns.payload
        )
        self._identity = file_identity(path) + (f" {table.identity}" if table is not None else "")
        self._on_error = on_error
        if table is not None:
            self._columns.check([*table.names, _MATRIX], str(table.path))
            if table.rows is not None and table.rows != len(self._vectors):
                raise SourceError(self._unequal(table.rows))

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def rows(self) -> int | None:
        return len(self._vectors)

    @property
    def seekable(self) -> bool:
        return self._table is None or self._table.seekable

    @property
    def identity(self) -> str:
        return f"{self._identity} {self._columns}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return batches_of(self._read(start), self._columns, size, start, None, self._on_error)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return cast(npt.NDArray[np.floating], self._vectors) if self._on_error == "raise" else None

    def _read(self, start: int) -> Iterator[Row]:
        if self._table is None:
            for number in range(start, len(self._vectors)):
                yield number, {_MATRIX: self._vectors[number]}
            return
        number = start - 1
        for number, row in _read(self._table, start):
            if number >= len(self._vectors):
                raise SourceError(self._unequal(number + 1))
            yield number, row if isinstance(row, RowError) else {**row, _MATRIX: self._vectors[number]}
        if number + 1 < len(self._vectors):
            raise SourceError(self._unequal(number + 1))

    def _unequal(self, rows: int) -> str:
        return (
            f"the matrix has {len(self._vectors)} rows but its metadata has {rows} (or more); both must describe the "
            "same items in the same order"
        )


_MATRIX: Final = "\0embedding"
"""A column name that no table has."""


def _table(path: Path) -> _Table:
    if not path.exists():
        raise SourceError(f"there is no table at {path}; check the path")
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise SourceError(f"there is no .parquet file in {path}; give a file, or a directory of parquet files")
        return _Parquet(path, files)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    kinds: dict[str, type[_Table]] = {".parquet": _Parquet, ".jsonl": _JsonLines, ".ndjson": _JsonLines, ".csv": _Csv}
    if kind not in kinds:
        raise SourceError(f"{path.name} is of an unknown kind; known are .parquet, .jsonl, .csv (also .gz) and .npy")
    return kinds[kind](path, [path])


def _read(table: _Table, start: int) -> Iterator[Row]:
    """The rows of a table from number `start` on, whatever goes wrong on the way named by the last good one."""
    rows, number = table.read(start), start
    while True:
        with _reading(table.path, number):
            found = next(rows, None)
        if found is None:
            return
        yield found
        number = found[0] + 1


def _values(column: Any) -> Sequence[Any]:
    """A column as Python values; vectors stay NumPy rows, which is far faster than lists of numbers."""
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
    # A spreadsheet begins its UTF-8 with a mark, which would be part of the first column's name.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
