"""Scores: dot products of a query vector over latents with stored codes, and how a score splits into latents.

| scoring         | query vector (h,)           | its dot product with a code, by the code's scale             |
|-----------------|-----------------------------|--------------------------------------------------------------|
| `asymmetric`    | `W x_q`                     | `x_q . x_hat`. projection: an estimate of `x_q . x`;         |
|                 |                             | reconstruction: cosine of the query with the reconstruction  |
| `reconstructed` | `W x_hat_q / norm(x_hat_q)` | the same for the query's reconstruction; at reconstruction   |
|                 |                             | scale the cosine of the two (the paper's kernel trick)       |
| `sparse`        | `s_q / norm(s_q)`           | the paper's fast mode; at code scale the cosine of two codes |

So the Gram matrix `W W'` is never formed: one (h, d) matrix-vector product for each query replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from .codes import FloatArray, SparseCodes
from .errors import InvalidInputError
from .vectors import products

__all__ = [
    "EmbeddingQuery",
    "Explanation",
    "QueryVector",
    "Scoring",
    "Share",
    "all_latents",
    "asymmetric",
    "explain",
    "is_all_latents",
    "reconstructed",
    "score",
    "sparse",
    "top",
    "truncate",
]

Scoring = Literal["asymmetric", "reconstructed", "sparse"]
"""Name of a similarity of query and item; see the table in the module's docstring."""


_COPIED: Final = 3
"""Copying a third of the atoms and multiplying by them takes as long as multiplying by all of them."""


@dataclass(frozen=True)
class QueryVector:
    """A sparse query vector over latents."""

    indices: npt.NDArray[np.int32]
    """(m,) latents, unique, ascending."""
    values: FloatArray
    """(m,) finite values."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def is_whole(self) -> bool:
        """Whether its latents are known to be 0 to m - 1, as they are an array of `all_latents`."""
        return is_all_latents(self.indices)

    def at(self, latents: npt.NDArray[np.integer]) -> FloatArray:
        """(n,) float32 values at some latents, which may repeat; 0 at those that it lacks."""
        if self.is_whole and latents.max(initial=0) < len(self):
            return np.asarray(self.values[latents], np.float32)
        values = np.zeros(max(int(self.indices.max(initial=0)), int(latents.max(initial=0))) + 1, np.float32)
        values[self.indices] = self.values
        return np.asarray(values[latents])


@dataclass(frozen=True, eq=False)
class EmbeddingQuery:
    """A query that scores a few codes by its embedding, without the (h,) query vector: `asymmetric` scoring.

    Its product with an atom is computed where a code uses the atom. The codes of a few dozen items use a fraction of
    the atoms, whose whole matrix would have to be read for the query vector.
    """

    embedding: FloatArray
    """(d,) of unit norm."""
    atoms: FloatArray
    """(h, d)."""

    def at(self, latents: npt.NDArray[np.integer]) -> FloatArray:
        """(n,) float32 values of the query vector `W x_q` at some latents, which may repeat."""
        (used,) = np.bincount(latents).nonzero()
        if len(used) > len(self.atoms) // _COPIED:
            return np.asarray(products(self.embedding[None], self.atoms)[0, latents])
        values = np.empty(len(self.atoms), np.float32)
        values[used] = products(self.embedding[None], self.atoms.take(used, axis=0))[0]
        return np.asarray(values[latents])

    def vector(self) -> QueryVector:
        """The whole query vector."""
        return truncate(asymmetric(self.atoms, self.embedding[None])[0])


@lru_cache(maxsize=8)
def all_latents(count: int) -> npt.NDArray[np.int32]:
    """The latents 0 to count - 1, which a whole query vector names: one read-only array for all of them."""
    latents = np.arange(count, dtype=np.int32)
    latents.flags.writeable = False
    return latents


def is_all_latents(indices: object) -> bool:
    """Whether these are the array of `all_latents`, without a look at its values."""
    return isinstance(indices, np.ndarray) and indices is all_latents(len(indices))


def asymmetric(atoms: FloatArray, queries: FloatArray) -> FloatArray:
    """`W x_q` for unit-norm queries: (h, d) atoms and (q, d) queries to (q, h)."""
    return products(queries, atoms)


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
    """Cut a query vector to the `size` latents that contribute most, for the first stage.

    Args:
        vector: (h,) query vector.
        size: m, latents to keep; None keeps every non-zero.
        weights: (h,) expected magnitude of an item's value at each latent. A latent's expected contribution is
            `|vector| * weights`, or |vector| if None.
        always: latents to keep whatever they contribute.

    Raises:
        InvalidInputError: the vector is all zero or not finite, or `size` is below 1.
    """
    if size is not None and size < 1:
        raise InvalidInputError(f"first stage has {size} latents; it needs at least 1")
    if not np.isfinite(vector).all():
        raise InvalidInputError("the query vector holds NaN or an infinite value; check the query's embedding")
    if size is None and np.count_nonzero(vector) == vector.size:
        return QueryVector(all_latents(vector.size), vector.astype(np.float32))  # of its own: hits keep it
    kept = np.flatnonzero(vector)
    if not kept.size:
        raise InvalidInputError("the query vector is all zero, so no item can match it; check the query's embedding")
    if size is not None and size < kept.size:
        gain = np.abs(vector[kept]) if weights is None else np.abs(vector[kept]) * weights[kept]
        best = kept[np.argpartition(gain, -size)[-size:]]
        kept = np.sort(best) if always is None or not always.size else np.union1d(best, np.intersect1d(kept, always))
    return QueryVector(kept.astype(np.int32), vector[kept].astype(np.float32, copy=False))


def score(codes: SparseCodes, vectors: FloatArray) -> FloatArray:
    """Score every item for every query exactly: n codes and (q, h) query vectors to (q, n).

    Raises:
        InvalidInputError: the vectors and the codes have different numbers of latents.
    """
    if vectors.ndim != 2 or vectors.shape[1] != codes.latents:
        raise InvalidInputError(
            f"query vectors have shape {vectors.shape}; codes over {codes.latents} latents need (queries, "
            f"{codes.latents})"
        )
    return np.asarray((codes.to_csr() @ np.ascontiguousarray(vectors.T)).T, np.float32)


def top(
    codes: SparseCodes, vectors: FloatArray, limit: int, *, batch_size: int = 64
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Find the `limit` best items of each query by exhaustive scoring in memory, best first.

    Args:
        codes: n codes.
        vectors: (q, h) query vectors.
        limit: items for each query; at most n are returned.
        batch_size: queries scored at once, which takes memory for batch_size x n scores.

    Returns:
        (q, limit) rows of `codes`, and (q, limit) float32 scores.
    """
    limit = min(limit, len(codes))
    rows = np.empty((len(vectors), limit), np.int64)
    scores = np.empty((len(vectors), limit), np.float32)
    for start in range(0, len(vectors), batch_size):
        part = slice(start, start + batch_size)
        block = score(codes, vectors[part])
        best = np.argpartition(-block, limit - 1, axis=1)[:, :limit]
        order = np.argsort(-np.take_along_axis(block, best, 1), axis=1, kind="stable")
        rows[part] = np.take_along_axis(best, order, 1)
        scores[part] = np.take_along_axis(block, rows[part], 1)
    return rows, scores


