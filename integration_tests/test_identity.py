"""Collections that are recreated, created by halves, or adopted with a tenant field, on a server."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, Retriever, sync
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import IncompleteIndexError, IndexExistsError, IndexReplacedError, SourceError
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.qdrant.calls import run_call
from compressae_qdrant.index.qdrant.collections import create_call
from compressae_qdrant.ingestion.migrate import add_codes
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.sources import QdrantSource

DIM = 24
FIELDS = IndexSettings(tenant_field="shop", payload_fields={"n": "integer", "seen": "datetime"})


@pytest.fixture(scope="module")
def x() -> FloatArray:
    return np.asarray(np.random.default_rng(0).normal(size=(400, DIM)), np.float32)


@pytest.fixture(scope="module")
def model() -> CompresSAE:
    return CompresSAE(ModelConfig(DIM, 96, 6), seed=0)


def test_a_recreated_collection_is_noticed(client: QdrantClient, name: str, model: CompresSAE, x: FloatArray) -> None:
    index = QdrantIndex.create(client, name, model)
    index.upsert(range(50), model.encode(x[:50]))
    index.verify()
    assert QdrantIndex.open(client, name).identity == index.identity is not None
    client.delete_collection(name)
    with pytest.raises(IndexReplacedError, match="was deleted after it was opened"):
        index.count()
    QdrantIndex.create(client, name, model)
    with pytest.raises(IndexReplacedError, match="another index of the same model"):
        index.verify()
    client.delete_collection(name)
    client.create_collection(name, vectors_config=models.VectorParams(size=DIM, distance=models.Distance.DOT))
    for call in (index.verify, lambda: Retriever(model, index).search(x[0], 3)):
        with pytest.raises(IndexReplacedError, match="a collection without codes of this package"):
            call()


def test_half_a_creation_is_completed(client: QdrantClient, name: str, model: CompresSAE) -> None:
    if isinstance(client._client, QdrantLocal):
        pytest.skip("the client's local mode indexes no payload fields")
    begun = Manifest.of(model, FIELDS)
    run_call(client, name, create_call(name, begun))  # the process was killed after this
    with pytest.raises(IncompleteIndexError, match=r"field 'n', the index of payload field 'seen', .* 'shop'"):
        QdrantIndex.open(client, name, model)
    assert QdrantIndex.create(client, name, model, FIELDS).identity == begun.identity
    assert QdrantIndex.open(client, name, model).settings == begun.settings
    schema = client.get_collection(name).payload_schema
    assert {field: info.data_type for field, info in schema.items()} == {
        "n": "integer", "seen": "datetime", "shop": "keyword",
    }  # fmt: skip
    assert schema["shop"].params.is_tenant is True  # type: ignore[union-attr]  # of a keyword
    with pytest.raises(IndexExistsError):
        QdrantIndex.create(client, name, model, FIELDS)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_codes_in_place_with_a_tenant_field(client: QdrantClient, name: str, model: CompresSAE, x: FloatArray) -> None:
    client.create_collection(name, vectors_config=models.VectorParams(size=DIM, distance=models.Distance.COSINE))
    points = [models.PointStruct(id=n, vector=row.tolist(), payload={"shop": "ab"[n % 2]}) for n, row in enumerate(x)]
    client.upsert(name, points, wait=True)
    client.create_payload_index(name, "shop", models.PayloadSchemaType.KEYWORD, wait=True)
    assert add_codes(client, name, None, model, settings=FIELDS).encoded == 400
    index = QdrantIndex.open(client, name, model)
    assert index.settings.tenant_field == "shop"
    assert {int(hit.id) % 2 for hit in Retriever(model, index, tenant="a").search(x[1], 50)} == {0}
    if not isinstance(client._client, QdrantLocal):
        shop = client.get_collection(name).payload_schema["shop"]
        assert shop.params.is_tenant is True  # type: ignore[union-attr]  # of a keyword
    assert add_codes(client, name, None, model).encoded == 0
    assert QdrantIndex.open(client, name, model).settings.tenant_field == "shop"


def test_a_source_whose_alias_is_switched(client: QdrantClient, name: str, model: CompresSAE, x: FloatArray) -> None:
    params = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    for part, rows in (("old", range(300)), ("new", range(100, 400))):
        client.create_collection(f"{name}-{part}", vectors_config=params)
        points = [models.PointStruct(id=n, vector=x[n].tolist()) for n in rows]
        client.upsert(f"{name}-{part}", points, wait=True)

    def switch(part: str) -> None:
        create = models.CreateAlias(collection_name=f"{name}-{part}", alias_name=f"{name}-live")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])

    switch("old")
    index = QdrantIndex.create(client, f"{name}-codes", model)
    assert sync(QdrantSource(client, f"{name}-live"), model, index).added == 300
    source = QdrantSource(client, f"{name}-live")
    with pytest.raises(SourceError, match=r"was switched to '.*-new' while collection '.*-old' was read"):
        sync(source, model, index, batch_size=100, on_batch=lambda _: switch("new"))
    assert index.count() == 300
    report = sync(QdrantSource(client, f"{name}-live"), model, index)
    assert (report.added, report.deleted) == (100, 100)
