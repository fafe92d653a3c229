from __future__ import annotations

import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from compressae_qdrant import IndexSettings, SparseCodes
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.index.ids import ItemIds, content_hash, id_digests, item_id, point_id, public_payload
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.points import check_batch, point_ids, points_of, to_points
from compressae_qdrant.index.reads import check_plan
from compressae_qdrant.index.rescore import rescore
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.scoring import EmbeddingQuery, QueryVector

ids = st.one_of(
    st.integers(0, 2**64 - 1), st.uuids().map(str), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
)
payloads = st.dictionaries(
    st.sampled_from(["_id", "_content"]) | st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(),
    max_size=3,
)  # fmt: skip


@given(st.lists(st.tuples(ids, payloads), min_size=1, max_size=6, unique_by=lambda pair: str(point_id(pair[0]))),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_points_convert_back_to_items(items: list[tuple[Any, dict[str, Any]]], seed: int) -> None:
    random = np.random.default_rng(seed)
    indices = np.stack([random.choice(9, 4, replace=False) for _ in items])
    values = random.normal(size=indices.shape)
    values[:, 1:][random.random((len(items), 3)) < 0.2] = 0  # padding
    codes = SparseCodes(indices, values, 9)
    points = to_points(check_batch([i for i, _ in items], codes, [p for _, p in items], None, _manifest(9)))
    for row, (point, (item, payload)) in enumerate(zip(points, items, strict=True)):
        assert item_id(point, point.payload) == item
        assert public_payload(point.payload) == payload
        kept_indices, kept_values = codes.row(row)
        assert point.indices == kept_indices.tolist()
        assert point.values == kept_values.tolist()
        assert isinstance(point.id, int) or str(uuid.UUID(point.id)) == point.id


def test_points_of_version_0_1_keep_their_ids_and_hashes() -> None:
    stored = {"_id": "sku/9", "_content": "0123456789abcdef", "n": 1}
    assert item_id(SimpleNamespace(id=point_id("sku/9")), stored) == "sku/9"
    assert (public_payload(stored), content_hash(stored)) == ({"n": 1}, "0123456789abcdef")


def _manifest(latents: int, **settings: Any) -> Manifest:
    return Manifest("m-0", latents, 2, IndexSettings(**settings))


@pytest.mark.parametrize(
    ("kept", "dense", "complaint"),
    [
        (False, np.ones((1, 2)), "keeps no embeddings"),
        (True, None, r"`dense` is None; pass them as \(1, 2\)"),
        (True, np.ones((1, 3)), r"shape \(1, 3\); pass them as \(1, 2\)"),
        (True, np.zeros((1, 2)), "embedding in row 0 is zero"),
        (True, np.full((1, 2), np.nan), "embedding in row 0 is zero, NaN or infinite"),
    ],
)
def test_invalid_embeddings_are_refused(kept: bool, dense: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        check_batch([1], SparseCodes([[1]], [[1.0]], 3), None, dense, _manifest(3, keep_dense=kept))


def test_different_ids_are_different_points() -> None:
    some: list[Any] = [42, "42", "sku/9", "SKU/9", str(uuid.UUID(int=7)), str(uuid.UUID(int=8)), f"{uuid.UUID(int=9)}0"]
    assert len({point_id(item) for item in some}) == len(some)


def test_the_mapping_of_ids_never_changes() -> None:
    """Pinned: an index written by one version must be found by the next."""
    assert point_id("sku/9") == str(uuid.uuid5(uuid.UUID("92d3b1c5-2f4d-5f7e-9a56-0c8ae10e2c41"), "sku/9"))


@pytest.mark.parametrize("bad", [-1, 2**64, 1.0, None, True, b"x", "\ud800"])
def test_invalid_ids_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="item id"):
        point_id(bad)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ({"a": {"b": [1, float("inf")]}}, "which JSON cannot represent"),
        ({"a": {1: 2}}, "names are strings"),
        ({"a": object()}, "payloads are JSON"),
        ({"a": 2**70}, "does not fit into 64 bits"),
        ({"a": "\ud800"}, "not valid Unicode"),
        ([1], "payloads are mappings"),
    ],
)
def test_payloads_must_be_json(payload: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        check_batch([1], SparseCodes([[1]], [[1.0]], 3), [payload], None, _manifest(3))


def test_rescoring_in_this_process_sorts_by_the_dot_product() -> None:
    query = QueryVector(np.array([1, 3], np.int32), np.array([1.0, -2.0], np.float32))
    codes: list[models.SparseVector | None] = [
        models.SparseVector(indices=[1, 5], values=[2.0, 9.0]), None, models.SparseVector(indices=[3], values=[-3.0]),
        models.SparseVector(indices=[0], values=[1.0]), models.SparseVector(indices=[], values=[]),
    ]  # fmt: skip
    assert rescore(codes, QueryPlan(query, query, 2, 9)) == [(2, 6.0), (0, 2.0)]
    assert rescore(codes, QueryPlan(query, query, 3, 9, offset=1)) == [(0, 2.0), (3, 0.0)]
    only = QueryVector(np.array([1], np.int32), np.array([0.5], np.float32))
    assert rescore(codes, QueryPlan(only, query, 2, 9, score_threshold=1.0)) == [(0, 2.0)]
    assert rescore(codes, QueryPlan(only, query, 2, 9, score_threshold=1.1)) == []
    assert rescore([], QueryPlan(query, query, 2, 9)) == []
    assert rescore([None], QueryPlan(query, query, 2, 9)) == []


def test_a_plan_may_name_latents_in_any_order_but_only_once() -> None:
    manifest = Manifest("m-0", 9, 4, IndexSettings())

    def plan(indices: list[int]) -> QueryPlan:
        vector = QueryVector(np.array(indices, np.int32), np.ones(len(indices), np.float32))
        return QueryPlan(vector, vector, 1, 1)

    for fine in ([1, 2, 8], [8, 1, 2], [5]):
        checked = check_plan(plan(fine), manifest).first_stage
        assert checked is not None
        assert checked.indices.tolist() == fine
    for wrong in ([1, 1, 2], [2, 1, 2]):
        with pytest.raises(InvalidInputError, match="first_stage names a latent twice"):
            check_plan(plan(wrong), manifest)
    with pytest.raises(InvalidInputError, match=r"names latents 3\.\.9 but the index has 9"):
        check_plan(plan([3, 9]), manifest)


def test_item_ids_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ItemIds([7, "sku/9", 7])
    assert list(ids.points) == [point_id(item) for item in ids]
    monkeypatch.setattr("compressae_qdrant.index.ids.point_id", None)  # would fail if an id were hashed again
    monkeypatch.setattr("compressae_qdrant.index.points.point_id", None)
    assert ids == [7, "sku/9", 7]
    assert [7, "sku/9", 7] == ids != [7, "sku/9"]
    assert ids[1:].points == ids.points[1:]
    assert ids.take([2, 1]) == [7, "sku/9"]
    assert ids.take([2, 1]).points == ids.points[2:0:-1]
    assert points_of(ids) == list(ids.points)
    assert id_digests(ids)[0] == id_digests(ids)[2] == 7
    assert ItemIds.of(ids) is ids
    with pytest.raises(InvalidInputError, match="item id 7 is in the batch twice, in rows 0 and 2"):
        point_ids(ids)


def test_item_ids_refuse_what_point_ids_refuse() -> None:
    with pytest.raises(InvalidInputError, match=r"item id -1 is outside 0\.\."):
        ItemIds([1, -1])


def test_a_query_by_its_embedding_has_the_values_of_its_vector() -> None:
    random = np.random.default_rng(0)
    atoms, x = random.standard_normal((50, 8)).astype(np.float32), random.standard_normal(8).astype(np.float32)
    query = EmbeddingQuery(x, atoms)
    latents = np.array([3, 49, 3, 0, 17], np.int32)
    np.testing.assert_allclose(query.at(latents), (atoms @ x)[latents], rtol=1e-5)
    np.testing.assert_allclose(query.vector().at(latents), query.at(latents), rtol=1e-6)
    part = QueryVector(np.array([3, 17], np.int32), np.array([1.0, 2.0], np.float32))
    assert part.at(latents).tolist() == [1, 0, 1, 0, 2]


def test_an_engine_rescores_by_no_embedding() -> None:
    query = EmbeddingQuery(np.ones(2, np.float32), np.ones((4, 2), np.float32))
    navigation = np.ones(2, np.float32)
    with pytest.raises(InvalidInputError, match="rescores by an embedding, which only this process can"):
        QueryPlan(None, query, 1, 1, navigation=navigation)
    plan = QueryPlan(None, query, 1, 1, navigation=navigation, rescore_in_engine=False)
    settings = IndexSettings(navigation=NavigationSettings(dim=2))
    assert check_plan(plan, Manifest("m-0", 4, 2, settings, projection="p-0")) is plan
    with pytest.raises(InvalidInputError, match=r"atoms of shape \(4, 2\).*the index needs \(5, 2\)"):
        check_plan(plan, Manifest("m-0", 5, 2, settings, projection="p-0"))
    bad = replace(plan, rescoring=EmbeddingQuery(np.full(2, np.nan, np.float32), query.atoms))
    with pytest.raises(InvalidInputError, match="rescoring is all zero, NaN or infinite"):
        check_plan(bad, Manifest("m-0", 4, 2, settings, projection="p-0"))
