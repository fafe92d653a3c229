from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.evaluation import evaluate_search
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.vectors import exact_neighbours


def _naive(queries: FloatArray, catalog: FloatArray, depth: int, own: list[int] | None) -> list[list[int]]:
    scores = queries.astype(np.float64) @ catalog.astype(np.float64).T
    if own is not None:
        scores[np.arange(len(queries)), own] = -2
    best: list[list[int]] = np.argsort(-scores, axis=1)[:, :depth].tolist()
    return best


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


def test_a_bench_fills_up_segments_and_avoids_rows(embeddings: FloatArray) -> None:
    group = ["rare" if row < 8 else "common" for row in range(600)]
    bench = Bench.of(
        "x", 2 * embeddings, {"group": group}, 50, 3, avoid=range(300, 600), segment="group", per_segment=6
    )
    assert bench.drawn == 50
    assert bench.own.max() < 300
    assert len(set(bench.own.tolist())) == len(bench.own)
    assert bench.values("group").count("rare") >= 6
    assert bench.truth == _naive(embeddings[bench.own], embeddings, 100, bench.own.tolist())
    assert bench.without_own([[1, int(bench.own[0])]]) == [[1]]
    same = Bench.of("x", embeddings, {}, 50, 3, avoid=range(300, 600))
    assert same.own.tolist() == bench.own[:50].tolist()
    others = Bench.of("x", embeddings, {}, 50, 4), Bench.of("x", embeddings[:500], {}, 50, 3)
    assert len({same.identity, *(other.identity for other in others)}) == 3
    with pytest.raises(InvalidInputError, match="no item has a field 'colour'; the fields are group"):
        Bench.of("x", embeddings, {"group": group}, segment="colour")
    with pytest.raises(InvalidInputError, match="cannot draw 0 queries from 600 rows"):
        Bench.of("x", embeddings, {}, 0)
