"""Bench: a catalog in memory, the items of it that are searched for, and what exact dense search finds for them."""

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
"""True neighbours of each query."""


@dataclass(frozen=True)
class Bench:
    """What every contender is measured on. Make one by `Bench.of`."""

    name: str
    """Of the catalog, for titles."""
    vectors: FloatArray
    """(n, d) float32 of unit norm."""
    fields: Mapping[str, Sequence[Any]]
    """Payload fields that something is measured by: a value for each row."""
    own: npt.NDArray[np.int64]
    """(q,) rows that are searched for."""
    drawn: int
    """The first so many queries are a uniform draw; means over queries are of these. The others fill up segments."""
    truth: list[list[int]]
    """For each query its `DEPTH` closest rows, itself left out, closest first."""

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
        """Draw the queries, and find the truth.

        Args:
            name: of the catalog.
            vectors: (n, d), any norm.
            fields: payload fields to keep: a value for each row.
            queries: to draw; at most as many as there are rows.
            seed: of the draw.
            avoid: rows that must not be drawn, as something was tuned on them.
            segment: one of `fields`. More queries are drawn until each of its values has `per_segment` of them, or all
                of its rows.
            per_segment: see `segment`.

        Raises:
            InvalidInputError: there are fewer than 101 rows, nothing to draw, or no such field.
        """
        vectors = unit_rows(vectors)
        free = np.ones(len(vectors), bool)
        free[list(avoid)] = False
        rows = np.flatnonzero(free)
        if queries < 1 or not len(rows):
            raise InvalidInputError(f"{queries} queries of {len(rows)} rows; there must be at least one of each")
        random = np.random.default_rng(seed)
        own = random.choice(rows, min(queries, len(rows)), replace=False)
        drawn = len(own)
        if segment is not None:
            if segment not in fields:
                raise InvalidInputError(f"no item has a field {segment!r}; there are {', '.join(sorted(fields))}")
            own = np.concatenate([own, _filling(fields[segment], own, rows, per_segment, random)])
        truth = exact_neighbours(vectors[own], vectors, DEPTH, own).tolist()
        return cls(name, vectors, fields, own, drawn, truth)

    @property
    def identity(self) -> str:
        """A short text that differs for another catalog or other queries."""
        digest = hashlib.sha256(repr((self.vectors.shape, self.drawn)).encode())
        digest.update(self.own.tobytes())
        digest.update(np.ascontiguousarray(self.queries).tobytes())
        return digest.hexdigest()[:12]

    @property
    def queries(self) -> FloatArray:
        """(q, d) embeddings that are searched for."""
        return self.vectors[self.own]

    def values(self, field: str) -> list[Any]:
        """A payload field of each query's item."""
        return [self.fields[field][row] for row in self.own.tolist()]

    def without_own(self, found: Sequence[Sequence[int]]) -> list[list[int]]:
        """What was found for each of the first queries but the item that it is."""
        own = self.own[: len(found)].tolist()
        return [[row for row in rows if row != mine] for rows, mine in zip(found, own, strict=True)]


def _filling(
    values: Sequence[Any],
    own: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    per_segment: int,
    random: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Rows to ask for besides `own`, so that no value of a field is asked for less than `per_segment` times."""
    asked = set(own.tolist())
    have: dict[str, int] = {}
    for row in asked:
        for value in values_of(values[row]):
            have[value] = have.get(value, 0) + 1
    more = []
    for row in random.permutation(rows).tolist():
        wanting = [value for value in values_of(values[row]) if have.get(value, 0) < per_segment]
        if wanting and row not in asked:
            more.append(row)
            for value in values_of(values[row]):
                have[value] = have.get(value, 0) + 1
    return np.array(more, np.int64)
