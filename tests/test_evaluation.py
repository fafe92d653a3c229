from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant import vectors as neighbours
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.evaluation import evaluate_search
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.metrics import agreement, bootstrap, by_segment, paired_difference, recall
from compressae_qdrant.vectors import exact_neighbours


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


def test_bootstrap_covers_the_mean_it_should() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        estimate = bootstrap(random.normal(0.5, 0.2, 60).astype(np.float32), seed)
        covered += estimate.low <= 0.5 <= estimate.high
    assert 87 <= covered <= 100
    with pytest.raises(InvalidInputError, match="no queries"):
        bootstrap(np.zeros(0, np.float32))


def test_a_paired_difference_is_sharper_than_two_means() -> None:
    random = np.random.default_rng(1)
    hard = random.uniform(size=500).astype(np.float32)
    better = hard + random.normal(0.02, 0.01, 500).astype(np.float32)
    difference = paired_difference(better, hard)
    assert 0.01 < difference.low < 0.02 < difference.high < 0.03
    alone = bootstrap(hard)
    assert difference.high - difference.low < (alone.high - alone.low) / 5
    holes = np.where(np.arange(500) % 2, better, np.nan).astype(np.float32)
    assert paired_difference(holes, hard).mean == pytest.approx(float((better - hard)[1::2].mean()))


def test_segments_are_listed_worst_first() -> None:
    each = np.array([1, 1, 0, 0.5, 1], np.float32)
    segments = by_segment(each, ["a", ["a", "b"], ["b"], None, "c"])
    assert [(s.value, s.queries, s.recall.mean) for s in segments] == [
        ("b", 2, 0.5), ("(none)", 1, 0.5), ("a", 2, 1.0), ("c", 1, 1.0),
    ]  # fmt: skip


def test_agreement() -> None:
    values = ["x", "y", "x", "x", None]
    found = [[1, 2, 3], [0, 2, 3], [0, 1]]
    each = agreement(found, [0, 1, 4], values)
    assert each[:2].tolist() == pytest.approx([0.2, 0.0])
    assert np.isnan(each[2])
    tags = [["a"], ["b"], ["a", "b"], [], None]
    (one,) = agreement([[1, 2, 3]], [0], tags)
    discounts = 1 / np.log2(np.arange(2, 12))
    assert one == pytest.approx(discounts[1] / discounts.sum())
    assert np.isnan(agreement([[0]], [3], tags)[0])


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
