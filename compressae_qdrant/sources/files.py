"""Catalogs as tables with a column of embeddings, in files or memory, or as NumPy matrices with a table beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from ..embedders import Embedder
from ..errors import ConfigError, RowError, SourceError
from .arrow import ArrowDataset, ArrowStream, open_arrow
from .batches import batches_of
from .columns import Columns
from .identity import file_identity
from .source import Batch, OnError, Row, Source
from .tables import Table, open_table, read_rows, reading

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
            table = None if metadata is None else open_table(Path(metadata))
            return _MatrixSource(path, table, columns, on_error)
        if metadata is not None:
            raise ConfigError(
                f"metadata is only for a .npy catalog, but the catalog is {path.name}; remove the metadata"
            )
        return _TableSource(open_table(path), columns, embedder, on_error)


def _table_in_memory(data: object, metadata: object, identity: str | None) -> Table:
    if metadata is not None:
        raise ConfigError(f"metadata is only for a .npy catalog, not for a {type(data).__name__}; remove the metadata")
    if not isinstance(data, ArrowStream | ArrowDataset):
        raise SourceError(
            f"a {type(data).__name__} is not a catalog; pass a path, a table with __arrow_c_stream__ (polars, pandas, "
            "DuckDB, pyarrow), or one split of a Hugging Face dataset"
        )
    return open_arrow(data, identity)


class _TableSource:
    """A table with the embeddings, or texts to embed, in a column."""

    def __init__(self, table: Table, columns: Columns, embedder: Embedder | None, on_error: OnError) -> None:
        if not table.names:
            raise SourceError(f"{table.name} has no rows; there is nothing to read")
        columns.check(table.names, table.name)
        self._table, self._columns, self._embedder, self._on_error = table, columns, embedder, on_error
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
        return f"{self._table.identity} {self._columns}"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        rows = read_rows(self._table, start)
        return batches_of(rows, self._columns, size, start, self._embedder, self._on_error)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return None


class _MatrixSource:
    """A NumPy matrix, read through a memory map, with an optional table of the ids and payloads of its rows."""

    def __init__(self, path: Path, table: Table | None, columns: Columns, on_error: OnError) -> None:
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
            self._columns.check([*table.names, _MATRIX], table.name)
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
        for number, row in read_rows(self._table, start):
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
