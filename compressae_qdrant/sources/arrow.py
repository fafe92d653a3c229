"""Tables in memory or from a query, as numbered rows: Arrow streams and Hugging Face datasets."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Final, Protocol, Self, runtime_checkable

import pyarrow as pa

from ..errors import SourceError
from .arrow_columns import column_values
from .columns import Columns
from .source import Row
from .tables import Table

__all__ = ["ArrowDataset", "ArrowStream", "open_arrow"]

_READ_ROWS: Final = 4096


@runtime_checkable
class ArrowStream(Protocol):
    """A table that exports itself as an Arrow C stream: a data frame of polars or pandas, a relation of DuckDB, or a
    table, record batch or reader of pyarrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The stream, as a PyCapsule."""


@runtime_checkable
class ArrowDataset(Protocol):
    """A dataset of the package `datasets`, in memory or streamed."""

    def with_format(self, type: str, /) -> Any:
        """The dataset with another type of batches."""

    def iter(self, batch_size: int, /) -> Iterator[Any]:
        """The batches."""

    def skip(self, n: int, /) -> Self:
        """The dataset without its first n rows."""


def open_arrow(data: ArrowStream | ArrowDataset, identity: str | None) -> Table:
    """Open an Arrow stream or a dataset as a table.

    Raises:
        SourceError: the stream is not a table.
    """
    return _Stream(data, identity) if isinstance(data, ArrowStream) else _Dataset(data, identity)


class _Stream(Table):
    """The rows of an Arrow stream.

    A reader can be read only once, and nothing tells a reader from a table that exports a new stream each time. So the
    stream that told the names of the columns also serves the first reading, and its first batch is kept, because the
    dimension of the embeddings is read before the rest.
    """

    advice = "check the query or the table that produces the Arrow stream"

    def __init__(self, data: ArrowStream, identity: str | None) -> None:
        super().__init__(f"the {type(data).__name__}", identity or uuid.uuid4().hex)
        self._data = data
        # Before the stream is opened: for a relation of DuckDB this is a query, and a query ends an open stream.
        self.rows = len(data) if isinstance(data, Sized) else None
        self._reader: pa.RecordBatchReader | None = self._open()
        self.names = self._reader.schema.names
        self._head: pa.RecordBatch | None = None

    def read(self, start: int, columns: Columns) -> Iterator[Row]:
        return _rows(self._batches(), start, 0, columns)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self._head is None and self._reader is not None:
            self._head = next((batch for batch in self._reader if batch.num_rows), None)
        if self._head is None:
            return
        if self._reader is not None:
            yield self._head
            reader, self._reader = self._reader, None
            if reader is None:  # another reading has gone beyond the first batch since
                raise self._exhausted()
        else:
            reader = self._open()
            first = next((batch for batch in reader if batch.num_rows), None)
            if first is None:
                raise self._exhausted()
            yield first
        with reader:
            yield from reader

    def _open(self) -> pa.RecordBatchReader:
        try:
            return pa.RecordBatchReader.from_stream(self._data)
        except pa.ArrowException as exc:
            raise SourceError(f"{self.name} is not a stream of rows with columns: {exc}; pass a table") from exc

    def _exhausted(self) -> SourceError:
        return SourceError(
            f"{self.name} can be read only once, and has been read; pass a table, a data frame or a relation, or open "
            "a new stream for each reading"
        )


class _Dataset(Table):
    """The rows of a Hugging Face dataset."""

    advice = "check the files of the dataset"

    def __init__(self, data: ArrowDataset, identity: str | None) -> None:
        # Map-style datasets have a fingerprint of their content and of every transformation.
        super().__init__(
            f"the {type(data).__name__}", identity or getattr(data, "_fingerprint", None) or uuid.uuid4().hex
        )
        self._data = data
        self.rows = len(data) if isinstance(data, Sized) else None
        self.seekable = self.rows is not None
        names = getattr(data, "column_names", None)  # None for a stream whose features are unknown
        if names is None:
            names = next((batch.schema.names for batch in self._batches(0)), [])
        self.names = list(names)

    def read(self, start: int, columns: Columns) -> Iterator[Row]:
        if self.rows is not None and start >= self.rows:  # a dataset refuses to skip all of its rows
            return iter(())
        return _rows(self._batches(start), start, start, columns)

    def _batches(self, start: int) -> Iterator[pa.RecordBatch]:
        data = self._data.skip(start) if start else self._data
        tables: Iterable[pa.Table] = data.with_format("arrow").iter(_READ_ROWS)
        return itertools.chain.from_iterable(table.to_batches() for table in tables)


def _rows(batches: Iterable[pa.RecordBatch], start: int, number: int, columns: Columns) -> Iterator[Row]:
    """The rows from number `start` on of batches whose first row has number `number`."""
    for batch in batches:
        if number + batch.num_rows <= start:
            number += batch.num_rows
            continue
        part = batch.slice(max(start - number, 0))
        number = max(start, number)
        names = columns.needed(part.schema.names)
        fields = [column_values(part.column(name)) for name in names]
        for row in range(part.num_rows):
            values = [field[row] for field in fields]
            yield number, dict(zip(names, values, strict=True))
            number += 1
