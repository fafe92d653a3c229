from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, InvalidInputError, RowError, SourceError
from compressae_qdrant.index.ids import ItemIds, point_id
from compressae_qdrant.sources import Columns, draw_embeddings, open_source, sample_embeddings

N, D = 25, 3
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
ROWS: list[dict[str, Any]] = [
    {"id": f"item-{i}", "embedding": VECTORS[i].tolist(), "title": f"Title, {i}"} for i in range(N)
]


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path / "c.parquet", row_group_size=4)
    return path / "c.parquet"


def _fixed(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    kind = pa.list_(pa.float16(), D)
    column = pa.array([np.asarray(row["embedding"], np.float16) for row in rows], kind)
    table = table.set_column(table.column_names.index("embedding"), "embedding", column)
    pq.write_table(table, path / "f.parquet", row_group_size=7)
    return path / "f.parquet"


def _directory(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "parts").mkdir()
    for number, start in enumerate(range(0, len(rows), 10)):
        pq.write_table(pa.Table.from_pylist(rows[start : start + 10]), path / "parts" / f"{number}.parquet")
    return path / "parts"


def _large(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Lists as Polars writes them."""
    table = pa.Table.from_pylist(rows)
    column = pa.array([row["embedding"] for row in rows], pa.large_list(pa.float32()))
    table = table.set_column(table.column_names.index("embedding"), "embedding", column)
    pq.write_table(table, path / "l.parquet", row_group_size=7)
    return path / "l.parquet"


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path / "c.jsonl"


def _jsonl_gz(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path / "c.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    return path / "c.jsonl.gz"


def _csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with (path / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path / "c.csv"


WRITERS: list[Callable[[Path, list[dict[str, Any]]], Path]] = [
    _parquet,
    _fixed,
    _directory,
    _large,
    _jsonl,
    _jsonl_gz,
    _csv,
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("start", [0, 9, 24, 25])
def test_every_kind_of_file_gives_the_same_items(tmp_path: Path, write: Any, start: int) -> None:
    source = open_source(write(tmp_path, ROWS))
    batches = list(source.batches(4, start))
    assert [item for batch in batches for item in batch.ids] == [row["id"] for row in ROWS[start:]]
    assert [p for batch in batches for p in batch.payloads] == [{"title": row["title"]} for row in ROWS[start:]]
    if start < N:
        got = np.concatenate([batch.embeddings for batch in batches])
        np.testing.assert_allclose(got, VECTORS[start:], atol=2e-3)
        assert got.dtype == np.float32
        assert (batches[0].start, batches[-1].stop) == (start, N)
    assert all(len(batch.ids) == 4 for batch in batches[:-1])
    assert source.dim == D


def test_a_matrix_takes_ids_and_payloads_from_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    table = _jsonl(tmp_path, [{"id": row["id"], "title": row["title"]} for row in ROWS])
    source = open_source(tmp_path / "x.npy", metadata=table)
    assert [item for batch in source.batches(7, 5) for item in batch.ids] == [row["id"] for row in ROWS[5:]]
    assert next(source.batches(2)).payloads == [{"title": "Title, 0"}, {"title": "Title, 1"}]
    bare = open_source(tmp_path / "x.npy")
    assert (bare.seekable, source.seekable) == (True, False)
    assert next(bare.batches(3, 20)).ids == [20, 21, 22]
    assert isinstance(sample_embeddings(bare, 10), np.memmap)
    for rows in (ROWS[:9], ROWS + ROWS):
        longer = open_source(tmp_path / "x.npy", metadata=_jsonl(tmp_path, rows))
        with pytest.raises(SourceError, match="25 rows but its metadata has"):
            list(longer.batches(10))
    with pytest.raises(SourceError, match="25 rows but its metadata has 9"):
        open_source(tmp_path / "x.npy", metadata=_parquet(tmp_path, ROWS[:9]))


@pytest.mark.parametrize("write", [_parquet, _jsonl, _csv])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": [1.0, float("nan"), 2.0]}, "row 13 .* holds NaN"),
        ({"embedding": [0.0, 0.0, 0.0]}, "row 13 .* all zero"),
        ({"embedding": [1.0]}, "row 13 .* 1 dimensions, but the rows before it have 3"),
        ({"embedding": None}, "row 13 .* can't be read"),
        ({"id": ""}, "row 13 has id ''"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path: Path, write: Any, change: Any, message: str) -> None:
    path = write(tmp_path, [row | change if i == 13 else row for i, row in enumerate(ROWS)])
    with pytest.raises(RowError, match=message) as caught:
        list(open_source(path).batches(4))
    assert caught.value.row == 13
    batches = list(open_source(path, on_error="skip").batches(4))
    assert [b.skipped for b in batches] == [0, 0, 0, 1, 0, 0, 0]
    assert [item for b in batches for item in b.ids] == [row["id"] for i, row in enumerate(ROWS) if i != 13]


@pytest.mark.parametrize(("name", "line"), [("c.jsonl", "{broken"), ("c.jsonl", "[1]"), ("c.csv", "a,b,c,d,e")])
def test_a_malformed_line_is_a_bad_row(tmp_path: Path, name: str, line: str) -> None:
    path = (_jsonl if name == "c.jsonl" else _csv)(tmp_path, ROWS)
    lines = path.read_text().splitlines()
    at = 3 if name == "c.jsonl" else 4  # a CSV file has a header
    path.write_text("\n".join([*lines[:at], line, *lines[at:]]))
    with pytest.raises(RowError, match="row 3 of"):
        list(open_source(path).batches(10))
    assert sum(batch.skipped for batch in open_source(path, on_error="skip").batches(10)) == 1


@pytest.mark.parametrize("id", [-1, 2**64, "\ud800"])
def test_an_invalid_id_is_a_bad_row(tmp_path: Path, id: Any) -> None:
    path = _jsonl(tmp_path, [ROWS[0] | {"id": id}, *ROWS[1:]])
    with pytest.raises(RowError, match="row 0: item id"):
        list(open_source(path).batches(4))
    assert next(open_source(path, on_error="skip").batches(4)).skipped == 1


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = _csv(tmp_path, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert next(open_source(path).batches(1)).ids == ["item-0"]


def test_a_truncated_file_is_a_source_error(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": n, "embedding": [1.0, n]}) + "\n" for n in range(5000)).encode()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-2000])
    (tmp_path / "head.jsonl.gz").write_bytes(gzip.compress(lines)[:20])
    with pytest.raises(SourceError, match=r"can't read .*head\.jsonl\.gz: Compressed file ended"):
        open_source(tmp_path / "head.jsonl.gz")
    batches = open_source(tmp_path / "cut.jsonl.gz").batches(100)
    assert next(batches).ids == list(range(100))
    with pytest.raises(SourceError, match=r"can't read .*cut\.jsonl\.gz after row [1-4]\d\d\d: Compressed file ended"):
        list(batches)


def test_columns_are_checked_and_become_payloads(tmp_path: Path) -> None:
    rows = [{"key": i, "vec": [1.0, i], "day": date(2024, 1, 2), "note": None} for i in range(3)]
    path = _parquet(tmp_path, rows)
    with pytest.raises(SourceError, match="no column 'id', 'embedding'; it has 'key', 'vec'"):
        open_source(path)
    batch = next(open_source(path, columns=Columns(id="key", embedding="vec")).batches(2))
    assert batch.ids == [0, 1]
    assert batch.payloads[0] == {"day": "2024-01-02"}
    chosen = Columns(id=None, embedding="vec", payload=("day",))
    assert next(open_source(path, columns=chosen).batches(2)).payloads == [{"day": "2024-01-02"}] * 2


def test_texts_are_embedded(tmp_path: Path) -> None:
    def embed(texts: Sequence[str], /) -> FloatArray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    path = _jsonl(tmp_path, [{"id": i, "text": "x" * (i + 1)} for i in range(5)])
    source = open_source(path, columns=Columns(text="text"), embedder=embed)
    batch = next(source.batches(3))
    assert batch.embeddings[:, 0].tolist() == [1, 2, 3]
    assert batch.payloads[0] == {"text": "x"}
    with pytest.raises(ConfigError, match="no embedder"):
        open_source(path, columns=Columns(text="text"))
    with pytest.raises(SourceError, match="one vector for each text"):
        next(open_source(path, columns=Columns(text="text"), embedder=lambda _: np.ones((1, 2), np.float32)).batches(3))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.xml").write_text("x")
    (tmp_path / "c.parquet").write_text("x")
    (tmp_path / "c.jsonl").write_text("")
    np.save(tmp_path / "x.npy", np.ones(3))
    for name, message in (("none.csv", "there is no"), ("c.xml", "unknown kind"), ("c.parquet", "can't read"),
                            ("c.jsonl", "no rows"), ("x.npy", r"expected \(n, d\)")):  # fmt: skip
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / name)


def test_identity_changes_with_the_data_and_the_columns(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, ROWS)
    before = open_source(path).identity
    assert open_source(path).identity == before
    assert open_source(path, columns=Columns(id=None)).identity != before
    _jsonl(tmp_path, [ROWS[0] | {"title": "other"}, *ROWS[1:]])
    assert open_source(path).identity != before


def test_identity_changes_with_a_byte_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, ROWS * 2000)
    before, text = open_source(path).identity, bytearray(path.read_bytes())
    text[len(text) // 2 :] = text[len(text) // 2 :].replace(b"Title", b"Other", 1)
    path.write_bytes(text)
    assert open_source(path).identity != before


def test_a_training_sample_is_seeded_and_uniform(tmp_path: Path) -> None:
    source = open_source(_jsonl(tmp_path, ROWS))
    sample = sample_embeddings(source, 10, seed=1, batch_size=4)
    assert sample.shape == (10, D)
    np.testing.assert_array_equal(sample, sample_embeddings(source, 10, seed=1, batch_size=7))
    rows = {row.tobytes() for row in VECTORS}
    assert all(row.tobytes() in rows for row in sample)
    assert len(sample_embeddings(source, 1000)) == N
    late = sum(sample_embeddings(source, 10, seed=seed)[:, 0].tolist().count(VECTORS[-1, 0]) for seed in range(50))
    assert 8 <= late <= 34  # the last row is in each sample with probability 0.4


def test_a_measuring_sample_respects_its_limit_and_reports_the_total(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", VECTORS)
    rows = {row.tobytes() for row in VECTORS}
    for source in (open_source(_jsonl(tmp_path, ROWS)), open_source(tmp_path / "items.npy")):
        drawn, items = draw_embeddings(source, 10, seed=1)
        assert (drawn.shape, items) == ((10, D), N)
        assert {row.tobytes() for row in drawn} <= rows
        assert [len(draw_embeddings(source, limit)[0]) for limit in (N, 1000)] == [N, N]


def test_a_batch_passes_on_what_reading_has_computed(tmp_path: Path) -> None:
    rows = [{"id": f"i{n}", "embedding": [3.0 * (n + 1), -4.0 * (n + 1)]} for n in range(3)]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (batch,) = open_source(path).batches(10)
    assert isinstance(batch.ids, ItemIds)
    assert list(batch.ids.points) == [point_id(f"i{n}") for n in range(3)]
    assert batch.norms is not None
    np.testing.assert_array_equal(batch.norms, [5.0, 10.0, 15.0])
    for known in (batch, dataclasses.replace(batch, norms=None)):
        np.testing.assert_array_equal(known.unit_rows().rows, np.array([[0.6, -0.8]] * 3, np.float32))
    unchecked = dataclasses.replace(batch, norms=None, embeddings=batch.embeddings * np.float32(np.nan), start=40)
    with pytest.raises(InvalidInputError, match="embedding in row 40 holds NaN"):
        unchecked.unit_rows()
