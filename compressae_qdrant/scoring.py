"""Scores as dot products between a query-side vector over latents and stored codes.

| scoring         | query-side vector (h,)      | its dot product with a code, by the code's scale             |
|-----------------|-----------------------------|--------------------------------------------------------------|
| `asymmetric`    | `W x_q`                     | `x_q . x_hat`. projection: an estimate of `x_q . x`;         |
|                 |                             | reconstruction: cosine of the query with the reconstruction  |
| `reconstructed` | `W x_hat_q / norm(x_hat_q)` | the same for the query's reconstruction; at reconstruction   |
|                 |                             | scale the cosine of the two (the paper's kernel trick)       |
| `sparse`        | `s_q / norm(s_q)`           | the paper's fast mode; at code scale the cosine of two codes |

So the Gram matrix `W W'` is never formed: one (h, d) matrix-vector product a query replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .codes import FloatArray, SparseCodes
from .errors import InvalidInputError

__all__ = [
    "Explanation",
    "QueryVector",
    "Scoring",
    "Share",
    "asymmetric",
    "explain",
    "reconstructed",
    "score",
    "sparse",
    "top",
    "truncate",
]

Scoring = Literal["asymmetric", "explain", "reconstructed", "sparse"]
"""Which similarity of a query and an item is computed; see the module's table."""


@dataclass(frozen=True)
class QueryVector:
    """A query-side sparse vector over latents."""

    indices: npt.NDArray[np.int32]
    """(m,) latents, unique, ascending."""
    values: FloatArray
    """(m,) finite values."""

    def __len__(self) -> int:
        return len(self.indices)


def asymmetric(atoms: FloatArray, queries: FloatArray) -> FloatArray:
    """`W x_q` for unit-norm queries: (h, d) atoms and (q, d) queries to (q, h)."""
    return np.asarray(queries @ atoms.T, np.float32)


