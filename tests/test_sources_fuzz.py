"""Catalogs of every type and with every kind of bad cell: the right items, or an error of this package."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from compressae_qdrant.errors import CompresSAEError, RowError
from compressae_qdrant.index.points import _check_json
from compressae_qdrant.sources import open_source

D = 4
_QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
_THOROUGH = settings(_QUICK, max_examples=2000)

_text = st.text(max_size=8)
_surrogates = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
_number = st.floats(width=32) | st.integers(-5, 5)
_embedding = st.lists(_number, min_size=D, max_size=D)
_bad_embedding = st.one_of(
    st.none(), st.just([]), st.just([1.0] * (D - 1)), st.just([10**400] * D), st.just("[0,0123; 0,5]"),
    st.just([[1.0]] * D), st.just({"a": 1}), st.just([1.0, None, 2.0, 3.0]), _text,
)  # fmt: skip
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), _text, _surrogates),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3), max_leaves=6,
)  # fmt: skip
_deep = st.sampled_from([1, 29, 30, 31, 62, 63, 64, 65, 500]).map(lambda depth: "[" * depth + "]" * depth)
_row = st.fixed_dictionaries(
    {"id": st.integers(-1, 2**65) | _text | st.none() | st.floats() | st.uuids().map(str),
     "embedding": _embedding | _bad_embedding},
    optional={"a": _json, "b": _json, "__compressae_id": _text},
)  # fmt: skip
_lines = st.lists(
    st.one_of(
        _row.map(json.dumps).map(str.encode), _row.map(lambda row: json.dumps(row, ensure_ascii=False)).map(
            lambda line: line.encode(errors="surrogatepass")),
        st.sampled_from([b"[1]", b"{", b'{"id": "\xe9", "embedding": [1, 2, 3, 4]}', b'{"id": 1, "id": 2}', b"null"]),
        _deep.map(lambda deep: f'{{"id": 1, "embedding": [1, 2, 3, 4], "a": {deep}}}'.encode()),
    ), max_size=6,
)  # fmt: skip

_ARROW: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.uuid(), st.binary(min_size=16, max_size=16)),
    (pa.time64("ns"), st.integers(0, 86_399 * 10**9)),
    (pa.time32("ms"), st.times().map(lambda value: value.replace(microsecond=0))),
    (pa.duration("ns"), st.integers(-(2**62), 2**62)),
    (pa.duration("us"), st.timedeltas(timedelta(-9999), timedelta(9999))),
    (pa.decimal128(38, 9), st.decimals(-(10**20), 10**20, places=9)),
    (pa.timestamp("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
    (pa.timestamp("ns", "Europe/Prague"), st.integers(0, 2**62)),
    (pa.timestamp("s"), st.integers(-(2**40), 2**40)),
    (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.map_(pa.string(), pa.timestamp("ns")), st.lists(st.tuples(_text, st.integers(0, 2**60)), max_size=2)),
    (pa.map_(pa.int32(), pa.float64()), st.lists(st.tuples(st.integers(0, 9), st.floats()), max_size=2)),
    (pa.binary(), st.binary(max_size=4)),
    (pa.string(), _text),
    (pa.float64(), st.floats()),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.list_(pa.duration("s")), st.lists(st.integers(0, 99), max_size=2)),
    (pa.struct([("lat", pa.float32()), ("day", pa.date32())]),
     st.fixed_dictionaries({"lat": st.floats(width=32), "day": st.dates()})),
    (pa.list_(pa.float32()), st.lists(st.floats(width=32), max_size=70)),
]  # fmt: skip
_column = st.sampled_from(_ARROW).flatmap(
    lambda pair: st.lists(st.none() | pair[1], min_size=3, max_size=3).map(lambda cells: (pair[0], cells))
)
_cell = st.one_of(
    _text, st.sampled_from(["1", "-0.5", "00123", "1e400", "99999999999999999999", "true", "nan", "0,5", "", "é"])
)


def _read(path: Path, rows: int) -> None:
    """Read a catalog in both ways, and check that the two agree and that an engine can store every payload."""
    try:
        skipping = open_source(path, on_error="skip")
        batches = list(skipping.batches(2))
    except CompresSAEError:
        return
    assert sum(len(batch.ids) + batch.skipped for batch in batches) == rows
    assert [batch.start for batch in batches[1:]] == [batch.stop for batch in batches[:-1]]
    for batch in batches:
        assert len(batch.ids) == len(batch.embeddings) == len(batch.payloads)
        assert batch.embeddings.shape[1] == D or not batch.ids
        assert np.isfinite(batch.embeddings).all()
        batch.unit_rows()
        for payload in batch.payloads:
            _check_json(payload, "payload")
            json.dumps(payload, allow_nan=False).encode()
    if not any(batch.skipped for batch in batches):
        strict = list(open_source(path).batches(2))
        assert [batch.payloads for batch in strict] == [batch.payloads for batch in batches]
        return
    with pytest.raises(RowError) as caught:
        list(open_source(path).batches(2))
    assert 0 <= caught.value.row < rows
    assert f"row {caught.value.row}" in str(caught.value)


def _check_json_lines(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.jsonl"
        good = b'{"id": "first", "embedding": [1, 2, 3, 4]}'
        path.write_bytes(b"\n".join([good, *lines]))
        _read(path, len(lines) + 1)


def _check_parquet(columns: list[tuple[pa.DataType, list[Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.parquet"
        fields: dict[str, Any] = {"id": pa.array([1, 2, 3]), "embedding": pa.array([[1.0, 2.0, 3.0, 4.0]] * 3)}
        for number, (kind, cells) in enumerate(columns):
            storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            array = pa.array(cells, storage)
            fields[f"c{number}"] = pa.ExtensionArray.from_storage(kind, array) if storage is not kind else array
        pq.write_table(pa.table(fields), path)
        _read(path, 3)


def _check_csv(rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.csv"
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "embedding", "a", "b"])
            writer.writerows([number, "[1, 2, 3, 4]", *row] for number, row in enumerate(rows))
        _read(path, len(rows))


@_QUICK
@given(_lines)
@example([b'{"id": 1, "embedding": [1, 2, 3, 4], "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
@example([b'{"id": 1, "embedding": [1, 2, 3, 4], "a": "\\ud800"}'])
def test_json_lines(lines: list[bytes]) -> None:
    _check_json_lines(lines)


@_QUICK
@given(st.lists(_column, min_size=1, max_size=3))
def test_parquet(columns: list[tuple[pa.DataType, list[Any]]]) -> None:
    _check_parquet(columns)


@_QUICK
@given(st.lists(st.lists(_cell, min_size=2, max_size=2), min_size=1, max_size=5))
def test_csv(rows: list[list[str]]) -> None:
    _check_csv(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "strategy"),
    [
        (_check_json_lines, _lines),
        (_check_parquet, st.lists(_column, min_size=1, max_size=3)),
        (_check_csv, st.lists(st.lists(_cell, min_size=2, max_size=2), min_size=1, max_size=5)),
    ],
    ids=["json lines", "parquet", "csv"],
)
def test_thousands_of_catalogs(check: Callable[[Any], None], strategy: st.SearchStrategy[Any]) -> None:
    _THOROUGH(given(strategy)(lambda catalog: check(catalog)))()


_values = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.none()
)


@_QUICK
@given(st.lists(st.fixed_dictionaries({"id": st.integers(0, 2**64 - 1), "a": _values, "b": st.none() | st.booleans()}),
                min_size=1, max_size=4))  # fmt: skip
def test_csv_and_json_lines_of_one_catalog_agree_where_columns_have_one_type(rows: list[dict[str, Any]]) -> None:
    if len({isinstance(row["a"], bool) for row in rows if row["a"] is not None}) > 1:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = [row | {"embedding": [1.0, 2.0, 3.0, 4.0]} for row in rows]
        (folder / "c.jsonl").write_text("\n".join(map(json.dumps, full)))
        with (folder / "c.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, full[0])
            writer.writeheader()
            writer.writerows(full)
        (ours,), (theirs,) = (list(open_source(folder / file).batches(9)) for file in ("c.jsonl", "c.csv"))
    assert list(ours.ids) == list(theirs.ids)
    assert ours.payloads == theirs.payloads


@_QUICK
@given(st.datetimes() | st.dates() | st.times() | st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_the_texts_and_numbers_of_typed_cells_lose_nothing(value: datetime | date | time | Decimal) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.parquet"
        try:
            cells = pa.array([value])
        except pa.ArrowException:  # a decimal with more digits than Arrow's type holds
            return
        pq.write_table(pa.table({"id": [1], "embedding": [[1.0]], "a": cells}), path)
        ((batch,)) = list(open_source(path).batches(1))
    stored = batch.payloads[0]["a"]
    if isinstance(value, Decimal):
        assert Decimal(repr(stored) if isinstance(stored, float) else stored) == value
        assert not isinstance(stored, float) or math.isfinite(stored)
    else:
        assert type(value).fromisoformat(stored) == value
