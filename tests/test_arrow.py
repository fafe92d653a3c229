"""Arrow tables and Hugging Face datasets as catalogs; codes and hits as Arrow tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compressae_qdrant import (
    CompresSAE,
    ConfigError,
    EdgeIndex,
    Hit,
    InvalidCodeError,
    InvalidInputError,
    RowError,
    SourceError,
    SparseCodes,
    ingest,
    open_source,
)
from compressae_qdrant.search import Retriever, hits_to_arrow
from compressae_qdrant.sources import Columns

N, D = 25, 3
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
IDS = [f"item-{i}" for i in range(N)]
TITLES = [f"Title {i}" for i in range(N)]


def _table() -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), D)
    table = pa.table({"id": IDS, "embedding": column, "title": TITLES})
    return pa.concat_tables([table.slice(0, 7), table.slice(7, 0), table.slice(7)])


def _reader() -> Any:
    return pa.RecordBatchReader.from_batches(_table().schema, _table().to_batches())


def _record_batch() -> Any:
    return _table().combine_chunks().to_batches()[0].slice(0)


def _tensors() -> Any:
    column = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [D]), pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), D)
    )
    return pa.table({"id": IDS, "embedding": column, "title": TITLES})


def _pandas() -> Any:
    return pytest.importorskip("pandas").DataFrame({"id": IDS, "embedding": list(VECTORS), "title": TITLES})


def _polars_lists() -> Any:
    return pytest.importorskip("polars").DataFrame({"id": IDS, "embedding": VECTORS.tolist(), "title": TITLES})


def _polars_arrays() -> Any:
    polars = pytest.importorskip("polars")
    return _polars_lists().with_columns(polars.col("embedding").cast(polars.Array(polars.Float32, D)))


def _duckdb() -> Any:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.register("catalog", _table())
    return connection.sql("select id, embedding::float[] as embedding, title from catalog")


def _dataset() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(
        {"id": IDS, "embedding": VECTORS.tolist(), "title": TITLES}
    )


def _streamed_dataset() -> Any:
    return _dataset().to_iterable_dataset(num_shards=2)


REPEATABLE: list[Callable[[], Any]] = [
    _table, _record_batch, _tensors, _pandas, _polars_lists, _polars_arrays, _duckdb, _dataset, _streamed_dataset,
]  # fmt: skip


@pytest.mark.parametrize("make", [*REPEATABLE, _reader])
@pytest.mark.parametrize("start", [0, 6, 7, 24, 25])
def test_every_kind_of_table_gives_the_same_items(make: Callable[[], Any], start: int) -> None:
    source = open_source(make())
    assert source.dim == D
    batches = list(source.batches(4, start))
    assert [item for batch in batches for item in batch.ids] == IDS[start:]
    assert [payload for batch in batches for payload in batch.payloads] == [{"title": t} for t in TITLES[start:]]
    if start < N:
        got = np.concatenate([batch.embeddings for batch in batches])
        np.testing.assert_allclose(got, VECTORS[start:], rtol=1e-6)
        assert got.dtype == np.float32
        assert (batches[0].start, batches[-1].stop) == (start, N)


@pytest.mark.parametrize("make", REPEATABLE)
def test_a_table_can_be_read_again(make: Callable[[], Any]) -> None:
    source = open_source(make())
    first, second = ([item for batch in source.batches(10) for item in batch.ids] for _ in range(2))
    assert first == second == IDS
    assert source.rows in (N, None)


def test_a_reader_is_read_once() -> None:
    source = open_source(_reader())
    assert source.rows is None
    assert not source.seekable
    list(source.batches(10))
    with pytest.raises(SourceError, match="RecordBatchReader can be read only once, and has been read"):
        list(source.batches(10))


def test_two_readings_of_a_reader_do_not_share_its_rows() -> None:
    source = open_source(_reader())
    one, other = source.batches(7), source.batches(7)
    next(one), next(other), next(one)
    with pytest.raises(SourceError, match="can be read only once"):
        next(other)


def test_a_bad_row_of_a_table_is_named_or_skipped() -> None:
    vectors = [*VECTORS.tolist()]
    vectors[13] = [1.0, None, 2.0]
    table = pa.table({"id": IDS, "embedding": pa.array(vectors, pa.list_(pa.float32(), D))})
    with pytest.raises(RowError, match=r"row 13 .* holds NaN"):
        list(open_source(table).batches(4))
    assert sum(batch.skipped for batch in open_source(table, on_error="skip").batches(4)) == 1


def test_a_stream_that_fails_is_a_source_error() -> None:
    def batches() -> Any:
        yield _record_batch().slice(0, 5)
        raise OSError("the connection was lost")

    source = open_source(pa.RecordBatchReader.from_batches(_table().schema, batches()))
    with pytest.raises(SourceError, match=r"can't read the RecordBatchReader after row 4: .*lost.*; check the query"):
        list(source.batches(2))


@pytest.mark.parametrize("data", [[1, 2], {"id": [1]}, np.ones((2, 2)), None])
def test_other_objects_are_refused(data: Any) -> None:
    with pytest.raises(SourceError, match=f"a {type(data).__name__} is not a catalog; pass a path, a table"):
        open_source(data)


def test_tables_are_checked() -> None:
    with pytest.raises(SourceError, match="the Table has no column 'key'"):
        open_source(_table(), columns=Columns(id="key"))
    with pytest.raises(SourceError, match="not a stream of rows with columns"):
        open_source(pa.chunked_array([[1.0]]))
    with pytest.raises(ConfigError, match=r"metadata is only for a \.npy catalog"):
        open_source(_table(), metadata="x.jsonl")
    with pytest.raises(ConfigError, match="identity is only for tables in memory"):
        open_source("x.jsonl", identity="x")


def test_a_table_has_the_identity_that_it_is_given() -> None:
    assert open_source(_table()).identity != open_source(_table()).identity
    assert open_source(_table(), identity="v1").identity == open_source(_table(), identity="v1").identity
    dataset = _dataset()
    assert open_source(dataset).identity == open_source(dataset).identity
    assert open_source(dataset).identity != open_source(dataset.skip(1)).identity


@pytest.mark.parametrize("make", [lambda table: table, lambda table: table.to_reader()])
def test_a_table_is_ingested(make: Any, tmp_path: Path, model: CompresSAE, embeddings: Any) -> None:
    column = pa.FixedSizeListArray.from_arrays(embeddings[:50].ravel(), embeddings.shape[1])
    table = pa.table({"id": range(50), "embedding": column, "title": [f"t{i}" for i in range(50)]})
    with EdgeIndex.create(tmp_path / "index", model) as index:
        assert ingest(open_source(make(table)), model, index, batch_size=20).items == 50
        hits = Retriever(model, index).search_batch(embeddings[:2], 3)
    found = hits_to_arrow(hits)
    assert found.column_names == ["query", "rank", "id", "score", "payload"]
    assert found["query"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert found["rank"].to_pylist() == [0, 1, 2, 0, 1, 2]
    assert found["id"].to_pylist() == [hit.id for some in hits for hit in some]
    assert found["payload"].to_pylist()[0] == dict(hits[0][0].payload)
    assert hits_to_arrow(hits[0]).equals(found.slice(0, 3))


def test_hits_with_mixed_fields_and_without_any() -> None:
    mixed = hits_to_arrow([Hit(1, 0.5, {"a": 1, "b": [1]}), Hit(2, 0.25, {"a": "x"})])
    assert mixed["payload"].to_pylist() == [{"a": "1", "b": [1]}, {"a": '"x"', "b": None}]
    assert hits_to_arrow([Hit("a", 0.5)]).column_names == ["query", "rank", "id", "score"]
    assert hits_to_arrow([]).num_rows == hits_to_arrow([[], []]).num_rows == 0
    with pytest.raises(InvalidInputError, match="not all numbers or all texts"):
        hits_to_arrow([Hit(1, 0.5), Hit("a", 0.5)])


def test_codes_survive_a_data_frame(codes: SparseCodes) -> None:
    table = codes.to_arrow(range(len(codes)))
    assert table.schema.field("indices").type == pa.list_(pa.uint16(), codes.k)
    assert table.schema.field("values").type == pa.list_(pa.float32(), codes.k)
    assert SparseCodes.from_arrow(table) == codes
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(table).filter(polars.col("id") % 2 == 1)
    assert SparseCodes.from_arrow(frame, codes.latents, "projection") == codes[1::2]


def test_codes_that_do_not_fit_their_table(codes: SparseCodes) -> None:
    with pytest.raises(InvalidInputError, match="2 ids for 600 codes"):
        codes.to_arrow([1, 2])
    with pytest.raises(InvalidInputError, match="not all integers or all strings"):
        codes[:2].to_arrow([1, "a"])
    bare = codes.to_arrow().replace_schema_metadata(None)
    with pytest.raises(InvalidInputError, match="pass latents="):
        SparseCodes.from_arrow(bare)
    with pytest.raises(InvalidInputError, match="no usable columns 'indices' and 'values'"):
        SparseCodes.from_arrow(bare.select(["values"]), 96)
    with pytest.raises(InvalidCodeError, match="names a latent outside"):
        SparseCodes.from_arrow(bare, 7)
