from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressae_qdrant import SparseCodes
from compressae_qdrant import scoring as similarity
from compressae_qdrant.errors import InvalidInputError

D, H, K = 6, 15, 4


def _dense(codes: SparseCodes) -> npt.NDArray[np.float64]:
    vectors = np.zeros((len(codes), codes.latents))
    np.put_along_axis(vectors, codes.indices.astype(np.int64), codes.values.astype(np.float64), axis=1)
    return vectors


def _cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a.astype(np.float64), b.astype(np.float64))]
    return np.asarray(unit[0] @ unit[1].T)


def _scaled(codes: SparseCodes, atoms: npt.NDArray[Any], scale: str) -> SparseCodes:
    vectors = _dense(codes) @ atoms if scale == "reconstruction" else _dense(codes)
    divided = codes.values / np.linalg.norm(vectors, axis=1, keepdims=True)
    return SparseCodes(codes.indices, divided, codes.latents)


@st.composite
def problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], SparseCodes, SparseCodes]:
    """Atoms, unit-norm queries, query codes, item codes."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, queries = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    atoms = random.normal(size=(H, D))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    x = random.normal(size=(queries, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def codes(n: int) -> SparseCodes:
        indices = np.stack([random.choice(H, K, replace=False) for _ in range(n)])
        return SparseCodes(indices, random.normal(size=(n, K)), H)

    return atoms.astype(np.float32), x.astype(np.float32), codes(queries), codes(items)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_asymmetric_is_the_cosine_of_query_and_reconstruction(problem: Any) -> None:
    atoms, x, _, items = problem
    scores = similarity.score(_scaled(items, atoms, "reconstruction"), similarity.asymmetric(atoms, x))
    np.testing.assert_allclose(scores, _cosine(x, _dense(items) @ atoms), atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_reconstructed_is_the_cosine_of_reconstructions_and_the_gram_form(problem: Any) -> None:
    atoms, _, queries, items = problem
    scores = similarity.score(_scaled(items, atoms, "reconstruction"), similarity.reconstructed(atoms, queries))
    np.testing.assert_allclose(scores, _cosine(_dense(queries) @ atoms, _dense(items) @ atoms), atol=2e-4)
    gram = atoms.astype(np.float64) @ atoms.astype(np.float64).T  # the paper's form: s_q' W W' s over the two norms
    a, b = _dense(queries), _dense(items)
    norms = np.sqrt(np.einsum("ij,jk,ik->i", a, gram, a))[:, None] * np.sqrt(np.einsum("ij,jk,ik->i", b, gram, b))
    np.testing.assert_allclose(scores, a @ gram @ b.T / norms, atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_sparse_is_the_cosine_of_codes_at_code_scale(problem: Any) -> None:
    atoms, _, queries, items = problem
    scores = similarity.score(_scaled(items, atoms, "code"), similarity.sparse(queries))
    np.testing.assert_allclose(scores, _cosine(_dense(queries), _dense(items)), atol=2e-5)


def test_truncate_keeps_the_largest_values() -> None:
    vector = np.array([0.0, -3.0, 1.0, 2.0], np.float32)
    assert similarity.truncate(vector, 2).indices.tolist() == [1, 3]
    assert similarity.truncate(vector, 2).values.tolist() == [-3.0, 2.0]
    weighted = similarity.truncate(vector, 1, np.array([9, 0.1, 9, 0.1], np.float32))
    assert weighted.indices.tolist() == [2]
    assert len(similarity.truncate(vector)) == len(similarity.truncate(vector, 99)) == 3


@pytest.mark.parametrize(
    ("vector", "size", "complaint"),
    [([0, 0], 1, "all zero"), ([np.nan, 1], 1, "NaN"), ([1, 2], 0, "at least 1")],
)
def test_truncate_refuses(vector: list[float], size: int, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        similarity.truncate(np.array(vector, np.float32), size)


def test_top_is_the_sorted_scores() -> None:
    random = np.random.default_rng(0)
    codes = SparseCodes(
        np.stack([random.choice(H, K, replace=False) for _ in range(50)]), random.normal(size=(50, K)), H
    )
    vectors = random.normal(size=(7, H)).astype(np.float32)
    rows, scores = similarity.top(codes, vectors, 9, batch_size=3)
    full = similarity.score(codes, vectors)
    np.testing.assert_array_equal(rows, np.argsort(-full, axis=1, kind="stable")[:, :9])
    np.testing.assert_array_equal(scores, np.take_along_axis(full, rows, 1))
    with pytest.raises(InvalidInputError, match=r"need \(queries, 15\)"):
        similarity.score(codes, vectors[:, :4])