@dataclass(frozen=True)
class Share:
    """The part of a score that one latent contributes."""

    latent: int
    name: str | None
    """Name of the latent's concept, if it has one."""
    share: float
    """`query_value * item_value`; negative where the latent lowers the score."""
    query_value: float
    """Value of the query vector at this latent, steering included."""
    item_value: float
    """Value of the latent in the item's stored code."""
    opposed: bool
    """Whether the sign of the item's value is opposite to the concept's."""


@dataclass(frozen=True)
class Explanation:
    """A score as the sum of shares and a remainder."""

    score: float
    """Score of the hit."""
    shares: tuple[Share, ...]
    """One for each latent of the item's code that the query vector has too, by descending magnitude."""
    remainder: float
    """The score minus the sum of the shares: rounding, if the codes gave the score. If stored embeddings did
    (`dense_candidates`), it is the information that the code lost. Otherwise the item was written again after the
    search."""
    first_stage: str = "codes"
    """What found the hit as a candidate: "codes" (the inverted index), "graph" (navigation vectors) or "both"."""


def explain(
    query: QueryVector,
    indices: npt.NDArray[np.int32],
    values: FloatArray,
    score: float,
    concept_of: Callable[[int], tuple[str, int] | None],
) -> Explanation:
    """Split a score into the contributions of latents.

    Args:
        query: the whole query vector that scored the candidates.
        indices: (k,) latents of the item's code.
        values: (k,) stored values of the code.
        score: score of the hit.
        concept_of: returns the name and sign of a latent's concept, or None.
    """
    _, in_query, in_item = np.intersect1d(query.indices, indices, assume_unique=True, return_indices=True)
    shares = []
    for i, j in zip(in_query.tolist(), in_item.tolist(), strict=True):
        latent, query_value, item_value = int(query.indices[i]), float(query.values[i]), float(values[j])
        name, sign = concept_of(latent) or (None, 1)
        shares.append(Share(latent, name, query_value * item_value, query_value, item_value, item_value * sign < 0))
    shares.sort(key=lambda share: (-abs(share.share), share.latent))
    return Explanation(score, tuple(shares), score - sum(share.share for share in shares))