def reconstructed(atoms: FloatArray, codes: SparseCodes) -> FloatArray:
    """`W x_hat_q / norm(x_hat_q)`: (h, d) atoms and q query codes, of any scale, to (q, h)."""
    x_hat = codes.to_csr() @ atoms
    x_hat /= np.maximum(np.linalg.norm(x_hat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return asymmetric(atoms, x_hat)


def sparse(codes: SparseCodes) -> FloatArray:
    """`s_q / norm(s_q)`: q query codes, of any scale, to (q, h)."""
    vectors = np.zeros((len(codes), codes.latents), np.float32)
    values = codes.values / np.linalg.norm(codes.values, axis=1, keepdims=True)
    np.put_along_axis(vectors, codes.indices.astype(np.int64), values, axis=1)
    return vectors


def truncate(
    vector: FloatArray,
    size: int | None = None,
    weights: FloatArray | None = None,
    always: npt.NDArray[np.integer] | None = None,
) -> QueryVector:
    """A query-side vector cut to the `size` latents that matter most, for the first stage.

    Args:
        vector: (h,) query-side vector.
        size: m, latents to keep; None keeps every non-zero.
        weights: (h,) expected size of an item's value at each latent. A latent's expected contribution is
            `|vector| * weights`; None judges by |vector| alone.
        always: latents to keep however little they matter.

    Raises:
        InvalidInputError: the vector is all zero or not finite, or `size` is below 1.
    """
    if size is not None and size < 1:
        raise InvalidInputError(f"first stage has {size} latents; it needs at least 1")
    if not np.isfinite(vector).all():
        raise InvalidInputError("the query-side vector holds NaN or an infinite value; check the query's embedding")
    kept = np.flatnonzero(vector)
    if not kept.size:
        raise InvalidInputError("the query-side vector is all zero; nothing could match it")
    if size is not None and size < kept.size:
        gain = np.abs(vector[kept]) if weights is None else np.abs(vector[kept]) * weights[kept]
        best = kept[np.argpartition(gain, -size)[-size:]]
        kept = np.sort(best) if always is None or not always.size else np.union1d(best, np.intersect1d(kept, always))
    return QueryVector(kept.astype(np.int32), vector[kept].astype(np.float32, copy=False))


def score(codes: SparseCodes, vectors: FloatArray) -> FloatArray:
    """Scores of every item for every query, exactly: n codes and (q, h) query-side vectors to (q, n).

    Raises:
        InvalidInputError: the vectors and the codes are over different numbers of latents.
    """
    if vectors.ndim != 2 or vectors.shape[1] != codes.latents:
        raise InvalidInputError(
            f"query-side vectors have shape {vectors.shape}; codes over {codes.latents} latents need (queries, "
            f"{codes.latents})"
        )
    return np.asarray((codes.to_csr() @ np.ascontiguousarray(vectors.T)).T, np.float32)


def top(
    codes: SparseCodes, vectors: FloatArray, limit: int, *, batch_size: int = 64
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The `limit` best items of each query by exhaustive scoring, best first: the in-memory baseline of every index.

    Args:
        codes: n codes.
        vectors: (q, h) query-side vectors.
        limit: at most n are returned.
        batch_size: queries scored at once; memory is batch_size x n scores.

    Returns:
        (q, limit) rows of `codes`, and (q, limit) float32 scores.
    """
    limit = min(limit, len(codes))
    rows = np.empty((len(vectors), limit), np.int64)
    scores = np.empty((len(vectors), limit), np.float32)
    for start in range(0, len(vectors), batch_size):
        part = slice(start, start + batch_size)
        found = score(codes, vectors[part])
        best = np.argpartition(-found, limit - 1, axis=1)[:, :limit]
        order = np.argsort(-np.take_along_axis(found, best, 1), axis=1, kind="stable")
        rows[part] = np.take_along_axis(best, order, 1)
        scores[part] = np.take_along_axis(found, rows[part], 1)
    return rows, scores


@dataclass(frozen=True)
class Share:
    """What one latent adds to a score."""

    latent: int
    name: str | None
    """Of its concept, where it has one."""
    share: float
    """`asked * stored`: its part of the score; negative where it keeps query and item apart."""
    asked: float
    """Value of the query-side vector at this latent, steering included."""
    stored: float
    """Value of the latent in the item's code."""
    opposed: bool
    """The stored value has the sign that leans away from the concept."""


@dataclass(frozen=True)
class Explanation:
    """A score as a sum: of the shares, and of what they leave."""

    score: float
    """As the hit has it."""
    shares: tuple[Share, ...]
    """One for each latent of the item's code that the query-side vector has too; the largest first, by size."""
    remainder: float
    """What the shares leave of the score: rounding, as long as codes score. With embeddings that the index keeps
    (`dense_candidates`), what the embedding knows and the code doesn't; otherwise a sign that the item was written
    again after the search."""


def explain(
    query: QueryVector,
    indices: npt.NDArray[np.int32],
    values: FloatArray,
    score: float,
    concept_of: Callable[[int], tuple[str, int] | None],
) -> Explanation:
    """Take a score apart.

    Args:
        query: the whole query-side vector, as it scored the candidates.
        indices: (k,) latents of the item's code.
        values: (k,) its stored values.
        score: of the hit.
        concept_of: name and sign of a latent's concept, if it has one.
    """
    _, asked, stored = np.intersect1d(query.indices, indices, assume_unique=True, return_indices=True)
    shares = []
    for i, j in zip(asked.tolist(), stored.tolist(), strict=True):
        latent, a, v = int(query.indices[i]), float(query.values[i]), float(values[j])
        name, sign = concept_of(latent) or (None, 1)
        shares.append(Share(latent, name, a * v, a, v, v * sign < 0))
    shares.sort(key=lambda share: (-abs(share.share), share.latent))
    return Explanation(score, tuple(shares), score - sum(share.share for share in shares))
