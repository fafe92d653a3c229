"""What a source gives, and how its rows become batches: one by one checked, bad ones named."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..embedders import Embedder
from ..errors import ConfigError, InvalidInputError, RowError, SourceError
from ..index.ids import ItemIds, PointId, point_id
from ..index.results import ItemId
from ..vectors import UnitRows

__all__ = [
    "Batch", "Columns", "OnError", "Row", "Source", "batches_of", "draw_embeddings", "file_identity",
    "sample_embeddings",
]  # fmt: skip

OnError = Literal["raise", "skip"]
Row = tuple[int, "Mapping[str, Any] | RowError"]
"""A row's number in its source and its columns, or why it can't be read."""

_READ_ROWS: Final = 4096
_SEPARATORS: Final = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a source."""

    ids: Sequence[ItemId]
    """`ItemIds` where reading has checked them already."""
    embeddings: FloatArray
    """(n, d) float32, finite, no zero row."""
    payloads: list[dict[str, Any]]
    start: int
    """Number of the first row, counted from 0 over the whole source."""
    stop: int
    """Number of the first row after the batch; more than start + n where rows were skipped."""
    skipped: int
    """Malformed rows left out."""
    norms: npt.NDArray[np.float64] | None = None
    """(n,) norms of the embeddings, where reading has computed them already."""

    def unit_rows(self) -> UnitRows:
        """The embeddings, normalised.

        Raises:
            InvalidInputError: an embedding is zero or not finite, which only a batch without `norms` can have.
        """
        if self.norms is None:
            return UnitRows(self.embeddings, self.start)
        return UnitRows._trusted(np.asarray(self.embeddings / self.norms[:, None], np.float32))


