"""What the suites do not cover: filters, diversity, scores, existing payloads, and that async methods await."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.indexing import index as index_documents
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from compressae_qdrant import (
    AsyncQdrantIndex,
    CompresSAE,
    ConfigError,
    EdgeIndex,
    IndexSettings,
    InvalidInputError,
    ModelMismatchError,
    QdrantIndex,
)
from compressae_qdrant.integrations.langchain import CompresSAERetriever, CompresSAEVectorStore
from compressae_qdrant.model.config import ModelConfig

EMBEDDING = VectorStoreIntegrationTests.get_embeddings()
TEXTS = [f"text {number}" for number in range(40)]
METADATA = [{"group": number % 4, "even": number % 2 == 0, "name": f"n{number}"} for number in range(40)]


@pytest.fixture
def index(model: CompresSAE, tmp_path: Path) -> Iterator[EdgeIndex]:
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(datatype="float32")) as made:
        yield made


@pytest.fixture
def store(model: CompresSAE, index: EdgeIndex) -> CompresSAEVectorStore:
    made = CompresSAEVectorStore(model, index, EMBEDDING)
    made.add_texts(TEXTS, METADATA, ids=[str(number) for number in range(40)], batch_size=7)
    return made


def _best(query: str, rows: list[int], count: int) -> list[str]:
    """The ids of the closest rows, from the embeddings themselves."""
    vectors = np.array([EMBEDDING.embed_query(TEXTS[row]) for row in rows])
    question = np.array(EMBEDDING.embed_query(query))
    cosines = vectors @ question / np.linalg.norm(vectors, axis=1)
    return [str(rows[i]) for i in np.argsort(-cosines)[:count]]


def test_scores_are_cosines(store: CompresSAEVectorStore) -> None:
    found = store.similarity_search_with_score("a question", k=5)
    assert [document.id for document, _ in found] == _best("a question", list(range(40)), 5)
    a, b = np.array(EMBEDDING.embed_query("a question")), np.array(EMBEDDING.embed_query(found[0][0].page_content))
    assert found[0][1] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-3)


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"group": 2}, lambda row: row % 4 == 2),
        ({"group": [1, 2], "even": True}, lambda row: row % 4 == 2),
        ({"name": "n7"}, lambda row: row == 7),
        ({"missing": None}, lambda row: True),
        (models.Filter(must_not=[models.HasIdCondition(has_id=["3"])]), lambda row: row != 3),
        (
            models.Filter(must=[models.FieldCondition(key="metadata.group", range=models.Range(gte=2.5))]),
            lambda row: row % 4 == 3,
        ),
    ],
)
async def test_filters(store: CompresSAEVectorStore, condition: Any, allowed: Any) -> None:
    expected = _best("q", [row for row in range(40) if allowed(row)], 4)
    assert [document.id for document in store.similarity_search("q", filter=condition)] == expected
    assert [document.id for document in await store.asimilarity_search("q", filter=condition)] == expected
    retriever = store.as_retriever(search_kwargs={"filter": condition, "k": 4})
    assert [document.id for document in retriever.invoke("q")] == expected


def test_unusable_filters(store: CompresSAEVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="is compared with a dict"):
        store.similarity_search("q", filter={"group": {"gt": 1}})
    with pytest.raises(InvalidInputError, match="compared with an empty list"):
        store.similarity_search("q", filter={"group": []})
    with pytest.raises(InvalidInputError, match="the filter is a str"):
        store.similarity_search("q", filter="group = 1")
    with pytest.raises(InvalidInputError, match="search has no setting fetch_k"):
        store.similarity_search("q", fetch_k=10)


async def test_diversity(store: CompresSAEVectorStore) -> None:
    closest = store.similarity_search("q", k=10)
    assert store.max_marginal_relevance_search("q", k=3, fetch_k=10, lambda_mult=1) == closest[:3]
    diverse = store.max_marginal_relevance_search("q", k=3, fetch_k=10, lambda_mult=0)
    assert diverse[0] == closest[0]
    assert diverse != closest[:3]
    unit = np.array([EMBEDDING.embed_query(document.page_content) for document in closest])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert diverse[1] == closest[int(np.argmin(unit @ unit[0]))]
    assert await store.amax_marginal_relevance_search("q", k=3, fetch_k=10, lambda_mult=0) == diverse
    by_mmr = store.as_retriever(search_type="mmr", search_kwargs={"k": 3, "fetch_k": 10, "lambda_mult": 0})
    assert by_mmr.invoke("q") == diverse
    assert await by_mmr.ainvoke("q") == diverse
    store.delete()
    assert store.max_marginal_relevance_search("q") == []


async def test_relevance_is_between_0_and_1(store: CompresSAEVectorStore) -> None:
    found = store.similarity_search_with_relevance_scores("text 3", k=40)  # warns of scores out of range
    assert min(score for _, score in found) == 0
    assert await store.asimilarity_search_with_relevance_scores("text 3", k=40) == found
    above = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9, "k": 9})
    assert [document.id for document in above.invoke("text 3")] == [d.id for d, score in found[:9] if score >= 0.9]


async def test_the_retriever_returns_scores_on_request(store: CompresSAEVectorStore) -> None:
    retriever = CompresSAERetriever(store=store, k=2, filter={"group": 1}, score_key="score")
    found = retriever.invoke("q")
    assert [document.metadata["score"] for document in found] == [
        score for _, score in store.similarity_search_with_score("q", 2, filter={"group": 1})
    ]
    assert await retriever.ainvoke("q") == found
    chain = RunnableLambda(lambda text: text.upper()) | retriever | (lambda documents: len(documents))
    assert chain.invoke("a") == 2


def test_langchains_indexing_works(store: CompresSAEVectorStore, index: EdgeIndex) -> None:
    manager = InMemoryRecordManager("namespace")
    manager.create_schema()
    documents = [Document(page_content=f"new {number}", metadata={"source": "s"}) for number in range(5)]
    arguments: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert index_documents(documents, manager, store, **arguments)["num_added"] == 5
    again = index_documents(documents[:3], manager, store, **arguments)
    assert (again["num_added"], again["num_skipped"], again["num_deleted"]) == (0, 3, 2)
    assert index.count() == 43


async def test_existing_items_are_read(model: CompresSAE, index: EdgeIndex) -> None:
    vectors = np.asarray(EMBEDDING.embed_documents(TEXTS[:3]), np.float32)
    index.upsert(range(3), model.encode(vectors), [{"title": text, "price": 3} for text in TEXTS[:3]])
    shop = CompresSAEVectorStore(model, index, EMBEDDING, content_key="title", metadata_key=None, integer_ids=True)
    (found,) = shop.similarity_search("text 1", k=1)
    assert found == Document(page_content="text 1", metadata={"price": 3}, id="1")
    assert shop.get_by_ids(["1", "7"]) == await shop.aget_by_ids(["1", "7"]) == [found]
    assert shop.delete(["1"])
    assert index.count() == 2
    with pytest.raises(InvalidInputError, match="id 'a' is not an integer"):
        shop.get_by_ids(["a"])
    with pytest.raises(InvalidInputError, match=r"item 0 has no payload field 'page_content'.* has 'title', 'price'"):
        CompresSAEVectorStore(model, index, EMBEDDING, integer_ids=True).get_by_ids(["0"])
    with pytest.raises(InvalidInputError, match="has a str in its payload field 'title'; metadata is an object"):
        CompresSAEVectorStore(
            model, index, EMBEDDING, content_key="price", metadata_key="title", integer_ids=True
        ).get_by_ids(["0"])
    with pytest.raises(InvalidInputError, match="the metadata has a field 'title', which holds the text"):
        shop.add_texts(["x"], [{"title": "y"}], ids=["1"])


def test_repeated_ids_keep_the_last_text(model: CompresSAE, index: EdgeIndex) -> None:
    store = CompresSAEVectorStore(model, index, EMBEDDING)
    assert store.add_texts(["first", "other", "last"], ids=["1", None, "1"])[::2] == ["1", "1"]
    assert [document.page_content for document in store.get_by_ids(["1"])] == ["last"]
    assert index.count() == 2
    with pytest.raises(InvalidInputError, match="there are 1 ids for 2 texts"):
        store.add_texts(["a", "b"], ids=["1"])
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        store.add_texts(["a"], batch_size=0)
    assert store.add_documents([]) == []


@pytest.mark.parametrize("sync", [True, False])
async def test_documents_are_deleted_by_a_filter(store: CompresSAEVectorStore, index: EdgeIndex, sync: bool) -> None:
    async def delete(*arguments: Any, **keywords: Any) -> bool:
        return store.delete(*arguments, **keywords) if sync else await store.adelete(*arguments, **keywords)

    assert await delete(filter={"group": [0, 1]})
    assert index.count() == 20
    assert await delete([])
    assert index.count() == 20
    with pytest.raises(InvalidInputError, match="got ids and a filter"):
        await delete(["1"], filter={"group": 2})
    with pytest.raises(InvalidInputError):
        await delete(filter={})
    assert await delete()
    assert index.count() == 0


async def test_hybrid_searches_find_words(model: CompresSAE, tmp_path: Path) -> None:
    settings = IndexSettings(text_fields={"page_content": {}})
    with EdgeIndex.create(tmp_path / "words", model, settings) as index:
        store = CompresSAEVectorStore(model, index, EMBEDDING)
        store.add_texts([*TEXTS, "a zebra"])
        (found,) = store.similarity_search("zebra", k=1, hybrid=True, code_weight=0.1)
        assert found.page_content == "a zebra"
        assert await store.asimilarity_search("zebra", k=1, hybrid=True, code_weight=0.1) == [found]
        words = CompresSAERetriever(store=store, k=1, search_kwargs={"hybrid": True, "code_weight": 0.1})
        assert words.invoke("zebra") == [found]


def test_pages_and_thresholds(store: CompresSAEVectorStore) -> None:
    found = store.similarity_search_with_score("q", k=10)
    assert store.similarity_search_with_score("q", k=6, offset=4) == found[4:]
    above = found[5][1] + 1e-6
    assert [document for document, _ in found[:5]] == CompresSAEVectorStore(
        store.model, store._pair.index, EMBEDDING, search_options={"score_threshold": above}
    ).similarity_search("q", k=10)


def test_a_store_is_made_of_texts(model: CompresSAE, tmp_path: Path) -> None:
    location = str(tmp_path / "made")
    store = CompresSAEVectorStore.from_texts(TEXTS, EMBEDDING, METADATA, model=model, location=location)
    assert len(store.similarity_search("q", k=50)) == 40
    store.close()
    documents = [Document(page_content="one more", id="x")]
    again = CompresSAEVectorStore.from_documents(documents, EMBEDDING, model=model, location=location)
    assert len(again.similarity_search("q", k=50)) == 41
    for arguments in ({}, {"location": location, "index": again._pair.index}):
        with pytest.raises(ConfigError, match="pass either the location of an index or an index"):
            CompresSAEVectorStore.from_texts([], EMBEDDING, model=model, **arguments)
    with pytest.raises(ConfigError, match="from_texts needs the model"):
        CompresSAEVectorStore.from_texts([], EMBEDDING, location=location)
    again.close()


async def test_a_store_is_made_of_texts_by_an_async_caller(model: CompresSAE, tmp_path: Path) -> None:
    store = await CompresSAEVectorStore.afrom_texts(TEXTS, EMBEDDING, model=model, location=str(tmp_path / "made"))
    assert len(await store.asimilarity_search("q", k=50)) == 40
    assert await store.adelete()
    assert await store.asimilarity_search("q") == []
    await store.aclose()


def test_an_embedder_of_this_package_embeds(model: CompresSAE, index: EdgeIndex) -> None:
    class Sides:
        def encode_query(self, texts: list[str], /) -> Any:
            return [EMBEDDING.embed_query(text.removeprefix("query: ")) for text in texts]

        def encode_document(self, texts: list[str], /) -> Any:
            return [EMBEDDING.embed_query(text) for text in texts]

    store = CompresSAEVectorStore(model, index, Sides())
    store.add_texts(TEXTS)
    assert store.similarity_search("query: text 5", k=1)[0].page_content == "text 5"
    assert isinstance(store.embeddings, Embeddings)


class Awaited(DeterministicFakeEmbedding):
    """Embeddings with async methods of their own."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


