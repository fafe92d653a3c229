from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant import vectors
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.vectors import exact_neighbours, reservoir_sample


def _full_sort(queries: FloatArray, catalog: FloatArray, depth: int, own: list[int] | None) -> list[list[int]]:
    scores = queries.astype(np.float64) @ catalog.astype(np.float64).T
    if own is not None:
        scores[np.arange(len(queries)), own] = -2
    best: list[list[int]] = np.argsort(-scores, axis=1)[:, :depth].tolist()
    return best


@pytest.mark.parametrize("block", [7, 100, 10_000])
def test_exact_neighbours_match_a_full_sort(
    embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(vectors, "_BATCH", block)
    own = [5, 0, 599, 300]
    queries = 3 * embeddings[own]  # norms do not affect cosines
    assert exact_neighbours(queries, embeddings, 12).tolist() == _full_sort(embeddings[own], embeddings, 12, None)
    found = exact_neighbours(queries, embeddings, 12, np.array(own))
    assert found.tolist() == _full_sort(embeddings[own], embeddings, 12, own)
    with pytest.raises(InvalidInputError, match="doesn't have 600 neighbours"):
        exact_neighbours(queries, embeddings, 600, np.array(own))


def test_a_stream_shorter_than_the_sample_is_returned_whole() -> None:
    random = np.random.default_rng(0)
    assert reservoir_sample("abc", 5, random) == (["a", "b", "c"], 3)
    assert reservoir_sample("abc", 3, random) == (["a", "b", "c"], 3)
    assert reservoir_sample([], 3, random) == ([], 0)


def test_every_row_of_a_stream_is_equally_likely() -> None:
    random = np.random.default_rng(0)
    drawn = np.zeros(10)
    for _ in range(4000):
        rows, count = reservoir_sample(iter(range(10)), 3, random)
        assert (len(set(rows)), count) == (3, 10)
        drawn[rows] += 1
    assert np.abs(drawn / 4000 - 0.3).max() < 0.03  # four standard deviations
