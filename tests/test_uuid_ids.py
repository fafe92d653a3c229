"""A UUID is one item in all its spellings, on every path; an index of version 0.1 keeps that version's rule."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    Retriever,
    SparseCodes,
    ingest,
    open_source,
)
from compressae_qdrant.abtest import UserTotals, read_events
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.evaluation.methods import searches
from compressae_qdrant.index.ids import canonical_uuid, point_id, spelling_of
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.ingestion.aio import sync_async
from compressae_qdrant.ingestion.sync import sync

from .support.indexes import ENGINES, create_on
from .support.shell import Shell

ITEM = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
SPELLINGS = [
    str(ITEM), str(ITEM).upper(), ITEM.hex, ITEM.hex.upper(), ITEM.urn, ITEM.urn.upper(), f"{{{ITEM}}}",
    f"{{{ITEM}}}".upper(), f"{{{ITEM.hex}}}", f"urn:uuid:{{{ITEM}}}",
]  # fmt: skip
NOT_UUIDS = [
    f"{ITEM}0", str(ITEM)[:-1], f" {ITEM}", f"{{{ITEM}", str(ITEM).replace("-", "_"), str(ITEM).replace("a0", "g0"),
    f"uuid:{ITEM}", "a0eebc99-9c0b4ef8-bb6d-6bb9bd380a11", str(ITEM).replace("1", "١"), "urn:uuıd:" + str(ITEM),
]  # fmt: skip
OTHER = uuid.UUID(int=5)


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path: Path, model: CompresSAE) -> Iterator[CodeIndex]:
    with create_on(request.param, tmp_path, model) as index:
        yield index


def _catalog(path: Path, ids: list[Any], embeddings: FloatArray) -> Path:
    lines = [
        json.dumps({"id": id, "embedding": x.tolist(), "n": n})
        for n, (id, x) in enumerate(zip(ids, embeddings, strict=False))
    ]
    path.write_text("\n".join(lines))
    return path


def test_spellings() -> None:
    assert {canonical_uuid(text) for text in SPELLINGS} == {str(ITEM)}
    assert {point_id(text) for text in SPELLINGS} == {point_id(ITEM)} == {str(ITEM)}  # type: ignore[arg-type]
    assert [canonical_uuid(text) for text in NOT_UUIDS] == [None] * len(NOT_UUIDS)
    assert len({point_id(text) for text in NOT_UUIDS}) == len(NOT_UUIDS)
    spelled = spelling_of(["A", 7, ITEM.hex])
    assert [spelled(id) for id in ("A", 7, 8, "b", str(ITEM), str(OTHER))] == ["A", 7, 8, "b", ITEM.hex, str(OTHER)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_operation_of_an_index(target: CodeIndex, codes: SparseCodes, spelling: str) -> None:
    target.upsert([SPELLINGS[1], str(OTHER), 7], codes[:3], [{"n": n} for n in range(3)])
    target.upsert([spelling], codes[3:4], [{"n": 3}], hashes=["h"])
    assert target.count() == 3
    (record,) = target.retrieve([spelling])
    assert (record.id, record.payload) == (spelling, {"n": 3})
    for asked in SPELLINGS:
        assert target.retrieve([asked])[0].id == spelling
        assert target.hashes([asked, "missing", 7]) == ["h", None, ""]
    assert {id for ids in target.scan() for id in ids} == {spelling, str(OTHER), 7}
    with pytest.raises(InvalidInputError, match="in the batch twice, in rows 0 and 2"):
        target.upsert([spelling, 7, SPELLINGS[0]], codes[:3])
    target.delete([SPELLINGS[2], SPELLINGS[3]])
    assert target.count() == 2
    assert target.retrieve([spelling]) == []


def _filters(id: Any) -> list[models.Filter]:
    condition = models.HasIdCondition(has_id=[id])
    just = models.Filter(must=[condition])
    return [
        just, models.Filter(must=condition), models.Filter(should=[condition]), models.Filter(must=[just]),
        models.Filter(should=[models.Filter(must_not=[models.Filter(must_not=[condition])])]),
        models.Filter(min_should=models.MinShould(conditions=[condition, just], min_count=2)),
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", [*SPELLINGS, ITEM])
def test_filters_and_exclusions(target: CodeIndex, model: CompresSAE, codes: SparseCodes, spelling: Any) -> None:
    target.upsert([SPELLINGS[3], str(OTHER), 7], codes[:3])
    retriever = Retriever(model, target)
    query = model.decode(codes[:1])[0]
    for wanted in _filters(spelling):
        assert target.count(wanted) == 1
        assert [hit.id for hit in retriever.search(query, filter=wanted, exact=True)] == [SPELLINGS[3]]
        excluded = models.Filter(must_not=[wanted])
        assert {hit.id for hit in retriever.search(query, filter=excluded, exact=True)} == {str(OTHER), 7}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_similar_items_leave_the_item_out(
    target: CodeIndex, model: CompresSAE, codes: SparseCodes, spelling: str
) -> None:
    target.upsert([SPELLINGS[3], str(OTHER), 7], codes[[0, 0, 0]])
    retriever = Retriever(model, target)
    hits = retriever.similar_to(spelling)
    assert {hit.id for hit in hits} == {str(OTHER), 7}
    found = retriever.search(model.decode(codes[:1])[0], 3)
    target.upsert([spelling], codes[:1])  # written again in another spelling before the hit is explained
    assert len(retriever.explain(found)) == 3


def test_ingest_and_sync_write_one_item(
    target: CodeIndex, model: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    path = _catalog(tmp_path / "c.jsonl", [SPELLINGS[1], str(OTHER), "sku"], embeddings)
    assert sync(open_source(path), model, target).added == 3
    for spelling in SPELLINGS:
        path = _catalog(tmp_path / "c.jsonl", [spelling, OTHER.hex, "sku"], embeddings)
        report = sync(open_source(path), model, target)
        assert (report.added, report.changed, report.unchanged, report.deleted) == (0, 0, 3, 0)
    repeated = _catalog(tmp_path / "r.jsonl", SPELLINGS, embeddings)
    ingest(open_source(repeated), model, target, batch_size=1, restart=True)
    assert target.count() == 3
    assert target.retrieve([ITEM.hex])[0].payload == {"n": len(SPELLINGS) - 1}  # the last row


def test_async(model: CompresSAE, embeddings: FloatArray, tmp_path: Path) -> None:
    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model)
        for spelling in SPELLINGS:
            path = _catalog(tmp_path / "c.jsonl", [spelling, str(OTHER)], embeddings)
            await sync_async(open_source(path), model, index)
            assert await index.count() == 2
            retriever = AsyncRetriever(model, index)
            assert [hit.id for hit in await retriever.similar_to(spelling)] == [str(OTHER)]
            assert await index.hashes([spelling]) == await index.hashes([ITEM.hex]) != [None]
            wanted = models.Filter(must=[models.HasIdCondition(has_id=[spelling])])
            assert await index.count(wanted) == 1
            await retriever.explain(await retriever.search(embeddings[0]))
        await index.delete([SPELLINGS[-1]])
        assert await index.count() == 1
        await client.close()

    asyncio.run(run())


def test_the_command_line(shell: Shell, model: CompresSAE, embeddings: FloatArray, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    ids = [str(uuid.UUID(int=n)).upper() for n in range(150)]
    _catalog(tmp_path / "upper.jsonl", ids, embeddings)
    _catalog(tmp_path / "plain.jsonl", [uuid.UUID(id).hex for id in ids], embeddings)
    assert shell.json("sync upper.jsonl --model model --index index")["added"] == 150
    assert shell.json("sync plain.jsonl --model model --index index")["unchanged"] == 150
    hits = shell.json(f"search {uuid.UUID(ids[3]).hex} --like --model model --index index")
    assert len(hits) == 10
    assert ids[3] not in [hit["id"] for hit in hits]
    recalls = [
        shell.json(f"evaluate {name}.jsonl --model model --index index --exact")["recall"]
        for name in ("upper", "plain")
    ]
    assert recalls[0] == recalls[1]


def test_rows_of_hits_are_found_by_any_spelling(target: CodeIndex, model: CompresSAE, codes: SparseCodes) -> None:
    target.upsert([SPELLINGS[3], str(OTHER)], codes[:2])
    search, _ = searches(Retriever(model, target), {"exact": True}, {SPELLINGS[0]: 0, OTHER.hex: 1})
    assert set(search(model.decode(codes[:1])[0], 2)) == {0, 1}


def test_events_count_one_user(tmp_path: Path) -> None:
    lines = [json.dumps({"user": id, "variant": "codes", "event": "exposure"}) for id in [*SPELLINGS, str(OTHER), "u"]]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    totals = UserTotals()
    for event in read_events(tmp_path / "events.jsonl"):
        totals.add(event)
    assert totals.users == {
        str(ITEM): ("codes", len(SPELLINGS), 0), str(OTHER): ("codes", 1, 0), "u": ("codes", 1, 0)
    }  # fmt: skip


def test_an_index_of_version_0_1_keeps_its_items(model: CompresSAE, codes: SparseCodes, tmp_path: Path) -> None:
    """Version 0.1 took other spellings as other strings. Their items must be found and not be written again."""
    old = str(uuid.uuid5(uuid.UUID("92d3b1c5-2f4d-5f7e-9a56-0c8ae10e2c41"), ITEM.hex))
    EdgeIndex.create(tmp_path / "index", model, IndexSettings(navigation=None)).close()
    manifest = json.loads((tmp_path / "index/index.json").read_text())
    del manifest["uuid_spellings"]
    (tmp_path / "index/index.json").write_text(json.dumps(manifest))
    with EdgeIndex.open(tmp_path / "index", model) as index:
        index.upsert([ITEM.hex, str(ITEM)], codes[:2], [{"n": 0}, {"n": 1}])
        assert {str(point.id) for point in index._shard.retrieve([old, str(ITEM)], False, False)} == {old, str(ITEM)}
        assert [record.payload["n"] for record in index.retrieve([ITEM.hex, str(ITEM)])] == [0, 1]
        assert index.count(models.Filter(must=[models.HasIdCondition(has_id=[ITEM.hex, str(ITEM)])])) == 2
        np.testing.assert_array_equal(index.retrieve([ITEM.hex])[0].indices, codes.row(0)[0])
        index.delete([ITEM.hex])
        assert index.count() == 1
    assert Manifest.from_json(manifest, "here").old_ids
    assert not Manifest.from_json(manifest | {"adopted": True}, "here").old_ids
