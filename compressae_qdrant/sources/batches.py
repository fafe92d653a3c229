"""Numbered rows to batches: every row is checked, and a malformed one is reported by its number or skipped."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from ..codes import FloatArray
from ..embedders import Embedder, embed_documents
from ..errors import ConfigError, InvalidInputError, RowError, SourceError
from ..index.ids import ItemIds, PointId, point_id
from ..index.results import ItemId
from .columns import Columns
from .source import Batch, OnError, Row

__all__ = ["batches_of"]

_SEPARATORS: Final = re.compile(r"[\s,;]+")


def batches_of(
    rows: Iterator[Row], columns: Columns, size: int, start: int, embedder: Embedder | None, on_error: OnError
) -> Iterator[Batch]:
    """Group numbered rows, the first of which has number `start`, into batches of `size` rows.

    Raises:
        RowError: a row is malformed, unless `on_error` is "skip".
    """
    if size < 1:
        raise ConfigError(f"batch size is {size}; it must be at least 1")
    dim: int | None = None
    while numbered := list(itertools.islice(rows, size)):
        items: list[_Item] = []
        for number, row in numbered:
            item = row if isinstance(row, RowError) else _item(number, row, columns, dim)
            if isinstance(item, _Item):
                items.append(item)
                dim = len(item.content) if columns.text is None else None
            elif on_error == "raise":
                raise item
        contents = [item.content for item in items]
        if columns.text is not None and contents:
            assert embedder is not None
            contents = list(_embed(embedder, contents, start))
        embeddings = np.stack(contents) if contents else np.empty((0, dim or 0), np.float32)
        yield Batch(
            ItemIds._trusted((item.id for item in items), (item.point for item in items)), embeddings,
            [item.payload for item in items], start, start + len(numbered), len(numbered) - len(items),
            norms=None if columns.text is not None else np.array([item.norm for item in items], np.float64),
        )  # fmt: skip
        start += len(numbered)


class _Item(NamedTuple):
    """A well-formed row."""

    id: ItemId
    point: PointId
    """The id of its point."""
    content: Any
    """Its (d,) float32 embedding, or the text to embed."""
    norm: float
    """Norm of the embedding; 1 for a text."""
    payload: dict[str, Any]


def _item(number: int, row: Mapping[str, Any], columns: Columns, dim: int | None) -> _Item | RowError:
    """Check a row; `dim` is the dimension of the rows before it, if known."""
    id = number if columns.id is None else row.get(columns.id)
    if isinstance(id, np.integer):
        id = int(id)
    if isinstance(id, bool) or not isinstance(id, (int, str)) or id == "":
        return RowError(
            f"row {number} has id {id!r}; an id must be a non-negative integer or a non-empty string", number
        )
    try:
        point = point_id(id)
    except InvalidInputError as exc:
        return RowError(f"row {number}: {exc}", number)
    if columns.text is not None:
        text = row.get(columns.text)
        if not isinstance(text, str) or not text.strip():
            return RowError(f"row {number} ({id!r}) has {text!r} in column {columns.text!r}, expected text", number)
        return _Item(id, point, text, 1.0, columns.payload_of(row))
    assert columns.embedding is not None
    try:
        vector = _vector(row.get(columns.embedding))
    except (TypeError, ValueError) as exc:
        return RowError(f"row {number} ({id!r}) has an embedding that can't be read: {exc}", number)
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if dim is not None and len(vector) != dim:
        return RowError(
            f"row {number} ({id!r}) has {len(vector)} dimensions, but the rows before it have {dim}", number
        )
    if not math.isfinite(norm) or norm == 0:
        what = "is all zero" if norm == 0 else "holds NaN or an infinite value"
        return RowError(f"row {number} ({id!r}) has an embedding that {what}; embed that item again", number)
    return _Item(id, point, vector, norm, columns.payload_of(row))


def _vector(value: Any) -> FloatArray:
    if value is None:
        raise ValueError("the value is missing")
    if isinstance(value, str):
        numbers = _SEPARATORS.split(value.strip().strip("[]()").strip())
        value = [float(number) for number in numbers if number]
    vector = np.asarray(value, np.float32)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"the value has shape {vector.shape}, expected a list of numbers")
    return vector


def _embed(embedder: Embedder, texts: list[str], start: int) -> FloatArray:
    try:
        vectors = embed_documents(embedder, texts)
    except InvalidInputError as exc:
        raise SourceError(f"the texts from row {start} on can't be embedded: {exc}") from exc
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise SourceError(
            f"the embedder returned a zero, NaN or infinite vector for one of the texts from row {start} on"
        )
    return vectors
