"""Hits as an Arrow table, for data frames and databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa

from ..errors import InvalidInputError
from ..index.results import Hit

__all__ = ["hits_to_arrow"]


def hits_to_arrow(results: Sequence[Hit] | Sequence[Sequence[Hit]]) -> pa.Table:
    """The hits of one search or of a batch as an Arrow table, which polars, DuckDB, pandas and others read.

    Args:
        results: hits of `search`, or the lists of hits of `search_batch`.

    Returns:
        Columns `query` (int32, position of the query in the batch), `rank` (int32, from 0), `id`, `score` (float32)
        and `payload` (a struct of all fields). A field with values of mixed types becomes JSON text; without any
        payload the column is missing.

    Raises:
        InvalidInputError: some ids are numbers and others texts.
    """
    queries = cast("list[Sequence[Hit]]", [results] if results and isinstance(results[0], Hit) else results)
    hits = [hit for found in queries for hit in found]
    try:
        ids = pa.array([hit.id for hit in hits], None if hits else pa.string())
    except pa.ArrowException as exc:
        raise InvalidInputError(f"the ids of the hits are not all numbers or all texts: {exc}") from exc
    columns = {
        "query": pa.array([number for number, found in enumerate(queries) for _ in found], pa.int32()),
        "rank": pa.array([rank for found in queries for rank in range(len(found))], pa.int32()),
        "id": ids,
        "score": pa.array([hit.score for hit in hits], pa.float32()),
    }
    fields = sorted({name for hit in hits for name in hit.payload})
    if fields:
        values = [_field([hit.payload.get(name) for hit in hits]) for name in fields]
        columns["payload"] = pa.StructArray.from_arrays(values, fields)
    return pa.table(columns)


def _field(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else json.dumps(value) for value in values])
