"""Search for groups, compared with grouping the complete ranking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

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
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.index import Hit
from compressae_qdrant.index.plan import QueryPlan
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.search import Group

from .support.indexes import ENGINES, create_on

SETTINGS = IndexSettings(datatype="float32", navigation=None)


def _payload(n: int) -> dict[str, Any]:
    """Documents of unequal size, one very large; every 11th item has none, every 13th a number as its document."""
    if n % 11 == 0:
        return {"doc": None} if n % 2 else {}
    if n % 13 == 0:
        return {"doc": n % 4, "meta": {"shop": "a"}}
    document = "big" if n % 3 else f"d{n % 40}"
    return {"doc": document, "meta": {"shop": f"s{n % 5}"}}


@pytest.fixture(scope="module", params=ENGINES)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: CompresSAE, codes: SparseCodes
) -> Iterator[CodeIndex]:
    """An index of 300 items with the field `doc`; tests must not change it."""
    with create_on(request.param, tmp_path_factory.mktemp("groups"), model, SETTINGS) as index:
        index.upsert(range(300), codes[:300], [_payload(n) for n in range(300)])
        index.optimize()
        yield index


def _expected(ranking: list[Hit], limit: int, size: int) -> list[tuple[Any, list[Any]]]:
    groups: dict[Any, list[Any]] = {}
    for hit in ranking:
        value = hit.payload.get("doc")
        if value is not None:
            groups.setdefault(value, []).append(hit.id)
    return [(value, ids[:size]) for value, ids in list(groups.items())[:limit]]


def _shape(groups: Sequence[Group]) -> list[tuple[Any, list[Any]]]:
    return [(group.id, [hit.id for hit in group.hits]) for group in groups]


@pytest.mark.parametrize(("limit", "size"), [(1, 1), (3, 2), (9, 3), (100, 10)])
def test_groups_are_those_of_the_complete_ranking(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray, limit: int, size: int
) -> None:
    retriever = Retriever(model, filled)
    for query in embeddings[:2]:
        ranking = retriever.search(query, 300, exact=True)
        groups = retriever.search_groups(query, "doc", limit, size, exact=True)
        assert _shape(groups) == _expected(ranking, limit, size)
        assert all(hit.payload["doc"] == group.id for group in groups for hit in group.hits)


class _Searches:
    """An index that counts the calls of the engine."""

    def __init__(self, index: CodeIndex) -> None:
        self._index, self.calls = index, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        self.calls.append(len(plans))
        return self._index.search_batch(plans)


def test_the_engine_is_called_again_only_for_what_is_missing(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray
) -> None:
    counting: Any = _Searches(filled)
    retriever = Retriever(model, counting)
    retriever.search_groups(embeddings[0], "doc", 1, 1)
    assert counting.calls == [1]
    counting.calls.clear()
    groups = retriever.search_groups(embeddings[0], "doc", 3, 2)
    rounds = counting.calls
    assert len(groups) == 3
    assert all(calls == 1 for calls in rounds[:-1])
    assert rounds[-1] <= 3  # one search for each group that could have more hits


def test_filters_thresholds_and_payloads_apply_to_groups(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, filled)
    shop = models.Filter(must=[models.FieldCondition(key="meta.shop", match=models.MatchValue(value="s1"))])
    ranking = retriever.search(embeddings[2], 300, exact=True, filter=shop)
    assert _shape(retriever.search_groups(embeddings[2], "doc", 4, 3, exact=True, filter=shop)) == _expected(
        ranking, 4, 3
    )
    above = [hit for hit in ranking if hit.score >= 0.2]
    bare = retriever.search_groups(
        embeddings[2], "doc", 50, 3, exact=True, filter=shop, score_threshold=0.2, with_payload=False, with_codes=True
    )
    assert _shape(bare) == _expected(above, 50, 3)
    assert all(hit.payload == {} and hit.indices is not None for group in bare for hit in group.hits)
    retriever.explain([hit for group in bare for hit in group.hits])


def test_fields_of_objects_and_numbers_form_groups(
    model: CompresSAE, filled: CodeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, filled)
    assert {group.id for group in retriever.search_groups(embeddings[0], "meta.shop", 20, 1, exact=True)} == {
        "a", "s0", "s1", "s2", "s3", "s4",
    }  # fmt: skip
    assert {0, 1, 2, 3} <= {group.id for group in retriever.search_groups(embeddings[0], "doc", 40, 1, exact=True)}
    assert retriever.search_groups(embeddings[0], "colour", 5, 1) == []


def test_what_cannot_be_grouped_exactly_is_refused(
    tmp_path_factory: pytest.TempPathFactory, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    with EdgeIndex.create(tmp_path_factory.mktemp("lists") / "index", model, SETTINGS) as index:
        index.upsert(range(9), codes[:9], [{"tags": ["a", "b"]}] * 9)
        retriever = Retriever(model, index)
        with pytest.raises(InvalidInputError, match=r"has a list in field 'tags', so it could be in several groups"):
            retriever.search_groups(embeddings[0], "tags")
        for wrong, complaint in (
            ({"group_by": "tags[]"}, "group_by is"), ({"group_by": ""}, "group_by is"), ({"limit": 0}, "limit is 0"),
            ({"group_size": 0}, "group_size is 0"), ({"offset": 3}, "offset is 3, but groups have no pages"),
        ):  # fmt: skip
            options: Any = {"group_by": "tags", **wrong}
            with pytest.raises(InvalidInputError, match=complaint):
                retriever.search_groups(embeddings[0], **options)


def test_the_async_retriever_finds_the_same_groups(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model, SETTINGS)
    index.upsert(range(100), codes[:100], [_payload(n) for n in range(100)])
    expected = Retriever(model, index).search_groups(embeddings[5], "doc", 5, 3)

    async def run() -> list[Group]:
        other = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model, SETTINGS)
        await other.upsert(range(100), codes[:100], [_payload(n) for n in range(100)])
        return await AsyncRetriever(model, other).search_groups(embeddings[5], "doc", 5, 3)

    found = asyncio.run(run())
    assert _shape(found) == _shape(expected)
    np.testing.assert_allclose(
        [hit.score for group in found for hit in group.hits], [hit.score for group in expected for hit in group.hits]
    )
