"""Deletion by a filter, scrolling through stored items, and dropping an index: the same on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, EdgeIndex, IndexSettings, QdrantIndex, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, ConfigError, IndexNotFoundError, InvalidInputError
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.index.qdrant.collections import aliases_call, delete_call
from compressae_qdrant.index.qdrant.requests import Requests
from compressae_qdrant.index.qdrant.steps import delete_steps, drop_steps, scroll_steps
from compressae_qdrant.index.qdrant.target import Target
from compressae_qdrant.index.results import stacked_codes

from .support.indexes import ENGINES, create_on
from .support.recording import method_of, sent

SETTINGS = IndexSettings(keep_dense=True, navigation=None)
EVEN = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
EMPTY = [models.Filter(), models.Filter(must=[], should=[models.Filter()]), models.Filter(must_not=models.Filter())]


@pytest.fixture(params=ENGINES)
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> Iterator[CodeIndex]:
    """An index of 60 items "item-0".. with the payload {"n", "even"} and kept embeddings."""
    with create_on(request.param, tmp_path, model, SETTINGS) as index:
        payloads = [{"n": n, "even": n % 2 == 0} for n in range(60)]
        index.upsert([f"item-{n}" for n in range(60)], codes[:60], payloads, embeddings[:60])
        yield index


def test_a_deletion_by_filter_says_how_many_items_there_were(filled: CodeIndex) -> None:
    some = models.Filter(must=[EVEN, models.FieldCondition(key="n", range=models.Range(lt=10))])
    assert filled.delete_by_filter(some) == 5
    assert filled.delete_by_filter(some) == 0
    assert filled.count() == 55
    assert filled.delete_by_filter(models.Filter(must=[models.HasIdCondition(has_id=["item-1", "item-3", "no"])])) == 2
    assert [record.id for record in filled.retrieve(["item-1", "item-2", "item-5"])] == ["item-5"]


@pytest.mark.parametrize("empty", EMPTY)
def test_a_filter_without_conditions_deletes_nothing_by_accident(filled: CodeIndex, empty: models.Filter) -> None:
    with pytest.raises(InvalidInputError, match=r"matches every item; add one, pass all_items=True"):
        filled.delete_by_filter(empty)
    assert filled.count() == 60


def test_all_items_can_be_deleted(filled: CodeIndex) -> None:
    assert filled.delete_by_filter(models.Filter(), all_items=True) == 60
    assert filled.count() == 0
    with pytest.raises(InvalidInputError, match="filter is a dict"):
        filled.delete_by_filter({}, all_items=True)  # type: ignore[arg-type]  # what is tested


def test_scrolling_gives_each_matching_item_once(
    filled: CodeIndex, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    first, offset = filled.scroll(7, filter=EVEN)
    assert (len(first), offset is None) == (7, False)
    second, _ = filled.scroll(7, offset, filter=EVEN)
    assert not {record.id for record in first} & {record.id for record in second}
    pages = list(filled.scan_records(7, filter=EVEN, with_codes=True, with_dense=True))
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
    records = sorted((record for page in pages for record in page), key=lambda record: record.payload["n"])
    assert [record.id for record in records] == [f"item-{n}" for n in range(0, 60, 2)]
    assert [record.payload for record in records] == [{"n": n, "even": True} for n in range(0, 60, 2)]
    stacked = stacked_codes(records, model)
    np.testing.assert_array_equal(stacked.to_csr().toarray(), codes[slice(0, 60, 2)].to_csr().toarray())
    np.testing.assert_allclose(np.array([record.dense for record in records]), embeddings[:60:2], atol=2e-3)


def test_a_scroll_reads_only_what_is_asked_for(filled: CodeIndex) -> None:
    records, offset = filled.scroll(100)
    assert (len(records), offset) == (60, None)
    assert all(not record.indices.size and record.dense is None and record.payload for record in records)
    bare, _ = filled.scroll(100, with_payload=False, with_codes=True)
    assert {record.id for record in bare} == {f"item-{n}" for n in range(60)}
    assert all(record.indices.size and not record.payload and record.dense is None for record in bare)
    with pytest.raises(InvalidInputError, match=r"item 'item-.*' carries no code"):
        stacked_codes(records, filled)


def test_a_scroll_refuses_unknown_options(filled: CodeIndex) -> None:
    with pytest.raises(InvalidInputError, match="scroll has no option colour; it has filter, with_payload"):
        filled.scroll(5, colour=1)  # type: ignore[call-arg]  # what is tested
    with pytest.raises(InvalidInputError, match="size is 0; a page has at least 1 item"):
        filled.scroll(0)


def test_embeddings_that_are_not_kept_cannot_be_read(tmp_path: Path, model: CompresSAE, index: EdgeIndex) -> None:
    with pytest.raises(InvalidInputError, match="with_dense asks for embeddings, but the index keeps none"):
        index.scroll(with_dense=True)


class _Coder:
    latents, fingerprint = 10, "m-0"


def test_codes_of_unequal_length_are_stacked_with_padding() -> None:
    class One:
        def __init__(self, indices: list[int]) -> None:
            self.id, self.indices = 1, np.array(indices, np.int32)
            self.values = np.arange(1, 1 + len(indices), dtype=np.float32)

    stacked = stacked_codes([One([0, 2, 9]), One([0]), One([1, 4])], _Coder())
    SparseCodes(stacked.indices, stacked.values, 10)  # the rules of the constructor hold
    assert [stacked.row(row)[0].tolist() for row in range(3)] == [[0, 2, 9], [0], [1, 4]]
    assert [stacked.row(row)[1].tolist() for row in range(3)] == [[1, 2, 3], [1], [1, 2]]
    assert len(stacked_codes([], _Coder())) == 0


def test_a_dropped_directory_is_gone(tmp_path: Path, model: CompresSAE) -> None:
    index = EdgeIndex.create(tmp_path / "index", model)
    index.journal.write_text("{}")
    index.drop()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CodeIndexError, match="is closed"):
        index.count()
    with pytest.raises(IndexNotFoundError):
        EdgeIndex.open(tmp_path / "index")
    EdgeIndex.create(tmp_path / "index", model).close()


def test_a_directory_with_other_files_is_not_dropped(tmp_path: Path, model: CompresSAE) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        (tmp_path / "index" / "thesis.tex").write_text("x")
        with pytest.raises(CodeIndexError, match=r"also holds 'thesis.tex', which are not the index's"):
            index.drop()
        assert index.count() == 0  # still open


def test_a_linked_directory_is_dropped_with_its_link(tmp_path: Path, model: CompresSAE) -> None:
    EdgeIndex.create(tmp_path / "real", model).close()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    EdgeIndex.open(tmp_path / "link", model).drop()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_renamed_is_deleted_in_place(
    tmp_path: Path, model: CompresSAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    index = EdgeIndex.create(tmp_path / "index", model)
    monkeypatch.setattr(Path, "rename", busy)
    index.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_collection_in_use_under_an_alias_is_not_dropped(model: CompresSAE) -> None:
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model)
    create = models.CreateAlias(collection_name="items", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    with pytest.raises(ConfigError, match="'items' is in use under alias 'live'; point them elsewhere first"):
        index.drop()
    assert client.collection_exists("items")
    index.drop(aliases=True)
    assert not client.collection_exists("items")
    assert client.get_aliases().aliases == []


def test_the_async_index_has_the_same_operations(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model, SETTINGS)
        await index.upsert(range(60), codes[:60], [{"even": n % 2 == 0} for n in range(60)], embeddings[:60])
        records = [record async for page in index.scan_records(7, filter=EVEN, with_codes=True) for record in page]
        assert [record.id for record in records] == list(range(0, 60, 2))
        np.testing.assert_array_equal(stacked_codes(records, index).values, codes[slice(0, 60, 2)].values)
        page, offset = await index.scroll(10)
        assert (len(page), offset) == (10, 10)
        with pytest.raises(InvalidInputError, match="matches every item"):
            await index.delete_by_filter(models.Filter())
        assert await index.delete_by_filter(EVEN) == 30
        assert await index.count() == 30
        await index.drop()
        assert not await client.collection_exists("items")
        await client.close()

    asyncio.run(run())


def test_adopted_collections_and_shard_keys_are_not_dropped(model: CompresSAE) -> None:
    adopted = Requests(Target("items"), Manifest.of(model, IndexSettings(), adopted=True))
    keys = Requests(Target("items"), Manifest.of(model, IndexSettings(shard_keys=["eu"])))
    for requests, complaint in ((adopted, "was adopted"), (keys.of_shard("eu"), "shard key 'eu' of collection")):
        with pytest.raises(ConfigError, match=complaint):
            next(drop_steps(requests, "items", aliases=True))
    for requests, complaint in ((adopted, "was adopted"), (keys, "is split by shard keys")):
        with pytest.raises(ConfigError, match=complaint):
            next(delete_steps(requests, EVEN, all_items=False))


def test_calls_to_a_server(model: CompresSAE) -> None:
    requests = Requests(Target("items", shard_key="eu"), Manifest.of(model, IndexSettings(shard_keys=["eu"])))
    steps = delete_steps(requests, EVEN, all_items=False)
    assert method_of(next(steps)) == "count"  # type: ignore[arg-type]  # a call and no pause
    deletion: Any = steps.send(3)
    assert sent(deletion)["points_selector"] == models.FilterSelector(filter=EVEN)
    assert (sent(deletion)["shard_key_selector"], sent(deletion)["wait"]) == ("eu", True)
    scroll = scroll_steps(requests, 50, 7, {"filter": EVEN, "with_codes": True, "with_payload": False})
    next(scroll)
    page: Any = scroll.send(20)  # the strict mode's limit
    arguments = sent(page)
    assert (arguments["limit"], arguments["offset"], arguments["with_vectors"]) == (20, 7, ["code"])
    assert (arguments["scroll_filter"], arguments["shard_key_selector"]) == (EVEN, "eu")
    assert "__compressae_id" in arguments["with_payload"]
    assert method_of(aliases_call("items")) == "get_aliases"
    assert method_of(delete_call("items")) == "delete_collection"
