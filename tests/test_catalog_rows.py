"""Cells, columns and files of real catalogs; each case was reported against a tool of this kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from qdrant_client import QdrantClient, models

from compressae_qdrant import IndexSettings
from compressae_qdrant.errors import ConfigError, InvalidInputError, RowError, SourceError
from compressae_qdrant.search.settings import search_settings
from compressae_qdrant.sources import Columns, QdrantSource, check_source, open_source
from compressae_qdrant.vectors import check_embeddings

GOOD = [1.0, 2.0, 3.0, 4.0]


def _jsonl(path: Path, *lines: str | bytes) -> Path:
    file = path / "c.jsonl"
    file.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return file


def _row(id: Any, **fields: Any) -> str:
    return json.dumps({"id": id, "embedding": GOOD, **fields})


def _payload(path: Path, **columns: Any) -> Any:
    """The payload of the first row of a Parquet file with these columns."""
    pq.write_table(pa.table({"id": [1], "embedding": [GOOD], **columns}), path / "c.parquet")
    return next(open_source(path / "c.parquet").batches(1)).payloads[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (_row(1, a="\ud800"), "not valid Unicode"),
        (_row(1, a=2**64), "does not fit into 64 bits"),
        (_row(1, a=[{"b": float("nan")}]), "JSON cannot represent"),
        ('{"id": 1, "embedding": [1, 2, 3, 4], "a": ' + "[" * 50 + "]" * 50 + "}", "nested deeper"),
        ('{"id": 1, "a": ' + "[" * 200_000, "nested deeper"),
        (b'{"id": 1, "embedding": [1, 2, 3, 4], "a": "\xe9"}', "is not UTF-8"),
        ('{"id": 1, "id": 2, "embedding": [1, 2, 3, 4]}', "the name 'id' twice"),
        (json.dumps({"id": 1, "embedding": "[0,0123; 0,5]"}), "decimal commas"),
        (json.dumps({"id": 1, "embedding": "0,0123 0,5"}), "is no number"),
        (json.dumps({"id": 1, "embedding": [10**400, 1, 1, 1]}), "too large"),
        (json.dumps({"id": 1, "a": 1}), "the value is missing"),
        (_row(1, __compressae_id="x"), "is reserved"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_bad_cell_is_a_bad_row(tmp_path: Path, line: str | bytes, reason: str, at: int) -> None:
    lines: list[str | bytes] = [_row(7), _row(8)]
    lines.insert(at, line)
    path = _jsonl(tmp_path, *lines)
    with pytest.raises(RowError, match=reason) as caught:
        list(open_source(path).batches(10))
    assert caught.value.row == at
    (batch,) = open_source(path, on_error="skip").batches(10)
    assert (list(batch.ids), batch.skipped) == ([7, 8], 1)


def test_cells_of_arrow_types_keep_every_digit(tmp_path: Path) -> None:
    item = uuid.UUID(int=7)
    payload = _payload(
        tmp_path,
        uuid=pa.array([item.bytes], pa.uuid()), ns=pa.array([1], pa.timestamp("ns")),
        time=pa.array([1], pa.time64("ns")),
        duration=pa.array([timedelta(days=1, microseconds=5)]), price=pa.array([Decimal("9.90")]),
        long=pa.array([Decimal("12345678901234567.89")]), map=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        days=pa.array([[(date(2024, 1, 2), 1)]], pa.map_(pa.date32(), pa.int8())),
    )  # fmt: skip
    assert payload == {
        "uuid": str(item), "ns": "1970-01-01T00:00:00.000000001", "time": "00:00:00.000000001",
        "duration": "PT86400.000005S", "price": 9.9, "long": "12345678901234567.89", "map": {"a": 1},
        "days": {"2024-01-02": 1},
    }  # fmt: skip


def test_uuid_columns_are_ids(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=n) for n in range(2)]
    pq.write_table(
        pa.table({"id": pa.array([i.bytes for i in ids], pa.uuid()), "embedding": [GOOD] * 2}), tmp_path / "c.parquet"
    )
    assert next(open_source(tmp_path / "c.parquet").batches(9)).ids == [str(i) for i in ids]


def test_bytes_are_refused_or_stored_by_choice(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": [1], "embedding": [GOOD], "a": [b"ok"]}), path)
    with pytest.raises(RowError, match="column 'a' holds 2 bytes"):
        list(open_source(path).batches(1))
    for binary, stored in (("base64", "b2s="), ("text", "ok")):
        columns = Columns(binary=binary)  # type: ignore[arg-type]  # the literals above
        assert next(open_source(path, columns=columns).batches(1)).payloads == [{"a": stored}]


def test_a_year_beyond_9999_is_a_bad_row(tmp_path: Path) -> None:
    days = pa.array([0, 10**7, 0], pa.date32())
    pq.write_table(pa.table({"id": [1, 2, 3], "embedding": [GOOD] * 3, "day": days}), tmp_path / "c.parquet")
    with pytest.raises(RowError, match=r"row 1 .*column 'day' .*years 1 to 9999"):
        list(open_source(tmp_path / "c.parquet").batches(9))
    assert next(open_source(tmp_path / "c.parquet", on_error="skip").batches(9)).ids == [1, 3]


def test_payload_columns_are_chosen_dropped_and_renamed(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, _row(1, _id="m", a=1, second=GOOD))
    for columns, payload in (
        (Columns(), {"_id": "m", "a": 1}),
        (Columns(payload=("a", "second")), {"a": 1, "second": GOOD}),
        (Columns(drop=("a",), rename={"_id": "mongo"}), {"mongo": "m"}),
        (Columns(payload=()), {}),
    ):
        assert next(open_source(path, columns=columns).batches(1)).payloads == [payload]
    with pytest.raises(ConfigError, match="two columns"):
        Columns(rename={"a": "x", "b": "x"})
    with pytest.raises(SourceError, match="two columns for the payload field 'a'"):
        open_source(path, columns=Columns(rename={"_id": "a"}))


def test_csv_and_json_lines_of_one_catalog_agree(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, _row(1, n=5, x=0.5, b=True, s="007"), _row(2, n=None, x=-2e9, b=False, s="8"))
    (tmp_path / "c.csv").write_text('id,embedding,n,x,b,s\n1,"[1,2,3,4]",5,0.5,True,007\n2,"[1,2,3,4]",,-2e9,False,8\n')
    ours, theirs = (next(open_source(file).batches(9)) for file in (path, tmp_path / "c.csv"))
    assert (list(ours.ids), ours.payloads) == (list(theirs.ids), theirs.payloads)


def test_the_model_says_the_dimension_and_a_source_without_items_is_refused(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, json.dumps({"id": 1, "embedding": [1.0]}), _row(2))
    with pytest.raises(RowError, match=r"row 0 .* 1 dimensions, but the expected number is 4"):
        check_source(open_source(path), 4)
    source = check_source(open_source(path, on_error="skip"), 4)
    assert next(source.batches(9)).ids == [2]
    with pytest.raises(SourceError, match="all 2 rows are malformed; the first: row 0"):
        check_source(open_source(path, on_error="skip"), 5)


@pytest.mark.parametrize("text", ['[{"id": 1},\n{"id": 2}]', '[\n{"id": 1}\n]', '[{"id": 1, "embedding": [1]}]'])
def test_a_json_array_and_repeated_columns_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match="is a JSON array"):
        open_source(_jsonl(tmp_path, text))
    (tmp_path / "c.csv").write_text("id,embedding,id\n")
    with pytest.raises(SourceError, match="two columns of the name 'id'"):
        open_source(tmp_path / "c.csv")


def test_a_directory_has_markers_and_hidden_files(tmp_path: Path) -> None:
    for number, name in enumerate(("a.parquet", "b.parquet")):
        pq.write_table(pa.table({"id": [number], "embedding": [GOOD if number == 0 else [0.0] * 4]}), tmp_path / name)
    for name in ("._a.parquet", ".tmp.parquet", "_SUCCESS", "_metadata.parquet"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RowError, match=r"row 1 \(row 0 of b\.parquet\)"):
        list(open_source(tmp_path).batches(9))


@pytest.mark.parametrize(
    "X",
    [
        torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, device="meta"),
        [[1.0, 2.0], [1.0]], (row for row in [GOOD]), None, "text",
        [[10**400]], np.ma.array([GOOD], mask=[[True, False, False, False]]),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_read_are_invalid_input(X: Any) -> None:
    with pytest.raises(InvalidInputError, match="embeddings"):
        check_embeddings(X, None, "")


@pytest.mark.parametrize(
    "options", [{"limit": 1.5}, {"limit": "ten"}, {"limit": 2**70}, {"prefetch": "9"}, {"limit": True}]
)
def test_sizes_are_whole_numbers(options: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a whole number"):
        search_settings(**options)


def test_a_multivector_is_refused_and_geo_is_a_field_type() -> None:
    client = QdrantClient(":memory:")
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = models.VectorParams(size=4, distance=models.Distance.COSINE, multivector_config=comparator)
    client.create_collection("multi", vectors_config=params)
    with pytest.raises(SourceError, match="is a multivector"):
        QdrantSource(client, "multi", on_error="skip")
    client.close()
    assert IndexSettings(payload_fields={"place": "geo"}).payload_fields == {"place": "geo"}


@pytest.mark.slow
def test_ten_thousand_parts_with_few_open_files(tmp_path: Path) -> None:
    """Files are opened one at a time, in a process that may have 256 open."""
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"id": [1, 2], "embedding": [GOOD] * 2}), folder / "p00000.parquet")
    for number in range(1, 10_000):
        os.link(folder / "p00000.parquet", folder / f"p{number:05}.parquet")
    program = """