async def test_async_methods_use_no_executor(
    model: CompresSAE, local_async: AsyncQdrantClient, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await AsyncQdrantIndex.create(local_async, collection, model)
    store = CompresSAEVectorStore(model, None, Awaited(size=6), async_index=index)
    ids = await store.aadd_texts(TEXTS)  # computes the codes in a thread
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "run_in_executor", lambda *args: pytest.fail("an executor was used"))
    assert len(await store.asimilarity_search("q", k=3)) == 3
    assert len(await store.amax_marginal_relevance_search("q", k=3)) == 3
    assert len(await store.aget_by_ids(ids[:2])) == 2
    assert len(await CompresSAERetriever(store=store, k=3).ainvoke("q")) == 3
    assert await store.adelete(ids[:2])
    assert await store.adelete()
    assert await index.count() == 0
    with pytest.raises(ConfigError, match="there is only an async index here"):
        store.similarity_search("q")


@pytest.mark.parametrize("kind", ["embedded", "local mode"])
async def test_many_async_calls_at_once(
    kind: str, model: CompresSAE, index: EdgeIndex, local: QdrantClient, collection: str
) -> None:
    chosen = index if kind == "embedded" else QdrantIndex.create(local, collection, model)
    store = CompresSAEVectorStore(model, chosen, EMBEDDING)
    await asyncio.gather(*(store.aadd_texts([text], ids=[text]) for text in TEXTS))
    found = await asyncio.gather(*(store.asimilarity_search(text, k=1) for text in TEXTS))
    assert [documents[0].id for documents in found] == TEXTS


def test_one_store_serves_several_event_loops(store: CompresSAEVectorStore) -> None:
    async def search() -> int:
        found = await asyncio.gather(*(store.asimilarity_search("q", k=2) for _ in range(20)))
        await store.aclose()
        return len(found)

    assert asyncio.run(search()) == asyncio.run(search()) == 20


def test_another_models_index_is_refused(index: EdgeIndex) -> None:
    other = CompresSAE(ModelConfig(6, 24, 5))
    with pytest.raises(ModelMismatchError):
        CompresSAEVectorStore(other, index, EMBEDDING)
    with pytest.raises(ConfigError, match="neither an index nor an async_index"):
        CompresSAEVectorStore(other, None, EMBEDDING)
