"""Upserts and queries on the wire equal those of the client's models, and preserve every float32 exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from compressae_qdrant import IndexSettings, SparseCodes
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.index.manifest import VECTOR_NAME, Manifest
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.points import CheckedBatch, check_batch, to_points
from compressae_qdrant.index.qdrant.answers import PointReader
from compressae_qdrant.index.qdrant.queries import _arrays, _lists, _request
from compressae_qdrant.index.qdrant.wire import grpc_points, grpc_query, rest_body, rest_queries
from compressae_qdrant.index.text import Fusion, TextSearch
from compressae_qdrant.scoring import QueryVector, all_latents

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
PAYLOADS: list[dict[str, Any]] = [
    {"title": "Ünïcode \u2028 \"quoted\"", "n": 2**63 - 1, "deep": {"list": [1, None, True, 0.1], "pair": (1, 2)}},
    {}, {"x": np.float64(0.5)},
]  # fmt: skip


class _Pair(tuple[int, int]):
    """A user's subclass of tuple."""


@st.composite
def batches(draw: st.DrawFn) -> CheckedBatch:
    latents = draw(st.sampled_from([5, 127, 128, 129, 4096, 16_384, 70_000, 3_000_000]))
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rows = st.lists(st.integers(0, latents - 1), min_size=k, max_size=k, unique=True)
    indices = np.array([draw(rows) for _ in range(n)])
    values = np.array(draw(st.lists(floats, min_size=n * k, max_size=n * k)), np.float32).reshape(n, k)
    values[(values == 0).all(axis=1), 0] = draw(floats.filter(bool))
    ids: list[int | str] = [2**64 - 1, "sku/9", 0, "0000a0ee-0000-4000-8000-0000000000ff"]
    dense = np.array(draw(st.lists(floats, min_size=2 * n, max_size=2 * n)), np.float32).reshape(n, 2)
    dense[~dense.any(axis=1)] = 1
    keep = draw(st.booleans())
    manifest = Manifest("m-0", latents, 2, IndexSettings(keep_dense=keep))
    payloads = [PAYLOADS[row % len(PAYLOADS)] for row in range(n)]
    return check_batch(ids[:n], SparseCodes(indices, values, latents), payloads, dense if keep else None, manifest)


def _bits(values: Any) -> bytes:
    return np.array(values, np.float32).tobytes()


@given(batches())
def test_rest_bodies_preserve_every_float32(batch: CheckedBatch) -> None:
    body = json.loads(rest_body(batch, shard_key="eu").model_dump_json(by_alias=True))
    assert body["shard_key"] == "eu"
    for sent, expected in zip(body["points"], to_points(batch), strict=True):
        assert (sent["id"], sent["vector"]["code"]["indices"]) == (expected.id, expected.indices)
        assert _bits(sent["vector"]["code"]["values"]) == _bits(expected.values)
        assert _bits(sent["vector"].get("dense", [])) == _bits(expected.dense or [])
        assert sent["payload"] == json.loads(json.dumps(expected.payload))


@given(batches())
def test_grpc_points_equal_those_of_the_clients_models(batch: CheckedBatch) -> None:
    for sent, expected in zip(grpc_points(batch), to_points(batch), strict=True):
        vectors: dict[str, Any] = {"code": models.SparseVector(indices=expected.indices, values=expected.values)}
        if expected.dense is not None:
            vectors["dense"] = expected.dense
        point = models.PointStruct(id=expected.id, vector=vectors, payload=expected.payload)
        assert sent == RestToGrpc.convert_point_struct(point)
        code = grpc.PointStruct.FromString(sent.SerializeToString()).vectors.vectors.vectors["code"].sparse
        assert _bits(list(code.values)) == _bits(expected.values)


def test_the_clients_model_can_read_a_rest_body() -> None:
    codes = SparseCodes([[1, 3], [0, 2]], [[0.5, 0.0], [1e-30, -3.0]], 5)
    batch = check_batch([1, "x"], codes, None, None, Manifest("m-0", 5, 2, IndexSettings()))
    read = models.PointsList.model_validate_json(rest_body(batch, update_mode="insert_only").model_dump_json())
    assert read.update_mode == models.UpdateMode.INSERT_ONLY
    assert [point.vector["code"].indices for point in read.points] == [[1], [0, 2]]  # type: ignore[index,union-attr,call-overload]


def test_payload_values_of_subclasses() -> None:
    manifest = Manifest("m-0", 5, 2, IndexSettings())
    batch = check_batch([1], SparseCodes([[1]], [[1.0]], 5), [{"pair": _Pair((1, 2))}], None, manifest)
    assert json.loads(rest_body(batch).model_dump_json())["points"][0]["payload"] == {"pair": [1, 2]}
    with pytest.raises(TypeError):
        rest_body(batch._replace(payloads=[{"x": object()}]))


def test_an_integer_too_large_for_grpc_is_refused() -> None:
    manifest = Manifest("m-0", 5, 2, IndexSettings())
    batch = check_batch([7], SparseCodes([[1]], [[1.0]], 5), [{"n": 2**63}], None, manifest)
    assert json.loads(rest_body(batch).model_dump_json())["points"][0]["payload"] == {"n": 2**63}
    with pytest.raises(InvalidInputError, match=r"payload of point 7 cannot be sent by gRPC .*below 2\*\*63"):
        grpc_points(batch)