import resource, sys
from compressae_qdrant.sources import open_source
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
source = open_source(sys.argv[1])
rows = [sum(len(batch.ids) for batch in source.batches(500, start)) for start in (19_000,)]
print(source.rows, *rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.split() == ["20000", "1000"], done.stderr


def test_columns_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    """Their bytes may even be damaged."""
    table = pa.table(
        {
            "id": [1, 2],
            "embedding": [GOOD] * 2,
            "a": ["x", "y"],
            "junk": ["JUNK" * 100, "KNUJ" * 100],
            "deep": [{"x": "DEEP" * 50}] * 2,
        }
    )
    path = tmp_path / "c.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"JUNKJUNK", b"\xff" * 8).replace(b"DEEPDEEP", b"\xff" * 8))
    for columns in (Columns(payload=("a",)), Columns(drop=("junk", "deep"))):
        (batch,) = open_source(path, columns=columns).batches(9)
        assert batch.payloads == [{"a": "x"}, {"a": "y"}]
    with pytest.raises(SourceError):
        list(open_source(path).batches(9))
    (tmp_path / "c.csv").write_bytes(b"id,embedding,a,junk\n1,1 2 3 4,x,\xff\n2,1 2 3 4,y,7\n")
    (batch,) = open_source(tmp_path / "c.csv", columns=Columns(payload=("a",))).batches(9)
    assert batch.payloads == [{"a": "x"}, {"a": "y"}]
    with pytest.raises(RowError, match=r"row 0 of c\.csv has text in column 'junk' that is not UTF-8"):
        list(open_source(tmp_path / "c.csv").batches(9))


@pytest.mark.parametrize("other", [False, True])
def test_a_partitioned_directory_is_refused(tmp_path: Path, other: bool) -> None:
    """Its files would be left out, or its partition columns."""
    table = pa.table({"id": [1], "embedding": [GOOD]})
    (tmp_path / "year=2024").mkdir()
    pq.write_table(table, tmp_path / "year=2024" / "part.parquet")
    if other:
        pq.write_table(table, tmp_path / "top.parquet")
    with pytest.raises(
        SourceError, match=r"in subdirectories, such as year=2024/part\.parquet, which are not read; pass"
    ):
        open_source(tmp_path)
    (batch,) = open_source(tmp_path / "year=2024").batches(9)
    assert list(batch.ids) == [1]
    if not other:
        dataset = pyarrow.dataset.dataset(tmp_path, partitioning="hive")
        (batch,) = open_source(dataset.scanner().to_reader()).batches(9)
        assert batch.payloads == [{"year": 2024}]
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(SourceError, match="is a Delta table"):
        open_source(tmp_path)


def test_a_renamed_column_must_be_payload(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="column 'b' is renamed but is not part of the payload"):
        Columns(payload=("a",), rename={"b": "c"})
