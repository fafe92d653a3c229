"""The contract of every backend besides search: upserts, deletes, ids, payloads, and refused input."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from compressae_qdrant import IndexSettings, SparseCodes
from compressae_qdrant.errors import InvalidCodeError, InvalidInputError
from compressae_qdrant.index import QueryPlan
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.scoring import QueryVector

from .backends import Create
from .test_congruence import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

IDS: list[Any] = [0, 7, 2**40, str(uuid.UUID(int=5)), "sku/9", "42", "Ünïcode", str(uuid.UUID(int=6)).upper() + "A"]


def _codes(n: int, seed: int = 0) -> SparseCodes:
    random = np.random.default_rng(seed)
    indices = np.stack([random.choice(128, 4, replace=False) for _ in range(n)])
    return SparseCodes(indices, random.normal(size=(n, 4)), 128)


@pytest.fixture
def index(create: Create) -> CodeIndex:
    made = create(StandIn(), IndexSettings(payload_fields={"n": "integer"}))
    made.upsert(IDS, _codes(len(IDS)), [{"n": n, "deep": {"list": [1, None, "x"]}} for n in range(len(IDS))])
    return made


def test_items_are_returned_as_given(index: CodeIndex) -> None:
    codes = _codes(len(IDS))
    records = index.retrieve([*IDS, "missing"])
    assert [record.id for record in records] == IDS
    for row, record in enumerate(records):
        indices, values = codes.row(row)
        np.testing.assert_array_equal(record.indices, indices)
        np.testing.assert_array_equal(record.values, values)
        assert record.payload == {"n": row, "deep": {"list": [1, None, "x"]}}
        hits = index.search(QueryPlan(QueryVector(indices, values), QueryVector(indices, values), 1, 10))
        assert (hits[0].id, hits[0].payload["n"]) == (IDS[row], row)


def test_upsert_replaces_code_and_payload(index: CodeIndex) -> None:
    new = _codes(1, seed=9)
    index.upsert(["sku/9"], new, [{"other": True}])
    assert index.count() == len(IDS)
    (record,) = index.retrieve(["sku/9"])
    np.testing.assert_array_equal(record.indices, new.indices[0])
    assert record.payload == {"other": True}


def test_delete_ignores_missing_items(index: CodeIndex) -> None:
    index.delete(["sku/9", 7, "never there"])
    assert index.count() == len(IDS) - 2
    assert [record.id for record in index.retrieve(IDS)] == [i for i in IDS if i not in ("sku/9", 7)]


def test_filters_by_id_use_the_catalogs_ids(index: CodeIndex) -> None:
    assert index.count(models.Filter(must=[models.HasIdCondition(has_id=["sku/9", 7, "42"])])) == 3


def test_info_describes_the_index(index: CodeIndex) -> None:
    index.optimize()
    info = index.info()
    assert (info.items, info.fingerprint, info.latents) == (len(IDS), "m-0123456789ab", 128)
    assert info.settings.payload_fields == {"n": "integer"}


@pytest.mark.parametrize(
    ("ids", "codes", "payloads", "complaint"),
    [
        ([1, 2], _codes(3), None, "2 ids, 3 codes"),
        ([1, 2], _codes(2), [{}], "1 payloads"),
        ([1, 1], _codes(2), None, "in the batch twice"),
        ([-1, 1], _codes(2), None, r"-1 is outside 0\.\.2\*\*64-1"),
        ([1.5, 1], _codes(2), None, "ids are non-negative integers or strings"),
        ([1, 2], _codes(2), [{"x": float("nan")}, {}], "which JSON cannot represent"),
        ([1, 2], _codes(2), [{"__compressae_id": 3}, {}], "reserved"),
        ([1, 2], SparseCodes([[1], [2]], [[1.0], [1.0]], 64), None, "over 64 latents but the index holds .* over 128"),
        ([1, 2], SparseCodes([[1], [2]], [[1.0], [1.0]], 128, "code"), None, "scale 'code' but the index holds"),
        ([1, 2], SparseCodes._trusted(np.array([[1], [2]], np.int32), np.array([[1], [np.nan]], np.float32), 128), None,
         "row 1 holds NaN"),
    ],
)  # fmt: skip
def test_a_bad_batch_is_refused_as_a_whole(
    index: CodeIndex, ids: Any, codes: SparseCodes, payloads: Any, complaint: str
) -> None:
    with pytest.raises((InvalidInputError, InvalidCodeError), match=complaint):
        index.upsert(ids, codes, payloads)
    assert index.count() == len(IDS)
    assert index.retrieve([1, 2]) == []


def test_a_bad_query_is_refused(index: CodeIndex) -> None:
    def vector(indices: list[int], values: list[float]) -> QueryVector:
        return QueryVector(np.array(indices, np.int32), np.array(values, np.float32))

    for first, complaint in ((vector([128], [1.0]), "has 128"), (vector([1], [np.nan]), "NaN"),
                             (vector([1, 1], [1.0, 2.0]), "twice")):  # fmt: skip
        with pytest.raises(InvalidInputError, match=complaint):
            index.search(QueryPlan(first, None, 1, 1))
