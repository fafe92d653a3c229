"""Words stay searchable however items reach an index: sync, asynchronous loads, migration and deployment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AliasRetriever,
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    IndexSettings,
    QdrantIndex,
    Retriever,
    open_source,
    sync,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.deployment import deploy
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.ingestion.aio import ingest_async
from compressae_qdrant.ingestion.migrate import add_codes

from .support.indexes import LOCAL_ENGINES, create_on

SETTINGS = IndexSettings(text_fields=["title"])
ITEMS = 60


def _title(n: int) -> str:
    return f"{'shoes' if n % 10 == 3 else 'hat'} number{n}"


def _catalog(path: Path, embeddings: FloatArray, titles: dict[int, str] | None = None) -> Path:
    titles = titles or {}
    lines = [
        json.dumps({"id": n, "embedding": embeddings[n].tolist(), "title": titles.get(n, _title(n))})
        for n in range(ITEMS)
    ]
    path.write_text("\n".join(lines))
    return path


def _named(retriever: Retriever | AliasRetriever, query: FloatArray, words: str) -> set[Any]:
    """Ids of the items that hold the words."""
    hits = retriever.search(query, ITEMS, text=words, code_weight=0)
    return {hit.id for hit in hits}


@pytest.fixture(params=LOCAL_ENGINES)
def empty(request: pytest.FixtureRequest, tmp_path: Path, model: CompresSAE) -> Any:
    with create_on(request.param, tmp_path, model, SETTINGS) as index:
        yield index


def test_sync_changes_the_words_that_find_an_item(
    empty: CodeIndex, tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    path = _catalog(tmp_path / "catalog.jsonl", embeddings)
    assert sync(open_source(path), model, empty).added == ITEMS
    retriever = Retriever(model, empty)
    assert _named(retriever, embeddings[0], "shoes") == {3, 13, 23, 33, 43, 53}
    changed = _catalog(path, embeddings, {3: "scarf", 4: "shoes"})
    report = sync(open_source(changed), model, empty)
    assert (report.added, report.changed) == (0, 2)
    assert _named(retriever, embeddings[0], "shoes") == {4, 13, 23, 33, 43, 53}
    assert _named(retriever, embeddings[0], "scarf") == {3}
    empty.delete([4])
    assert _named(retriever, embeddings[0], "shoes") == {13, 23, 33, 43, 53}


def test_an_async_load_makes_words_searchable(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    async def run() -> set[Any]:
        client = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(client, "items", model, SETTINGS)
        await ingest_async(open_source(_catalog(tmp_path / "catalog.jsonl", embeddings)), model, index)
        hits = await AsyncRetriever(model, index).search(embeddings[0], ITEMS, text="shoes", code_weight=0)
        await client.close()
        return {hit.id for hit in hits}

    assert asyncio.run(run()) == {3, 13, 23, 33, 43, 53}


def test_a_collection_that_gets_codes_gets_its_words_too(model: CompresSAE, embeddings: FloatArray) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("items", vectors_config=models.VectorParams(size=24, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=n, vector=embeddings[n].tolist(), payload={"title": _title(n)}) for n in range(ITEMS)
    ]
    client.upsert("items", points)
    assert add_codes(client, "items", None, model, settings=SETTINGS).encoded == ITEMS
    index = QdrantIndex.open(client, "items", model)
    assert list(index.settings.texts) == ["title"]
    assert _named(Retriever(model, index), embeddings[0], "shoes") == {3, 13, 23, 33, 43, 53}
    hits = Retriever(model, index).search(embeddings[7], 5, text="number7")
    assert hits[0].id == 7


def test_a_deployed_collection_keeps_the_text_fields(tmp_path: Path, model: CompresSAE, embeddings: FloatArray) -> None:
    client = QdrantClient(":memory:")
    source = open_source(_catalog(tmp_path / "catalog.jsonl", embeddings))
    deploy(source, model, client, "live", settings=SETTINGS, queries=10, min_recall=0.3)
    assert _named(AliasRetriever(client, "live", [model]), embeddings[0], "shoes") == {3, 13, 23, 33, 43, 53}
