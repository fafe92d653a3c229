"""Numbered rows to batches: every row is checked, and a malformed one is reported by its number or skipped."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from ..checks import check_whole
from ..codes import FloatArray
from ..embedders import Embedder, embed_documents
from ..errors import ConfigError, InvalidInputError, RowError, SourceError
from ..index.ids import ItemIds, PointId, point_id
from ..index.results import ItemId
from .cells import BadCell, check_unicode, json_value
from .columns import Columns
from .embeddings import vector_of
from .source import Batch, OnError, Row

__all__ = ["RowRules", "batches_of", "check_rows"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowRules:
    """How the rows of a source become items."""

    columns: Columns
    embedder: Embedder | None = None
    """Embeds texts, if the columns name some."""
    on_error: OnError = "raise"
    dim: int | None = None
    """Dimension that embeddings must have; None takes that of the first well-formed row."""
    place: Callable[[int], str] = "row {}".format
    """Names a row by its number."""


def batches_of(rows: Iterator[Row], rules: RowRules, size: int, start: int) -> Iterator[Batch]:
    """Group numbered rows, the first of which has number `start`, into batches of `size` rows.

    Raises:
        RowError: a row is malformed, unless `rules.on_error` is "skip".
        ConfigError: `size` is not a positive integer.
    """
    size = check_whole("batch size", size, 1, error=ConfigError)
    reader = _RowReader(rules)
    while numbered := list(itertools.islice(rows, size)):
        items: list[_Item] = []
        for number, row in numbered:
            item = reader.item(number, row)
            if isinstance(item, _Item):
                items.append(item)
            elif rules.on_error == "raise":
                raise item
        contents = [item.content for item in items]
        texts = rules.columns.text is not None
        if texts and contents:
            assert rules.embedder is not None
            contents = list(_embed(rules.embedder, contents, start))
        embeddings = np.stack(contents) if contents else np.empty((0, reader.dim or 0), np.float32)
        yield Batch(
            ItemIds._trusted((item.id for item in items), (item.point for item in items)), embeddings,
            [item.payload for item in items], start, start + len(numbered), len(numbered) - len(items),
            norms=None if texts else np.array([item.norm for item in items], np.float64),
        )  # fmt: skip
        start += len(numbered)


def check_rows(rows: Iterator[Row], rules: RowRules, count: int, source: str) -> None:
    """Check the first `count` rows of a source, and where all of these are malformed, the rows up to a well-formed one.

    Texts are not embedded.

    Raises:
        RowError: a row is malformed, unless `rules.on_error` is "skip".
        SourceError: no row is well-formed.
    """
    reader = _RowReader(rules)
    first_error: RowError | None = None
    checked, found = 0, False
    for number, row in rows:
        item = reader.item(number, row)
        checked += 1
        if isinstance(item, _Item):
            found = True
        elif rules.on_error == "raise":
            raise item
        else:
            first_error = first_error or item
        if found and checked >= count:
            return
    if not found:
        reason = (
            "it has no rows" if first_error is None else f"all {checked} rows are malformed; the first: {first_error}"
        )
        raise SourceError(f"{source} has no item to read: {reason}") from first_error


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


class _RowReader:
    """Reads rows one after the other, and remembers the dimension of their embeddings."""

    def __init__(self, rules: RowRules) -> None:
        self.dim = rules.dim
        self._rules, self._columns = rules, rules.columns
        self._left_out: set[str] = set()

    def item(self, number: int, row: Mapping[str, Any] | RowError) -> _Item | RowError:
        """The item of a row, or the error that makes it malformed."""
        if isinstance(row, RowError):
            return row
        where = ""
        try:
            id = self._id(number, row)
            point = point_id(id)
            where = f" ({id!r})"
            content, norm = self._content(row)
            known = len(self._left_out)
            payload = self._columns.payload_of(row, None if self._columns.text else self.dim, self._left_out)
        except InvalidInputError as exc:
            return RowError(f"{self._rules.place(number)}: {exc}", number)
        except ValueError as exc:
            return RowError(f"{self._rules.place(number)}{where} {exc}", number)
        if len(self._left_out) > known:
            _LOG.warning(
                "column %s holds further embeddings, which are not stored; name the columns to store by payload= "
                "(--payload)", ", ".join(map(repr, sorted(self._left_out))),
            )  # fmt: skip
        return _Item(id, point, content, norm, payload)

    def _id(self, number: int, row: Mapping[str, Any]) -> ItemId:
        if self._columns.id is None:
            return number
        id = row.get(self._columns.id)
        if isinstance(id, BadCell):
            raise ValueError(f"has an id that {id.reason}")  # noqa: TRY004
        if isinstance(id, UUID):
            return str(id)
        if isinstance(id, bytes) and self._columns.binary != "refuse":
            id = json_value(id, self._columns.binary)
        if isinstance(id, np.integer) or (isinstance(id, Decimal) and id.is_finite() and id == int(id)):
            id = int(id)
        if isinstance(id, bool) or not isinstance(id, (int, str)) or id == "":
            raise ValueError(f"has id {id!r}; an id must be a non-negative integer or a non-empty string")
        return id

    def _content(self, row: Mapping[str, Any]) -> tuple[Any, float]:
        """The embedding of a row, or the text to embed; and the norm."""
        columns = self._columns
        if columns.text is not None:
            return _text(row.get(columns.text), columns), 1.0
        assert columns.embedding is not None
        value = row.get(columns.embedding)
        if isinstance(value, BadCell):
            raise ValueError(f"has an embedding that {value.reason}")  # noqa: TRY004
        try:
            vector = vector_of(value)
        except (TypeError, ValueError) as exc:
            raise ValueError(f"has an embedding that can't be read: {exc}") from exc
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if self.dim is not None and len(vector) != self.dim:
            expected = "the rows before it have" if self._rules.dim is None else "the expected number is"
            raise ValueError(f"has {len(vector)} dimensions, but {expected} {self.dim}")
        if not math.isfinite(norm) or norm == 0:
            what = "is all zero" if norm == 0 else "holds NaN or an infinite value"
            raise ValueError(f"has an embedding that {what}; embed that item again")
        self.dim = len(vector)
        return vector, norm


def _text(value: Any, columns: Columns) -> str:
    if isinstance(value, bytes) and columns.binary == "text":
        value = json_value(value, "text")
    if isinstance(value, BadCell):
        raise ValueError(f"has a text in column {columns.text!r} that {value.reason}")  # noqa: TRY004
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"has {value!r} in column {columns.text!r}, expected text")
    check_unicode(value)
    return value


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
