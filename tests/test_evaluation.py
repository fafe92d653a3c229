from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.evaluation import evaluate_search, exact_neighbours, neighbours, recall


def _naive(queries: FloatArray, catalog: FloatArray, depth: int, own: list[int] | None) -> list[list[int]]:
    scores = queries.astype(np.float64) @ catalog.astype(np.float64).T
    if own is not None:
        scores[np.arange(len(queries)), own] = -2
    best: list[list[int]] = np.argsort(-scores, axis=1)[:, :depth].tolist()
    return best


@pytest.mark.parametrize("block", [7, 100, 10_000])
def test_exact_neighbours(embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(neighbours, "_BATCH", block)
    own = [5, 0, 599, 300]
    queries = 3 * embeddings[own]  # norms don't matter
    assert exact_neighbours(queries, embeddings, 12).tolist() == _naive(embeddings[own], embeddings, 12, None)
    found = exact_neighbours(queries, embeddings, 12, np.array(own))
    assert found.tolist() == _naive(embeddings[own], embeddings, 12, own)
    with pytest.raises(InvalidInputError, match="doesn't have 600 neighbours"):
        exact_neighbours(queries, embeddings, 600, np.array(own))


def test_recall_counts_what_is_shared() -> None:
    assert recall([[1, 2, 3], [9, 8, 7]], [[3, 1, 5], [7, 8, 9]], 3).tolist() == pytest.approx([2 / 3, 1.0])
    assert recall([[1, 2, 3]], [[3, 1, 5]], 1).tolist() == [0.0]
    assert recall([[]], [[3, 1, 5]], 3).tolist() == [0.0]


def test_report(embeddings: FloatArray) -> None:
    own = list(range(0, 600, 10))
    truth = exact_neighbours(embeddings[own], embeddings, 20, np.array(own)).tolist()

    def half(vector: FloatArray, limit: int) -> list[int]:
        """A search that finds every second neighbour, and the query's own item."""
        best = np.argsort(-(embeddings @ vector))[:limit].tolist()
        return [item if place % 2 == 0 else -item - 1 for place, item in enumerate(best)]

    report = evaluate_search(half, embeddings[own], truth, own=own, depths=[10, 20])
    assert report.queries == 60
    assert report.recall[10] == pytest.approx(0.5, abs=0.01)
    low, high = report.interval[20]
    assert low <= report.recall[20] <= high
    assert 0 < report.p50_ms <= report.p95_ms