_FILTER = models.Filter(
    must=[models.HasIdCondition(has_id=["sku/9", 3])],
    must_not=models.FieldCondition(key="day", range=models.DatetimeRange(gte=datetime(2026, 1, 2, tzinfo=UTC))),
)


@st.composite
def plans(draw: st.DrawFn) -> QueryPlan:
    def vector(latents: int) -> QueryVector:
        if latents < 200 and draw(st.booleans()):
            return QueryVector(all_latents(latents), np.linspace(-1, draw(floats), latents, dtype=np.float32))
        indices = sorted(draw(st.sets(st.integers(0, latents - 1), min_size=1, max_size=9)))
        values = draw(st.lists(floats, min_size=len(indices), max_size=len(indices)))
        return QueryVector(np.array(indices, np.int32), np.array(values, np.float32))

    latents = draw(st.sampled_from([5, 128, 129, 16_384, 70_000]))
    stage = draw(st.sampled_from(["codes", "graph", "both"]))
    dense, direct = draw(st.booleans()), draw(st.booleans())
    fusions: list[Fusion | None] = [None, "rrf", "dbsf"]
    fusion = draw(st.sampled_from(fusions))
    text = None
    if fusion is not None:
        weight = 1.0 if fusion == "dbsf" else 2.0
        text = TextSearch('red \u2028 "shoes"', {"title": weight, "a.b": 1.0}, 9, fusion, code_weight=weight)
    return QueryPlan(
        first_stage=None if stage == "graph" else vector(latents),
        rescoring=None if dense and direct else vector(latents), limit=2, prefetch=9,
        filter=draw(st.sampled_from([None, _FILTER])), with_payload=draw(st.booleans()),
        dense=np.array([0.1, -0.2], np.float32) if dense else None,
        dense_candidates=(9 if direct else 3) if dense else 0,
        navigation=None if stage == "codes" else np.array([0.3, 1e-7], np.float32),
        navigation_ef=None if stage == "codes" else 64,
        navigation_candidates=0 if stage == "codes" else draw(st.sampled_from([0, 9, 31])),
        score_threshold=0.25 if stage == "codes" and text is None and not (dense and direct) and draw(st.booleans())
        else None,
        offset=draw(st.integers(0, 1)), min_score=0.3 if text is None and draw(st.booleans()) else None,
        with_codes=draw(st.booleans()), with_dense=draw(st.booleans()), text=text,
    )  # fmt: skip


@given(plans())
def test_queries_equal_those_of_the_client(plan: QueryPlan) -> None:
    theirs = _request(plan, "eu", _lists)
    ours = _request(plan, "eu", _arrays)
    assert grpc_query(ours, "items") == RestToGrpc.convert_query_request(theirs, "items")
    (body,) = json.loads(rest_queries([ours]).model_dump_json())["searches"]
    expected = theirs.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    assert json.loads(json.dumps(body), parse_float=np.float32) == json.loads(
        json.dumps(expected), parse_float=np.float32
    )


def test_hits_from_grpc_equal_those_from_the_clients_models() -> None:
    code = models.SparseVector(indices=[7, 2], values=[0.5, -1.0])
    point = models.ScoredPoint(
        id=3, version=0, score=0.75, payload={"n": 1}, vector={"code": code, "dense": [0.6, 0.8]}
    )
    low = models.ScoredPoint(id=4, version=0, score=0.25, payload={}, vector={})
    vector = QueryVector(np.array([1], np.int32), np.array([1.0], np.float32))
    plain = QueryPlan(vector, vector, 2, 9, min_score=0.5)
    messages = [RestToGrpc.convert_scored_point(each) for each in (point, low)]
    for plan in (plain, replace(plain, with_codes=True, with_dense=True)):
        (hit,) = PointReader(False).grpc_hits(plan, messages)
        (same,) = PointReader(False).hits(plan, [point, low])
        assert hit == same
        assert (hit.id, hit.score, hit.payload) == (3, 0.75, {"n": 1})
    assert hit.indices is not None
    assert hit.values is not None
    assert hit.dense is not None
    assert (hit.indices.tolist(), hit.values.tolist()) == ([2, 7], [-1.0, 0.5])
    np.testing.assert_allclose(hit.dense, [0.6, 0.8])


def test_codes_of_candidates_are_read_from_messages() -> None:
    """Older servers send a sparse vector in other fields."""
    new, old, none = grpc.ScoredPoint(score=0.9), grpc.ScoredPoint(score=0.8), grpc.ScoredPoint(score=0.7)
    for number, message in enumerate((new, old, none), 1):
        message.id.num = number
    sparse = new.vectors.vectors.vectors[VECTOR_NAME].sparse
    sparse.indices.extend([1, 4])
    sparse.values.extend([1.0, 0.5])
    former = old.vectors.vectors.vectors[VECTOR_NAME]
    former.indices.data.extend([4])
    former.data.extend([2.0])
    query = QueryVector(np.array([1, 4], np.int32), np.array([1.0, 2.0], np.float32))
    plan = QueryPlan(query, query, 5, 9, rescore_in_engine=False)
    hits = PointReader(False).grpc_hits(plan, [new, old, none])
    assert [(hit.id, hit.score, hit.indices) for hit in hits] == [(2, 4.0, None), (1, 2.0, None)]
    hits = PointReader(False).grpc_hits(replace(plan, with_codes=True), [new, old])
    assert hits[1].indices is not None
    assert hits[1].indices.tolist() == [1, 4]
