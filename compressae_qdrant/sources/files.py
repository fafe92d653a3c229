"""Catalogs as tables with a column of embeddings, in files or memory, or as NumPy matrices with a table beside them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
import numpy.typing as npt

from ..embedders import Embedder
from ..errors import ConfigError, RowError, SourceError
from .arrow import ArrowDataset, ArrowStream, open_arrow
from .batches import RowRules, batches_of, check_rows
from .columns import Columns
from .identity import file_identity
from .parquet import ParquetTable
from .source import Batch, OnError, Row, Source
from .tables import FileTable, Table, read_rows, reading
from .text_tables import CsvTable, JsonLinesTable

__all__ = ["open_source"]

_MATRIX: Final = "\0embedding"
"""A column name that no table has."""


def open_source(
    data: str | Path | ArrowStream | ArrowDataset,
    *,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    embedder: Embedder | None = None,
    metadata: str | Path | None = None,
    on_error: OnError = "raise",
    identity: str | None = None,
) -> Source:
    """Open a catalog in a file or in memory.

    Args:
        data: a file: `.parquet` (or a directory of such files, read in the order of their names), `.jsonl`, `.csv`,
            both also with `.gz`, or `.npy`. Or a table with `__arrow_c_stream__`: a data frame of polars or pandas, a
            relation of DuckDB, a table or reader of pyarrow. Or a Hugging Face dataset, also a streamed one.
        columns: names of the columns. With `columns.text`, texts are embedded while they are read.
        embedder: embeds the texts of `columns.text`, and is required with it.
        metadata: for `.npy` only, a table with the ids and payloads of its rows, in the same order.
        on_error: `raise` stops at a malformed row and names it; `skip` leaves it out and counts it.
        identity: for tables in memory and streams, a text that changes with the data. An interrupted load can be
            resumed only with the same identity; by default it is a new one each time, or the fingerprint of a dataset.

    Raises:
        SourceError: the file is missing, unreadable or of an unknown kind, or it lacks a column.
        ConfigError: settings contradict each other.
    """
    if columns.text is not None and embedder is None:
        raise ConfigError(
            f"column {columns.text!r} holds text but there is no embedder; pass one, or name a column of embeddings"
        )
    if not isinstance(data, str | Path):
        return _TableSource(_table_in_memory(data, metadata, identity), columns, embedder, on_error)
    path = Path(data)
    if identity is not None:
        raise ConfigError(f"identity is only for tables in memory, but the catalog is {path.name}; remove the identity")
    if not path.exists():
        raise SourceError(f"there is no catalog at {path}; check the path")
    with reading(path):
        if path.suffix == ".npy":
            table = None if metadata is None else _open_table(Path(metadata))
            return _MatrixSource(path, table, columns, on_error)
        if metadata is not None:
            raise ConfigError(
                f"metadata is only for a .npy catalog, but the catalog is {path.name}; remove the metadata"
            )
        return _TableSource(_open_table(path), columns, embedder, on_error)


def _table_in_memory(data: object, metadata: object, identity: str | None) -> Table:
    if metadata is not None:
        raise ConfigError(f"metadata is only for a .npy catalog, not for a {type(data).__name__}; remove the metadata")
    if not isinstance(data, ArrowStream | ArrowDataset):
        raise SourceError(
            f"a {type(data).__name__} is not a catalog; pass a path, a table with __arrow_c_stream__ (polars, pandas, "
            "DuckDB, pyarrow), or one split of a Hugging Face dataset"
        )
    return open_arrow(data, identity)


def _open_table(path: Path) -> Table:
    """Open a table in a file, or in a directory of parquet files.

    Raises:
        SourceError: there is no such file, or it is of an unknown kind.
    """
    if not path.exists():
        raise SourceError(f"there is no table at {path}; check the path")
    if path.is_dir():
        # Names with a dot or an underscore are those of markers and of files that are still being written.
        files = sorted(file for file in path.glob("*.parquet") if file.name[0] not in "._" and file.is_file())
        _refuse_other_datasets(path)
        if not files:
            raise SourceError(f"there is no .parquet file in {path}; pass a file, or a directory of parquet files")
        return ParquetTable(path, files)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    kinds: dict[str, type[FileTable]] = {
        ".parquet": ParquetTable, ".jsonl": JsonLinesTable, ".ndjson": JsonLinesTable, ".csv": CsvTable,
    }  # fmt: skip
    if kind not in kinds:
        raise SourceError(
            f"{path.name} is of an unknown kind; expected .parquet, .jsonl, .csv (the last two also as .gz) or .npy"
        )
    return kinds[kind](path, [path])


def _refuse_other_datasets(path: Path) -> None:
    """Raise a SourceError for a directory whose parquet files alone are not the catalog."""
    if (path / "_delta_log").is_dir():
        raise SourceError(
            f"{path} is a Delta table, which may have files that are no longer part of it; export it to one parquet "
            "file, or pass the table as Arrow (open_source(DeltaTable(path).to_pyarrow_table()))"
        )
    folders = (folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] not in "._")
    nested = next((file for folder in folders for file in folder.rglob("*.parquet")), None)
    if nested is not None:
        raise SourceError(
            f"{path} has parquet files in subdirectories, such as {nested.relative_to(path)}, which are not read; pass "
            "one of these directories, or in Python open_source(pyarrow.dataset.dataset(path, partitioning='hive')"
            ".scanner().to_reader()), or write one file by DuckDB: COPY (FROM read_parquet('DIRECTORY/**/*.parquet', "
            "hive_partitioning = true)) TO 'catalog.parquet'"
        )


class _TableSource:
    """A table with the embeddings, or texts to embed, in a column."""

    def __init__(self, table: Table, columns: Columns, embedder: Embedder | None, on_error: OnError) -> None:
        if not table.names:
            raise SourceError(f"{table.name} has no rows; there is nothing to read")
        table.check(columns)
        self._table = table
        self._rules = RowRules(columns, embedder, on_error, place=table.place)
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        if self._dim is None:
            first = next((batch for batch in self.batches(1) if batch.ids), None)
            if first is None:
                raise SourceError(f"{self._table.name} has no well-formed row; there is nothing to read")
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
        return f"{self._table.identity} {self._rules.columns.identity}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return batches_of(read_rows(self._table, start, self._rules.columns), self._rules, size, start)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return None

    def expecting(self, dim: int) -> Self:
        source = copy.copy(self)
        source._rules = replace(self._rules, dim=dim)
        return source

    def check(self, rows: int) -> None:
        check_rows(read_rows(self._table, 0, self._rules.columns), self._rules, rows, self._table.name)


class _MatrixSource:
    """A NumPy matrix, read through a memory map, with an optional table of the ids and payloads of its rows."""

    def __init__(self, path: Path, table: Table | None, columns: Columns, on_error: OnError) -> None:
        self._path = path
        self._vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._vectors.ndim != 2 or not np.issubdtype(self._vectors.dtype, np.floating):
            raise SourceError(
                f"{path} holds {self._vectors.dtype} of shape {self._vectors.shape}, expected (n, d) floats"
            )
        self._table = table
        columns = (
            Columns(id=None, embedding=_MATRIX) if table is None else replace(columns, embedding=_MATRIX, text=None)
        )
        self._identity = file_identity(path) + (f" {table.identity}" if table is not None else "")
        self._rules = RowRules(columns, None, on_error)
        if table is not None:
            table.check(replace(columns, embedding=None))
            if table.rows is not None and table.rows != len(self._vectors):
                raise SourceError(self._row_count_message(table.rows))

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
        return f"{self._identity} {self._rules.columns.identity}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return batches_of(self._read(start), self._rules, size, start)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return cast(npt.NDArray[np.floating], self._vectors) if self._rules.on_error == "raise" else None

    def expecting(self, dim: int) -> Self:
        source = copy.copy(self)
        source._rules = replace(self._rules, dim=dim)
        return source

    def check(self, rows: int) -> None:
        check_rows(self._read(0), self._rules, rows, str(self._path))

    def _read(self, start: int) -> Iterator[Row]:
        if self._table is None:
            for number in range(start, len(self._vectors)):
                yield number, {_MATRIX: self._vectors[number]}
            return
        number = start - 1
        for number, row in read_rows(self._table, start, self._rules.columns):
            if number >= len(self._vectors):
                raise SourceError(self._row_count_message(number + 1))
            yield number, row if isinstance(row, RowError) else {**row, _MATRIX: self._vectors[number]}
        if number + 1 < len(self._vectors):
            raise SourceError(self._row_count_message(number + 1))

    def _row_count_message(self, rows: int) -> str:
        return (
            f"the matrix has {len(self._vectors)} rows but its metadata has {rows} (or more); both must describe the "
            "same items in the same order"
        )