class Source(Protocol):
    """A catalog that can be read from any row on, again and again."""

    @property
    def dim(self) -> int:
        """d of its embeddings."""

    @property
    def rows(self) -> int | None:
        """Rows, where that is known without reading everything."""

    @property
    def seekable(self) -> bool:
        """Whether rows are read without those before them; otherwise a late start takes as long as reading on to it."""

    @property
    def identity(self) -> str:
        """A short text that changes when the data, or the way it is read, does. Resuming depends on it."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of `size` rows from row `start` on. A batch may hold fewer items where rows are skipped."""

    def matrix(self) -> npt.NDArray[np.floating] | None:
        """All embeddings as one array or memory map, if the source has them so."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what."""

    id: str | None = "id"
    """Column of the item ids; None numbers the rows."""
    embedding: str | None = "embedding"
    """Column of the embeddings: lists of numbers, or text with numbers in brackets or separated."""
    text: str | None = None
    """Column of the texts to embed, instead of `embedding`."""
    payload: tuple[str, ...] | None = None
    """Columns that become the payload; None takes all others."""

    def check(self, present: Iterable[str], where: str) -> None:
        """Refuse columns that aren't there.

        Raises:
            SourceError: a column is unknown; the message lists those that are there.
        """
        present = list(present)
        wanted = [self.id, self.embedding if self.text is None else self.text, *(self.payload or ())]
        missing = [name for name in wanted if name is not None and name not in present]
        if missing:
            raise SourceError(
                f"{where} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, present))}; say "
                "which columns hold the id and the embedding or text"
            )

    def payload_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a row, as JSON-like values."""
        names = self.payload
        if names is None:
            return {n: _plain(v) for n, v in row.items() if n not in (self.id, self.embedding) and v is not None}
        return {name: _plain(row.get(name)) for name in names if row.get(name) is not None}


def batches_of(
    rows: Iterator[Row], columns: Columns, size: int, start: int, embedder: Embedder | None, on_error: OnError
) -> Iterator[Batch]:
    """Batches of `size` rows each from numbered rows that begin at `start`.

    Raises:
        RowError: a row is malformed, unless `on_error` is "skip".
    """
    if size < 1:
        raise ConfigError(f"batch size is {size}; it must be at least 1")
    dim: int | None = None
    at = start
    while True:
        group: list[_Item] = []
        taken = skipped = 0
        for number, row in rows:
            taken += 1
            item = row if isinstance(row, RowError) else _item(number, row, columns, dim)
            if isinstance(item, RowError):
                if on_error == "raise":
                    raise item
                skipped += 1
            else:
                if columns.text is None and dim is None:
                    dim = len(item.content)
                group.append(item)
            if taken == size:
                break
        if not taken:
            return
        vectors = [item.content for item in group]
        if columns.text is not None and vectors:
            assert embedder is not None
            vectors = list(_embedded(embedder, vectors, at))
        embeddings = np.stack(vectors) if vectors else np.empty((0, dim or 0), np.float32)
        norms = None if columns.text is not None else np.array([item.norm for item in group], np.float64)
        ids = ItemIds._trusted((item.id for item in group), (item.point for item in group))
        yield Batch(ids, embeddings, [item.payload for item in group], at, at + taken, skipped, norms)
        at += taken


def sample_embeddings(
    source: Source, limit: int, *, seed: int = 0, batch_size: int = _READ_ROWS
) -> npt.NDArray[np.floating]:
    """Embeddings of a source to train on: all of them as they lie in a file, or else at most `limit`, evenly drawn.

    Returns:
        (n, d): a memory map where the source has one; otherwise float32 in memory, a uniform sample
        (reservoir sampling).
    """
    matrix = source.matrix()
    return matrix if matrix is not None else _reservoir(source, limit, seed, batch_size)[0]


def draw_embeddings(source: Source, limit: int, *, seed: int = 0) -> tuple[npt.NDArray[np.floating], int]:
    """At most `limit` embeddings of a source, evenly drawn, to measure something on.

    Returns:
        (n, d) rows, and the number of items in the source.
    """
    matrix = source.matrix()
    if matrix is None:
        return _reservoir(source, limit, seed, _READ_ROWS)
    if len(matrix) <= limit:
        return matrix, len(matrix)
    return matrix[np.sort(np.random.default_rng(seed).choice(len(matrix), limit, replace=False))], len(matrix)


def _reservoir(source: Source, limit: int, seed: int, batch_size: int) -> tuple[FloatArray, int]:
    """A uniform sample of a stream, and how many items it had."""
    random = np.random.default_rng(seed)
    kept: FloatArray | None = None
    seen = 0
    for batch in source.batches(batch_size):
        new = batch.embeddings
        if kept is None:
            kept = np.empty((0, source.dim), np.float32)
        room = max(limit - len(kept), 0)
        kept = np.concatenate([kept, new[:room]])
        # Item number m (from 1) replaces a kept one with probability limit / m.
        for offset in range(min(room, len(new)), len(new)):
            slot = int(random.integers(0, seen + offset + 1))
            if slot < limit:
                kept[slot] = new[offset]
        seen += len(new)
    if kept is None:
        raise SourceError("the source has no rows; there is nothing to train on")
    return kept, seen


def file_identity(path: Path) -> str:
    """A hash of a file's size, time of change, beginning and end: fast, and different after every change of the file.
    A copy has the same only if it keeps the time (`cp -p`, `rsync -t`)."""
    stat = path.stat()
    size = stat.st_size
    digest = hashlib.sha256(f"{path.name} {size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(65_536))
        file.seek(max(size - 65_536, 0))
        digest.update(file.read(65_536))
    return digest.hexdigest()[:16]


class _Item(NamedTuple):
    """One well-formed row."""

    id: ItemId
    point: PointId
    content: Any
    """(d,) embedding, or a text to embed."""
    norm: float
    """Norm of the embedding; 1 for a text."""
    payload: dict[str, Any]


def _item(number: int, row: Mapping[str, Any], columns: Columns, dim: int | None) -> _Item | RowError:
    """A row as an item, or what is wrong with it."""
    id = number if columns.id is None else row.get(columns.id)
    if isinstance(id, np.integer):
        id = int(id)
    if isinstance(id, bool) or not isinstance(id, (int, str)) or id == "":
        return RowError(f"row {number} has id {id!r}; ids are non-negative integers or strings", number)
    try:
        point = point_id(id)
    except InvalidInputError as exc:
        return RowError(f"row {number}: {exc}", number)
    if columns.text is not None:
        text = row.get(columns.text)
        if not isinstance(text, str) or not text.strip():
            return RowError(f"row {number} ({id!r}) has no text in column {columns.text!r}, but {text!r}", number)
        return _Item(id, point, text, 1.0, columns.payload_of(row))
    assert columns.embedding is not None
    try:
        vector = _vector(row.get(columns.embedding))
    except (TypeError, ValueError) as exc:
        return RowError(f"row {number} ({id!r}) has an embedding that can't be read: {exc}", number)
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if dim is not None and len(vector) != dim:
        return RowError(f"row {number} ({id!r}) has {len(vector)} dimensions, the rows before have {dim}", number)
    if not math.isfinite(norm) or norm == 0:
        what = "is all zero" if norm == 0 else "holds NaN or an infinite value"
        return RowError(f"row {number} ({id!r}) has an embedding that {what}; embed that item again", number)
    return _Item(id, point, vector, norm, columns.payload_of(row))


def _vector(value: Any) -> FloatArray:
    if value is None:
        raise ValueError("it is missing")
    if isinstance(value, str):
        numbers = _SEPARATORS.split(value.strip().strip("[]()").strip())
        value = [float(number) for number in numbers if number]
    vector = np.asarray(value, np.float32)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"it has shape {vector.shape}, expected a list of numbers")
    return vector


def _embedded(embedder: Embedder, texts: list[str], start: int) -> FloatArray:
    vectors = np.asarray(embedder(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise SourceError(
            f"the embedder gave shape {vectors.shape} for the {len(texts)} texts from row {start} on; it must give one "
            "vector for each"
        )
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise SourceError(f"the embedder gave a zero, NaN or infinite vector for a text from row {start} on")
    return vectors


def _plain(value: Any) -> Any:
    """A value as JSON has it; dates as ISO 8601, decimals as numbers, non-finite numbers as None."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, np.generic | Decimal):
        value = float(value) if isinstance(value, Decimal) else value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
