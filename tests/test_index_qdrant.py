"""QdrantIndex and AsyncQdrantIndex: their calls, errors and locations."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.api.points_api import AsyncPointsApi, SyncPointsApi
from qdrant_client.http.api.search_api import AsyncSearchApi, SyncSearchApi
from qdrant_client.http.api_client import ApiClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, IndexSettings, QdrantIndex, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import (
    CodeIndexError,
    IndexExistsError,
    IndexNotFoundError,
    IndexUnavailableError,
    ModelMismatchError,
)
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.qdrant.calls import Call, run_call
from compressae_qdrant.index.qdrant.client import Client, RestPoints, RestSearch, Transport
from compressae_qdrant.index.qdrant.collections import (
    add_navigation_call,
    add_vector_call,
    aliases_call,
    configure_navigation_call,
    configure_vector_call,
    create_call,
    delete_call,
    exists_call,
    field_call,
    setup_calls,
    store_manifest_call,
    target_call,
)
from compressae_qdrant.index.qdrant.contents import contents_call, identity_call, shard_keys_call
from compressae_qdrant.index.qdrant.errors import client_errors
from compressae_qdrant.index.qdrant.requests import Requests
from compressae_qdrant.index.qdrant.target import Target
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.index.text import TextSearch
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

from .support.recording import method_of, sent


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    local = QdrantClient(":memory:")
    yield local
    local.close()


def test_a_collection_remembers_its_model(client: QdrantClient, model: CompresSAE) -> None:
    settings = IndexSettings(scale="code", segments=2, navigation=NavigationSettings(dim=24))
    QdrantIndex.create(client, "items", model, settings)
    opened = QdrantIndex.open(client, "items", model)
    assert (opened.fingerprint, opened.latents, opened.settings) == (model.fingerprint, 96, settings)
    other = CompresSAE(ModelConfig(24, 96, 6), seed=77)
    with pytest.raises(ModelMismatchError, match=f"{model.fingerprint}.*{other.fingerprint}"):
        QdrantIndex.open(client, "items", other)


def test_open_and_create_check_for_existing_collections(client: QdrantClient, model: CompresSAE) -> None:
    with pytest.raises(IndexNotFoundError, match="items"):
        QdrantIndex.open(client, "items")
    QdrantIndex.create(client, "items", model)
    with pytest.raises(IndexExistsError, match="collection 'items' already exists"):
        QdrantIndex.create(client, "items", model)
    client.create_collection("foreign", vectors_config={})
    with pytest.raises(IndexNotFoundError, match="not created by this package"):
        QdrantIndex.open(client, "foreign")


def test_sync_and_async_give_the_same_results(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    plans = QueryPlanner(model).plans(embeddings[:2], search_settings(limit=4, prefetch=20))
    with QdrantIndex.create(QdrantClient(":memory:"), "items", model, owns_client=True) as index:
        index.upsert(range(60), codes[:60])
        index.delete([3])
        index.optimize()
        expected = index.search(plans[0]), index.search_batch(plans), index.count(), index.info()

    async def same() -> Any:
        client = AsyncQdrantClient(":memory:")
        created = await AsyncQdrantIndex.create(client, "items", model)
        await created.upsert(range(60), codes[:60])
        await created.delete([3])
        await created.optimize()
        opened = await AsyncQdrantIndex.open(client, "items", model)
        assert [record.id for record in await opened.retrieve([5, 3])] == [5]
        results = await opened.search(plans[0]), await opened.search_batch(plans), await opened.count()
        result = (*results, await opened.info())
        with pytest.raises(IndexExistsError):
            await AsyncQdrantIndex.create(client, "items", model)
        await client.close()
        return result

    assert asyncio.run(same()) == expected


def test_arguments_of_calls_to_a_server(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    settings = IndexSettings(datatype="uint8", shards=3, replicas=2, write_consistency=2, full_scan_threshold=5_000)
    manifest = Manifest.of(model, settings)
    arguments = sent(create_call("items", manifest))
    assert (arguments["shard_number"], arguments["replication_factor"], arguments["write_consistency_factor"]) == (
        3,
        2,
        2,
    )
    params = arguments["sparse_vectors_config"]["code"].index
    assert (params.datatype, params.full_scan_threshold) == ("uint8", 5_000)
    assert arguments["metadata"]["compressae"]["fingerprint"] == model.fingerprint
    (plan,) = QueryPlanner(model).plans(embeddings[0], search_settings(limit=4, prefetch=20, first_stage_latents=8))
    call = Requests(Target("items"), manifest, model).search([plan])
    (request,) = sent(call)["requests"]
    assert (method_of(call), request.limit, request.prefetch[0].limit) == ("query_batch_points", 4, 20)
    assert len(request.prefetch[0].query.nearest.indices) == 8
    assert request.query.recommend.strategy == "sum_scores"
    assert len(request.query.recommend.positive[0].indices) == 96
    upsert = Requests(Target("items"), manifest, model).upsert([1], codes[:1], None)
    assert upsert is not None
    assert sent(upsert)["wait"] is True
    assert Requests(Target("items"), manifest, model).upsert([], codes[:0], None) is None


def _every_call(kind: Any, model: CompresSAE, codes: SparseCodes, x: FloatArray) -> list[Call[Any]]:
    settings = IndexSettings(
        tenant_field="shop",
        payload_fields={"n": "integer"},
        shard_keys=["eu", 7],
        keep_dense=True,
        text_fields={"title": "english"},
    )
    manifest = Manifest.of(model, settings)
    condition = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))])
    plain = search_settings(limit=4, prefetch=20, filter=condition, first_stage_latents=8)
    plans = [*QueryPlanner(model, keep_dense=True).plans(x[0], plain), *QueryPlanner(model).plans(x[0], plain)]
    plans += [replace(plans[1], **other) for other in
              ({"score_threshold": 0.1}, {"rescore_in_engine": False}, {"rescoring": None},
               {"offset": 3, "min_score": 0.1, "with_codes": True}, {"text": TextSearch("red", {"title": 2.0}, 9)},
               {"text": TextSearch("red", {"title": 1}, 9, "dbsf")})]  # fmt: skip
    part = Requests(Target("items", Transport(kind, 5), "eu"), manifest, model)
    adopted = Requests(Target("items", Transport(kind, 5)), Manifest.of(model, IndexSettings(), adopted=True))
    upserts = [part.upsert([1, "x"], codes[:2], [{"n": 1}, None], x[:2], ["a", "b"]),
               part.only_new().upsert([1], codes[:1], None, x[:1]), adopted.upsert([1], codes[:1], None)]  # fmt: skip
    return [
        create_call("items", manifest), *setup_calls("items", settings), store_manifest_call("items", manifest),
        add_vector_call("items", manifest), configure_vector_call("items", manifest), delete_call("items"),
        exists_call("items"), contents_call("open", "items"), shard_keys_call("items"), target_call("items"),
        identity_call("items", manifest), field_call("items", "n", models.PayloadSchemaType.INTEGER),
        part.count(condition), part.count(None), part.info(1), part.state(), part.start_optimisers(),
        part.search(plans), part.retrieve([1, "x"]), part.hashes([1]), part.page(9, None), part.page(9, 3),
        part.delete_by_filter(condition), aliases_call("items"),
        part.scroll(part.scroll_settings(9, {"filter": condition, "with_codes": True, "with_dense": True}), 9, 3),
        add_navigation_call("items", manifest), configure_navigation_call("items", manifest),
        part.set_navigation([1], np.zeros((1, 16), np.float32)),
        *(call for call in (part.delete([1]), *upserts) if call is not None),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_clients_accept_every_call(kind: str, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    """The client's signatures, models and conversion to gRPC accept the call: only the connection fails."""
    address: Any = {"host": "127.0.0.1", "port": 1, "grpc_port": 1, "prefer_grpc": kind == "grpc",
                    "check_compatibility": False}  # fmt: skip
    calls = _every_call(kind, model, codes, embeddings)
    client = QdrantClient(**address)
    for call in calls:
        with pytest.raises(IndexUnavailableError):
            run_call(client, "items", call)
    client.close()

    async def same() -> None:
        client = AsyncQdrantClient(**address)
        index = AsyncQdrantIndex(client, "items", Manifest.of(model, IndexSettings()))
        for call in calls:
            with pytest.raises(IndexUnavailableError):
                await index._run(call)
        await client.close()

    asyncio.run(same())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *((getattr(Client, name), (getattr(QdrantClient, name), getattr(AsyncQdrantClient, name)))
          for name, value in vars(Client).items() if inspect.isfunction(value) and not name.startswith("_")),
        (RestPoints.upsert_points, (SyncPointsApi.upsert_points, AsyncPointsApi.upsert_points)),
        (RestSearch.query_batch_points, (SyncSearchApi.query_batch_points, AsyncSearchApi.query_batch_points)),
    ],
)  # fmt: skip
def test_the_clients_have_every_argument_of_the_interface(ours: Any, theirs: tuple[Any, ...]) -> None:
    """A type checker cannot find a misspelled one, because the clients' methods accept any keyword."""
    names = set(inspect.signature(ours).parameters)
    for method in theirs:
        assert names <= set(inspect.signature(method).parameters)


