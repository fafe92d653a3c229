"""A benchmark: a catalog in memory, the items used as queries, and their true neighbours by exact dense search."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..metrics import values_of
from ..vectors import exact_neighbours, unit_rows

__all__ = ["DEPTH", "Bench"]

DEPTH: Final = 100
"""True neighbours found for each query."""


@dataclass(frozen=True)
class Bench:
    """The data that every method is measured on. Create one with `Bench.of`."""

    name: str
    """Name of the catalog, for titles."""
    vectors: FloatArray
    """(n, d) float32 of unit norm."""
    fields: Mapping[str, Sequence[Any]]
    """Payload fields that measurements need: one value per row."""
    own: npt.NDArray[np.int64]
    """(q,) rows of the query items."""
    drawn: int
    """Number of queries, from the first, drawn uniformly; means use only these. The others fill up segments."""
    truth: list[list[int]]
    """The `DEPTH` rows closest to each query, without the query item itself, closest first."""

    @classmethod
    def of(
        cls,
        name: str,
        vectors: FloatArray,
        fields: Mapping[str, Sequence[Any]],
        queries: int = 500,
        seed: int = 0,
        *,
        avoid: Iterable[int] = (),
        segment: str | None = None,
        per_segment: int = 20,
    ) -> Bench:
        """Draw the queries and find their true neighbours.

        Args:
            name: name of the catalog.
            vectors: (n, d), any norm.
            fields: payload fields to keep: one value per row.
            queries: number of queries to draw; all rows if there are fewer.
            seed: random seed for drawing the queries.
            avoid: rows never to draw, because something was tuned on them.
            segment: one of `fields`. More queries are drawn until each of its values has `per_segment` queries, or
                has no more rows.
            per_segment: minimum number of queries for each value of `segment`.

        Raises:
            InvalidInputError: there are fewer than 101 rows, no row or query to draw, or no such field.
        """
        vectors = unit_rows(vectors)
        free = np.ones(len(vectors), bool)
        free[list(avoid)] = False
        rows = np.flatnonzero(free)
        if queries < 1 or not len(rows):
            raise InvalidInputError(f"cannot draw {queries} queries from {len(rows)} rows; both must be at least 1")
        random = np.random.default_rng(seed)
        own = random.choice(rows, min(queries, len(rows)), replace=False)
        drawn = len(own)
        if segment is not None:
            if segment not in fields:
                raise InvalidInputError(f"no item has a field {segment!r}; the fields are {', '.join(sorted(fields))}")
            own = np.concatenate([own, _filling(fields[segment], own, rows, per_segment, random)])
        truth = exact_neighbours(vectors[own], vectors, DEPTH, own).tolist()
        return cls(name, vectors, fields, own, drawn, truth)

    @property
    def identity(self) -> str:
        """A short hash of the catalog and the queries."""
        digest = hashlib.sha256(repr((self.vectors.shape, self.drawn)).encode())
        digest.update(self.own.tobytes())
        digest.update(np.ascontiguousarray(self.queries).tobytes())
        return digest.hexdigest()[:12]

    @property
    def queries(self) -> FloatArray:
        """(q, d) embeddings of the queries."""
        return self.vectors[self.own]

    def values(self, field: str) -> list[Any]:
        """Values of a payload field of the query items."""
        return [self.fields[field][row] for row in self.own.tolist()]

    def without_own(self, found: Sequence[Sequence[int]]) -> list[list[int]]:
        """Results of the first queries without the query items themselves."""
        own = self.own[: len(found)].tolist()
        return [[row for row in rows if row != mine] for rows, mine in zip(found, own, strict=True)]


def _filling(
    values: Sequence[Any],
    own: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    per_segment: int,
    random: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Rows to add to `own` so that each value of a field has at least `per_segment` queries where possible."""
    chosen = set(own.tolist())
    counts: dict[str, int] = {}
    for row in chosen:
        for value in values_of(values[row]):
            counts[value] = counts.get(value, 0) + 1
    more = []
    for row in random.permutation(rows).tolist():
        row_values = values_of(values[row])
        if row not in chosen and any(counts.get(value, 0) < per_segment for value in row_values):
            more.append(row)
            for value in row_values:
                counts[value] = counts.get(value, 0) + 1
    return np.array(more, np.int64)
