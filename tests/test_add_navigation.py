"""Navigation vectors for an index that was created without them, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from compressae_qdrant import EdgeIndex, IndexSettings, QdrantIndex, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, ConfigError, ModelMismatchError
from compressae_qdrant.index import CodeIndex, add_navigation
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.model import CompresSAE, ModelConfig

N, D = 300, 24
"""Items and dimensions of the fixtures `items` and `navigator`."""


def _plain(kind: str, path: Path, navigator: CompresSAE, items: FloatArray, **settings: Any) -> CodeIndex:
    """An index without navigation vectors."""
    chosen = IndexSettings(navigation=None, **settings)
    index: CodeIndex
    if kind == "edge":
        index = EdgeIndex.create(path, navigator, chosen)
    else:
        index = QdrantIndex.create(QdrantClient(":memory:"), "items", navigator, chosen)
    ids = [f"item-{row}" for row in range(N)]
    dense = items if chosen.keep_dense else None
    index.upsert(ids, navigator.encode(items), [{"n": row} for row in range(N)], dense, ["hash", *[""] * (N - 1)])
    index.optimize()
    return index


def test_navigation_is_added_to_a_collection_in_place(navigator: CompresSAE, items: FloatArray, tmp_path: Path) -> None:
    index = _plain("local", tmp_path, navigator, items)
    assert isinstance(index, QdrantIndex)
    client = index._connection.client
    seen: list[int] = []
    wanted = NavigationSettings(dim=16, bits=4)
    assert index.add_navigation(navigator, wanted, size=70, on_items=seen.append) == N
    assert (sum(seen), max(seen)) == (N, 70)
    assert index.add_navigation(navigator, wanted) == 0
    for each in (index, QdrantIndex.open(client, "items", navigator)):
        assert each.settings.memory == "cold"
        hits = Retriever(navigator, each).search(items[5], 5, first_stage="graph", prefetch=N)
        assert hits[0].explain().first_stage == "graph"
        assert [hit.id for hit in hits] == [
            hit.id for hit in Retriever(navigator, each).search(items[5], 5, first_stage="codes", exact=True)
        ]
        assert each.hashes(["item-0", "item-1"]) == ["hash", ""]
    index.upsert(["new"], navigator.encode(items[:1]))
    assert index.add_navigation(navigator, wanted) == 0  # written with one
    with pytest.raises(ConfigError, match="already has navigation vectors"):
        index.add_navigation(navigator, NavigationSettings(dim=8))


def test_navigation_vectors_that_are_missing_are_completed(
    navigator: CompresSAE, items: FloatArray, tmp_path: Path
) -> None:
    index = _plain("local", tmp_path, navigator, items)
    assert isinstance(index, QdrantIndex)
    old = QdrantIndex.open(index._connection.client, "items", navigator)
    assert index.add_navigation(navigator) == N
    old.upsert(["late"], navigator.encode(items[:1]))  # opened before, so it writes none
    assert index.add_navigation(navigator) == 1


@pytest.mark.parametrize("keep_dense", [False, True])
def test_an_embedded_index_is_rebuilt_with_navigation(
    keep_dense: bool, navigator: CompresSAE, items: FloatArray, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    with _plain("edge", path, navigator, items, keep_dense=keep_dense, payload_fields={"n": "integer"}) as index:
        identity, before = index.identity, index.retrieve([f"item-{row}" for row in range(N)])
        with pytest.raises(CodeIndexError, match="open"):
            add_navigation(str(path), navigator)
    assert add_navigation(str(path), navigator, NavigationSettings(dim=16, bits=4), size=70) == N
    assert [each.name for each in tmp_path.iterdir()] == ["index"]
    with EdgeIndex.open(path, navigator) as rebuilt:
        assert rebuilt.identity == identity
        assert rebuilt.settings.payload_fields == {"n": "integer"}
        assert rebuilt.hashes(["item-0", "item-1"]) == ["hash", ""]
        for record, expected in zip(rebuilt.retrieve([record.id for record in before]), before, strict=True):
            assert (record.id, record.payload) == (expected.id, expected.payload)
            np.testing.assert_array_equal(record.values, expected.values)
            assert (record.dense is None) == (expected.dense is None)
        hits = Retriever(navigator, rebuilt).search(items[5], 5, first_stage="graph", prefetch=N)
        assert hits[0].id == "item-5"
    assert add_navigation(str(path), navigator, NavigationSettings(dim=16, bits=4)) == 0


def test_a_failed_rebuilding_leaves_the_index_as_it_was(
    navigator: CompresSAE, items: FloatArray, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    _plain("edge", path, navigator, items).close()

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_navigation(str(path), navigator, size=70, on_items=fail)
    with EdgeIndex.open(path, navigator) as index:
        assert (index.count(), index.projection) == (N, None)
    assert add_navigation(str(path), navigator) == N
    other = CompresSAE(ModelConfig(D, 96, 8), seed=8)
    with pytest.raises(ModelMismatchError):
        add_navigation(str(path), other)
