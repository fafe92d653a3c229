"""Operations of several calls: optimisation, creation and adoption of collections, shard keys, `only_new`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, grpc, models

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import (
    CodeIndexError,
    ConfigError,
    ExactCountError,
    IndexNotFoundError,
    ModelMismatchError,
    SourceError,
)
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.qdrant import steps
from compressae_qdrant.index.qdrant.calls import Call
from compressae_qdrant.index.qdrant.client import Transport
from compressae_qdrant.index.qdrant.collections import create_call, setup_calls
from compressae_qdrant.index.qdrant.creation import create_steps
from compressae_qdrant.index.qdrant.requests import Requests
from compressae_qdrant.index.qdrant.target import Target
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.ingestion.migrate import add_codes
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

from .support.recording import method_of, sent
from .support.sink import Sink, serving


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    local = QdrantClient(":memory:")
    yield local
    local.close()


@pytest.fixture
def dense(client: QdrantClient, embeddings: FloatArray) -> QdrantClient:
    """A user's own collection "items", whose payloads use this package's reserved field names."""
    params = models.VectorParams(size=24, distance=models.Distance.COSINE)
    client.create_collection("items", vectors_config={"text": params})
    client.upsert("items", [_point(n, x) for n, x in enumerate(embeddings[:50])])
    return client


def _point(n: int, x: FloatArray) -> models.PointStruct:
    return models.PointStruct(id=n, vector={"text": x.tolist()}, payload={"_id": f"theirs-{n}", "n": n})


def _do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_POLL_SECONDS", 0.0)


def test_waiting_optimisers_are_started_once(model: CompresSAE, monkeypatch: pytest.MonkeyPatch) -> None:
    _do_not_wait(monkeypatch)
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_to(port), "items", model, owns_client=True) as index:
        sink.statuses = ["yellow", "yellow", "green"]
        index.optimize()
        assert not [call for call in sink.calls if call[0] == "PATCH"]
        sink.statuses = ["yellow", "grey"]  # the status stays grey until something is written
        index.optimize()
        assert len([call for call in sink.calls if call[0] == "PATCH"]) == 1
        sink.statuses = ["yellow"]
        assert index.info().indexed_items is None
        with pytest.raises(CodeIndexError, match=r"made no progress for 0 s \(yellow, 1 segments\)"):
            index.optimize(patience=0)
        sink.statuses = ["red"]
        with pytest.raises(CodeIndexError, match="optimisers of collection 'items' failed"):
            index.optimize()


def _to(port: int) -> QdrantClient:
    return QdrantClient(host="127.0.0.1", port=port, check_compatibility=False)


def test_optimisers_that_do_not_start_are_not_waited_for(model: CompresSAE, monkeypatch: pytest.MonkeyPatch) -> None:
    _do_not_wait(monkeypatch)
    monkeypatch.setattr(steps, "_WAITING_SECONDS", 0.05)
    sink = Sink()
    with serving(sink) as port, QdrantIndex.create(_to(port), "items", model, owns_client=True) as index:
        monkeypatch.setattr(Sink, "_status", lambda _: "grey")
        with pytest.raises(CodeIndexError, match=r"made no progress for 0\.05 s \(grey, 1 segments\)"):
            index.optimize()


def test_a_write_that_was_not_applied_in_time_raises(model: CompresSAE, codes: SparseCodes) -> None:
    call = Requests(Target("items", Transport("rest")), Manifest.of(model, IndexSettings()), model).upsert(
        [1], codes[:1], None
    )
    assert call is not None
    for status in (models.UpdateStatus.COMPLETED, grpc.UpdateStatus.Completed):
        call.parse(models.UpdateResult.model_construct(status=status))
    for status in (models.UpdateStatus.WAIT_TIMEOUT, grpc.UpdateStatus.WaitTimeout):
        with pytest.raises(CodeIndexError, match="did not apply it in time"):
            call.parse(models.UpdateResult.model_construct(status=status))


def test_a_collection_whose_setup_fails_is_deleted(client: QdrantClient, model: CompresSAE) -> None:
    settings = IndexSettings(shard_keys=["eu"])
    with pytest.raises(CodeIndexError, match="Sharding is not supported"):
        QdrantIndex.create(client, "items", model, settings)
    assert not client.collection_exists("items")


def test_every_call_carries_its_shard_key(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    settings = IndexSettings(shard_keys=["eu", 7], shards=2, navigation=NavigationSettings(dim=24))
    manifest = Manifest.from_json(Manifest.of(model, settings).to_json(), "here")
    assert manifest.settings == settings
    assert sent(create_call("items", manifest))["sharding_method"] == models.ShardingMethod.CUSTOM
    assert [sent(call)["shard_key"] for call in setup_calls("items", settings)] == ["eu", 7]
    unsplit = Requests(Target("items", Transport("rest")), manifest, model)
    (plan,) = QueryPlanner(model).plans(embeddings[0], search_settings(limit=4))
    assert "shard_key" not in _search_body(unsplit.search([plan]))
    with pytest.raises(ConfigError, match="split by shard keys 'eu', 7; write through"):
        unsplit.upsert([1], codes[:1], None)
    with pytest.raises(ConfigError, match="split by shard keys 'eu', 7; write through"):
        unsplit.delete([1])
    with pytest.raises(ConfigError, match="has no shard key 'us'; it has 'eu', 7"):
        unsplit.of_shard("us")
    part = unsplit.of_shard("eu")
    assert _search_body(part.search([plan]))["shard_key"] == "eu"
    delete = part.delete([1])
    assert delete is not None
    for call in (delete, part.count(None), part.retrieve([1]), part.hashes([1]), part.page(9, None)):
        assert sent(call)["shard_key_selector"] == "eu"
    assert "shard_key_selector" not in sent(part.state())
    green = SimpleNamespace(status=models.CollectionStatus.GREEN, segments_count=1)
    assert [each.info(3).parse(green).location for each in (unsplit, part)] == ["items", "items?shard_key=eu"]
    upsert = part.upsert([1], codes[:1], None)
    assert upsert is not None
    assert json.loads(sent(upsert)["point_insert_operations"].model_dump_json())["shard_key"] == "eu"
    for both in (part.only_new(), unsplit.only_new().of_shard("eu")):
        again = both.upsert([1], codes[:1], None)
        assert again is not None
        body = json.loads(sent(again)["point_insert_operations"].model_dump_json())
        assert (body["shard_key"], body["update_mode"]) == ("eu", "insert_only")
    by_grpc = Requests(Target("items", Transport("grpc"), 7), manifest, model).only_new().upsert([1], codes[:1], None)
    assert by_grpc is not None
    assert sent(by_grpc)["request"].shard_key_selector.shard_keys[0].number == 7
    assert sent(by_grpc)["request"].update_mode == grpc.UpdateMode.InsertOnly


def _search_body(call: Call[Any]) -> dict[str, Any]:
    """The first query of a search by REST."""
    query: dict[str, Any] = json.loads(sent(call)["query_request_batch"].model_dump_json())["searches"][0]
    return query


def test_only_new_leaves_existing_items_unchanged(client: QdrantClient, model: CompresSAE, codes: SparseCodes) -> None:
    index = QdrantIndex.create(client, "items", model)
    index.upsert([1], codes[:1], [{"by": "someone else"}])
    index.only_new().upsert([1, 2], codes[:2], [{"by": "us"}, {"by": "us"}])
    assert [record.payload["by"] for record in index.retrieve([1, 2])] == ["someone else", "us"]


def test_codes_are_added_beside_the_dense_vectors(
    dense: QdrantClient, model: CompresSAE, embeddings: FloatArray
) -> None:
    report = add_codes(dense, "items", "text", model)
    assert (report.encoded, report.points) == (50, 50)
    index = QdrantIndex.open(dense, "items", model)
    expected = model.encode(dense_vectors(dense), scale="projection")
    for row, record in enumerate(index.retrieve(range(50))):
        assert record.id == row
        np.testing.assert_array_equal(record.values, expected.values[row][expected.values[row] != 0])
        assert record.payload == {"_id": f"theirs-{row}", "n": row}
    (plan,) = QueryPlanner(model).plans(embeddings[3], search_settings(limit=1))
    assert index.search(plan)[0].payload["n"] == 3
    assert add_codes(dense, "items", "text", model).encoded == 0
    dense.upsert("items", [_point(7, embeddings[80]), _point(50, embeddings[90])])
    assert [record.id for record in index.retrieve([6, 7])] == [6]
    assert add_codes(dense, "items", "text", model, batch_size=1).encoded == 2
    assert add_codes(dense, "items", "text", model, again=True).encoded == 51
    assert dense.retrieve("items", [3], with_vectors=["text"])[0].vector is not None


def dense_vectors(client: QdrantClient) -> FloatArray:
    points = client.retrieve("items", list(range(50)), with_vectors=["text"])
    return np.array([point.vector["text"] for point in points], np.float32)  # type: ignore[index,call-overload]


def test_points_deleted_during_an_upsert_are_skipped(
    dense: QdrantClient, model: CompresSAE, codes: SparseCodes
) -> None:
    index = QdrantIndex.adopt(dense, "items", model)
    methods: list[str] = []

    def run(call: Call[Any]) -> Any:
        methods.append(method_of(call))
        if methods[-1] == "update_vectors" and 99 in [point.id for point in sent(call)["points"]]:
            raise IndexNotFoundError("No point with id 99 found")
        return index._run(call)

    steps.follow(steps.upsert_steps(index._requests, [1, 99, 2], codes[:3], None, None, None), run)
    assert methods == ["update_vectors", "retrieve", "update_vectors"]
    assert [record.id for record in index.retrieve([1, 2])] == [1, 2]
    steps.follow(
        steps.upsert_steps(index._requests, [99], codes[:1], None, None, None), run
    )  # the batch has no other points
    assert methods[3:] == ["update_vectors", "retrieve"]


def test_an_adopted_collection_keeps_its_points_and_payloads(
    dense: QdrantClient, model: CompresSAE, codes: SparseCodes
) -> None:
    index = QdrantIndex.adopt(dense, "items", model)
    with pytest.raises(ConfigError, match="delete them with qdrant-client"):
        index.delete([1])
    with pytest.raises(ConfigError, match="keeps its own payloads"):
        index.upsert([1], codes[:1], [{"x": 1}])
    other = CompresSAE(ModelConfig(24, 96, 6), seed=77)
    with pytest.raises(ModelMismatchError):
        QdrantIndex.adopt(dense, "items", other)
    sparse = {"code": models.SparseVectorParams()}
    dense.create_collection("theirs", vectors_config={}, sparse_vectors_config=sparse)
    with pytest.raises(CodeIndexError, match="has a sparse vector 'code' that this package did not create"):
        QdrantIndex.adopt(dense, "theirs", model)
    QdrantIndex.create(dense, "ours", model)
    with pytest.raises(CodeIndexError, match="is already an index of codes"):
        QdrantIndex.adopt(dense, "ours", model)
    with pytest.raises(IndexNotFoundError):
        QdrantIndex.adopt(dense, "nothing", model)
    with pytest.raises(SourceError, match="no dense vector 'image'"):
        add_codes(dense, "items", "image", model)


VERSIONS = [
    ("1.18.3", "turbo4", True), ("1.19.0", "turbo4", False), ("1.19.2-dev", "turbo8", True),
    ("1.20.0", "turbo8", False), ("unknown", "turbo8", False), ("1.18.3", "float16", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("vectors", "version", "datatype", "refused"),
    [
        *(("embeddings", *case) for case in VERSIONS),
        *(("navigation", *case) for case in VERSIONS if "8" not in case[1]),
    ],
)
def test_a_server_too_old_for_the_datatype_of_dense_vectors_is_named(
    model: CompresSAE, vectors: str, version: str, datatype: Any, refused: bool
) -> None:
    called: list[str] = []

    def run(call: Call[Any]) -> Any:
        called.append(method_of(call))
        if called[-1] == "collection_exists":
            return False
        return call.parse(models.VersionInfo(title="qdrant", version=version)) if called[-1] == "info" else None

    kept = IndexSettings(keep_dense=datatype)
    settings = kept if vectors == "embeddings" else IndexSettings(navigation=NavigationSettings(datatype=datatype))
    name = "dense_datatype" if vectors == "embeddings" else "datatype of navigation"
    manifest = Manifest.of(model, settings)
    if refused:
        with pytest.raises(CodeIndexError, match=f"is Qdrant .*{name}='{datatype}' needs 1.* or newer"):
            steps.follow(create_steps("items", manifest), run)
    else:
        steps.follow(create_steps("items", manifest), run)
    assert ("create_collection" in called) is not refused


def test_items_are_counted_where_strict_mode_forbids_exact_counts(
    client: QdrantClient, model: CompresSAE, codes: SparseCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_COUNTED_ITEMS", 7)
    index = QdrantIndex.create(client, "items", model)
    index.upsert(range(50), codes[:50], [{"even": n % 2 == 0} for n in range(50)])
    even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])

    def run(call: Call[Any]) -> Any:
        if method_of(call) == "count" and sent(call)["exact"]:
            raise ExactCountError("the server answered: Exact search disabled!. Help: Set exact=false.")
        return index._run(call)

    assert steps.follow(steps.count_steps(index._requests), run) == 50
    assert steps.follow(steps.count_steps(index._requests, even), run) == 25
    assert steps.follow(steps.delete_steps(index._requests, even, all_items=False), run) == 25
    assert steps.follow(steps.count_steps(index._requests, exact=False), run) == 25

    def fail(_: Call[Any]) -> Any:
        raise CodeIndexError("the server answered: something else")

    with pytest.raises(CodeIndexError, match="something else"):
        steps.follow(steps.count_steps(index._requests), fail)
