"""Hybrid search: codes and words in one call of the engine, the same on every engine."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
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
    SparseCodes,
)
from compressae_qdrant.capacity import Workload, load_constants, plan
from compressae_qdrant.capacity.sizes import TEXT_ITEM_BYTES, TEXT_WORD_BYTES
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, ConfigError, InvalidInputError
from compressae_qdrant.index import TextSettings
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.index.qdrant.calls import Call
from compressae_qdrant.index.qdrant.collections import field_call, field_schemas, scoring_call
from compressae_qdrant.index.text import TextSearch
from compressae_qdrant.metrics import ndcg
from compressae_qdrant.scoring import QueryVector
from compressae_qdrant.search.settings import SearchOptions, search_settings

from .support.indexes import LOCAL_ENGINES, create_on
from .support.recording import sent

SETTINGS = IndexSettings(text_fields=["title", "body"], datatype="float32", keep_dense=True, navigation=None)
WORDS = ["red", "blue", "green", "shoes", "hat", "shirt", "running", "shop", "man", "dog", "cat", "sun", "moon"]
ITEMS = 120


def _payloads() -> list[dict[str, Any]]:
    """Titles of unequal length, so that BM25 hardly ever gives two items the same score; some without a body."""
    random = np.random.default_rng(5)
    payloads: list[dict[str, Any]] = []
    for n in range(ITEMS):
        title = " ".join([*random.choice(WORDS, 1 + n % 7), *([f"rare{n}"] * (n % 5))])
        body = {"body": " ".join(random.choice(WORDS, 3 + n % 11))} if n % 4 else {}
        payloads.append({"title": title, "n": n, **body})
    return payloads


@pytest.fixture(scope="module", params=LOCAL_ENGINES)
def filled(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model: CompresSAE,
    codes: SparseCodes,
    embeddings: FloatArray,
) -> Iterator[CodeIndex]:
    """An index of 120 items with the text fields `title` and `body`; tests must not change it."""
    with create_on(request.param, tmp_path_factory.mktemp("hybrid"), model, SETTINGS) as index:
        index.upsert(range(ITEMS), codes[:ITEMS], _payloads(), embeddings[:ITEMS])
        index.optimize()
        yield index


def _bm25(field: str, query: str) -> dict[int, float]:
    """BM25 with k 1.2 and b 0.75 over the payloads, by hand."""
    documents = {n: payload[field].split() for n, payload in enumerate(_payloads()) if field in payload}
    mean = sum(map(len, documents.values())) / len(documents)
    scores: dict[int, float] = {}
    for word in set(query.split()):
        holding = sum(word in words for words in documents.values())
        idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for n, words in documents.items():
            if frequency := Counter(words)[word]:
                norm = 1.2 * (0.25 + 0.75 * len(words) / mean)
                scores[n] = scores.get(n, 0.0) + idf * frequency * 2.2 / (frequency + norm)
    return scores


def test_words_alone_are_ranked_by_bm25(model: CompresSAE, filled: CodeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(model, filled)
    hits = retriever.search(
        embeddings[3], ITEMS, text="Red SHOES!", text_fields=["title"], code_weight=0, with_codes=True
    )
    expected = _bm25("title", "red shoes")
    assert len(hits) == len(expected)
    np.testing.assert_allclose([hit.score for hit in hits], sorted(expected.values(), reverse=True), rtol=1e-4)
    for hit in hits:
        assert hit.score == pytest.approx(expected[int(hit.id)], rel=1e-4)
        assert hit.payload["n"] == hit.id
        assert hit.indices is not None


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 2.0, 0.5)])
@pytest.mark.parametrize("k", [2, 60])
def test_rankings_are_fused_by_their_ranks(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, weights: tuple[float, ...], k: int
) -> None:
    retriever = Retriever(model, filled)
    hits = retriever.search(
        embeddings[3], 10, text="red dog moon", text_fields={"title": weights[1], "body": weights[2]}, fusion_k=k,
        code_weight=weights[0], prefetch=ITEMS,
    )  # fmt: skip
    rankings = [retriever.search(embeddings[3], 100, prefetch=ITEMS, dense_candidates=100)]
    rankings += [
        retriever.search(embeddings[3], 100, text="red dog moon", text_fields=[field], code_weight=0)
        for field in ("title", "body")
    ]
    expected: dict[Any, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, hit in enumerate(ranking, 1):
            expected[hit.id] = expected.get(hit.id, 0.0) + 1 / (k - 1 + rank / weight)
    assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:10], rel=1e-3)
    assert [hit.score for hit in hits] == pytest.approx([expected[hit.id] for hit in hits], rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "dbsf"}, {"fusion_k": 2}, {"text_fields": ["title"]}, {"dense_candidates": 0}, {"offset": 4},
        {"filter": models.Filter(must=[models.FieldCondition(key="n", range=models.Range(lt=60))])},
    ],
)  # fmt: skip
def test_pages_filters_and_batches(model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, options: Any) -> None:
    retriever = Retriever(model, filled)
    whole = retriever.search(embeddings[7], 20, text="blue sun", **{**options, "offset": 0})
    assert len(whole) == 20
    page = retriever.search(embeddings[7], 5, text="blue sun", **{"offset": 2, **options})
    start = options.get("offset", 2)
    assert [hit.id for hit in page] == [hit.id for hit in whole[start : start + 5]]
    if "filter" in options:
        assert all(hit.payload["n"] < 60 for hit in whole)
    both = retriever.search_batch(embeddings[7:9], 20, text=["blue sun", "rare3"], **{**options, "offset": 0})
    assert [hit.id for hit in both[0]] == [hit.id for hit in whole]
    assert 3 in [hit.id for hit in both[1]]
    same = retriever.search_batch(embeddings[7:9], 20, text="blue sun", **{**options, "offset": 0})
    assert [hit.id for hit in same[0]] == [hit.id for hit in whole]


def test_a_word_brings_in_what_the_codes_do_not_find(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, filled)
    far = retriever.search(embeddings[0], ITEMS, prefetch=ITEMS)[-1]
    word = f"rare{far.id}" if int(far.id) % 5 else None
    if word is None:
        far = next(hit for hit in reversed(retriever.search(embeddings[0], ITEMS, prefetch=ITEMS)) if int(hit.id) % 5)
        word = f"rare{far.id}"
    assert far.id not in [hit.id for hit in retriever.search(embeddings[0], 5)]
    assert far.id in [hit.id for hit in retriever.search(embeddings[0], 5, text=word)]
    assert far.id in [hit.id for hit in retriever.similar_to(0, 5, text=word)]


def test_fused_scores_are_not_explained(model: CompresSAE, filled: CodeIndex, embeddings: FloatArray) -> None:
    (hit,) = Retriever(model, filled).search(embeddings[0], 1, text="red")
    with pytest.raises(InvalidInputError, match="has the score of a fusion with words"):
        hit.explain()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"text": "x", "text_fields": ["colour"]}, "no text field 'colour'; it has 'title', 'body'"),
        ({"text": "x", "text_fields": "title"}, "text_fields is one text, 'title'"),
        ({"text": "x", "text_fields": {"title": 0}}, "the weight of 'title' is 0; it must be above 0"),
        (
            {"text": "x", "text_fields": {"title": "high"}},
            r"text_fields\['title'\] is 'high'; it must be a finite number",
        ),
        ({"text": "x", "code_weight": -1}, "the weight of 'codes' is -1"),
        ({"text": "x", "fusion": "sum"}, "fusion is 'sum'; it must be one of rrf, dbsf"),
        ({"text": "x", "fusion": "dbsf", "code_weight": 2}, "'dbsf' adds up normalised scores and has no weights"),
        ({"text": "x", "fusion_k": 0}, "fusion_k is 0"),
        ({"text": "  "}, "text is '  '; give the words"),
        ({"text": ["x", "y"]}, "there are 2 texts for 1 queries"),
        ({"text": "x", "score_threshold": 0.1}, "text cannot be combined with score_threshold"),
        ({"text": "x", "rescore_in_engine": False}, "text cannot be combined with rescore_in_engine=False"),
        ({"text": "x", "within": "+3"}, "text cannot be combined with within"),
        ({"text_fields": ["title"]}, "text_fields is given without text"),
        ({"code_weight": 2.0}, "code_weight is given without text"),
    ],
)
def test_invalid_hybrid_searches_are_refused(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, options: Any, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Retriever(model, filled).search(embeddings[0], **options)


def test_an_index_without_text_fields_says_so(model: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(model, index)
    with pytest.raises(InvalidInputError, match=r"the index has no text field to search for words; create it with"):
        retriever.search(embeddings[0], text="red")
    with pytest.raises(InvalidInputError, match="text is given, but fused scores differ between searches for groups"):
        retriever.search_groups(embeddings[0], "group", text="red")


def test_a_plan_checks_its_text() -> None:
    vector = QueryVector(np.array([1], np.int32), np.array([1.0], np.float32))
    text = TextSearch("red", {"title": 1.0}, 5)
    assert QueryPlan(vector, vector, 2, 6, text=text).text is text
    for changed, complaint in (
        ({"limit": 6}, "has 5 candidates but limit and offset are 6 and 0"),
        ({"rescoring": None}, "a text but no rescoring"),
        ({"min_score": 0.1}, "a text, whose fused scores have no unit"),
    ):
        arguments: Any = {
            "first_stage": vector,
            "rescoring": vector,
            "limit": 2,
            "prefetch": 6,
            "text": text,
            **changed,
        }
        with pytest.raises(InvalidInputError, match=complaint):
            QueryPlan(**arguments)
    with pytest.raises(InvalidInputError, match="text is given without a field"):
        TextSearch("red", {}, 5)


def test_stemming_finds_other_forms_of_a_word(
    tmp_path: Path, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    settings = IndexSettings(text_fields={"title": TextSettings("english", memory="pinned")}, navigation=None)
    with EdgeIndex.create(tmp_path / "index", model, settings) as index:
        index.upsert([1, 2], codes[:2], [{"title": "the running shoe"}, {"title": "the hats"}])
    with EdgeIndex.open(tmp_path / "index", model) as index:
        assert index.settings == settings
        retriever = Retriever(model, index)
        words: Any = {"code_weight": 0, "with_payload": False}
        assert [hit.id for hit in retriever.search(embeddings[0], text="runs shoes", **words)] == [1]
        assert retriever.search(embeddings[0], text="the", **words) == []  # a stop word
        index.upsert([1, 3], codes[:2], [{"title": "a coat"}, {"title": "hat"}])
        index.delete([2])
        assert [hit.id for hit in retriever.search(embeddings[0], text="hats", **words)] == [3]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"text_fields": "title"}, r"text_fields is one text, 'title'; give a list of names"),
        ({"text_fields": {"title": "klingon"}}, "text language is 'klingon'"),
        ({"text_fields": {"title": {"colour": 1}}}, r"text_fields\['title'\] is"),
        ({"text_fields": {"title": TextSettings}}, r"text_fields\['title'\] is"),
        ({"text_fields": ["title"], "payload_fields": {"title": "text"}}, "'title' is in text_fields and also indexed"),
    ],
)
def test_invalid_text_fields_are_refused(settings: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        IndexSettings(**settings)


def test_text_fields_may_be_names_languages_or_settings() -> None:
    given: list[Any] = [["a"], {"a": None}, {"a": TextSettings()}, {"a": {"language": None}}]
    assert {json.dumps(Manifest("m", 4, 2, IndexSettings(text_fields=each)).to_json()["settings"]["text_fields"])
            for each in given} == {'{"a": {"language": null, "memory": "cold"}}'}  # fmt: skip
    english = IndexSettings(text_fields={"a": "english"})
    manifest = Manifest("m", 4, 2, english)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), "here").settings == english


def test_the_async_retriever_searches_for_words(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    local = QdrantIndex.create(QdrantClient(":memory:"), "items", model, SETTINGS)
    local.upsert(range(40), codes[:40], _payloads()[:40], embeddings[:40])
    expected = Retriever(model, local).search(embeddings[5], 5, text="red dog")

    async def run() -> Any:
        index = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model, SETTINGS)
        await index.upsert(range(40), codes[:40], _payloads()[:40], embeddings[:40])
        retriever = AsyncRetriever(model, index)
        return await retriever.search(embeddings[5], 5, text="red dog"), (
            await retriever.search_batch(embeddings[5:6], 5, text=["red dog"])
        )

    found, (batched,) = asyncio.run(run())
    assert [hit.id for hit in found] == [hit.id for hit in batched] == [hit.id for hit in expected]


def test_a_server_that_cannot_rank_by_words_is_named() -> None:
    settings = IndexSettings(text_fields={"title": "german"})
    create, check = field_call("items", "title", field_schemas(settings)["title"]), scoring_call("items", settings)
    schema = sent(create)["field_schema"]
    assert (schema.scoring, schema.stemmer.language, schema.stopwords) == (True, "german", "german")

    class Answer:
        """The description of a collection by a server."""

        payload_schema: ClassVar[Any] = {
            "title": models.PayloadIndexInfo(data_type=models.PayloadSchemaType.TEXT, points=0)
        }

    old: Call[None] = check
    with pytest.raises(
        CodeIndexError, match=r"cannot rank by the words of field 'title'; text_fields need Qdrant 1\.20"
    ):
        old.parse(Answer)
    index = models.PayloadIndexInfo(data_type=models.PayloadSchemaType.TEXT, points=0, params=schema)
    Answer.payload_schema = {"title": index}
    old.parse(Answer)


def test_languages_are_refused_by_the_local_mode(model: CompresSAE, codes: SparseCodes, embeddings: FloatArray) -> None:
    settings = IndexSettings(text_fields={"title": "english"})
    index = QdrantIndex.create(QdrantClient(":memory:"), "items", model, settings)
    index.upsert([1], codes[:1], [{"title": "red"}])
    with pytest.raises(CodeIndexError, match="default tokenization"):
        Retriever(model, index).search(embeddings[0], text="red")


def test_ndcg_of_rankings() -> None:
    grades = [{"a": 1.0, "b": 2.0}, {"z": 1.0}]
    ideal = 3 + 1 / math.log2(3)
    np.testing.assert_allclose(ndcg([["b", "a"], ["x", "z", "y"]], grades, 10), [1, 1 / math.log2(3)], rtol=1e-6)
    np.testing.assert_allclose(ndcg([["a", "x", "b"], []], grades, 10), [(1 + 3 / 2) / ideal, 0], rtol=1e-6)
    np.testing.assert_allclose(ndcg([["a"], ["z"]], grades, 1), [1 / 3, 1], rtol=1e-6)
    with pytest.raises(InvalidInputError, match="query 1 has no relevant item"):
        ndcg([["a"], ["b"]], [{"a": 1.0}, {}], 10)
    with pytest.raises(InvalidInputError, match="1 rankings for 2 queries"):
        ndcg([["a"]], grades, 10)


def test_the_defaults_of_hybrid_search() -> None:
    settings = search_settings(10)
    assert (settings["text"], settings["fusion"], settings["code_weight"]) == (None, "rrf", 1.0)


def test_the_bytes_of_a_text_index_are_measured_and_planned(
    tmp_path: Path, model: CompresSAE, codes: SparseCodes
) -> None:
    random = np.random.default_rng(2)
    payloads = [{"title": " ".join(map(str, random.integers(0, 500, 20)))} for _ in range(600)]
    with EdgeIndex.create(tmp_path / "index", model, IndexSettings(text_fields=["title"], navigation=None)) as index:
        assert index.info().text_bytes is not None
        index.upsert(range(600), codes, payloads)
        index.optimize()
        measured = index.info().text_bytes
        assert measured is not None
        assert 600 * 20 < measured < 600 * 20 * 20
    workload = Workload(items=1000, dim=24, text_words=20)
    plain = Workload(items=1000, dim=24)
    grown = [
        ours.disk_bytes - theirs.disk_bytes
        for ours, theirs in zip(plan(workload, load_constants()), plan(plain, load_constants()), strict=True)
    ]
    np.testing.assert_allclose(grown, 1000 * (TEXT_ITEM_BYTES + 20 * TEXT_WORD_BYTES), rtol=1e-6)


def test_words_are_fused_with_embeddings_that_rank_the_graph(
    tmp_path: Path, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    """Plans by the graph have no query vector of codes then. With all items as candidates, both stages agree."""
    settings = IndexSettings(text_fields=["title"], keep_dense=True)
    with EdgeIndex.create(tmp_path / "index", model, settings) as index:
        index.upsert(range(ITEMS), codes[:ITEMS], _payloads(), embeddings[:ITEMS])
        index.optimize()
        retriever = Retriever(model, index)
        options: SearchOptions = {"text": "red shoes", "prefetch": ITEMS, "dense_candidates": ITEMS}
        by_graph: SearchOptions = {**options, "first_stage": "graph"}
        by_codes: SearchOptions = {**options, "first_stage": "codes", "exact": True}
        graph = retriever.search(embeddings[200], 10, **by_graph)
        codes_first = retriever.search(embeddings[200], 10, **by_codes)
        assert [hit.id for hit in graph] == [hit.id for hit in codes_first]
        alone = retriever.search(embeddings[200], 5, first_stage="graph", text="red shoes", code_weight=0)
        assert len(alone) == 5
