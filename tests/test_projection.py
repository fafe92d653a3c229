"""Projection to navigation vectors: how it is fitted, stored, and what its vectors hold of an item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ModelFileError
from compressae_qdrant.model import CompresSAE, ModelConfig
from compressae_qdrant.model.projection import PROJECTION_FILE, Projection

N, D = 300, 24
"""Items and dimensions of the fixtures `items` and `navigator`."""


def test_the_balanced_form_is_pca_for_equal_distributions(items: FloatArray) -> None:
    projection = Projection.fit(items)
    values, vectors = np.linalg.eigh(items.T.astype(np.float64) @ items / N)
    for dim in (1, 5, 24):
        expected = (items @ vectors[:, ::-1][:, :dim]) @ (items @ vectors[:, ::-1][:, :dim]).T
        scores = projection.queries(items, dim) @ (items @ projection.item_map[:dim].T).T
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert values[-1] > values[0]
    assert projection.source == "items"


def test_both_sides_get_the_same_second_moment(items: FloatArray) -> None:
    random = np.random.default_rng(5)
    queries = items[:, ::-1] * random.normal(1, 0.3, size=(N, D)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    projection = Projection.fit(items, queries)
    a, b = projection.queries(queries, D).astype(np.float64), (items @ projection.item_map.T).astype(np.float64)
    moments = [(side.T @ side / N) for side in (a, b)]
    # Up to the ridge, both are the same diagonal matrix.
    np.testing.assert_allclose(moments[0], moments[1], atol=3e-3)
    assert np.abs(moments[0] - np.diag(np.diag(moments[0]))).max() < 3e-3
    assert projection.source == "items and queries"


def test_fitting_to_queries_finds_more_of_their_neighbours(items: FloatArray) -> None:
    """Queries vary where items hardly do, so a projection of few dimensions must follow the queries."""
    random = np.random.default_rng(6)
    queries = (random.normal(size=(200, D)) * np.linspace(0.1, 1.5, D)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    true = np.argsort(-(queries @ items.T), axis=1)[:, :10]

    def share(projection: Projection) -> float:
        scores = projection.queries(queries, 8) @ (items @ projection.item_map[:8].T).T
        found = np.argsort(-scores, axis=1)[:, :30]
        return float(np.mean([len(set(f) & set(t)) / 10 for f, t in zip(found.tolist(), true.tolist(), strict=True)]))

    assert share(Projection.fit(items, queries)) > share(Projection.fit(items)) + 0.1


def test_a_projection_is_saved_with_its_model(tmp_path: Path, navigator: CompresSAE) -> None:
    navigator.save(tmp_path)
    loaded = CompresSAE.load(tmp_path)
    assert loaded.projection_fingerprint == navigator.projection_fingerprint
    np.testing.assert_array_equal(loaded.projection.item_map, navigator.projection.item_map)
    (tmp_path / PROJECTION_FILE).write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="not a readable projection"):
        _ = CompresSAE.load(tmp_path).projection
    CompresSAE(ModelConfig(D, 96, 8), seed=9).save(tmp_path)
    assert not (tmp_path / PROJECTION_FILE).exists()


def test_a_model_without_a_projection_derives_one_from_its_atoms(tmp_path: Path, items: FloatArray) -> None:
    model = CompresSAE(ModelConfig(D, 96, 8), seed=3)
    assert model.projection.source == "dictionary"
    assert model.projection_fingerprint == f"p-{model.fingerprint}"
    model.save(tmp_path)
    assert CompresSAE.load(tmp_path).projection_fingerprint == model.projection_fingerprint


def test_the_share_of_an_item_that_navigation_vectors_hold(navigator: CompresSAE) -> None:
    shares = [navigator.navigation_share(dim) for dim in (4, 12, 20, D)]
    assert shares == sorted(shares)
    assert shares[0] < 0.8
    assert shares[-1] == pytest.approx(1, abs=1e-3)  # the ridge of the fit is left
    atoms, even = np.eye(D, dtype=np.float32), np.zeros(D, np.float32)
    exact = Projection(np.eye(D, dtype=np.float32), np.eye(D, dtype=np.float32), "items")
    assert exact.share(atoms, even, 6) == pytest.approx(6 / D)
    assert exact.share(atoms, np.eye(D, dtype=np.float32)[7], 6) == 0
    assert exact.share(atoms, np.eye(D, dtype=np.float32)[5], 6) == 1


def test_navigation_vectors_come_from_codes(navigator: CompresSAE, items: FloatArray) -> None:
    codes = navigator.encode(items[:20])
    expected = navigator.decode(codes) @ navigator.projection.item_map[:7].T
    np.testing.assert_allclose(navigator.navigation_vectors(codes, 7), expected, atol=1e-5)
