"""CompresSAETransformer: training and coding as a scikit-learn transformer, for pipelines and notebooks."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..lazy import needs_extra
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..training import TrainConfig, train

with needs_extra("sklearn", "CompresSAETransformer", "scikit-learn 1.6 or newer"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["CompresSAETransformer"]

_MIN_ROWS: Final = 16
"""Fewest rows that `train` accepts."""


class CompresSAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Learns a dictionary of latents from dense rows, and transforms rows into their k-sparse codes.

    Rows are L2-normalised, so a code describes the direction of a row and not its length. An all-zero row has no
    direction: it is left out of the training, and its code is empty.

    Args:
        latents: number of latents h; None chooses it by the number of rows.
        k: non-zeros of a code.
        steps: optimiser steps of the autoencoder.
        batch_size: rows of a step.
        rounds: rounds of dictionary refinement.
        encoder_steps: optimiser steps that fit the encoder to the refined dictionary; `method="pursuit"` needs none.
        held_out: rows held out for validation, at most a fifth of all.
        method: how `transform` finds codes; see `Method`.
        random_state: seed, or a NumPy random state, of the training. An integer makes fits repeatable.
        device: device of the training, such as "cpu" or "cuda".
    """

    model_: CompresSAE
    """The trained model."""
    n_features_in_: int
    """d: number of columns."""

    def __init__(
        self,
        latents: int | None = None,
        k: int = 44,
        *,
        steps: int = 1500,
        batch_size: int = 2048,
        rounds: int = 36,
        encoder_steps: int = 400,
        held_out: int = 1000,
        method: Method = "pursuit",
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
    ) -> None:
        self.latents = latents
        self.k = k
        self.steps = steps
        self.batch_size = batch_size
        self.rounds = rounds
        self.encoder_steps = encoder_steps
        self.held_out = held_out
        self.method = method
        self.random_state = random_state
        self.device = device

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Self:  # noqa: ARG002 (scikit-learn's convention)
        """Train a model on (n, d) rows.

        Raises:
            ValueError: the rows are unusable or too few, or a setting is out of range.
        """
        rows = validate_data(self, X, dtype=[np.float32, np.float64], ensure_min_samples=2)
        rows = rows[rows.any(axis=1)]
        if len(rows) < _MIN_ROWS:
            raise InvalidInputError(
                f"{len(rows)} of the rows are not all zero; at least {_MIN_ROWS} are required to train"
            )
        config = TrainConfig(
            latents=self.latents, k=self.k, steps=self.steps, batch_size=self.batch_size, rounds=self.rounds,
            encoder_steps=self.encoder_steps, held_out=self.held_out,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )  # fmt: skip
        self.model_ = train(rows, config, device=self.device)
        return self

    def transform(self, X: npt.ArrayLike) -> sp.csr_matrix:
        """The codes of (n, d) rows as a (n, h) float32 CSR matrix with at most k non-zeros in a row."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        coded = np.flatnonzero(rows.any(axis=1))
        if not len(coded):
            return sp.csr_matrix((len(rows), self.model_.latents), dtype=np.float32)
        codes = self.model_.encode(rows[coded], self.method)
        sizes = np.zeros(len(rows), np.int64)
        sizes[coded] = codes.k
        parts = (codes.values.ravel(), codes.indices.ravel(), np.concatenate([[0], np.cumsum(sizes)]))
        matrix = sp.csr_matrix(parts, (len(rows), codes.latents))
        matrix.eliminate_zeros()
        return matrix

    def inverse_transform(self, X: Any) -> FloatArray:
        """The reconstructions of (n, h) codes: (n, d) float32 rows, of norm at most 1."""
        check_is_fitted(self)
        codes = check_array(X, accept_sparse="csr", dtype=np.float32)
        return np.asarray(codes @ self.model_.atoms.detach().cpu().numpy(), np.float32)

    def query_vectors(self, X: npt.ArrayLike) -> FloatArray:
        """`W x` of (n, d) rows as (n, h): their dot products with codes estimate the cosines of the rows."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        return np.asarray(unit @ self.model_.atoms.detach().cpu().numpy().T, np.float32)

    @property
    def _n_features_out(self) -> int:
        return self.model_.latents

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32
        return tags