class _RpcError(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpc has no types
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "details"

    def initial_metadata(self) -> None: ...
    def trailing_metadata(self) -> None: ...
    def add_callback(self, callback: Any) -> None: ...
    def cancel(self) -> None: ...
    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None: ...


def _answer(status: int) -> UnexpectedResponse:
    return UnexpectedResponse(status, "reason", b"text", httpx.Headers())


@pytest.mark.parametrize(
    ("failure", "error", "complaint"),
    [
        (ResponseHandlingException(ConnectionError("refused")), IndexUnavailableError, "can't be reached"),
        (_answer(404), IndexNotFoundError, "404"),
        (_answer(409), IndexExistsError, "409"),
        (_answer(401), CodeIndexError, "check the API key"),
        (_answer(408), IndexUnavailableError, "408"),
        (_answer(429), IndexUnavailableError, "429"),
        (_answer(503), IndexUnavailableError, "503"),
        (_answer(400), CodeIndexError, "400 reason text"),
        (_RpcError(grpc.StatusCode.UNAVAILABLE), IndexUnavailableError, "details"),
        (_RpcError(grpc.StatusCode.FAILED_PRECONDITION), IndexUnavailableError, "details"),
        (_RpcError(grpc.StatusCode.INVALID_ARGUMENT), CodeIndexError, "details"),
        (_RpcError(grpc.StatusCode.NOT_FOUND), IndexNotFoundError, "details"),
        (_RpcError(grpc.StatusCode.PERMISSION_DENIED), CodeIndexError, "check the API key"),
        (ValueError("Collection items not found"), IndexNotFoundError, "not found"),
        (
            NotImplementedError("no shard keys here"),
            CodeIndexError,
            "can.t search collection .items.: no shard keys here",
        ),
        (ValueError("something of ours"), ValueError, "something of ours"),
    ],
)
def test_client_errors_are_mapped_to_errors_of_this_package(failure: Exception, error: Any, complaint: str) -> None:
    with pytest.raises(error, match=complaint) as caught, client_errors("search", "items"):
        raise failure
    assert type(caught.value) is error


def test_a_feature_that_local_mode_lacks_raises_and_leaves_no_collection(model: CompresSAE) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(CodeIndexError, match=r"collection .items.*Sharding is not supported in the local Qdrant"):
        QdrantIndex.create(client, "items", model, IndexSettings(shard_keys=["eu"]))
    assert not client.collection_exists("items")


def _retry_after(retry_after: str, status: int) -> float | None:
    """The `retry_after` of the error raised for a response with this header and status."""
    answer = httpx.Response(status, headers={"Retry-After": retry_after}, content=b"{}")
    with httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as connection:
        client = ApiClient("http://host")
        client._client.close()
        client._client = connection
        with pytest.raises(IndexUnavailableError) as caught, client_errors("search", "items"):
            client.request(type_=None, method="GET", url="/")
    return caught.value.retry_after


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_read_as_seconds_or_as_a_date(status: int) -> None:
    assert _retry_after("7", status) == 7
    assert _retry_after("1.5", status) == 1.5
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert _retry_after(in_an_hour, status) == pytest.approx(3600, abs=60)
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT", status) == 0
    assert _retry_after("soon", status) is None
    assert _retry_after("inf", status) is None


def test_an_open_index_keeps_the_collection_of_its_alias(client: QdrantClient, model: CompresSAE) -> None:
    other = CompresSAE(ModelConfig(24, 96, 6), seed=77)
    QdrantIndex.create(client, "old", model)
    QdrantIndex.create(client, "new", other)
    _point(client, "old")
    opened = QdrantIndex.open(client, "live", model)
    _point(client, "new")
    assert (opened.collection, opened.count(), opened.fingerprint) == ("old", 0, model.fingerprint)
    with pytest.raises(ModelMismatchError):
        QdrantIndex.open(client, "live", model)
    assert QdrantIndex.open(client, "live", other).collection == "new"


def _point(client: QdrantClient, collection: str) -> None:
    create = models.CreateAlias(collection_name=collection, alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
