from __future__ import annotations

import asyncio
import dataclasses
import functools
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    QdrantIndex,
    Retriever,
    deployment,
    open_source,
    train,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import collection_of, drop_previous, rollback
from compressae_qdrant.errors import (
    ConfigError,
    IndexNotFoundError,
    ModelMismatchError,
    VerificationError,
)
from compressae_qdrant.ingestion.aio import ingest_async
from compressae_qdrant.search.alias_retriever import AliasRetriever, AsyncAliasRetriever

from .support.data import SMALL

deploy = functools.partial(deployment.deploy, queries=20)
"""Verify with 20 queries instead of 100: each takes the client's local mode tens of milliseconds."""


@pytest.fixture(scope="module")
def newer(embeddings: FloatArray) -> CompresSAE:
    return train(embeddings, dataclasses.replace(SMALL, seed=4))


def test_deploy_switch_rollback_drop(
    catalog: Path, model: CompresSAE, newer: CompresSAE, embeddings: FloatArray
) -> None:
    client = QdrantClient(":memory:")
    first = deploy(open_source(catalog), model, client, "items", min_recall=0.3)
    assert (first.collection, first.previous, first.items) == (f"items-{model.fingerprint}", None, 600)
    live = AliasRetriever(client, "items", [model, newer], refresh_seconds=0)
    before = live.search(embeddings[5], 5)
    second = deploy(open_source(catalog), newer, client, "items", live_model=model, min_recall=0.3, tolerance=0.5)
    assert second.previous == first.collection
    assert second.live_recall == pytest.approx(first.recall)
    assert collection_of(client, "items") == second.collection
    assert collection_of(client, "items-previous") == first.collection
    after = Retriever(newer, QdrantIndex.open(client, second.collection)).search(embeddings[5], 5)
    assert live.search(embeddings[5], 5) == after != before
    assert live.collection == second.collection
    assert rollback(client, "items") == (first.collection, second.collection)
    assert live.search(embeddings[5], 5) == before
    assert rollback(client, "items") == (second.collection, first.collection)
    assert drop_previous(client, "items") == first.collection
    assert not client.collection_exists(first.collection)
    with pytest.raises(IndexNotFoundError, match="no previous"):
        rollback(client, "items")
    client.close()


def test_a_switch_between_two_look_ups_does_not_mix_models(
    catalog: Path, model: CompresSAE, newer: CompresSAE, embeddings: FloatArray
) -> None:
    """Until the alias is looked up again, the old collection answers; once it is dropped, the new one does."""
    client = QdrantClient(":memory:")
    deploy(open_source(catalog), model, client, "items", min_recall=0.3)
    live = AliasRetriever(client, "items", [model, newer], refresh_seconds=3600)
    before = live.search(embeddings[5], 5)
    deploy(open_source(catalog), newer, client, "items", min_recall=0.3)
    assert live.search(embeddings[5], 5) == before
    drop_previous(client, "items")
    new = Retriever(newer, QdrantIndex.open(client, f"items-{newer.fingerprint}"))
    assert live.search(embeddings[5], 5) == new.search(embeddings[5], 5)
    with pytest.raises(ModelMismatchError, match="give that model too"):
        AliasRetriever(client, "items", [model])
    with pytest.raises(IndexNotFoundError, match="other"):
        AliasRetriever(client, "other", [model])
    with pytest.raises(IndexNotFoundError, match="is a collection, not an alias"):
        AliasRetriever(client, f"items-{newer.fingerprint}", [newer])
    client.close()


def test_an_async_retriever_follows_the_alias(
    catalog: Path, model: CompresSAE, newer: CompresSAE, embeddings: FloatArray
) -> None:
    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        for each in (model, newer):
            index = await AsyncQdrantIndex.create(client, f"items-{each.fingerprint}", each)
            await ingest_async(open_source(catalog), each, index)
        await _switch(client, model)
        live = await AsyncAliasRetriever.open(client, "items", [model, newer], refresh_seconds=3600)
        expected = [await AsyncRetriever(each, await AsyncQdrantIndex.open(client, f"items-{each.fingerprint}", each))
                  .search(embeddings[5], 5) for each in (model, newer)]  # fmt: skip
        assert await live.search(embeddings[5], 5) == expected[0]
        await _switch(client, newer)
        assert (await live.search_batch(embeddings[5:6], 5))[0] == expected[0]
        await client.delete_collection(f"items-{model.fingerprint}")
        results = await asyncio.gather(*(live.search(embeddings[5], 5) for _ in range(8)))
        assert results == [expected[1]] * 8
        assert (await live.similar_to(5, 3))[0].id != 5
        with pytest.raises(IndexNotFoundError, match="is not in the index"):
            await live.similar_to(100_000)
        with pytest.raises(IndexNotFoundError, match="is a collection, not an alias"):
            await AsyncAliasRetriever.open(client, f"items-{newer.fingerprint}", [newer])
        await client.close()

    asyncio.run(run())


async def _switch(client: AsyncQdrantClient, model: CompresSAE) -> None:
    create = models.CreateAlias(collection_name=f"items-{model.fingerprint}", alias_name="items")
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


def test_a_collection_that_fails_verification_does_not_go_live(
    catalog: Path, model: CompresSAE, newer: CompresSAE, tmp_path: Path
) -> None:
    client = QdrantClient(":memory:")
    deploy(open_source(catalog), model, client, "items", min_recall=0.3)
    with pytest.raises(ConfigError, match=r"of this model is already live; use sync"):
        deploy(open_source(catalog), model, client, "items", min_recall=0.3)
    journal = tmp_path / "journal"
    with pytest.raises(VerificationError, match="still points to"):
        deploy(open_source(catalog), newer, client, "items", min_recall=1.01, journal=journal)
    assert collection_of(client, "items") == f"items-{model.fingerprint}"
    QdrantIndex.open(client, f"items-{newer.fingerprint}").delete([3])
    with pytest.raises(VerificationError, match="has 599 items but the source has 600"):
        deploy(open_source(catalog), newer, client, "items", min_recall=0.3, journal=journal)
    client.create_collection("taken", vectors_config={})
    with pytest.raises(ConfigError, match="is the name of a collection"):
        deploy(open_source(catalog), newer, client, "taken")
    client.close()


def test_a_tenant_sees_its_own_items_only(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    codes = model.encode(embeddings)
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(tenant_field="shop")) as index:
        index.upsert(range(600), codes, [{"shop": "ab"[n % 2]} for n in range(600)])
        index.optimize()
        retriever = Retriever(model, index, tenant="a")
        other_tenant = models.Filter(should=[models.FieldCondition(key="shop", match=models.MatchValue(value="b"))])
        assert {hit.payload["shop"] for hit in retriever.search(embeddings[1], 50)} == {"a"}
        assert retriever.search(embeddings[1], 50, filter=other_tenant) == []
        assert {hit.payload["shop"] for hits in retriever.search_batch(embeddings[:3], 9) for hit in hits} == {"a"}
        assert {hit.payload["shop"] for hit in retriever.similar_to(2, 9)} == {"a"}
        with pytest.raises(IndexNotFoundError):
            retriever.similar_to(1)
    with EdgeIndex.create(tmp_path / "other", model) as index, pytest.raises(ConfigError, match="no tenant field"):
        Retriever(model, index, tenant="a")
