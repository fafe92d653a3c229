from __future__ import annotations

import pickle
from typing import Any, Final

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.integrations.sklearn import CompresSAETransformer

EXPECTED_FAILURES: Final = {
    "check_n_features_in_after_fitting": "fits 15 rows; a training needs 16",
    "check_estimators_nan_inf": "fits 10 rows; a training needs 16. Their messages are tested below",
    "check_fit2d_1feature": "fits 10 rows, and expects an error about the one column, not about the rows",
}


def _transformer(**settings: Any) -> CompresSAETransformer:
    small = {"latents": 8, "k": 2, "steps": 3, "batch_size": 32, "rounds": 2, "encoder_steps": 2, "held_out": 4}
    return CompresSAETransformer(**{**small, "random_state": 0, **settings})


CHECKS: Final = [
    (getattr(check, "func", check).__name__, estimator, check)
    for estimator, check in estimator_checks_generator(_transformer(), legacy=True, mark=None)
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "estimator", "check"), CHECKS, ids=[name for name, _, _ in CHECKS])
def test_the_checks_of_scikit_learn(name: str, estimator: Any, check: Any) -> None:
    if name in EXPECTED_FAILURES:
        with pytest.raises((ValueError, AssertionError), match="at least 16 are required"):
            check(estimator)
        return
    check(estimator)


@pytest.fixture(scope="module")
def fitted(embeddings: FloatArray) -> CompresSAETransformer:
    return _transformer(latents=96, k=6, steps=20).fit(embeddings)


def test_codes_and_query_vectors_are_those_of_the_model(fitted: CompresSAETransformer, embeddings: FloatArray) -> None:
    codes = fitted.transform(7 * embeddings)
    expected = fitted.model_.encode(embeddings)
    np.testing.assert_allclose(codes.toarray(), expected.to_csr().toarray(), atol=1e-5)
    np.testing.assert_allclose(fitted.inverse_transform(codes), fitted.model_.decode(expected), atol=1e-5)
    scores = (codes @ fitted.query_vectors(3 * embeddings[:5]).T).T
    np.testing.assert_allclose(scores, embeddings[:5] @ fitted.model_.decode(expected).T, atol=1e-5)
    assert list(fitted.get_feature_names_out()[:2]) == ["compressaetransformer0", "compressaetransformer1"]


def test_a_zero_row_has_an_empty_code(fitted: CompresSAETransformer, embeddings: FloatArray) -> None:
    rows = embeddings[:3].copy()
    rows[1] = 0
    codes = fitted.transform(rows)
    assert (np.diff(codes.indptr) > 0).tolist() == [True, False, True]
    np.testing.assert_array_equal(codes[2].toarray(), fitted.transform(rows[2:]).toarray())
    assert fitted.transform(np.zeros((2, embeddings.shape[1]))).nnz == 0
    assert not fitted.query_vectors(rows)[1].any()


def test_it_works_in_a_pipeline_and_survives_pickling(embeddings: FloatArray) -> None:
    pipeline = make_pipeline(FunctionTransformer(lambda rows: rows[:, ::-1]), _transformer())
    codes = pipeline.fit_transform(embeddings)
    again = pickle.loads(pickle.dumps(pipeline[-1])).transform(embeddings[:, ::-1])
    assert (codes != again).nnz == 0


@pytest.mark.parametrize(("value", "message"), [(np.nan, "contains NaN"), (np.inf, "contains infinity")])
def test_unusable_rows_are_refused(
    fitted: CompresSAETransformer, embeddings: FloatArray, value: float, message: str
) -> None:
    rows = embeddings.copy()
    rows[3, 2] = value
    for call in (_transformer().fit, fitted.transform):
        with pytest.raises(ValueError, match=message):
            call(rows)
    with pytest.raises(ValueError, match="at least 16 are required"):
        _transformer().fit(np.vstack([embeddings[:15], np.zeros_like(embeddings)]))
    with pytest.raises(ValueError, match="latents is 8, but k is 9"):
        _transformer(k=9).fit(embeddings)
    with pytest.raises(NotFittedError):
        _transformer().transform(embeddings)
