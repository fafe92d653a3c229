from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.metrics import agreement, bootstrap, by_segment, paired_difference, pareto_front, recall


def test_recall_is_the_share_of_the_true_top_k() -> None:
    assert recall([[1, 2, 3], [9, 8, 7]], [[3, 1, 5], [7, 8, 9]], 3).tolist() == pytest.approx([2 / 3, 1.0])
    assert recall([[1, 2, 3]], [[3, 1, 5]], 1).tolist() == [0.0]
    assert recall([[]], [[3, 1, 5]], 3).tolist() == [0.0]


def test_bootstrap_intervals_cover_the_true_mean() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        estimate = bootstrap(random.normal(0.5, 0.2, 60).astype(np.float32), seed)
        covered += estimate.low <= 0.5 <= estimate.high
    assert 87 <= covered <= 100
    with pytest.raises(InvalidInputError, match="cannot average over no queries"):
        bootstrap(np.zeros(0, np.float32))


def test_a_paired_difference_has_a_narrower_interval_than_a_mean() -> None:
    random = np.random.default_rng(1)
    baseline = random.uniform(size=500).astype(np.float32)
    better = baseline + random.normal(0.02, 0.01, 500).astype(np.float32)
    difference = paired_difference(better, baseline)
    assert 0.01 < difference.low < 0.02 < difference.high < 0.03
    alone = bootstrap(baseline)
    assert difference.high - difference.low < (alone.high - alone.low) / 5
    with_nans = np.where(np.arange(500) % 2, better, np.nan).astype(np.float32)
    assert paired_difference(with_nans, baseline).mean == pytest.approx(float((better - baseline)[1::2].mean()))


def test_segments_are_listed_worst_first() -> None:
    each = np.array([1, 1, 0, 0.5, 1], np.float32)
    segments = by_segment(each, ["a", ["a", "b"], ["b"], None, "c"])
    assert [(s.value, s.queries, s.recall.mean) for s in segments] == [
        ("b", 2, 0.5), ("(none)", 1, 0.5), ("a", 2, 1.0), ("c", 1, 1.0),
    ]  # fmt: skip


def test_agreement_of_single_values_and_of_lists() -> None:
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


def test_the_interval_of_a_single_query_is_its_value() -> None:
    alone = bootstrap([0.25])
    assert (alone.mean, alone.low, alone.high) == (0.25, 0.25, 0.25)


def test_a_front_keeps_points_that_no_cheaper_point_equals() -> None:
    points = [(2, 0.5), (1, 0.4), (3, 0.5), (1, 0.3), (4, 0.9)]
    assert pareto_front(points, lambda point: point[0], lambda point: point[1:]) == [(1, 0.4), (2, 0.5), (4, 0.9)]


def test_a_front_of_several_gains_keeps_points_that_are_best_in_one() -> None:
    unknown = -float("inf")
    points = {"a": (1, 0.5, unknown), "b": (1, 0.5, 0.1), "c": (2, 0.4, 0.2), "d": (3, 0.4, 0.2), "e": (4, 0.5, 0.15)}
    assert pareto_front(points, lambda name: points[name][0], lambda name: points[name][1:]) == ["b", "c", "e"]
