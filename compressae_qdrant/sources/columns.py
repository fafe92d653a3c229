"""Which columns of a table hold the id, the embedding or text, and the payload of an item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from ..errors import SourceError

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the id, the embedding or text, and the payload of an item."""

    id: str | None = "id"
    """Column of the item ids; None uses the row numbers as ids."""
    embedding: str | None = "embedding"
    """Column of the embeddings: lists of numbers, or text of numbers separated by spaces, commas or semicolons."""
    text: str | None = None
    """Column of the texts to embed, instead of `embedding`."""
    payload: tuple[str, ...] | None = None
    """Columns that become the payload; None takes all other columns."""

    def check(self, names: Iterable[str], table: str) -> None:
        """Check that a table has the columns.

        Raises:
            SourceError: a column is missing; the message lists those that the table has.
        """
        present = list(names)
        required = [self.id, self.embedding if self.text is None else self.text, *(self.payload or ())]
        missing = [name for name in required if name is not None and name not in present]
        if missing:
            raise SourceError(
                f"{table} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, present))}; name "
                "the columns that hold the id and the embedding or text"
            )

    def payload_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a row, as values that JSON can hold."""
        names = self.payload
        if names is None:
            return {n: _json_value(v) for n, v in row.items() if n not in (self.id, self.embedding) and v is not None}
        return {name: _json_value(row.get(name)) for name in names if row.get(name) is not None}


def _json_value(value: Any) -> Any:
    """A value that JSON can hold: dates become ISO 8601 texts, decimals numbers, non-finite numbers None."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, np.generic | Decimal):
        value = float(value) if isinstance(value, Decimal) else value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_json_value(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
