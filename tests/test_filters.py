"""The embedded engine and the client's local mode select the same items by every kind of condition."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, EdgeIndex, QdrantIndex, SparseCodes
from compressae_qdrant.errors import InvalidInputError, UnsupportedFilterError
from compressae_qdrant.index.protocol import CodeIndex

F = models.FieldCondition
IDS: list[Any] = [*range(20), *(f"s{n}" for n in range(20))]


def _payload(n: int) -> dict[str, Any]:
    random = np.random.default_rng(n)
    payload: dict[str, Any] = {
        "n": n, "f": n / 3, "b": n % 3 == 0, "word": ["red", "green", "blue"][n % 3], "tags": ["a", "b", "c"][: n % 4],
        "text": f"the item number {n}", "when": f"2024-01-{n % 28 + 1:02d}T00:00:00Z",
        "at": {"lon": float(random.uniform(0, 10)), "lat": float(random.uniform(50, 55))},
        "parts": [{"size": n % 5, "kind": "x"}, {"size": 9, "kind": "y"}],
    }  # fmt: skip
    if n % 5 == 0:
        payload["none"] = None
    return payload


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CodeIndex, CodeIndex]]:
    model = CompresSAE(_config())
    codes = SparseCodes(np.tile([[0, 1]], (40, 1)), np.ones((40, 2)), 8)
    path: Path = tmp_path_factory.mktemp("filters")
    client = QdrantClient(":memory:")
    with EdgeIndex.create(path / "index", model) as edge:
        local = QdrantIndex.create(client, "items", model)
        for index in (edge, local):
            index.upsert(IDS, codes, [_payload(n) for n in range(40)])
        yield edge, local
    client.close()


def _config() -> Any:
    from compressae_qdrant.model.config import ModelConfig

    return ModelConfig(dim=4, latents=8, k=2)


CONDITIONS: list[Any] = [
    F(key="n", match=models.MatchValue(value=7)),
    F(key="b", match=models.MatchValue(value=True)),
    F(key="b", match=models.MatchValue(value=False)),
    F(key="word", match=models.MatchAny(any=["red", "blue"])),
    F(key="word", match=models.MatchExcept(**{"except": ["red"]})),
    F(key="tags", match=models.MatchValue(value="b")),
    F(key="text", match=models.MatchText(text="number")),
    F(key="f", range=models.Range(gt=2, lte=5.5)),
    F(key="when", range=models.DatetimeRange(gte=date(2024, 1, 10), lt=date(2024, 1, 20))),
    F(key="tags", values_count=models.ValuesCount(gte=2)),
    F(key="at", geo_bounding_box=models.GeoBoundingBox(
        top_left=models.GeoPoint(lon=2, lat=54), bottom_right=models.GeoPoint(lon=8, lat=51))),
    F(key="at", geo_radius=models.GeoRadius(center=models.GeoPoint(lon=5, lat=52), radius=150_000)),
    F(key="at", geo_polygon=models.GeoPolygon(exterior=models.GeoLineString(
        points=[models.GeoPoint(lon=a, lat=b) for a, b in ((1, 50), (9, 50), (9, 54), (1, 50))]))),
    F(key="none", is_null=True),
    models.IsEmptyCondition(is_empty=models.PayloadField(key="tags")),
    models.IsNullCondition(is_null=models.PayloadField(key="none")),
    models.HasIdCondition(has_id=[3, "s4", "missing"]),
    models.HasVectorCondition(has_vector="code"),
    models.NestedCondition(nested=models.Nested(key="parts", filter=models.Filter(must=[
        F(key="size", match=models.MatchValue(value=2)), F(key="kind", match=models.MatchValue(value="x"))]))),
    models.Filter(should=[F(key="n", match=models.MatchValue(value=1)), F(key="n", match=models.MatchValue(value=2))]),
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("clause", ["must", "must_not", "should"])
def test_both_engines_select_the_same_items(pair: tuple[CodeIndex, CodeIndex], condition: Any, clause: str) -> None:
    clauses: dict[str, Any] = {clause: [condition]}
    query_filter = models.Filter(**clauses)
    edge, local = (index.count(query_filter) for index in pair)
    assert edge == local
    if clause == "must":
        assert edge > 0


def test_min_should(pair: tuple[CodeIndex, CodeIndex]) -> None:
    min_should = models.MinShould(conditions=[
        F(key="word", match=models.MatchValue(value="red")), F(key="n", range=models.Range(lt=20)),
        F(key="tags", match=models.MatchValue(value="a"))], min_count=2)  # fmt: skip
    edge, local = (index.count(models.Filter(min_should=min_should)) for index in pair)
    assert edge == local > 0


def test_unsupported_conditions_are_refused(pair: tuple[CodeIndex, CodeIndex]) -> None:
    edge, _ = pair
    two_tests = F(key="n", match=models.MatchValue(value=1), range=models.Range(gt=0))
    with pytest.raises(UnsupportedFilterError, match="field 'n' has 2 tests"):
        edge.count(models.Filter(must=[two_tests]))
    with pytest.raises(InvalidInputError, match="filter is a dict"):
        edge.count({"must": []})  # type: ignore[arg-type]
