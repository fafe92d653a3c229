"""Projection to navigation vectors: short dense vectors that an index builds its graph on.

An item's navigation vector is `B x_hat`, a query's is `A x_q`, and their dot product approximates `x_q . x_hat`, the
score that rescoring computes exactly. Both maps come in closed form from two second moments, `Kx = E[x x']` of the
items and `Kq = E[q q']` of the queries (LeanVec-Sphering, arXiv 2312.16335, balanced for a quantiser)::

    U, s^2 = leading eigenvectors and eigenvalues of Kq^1/2 Kx Kq^1/2
    A = diag(s^1/2)  U' Kq^-1/2        B = diag(s^-1/2) U' Kq^1/2

`B' A` is the best map of its rank for the mean squared error of the dot product. Of all ways to split it into A and B,
this one gives both sides the same second moment, diag(s), which minimises the error that an isotropic quantiser of the
items adds. Where queries are distributed like items it is the uncentred PCA of the items.

An item's navigation vector depends on its code alone, so it can be computed again from what an index stores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..codes import FloatArray
from ..errors import DimensionError, InvalidInputError, ModelFileError
from ..files import atomic_path
from ..vectors import check_embeddings, products, unit_rows

__all__ = ["MAX_DIM", "PROJECTION_FILE", "Projection", "second_moment"]

PROJECTION_FILE: Final = "projection.safetensors"
"""Name of the file in the directory of a model."""
MAX_DIM: Final = 256
"""Dimensions that are fitted and stored; an index uses the first of them."""

_FORMAT: Final = 1
_RIDGE: Final = 1e-3
"""Share of the mean eigenvalue that is added to each second moment, as few queries may not span all dimensions."""
_BATCH: Final = 16_384


@dataclass(frozen=True, eq=False)
class Projection:
    """Linear maps of queries and items to navigation vectors; the first rows are the most important."""

    query_map: FloatArray
    """(D, d) float32: A."""
    item_map: FloatArray
    """(D, d) float32: B."""
    source: str
    """What it was fitted on, for people: "items", "items and queries" or "dictionary"."""
    fingerprint: str = ""
    """Navigation vectors of equal fingerprints can be compared. By default `p-` and 12 hexadecimal digits of SHA-256
    over both maps."""

    def __post_init__(self) -> None:
        if self.query_map.shape != self.item_map.shape or self.query_map.ndim != 2:
            raise DimensionError(
                f"a projection's maps have shapes {self.query_map.shape} and {self.item_map.shape}; both must be (D, d)"
            )
        if not self.fingerprint:
            digest = hashlib.sha256()
            for matrix in (self.query_map, self.item_map):
                digest.update(matrix.astype("<f4").tobytes())
            object.__setattr__(self, "fingerprint", f"p-{digest.hexdigest()[:12]}")

    @property
    def max_dim(self) -> int:
        """D: the largest number of dimensions that navigation vectors can have."""
        return len(self.query_map)

    def queries(self, x: FloatArray, dim: int) -> FloatArray:
        """Navigation vectors of queries: (q, d) embeddings to (q, dim) float32."""
        return products(x, self.query_map[:dim])

    def share(self, atoms: FloatArray, weights: FloatArray, dim: int) -> float:
        """How much of a reconstruction's product with itself its navigation vectors hold, on average: 1 if they are
        exact. As in `of_dictionary`, latents count as used independently. Queries count as distributed like items.

        Args:
            atoms: (h, d) atoms.
            weights: (h,) mean squared value of each latent over all items; all zero counts as even use.
            dim: dimensions of the navigation vectors.
        """
        used = weights if weights.any() else np.ones_like(weights)
        held = np.vecdot(atoms @ self.query_map[:dim].T, atoms @ self.item_map[:dim].T)
        return float(used @ held / (used @ np.vecdot(atoms, atoms)))

    @classmethod
    def fit(
        cls, items: npt.NDArray[np.floating], queries: npt.ArrayLike | None = None, *, source: str | None = None
    ) -> Projection:
        """Fit the maps to items and, where they are given, to logged queries.

        Args:
            items: (n, d) embeddings of any scale; rows are normalised here.
            queries: (q, d) embeddings of queries; None takes the items' own distribution.
            source: see `Projection.source`.

        Raises:
            InvalidInputError, DimensionError: embeddings are unusable.
        """
        item_moment = second_moment(items)
        if queries is None:
            return cls.of_moments(item_moment, item_moment, source or "items")
        rows = check_embeddings(queries, items.shape[1], "the model")
        return cls.of_moments(item_moment, second_moment(rows), source or "items and queries")

    @classmethod
    def of_dictionary(cls, atoms: FloatArray, weights: FloatArray, fingerprint: str) -> Projection:
        """Derive the maps from a model's atoms where no items are at hand.

        The second moment of reconstructions is `sum_j w_j W_j W_j'` if latents are used independently.

        Args:
            atoms: (h, d) atoms.
            weights: (h,) mean squared value of each latent over all items; all zero counts as even use.
            fingerprint: fingerprint of the result. Two machines may round the maps differently, so it is that of the
                model and not of the maps.
        """
        used = weights if weights.any() else np.ones_like(weights)
        moment = (atoms * used[:, None]).T.astype(np.float64) @ atoms / used.sum()
        derived = cls.of_moments(moment, moment, "dictionary")
        return replace(derived, fingerprint=fingerprint)

    @classmethod
    def of_moments(
        cls, item_moment: npt.NDArray[np.float64], query_moment: npt.NDArray[np.float64], source: str
    ) -> Projection:
        """The balanced closed form; see the module. Both moments are (d, d), symmetric."""
        dim = min(MAX_DIM, len(item_moment))
        kq, kx = _regularised(query_moment), _regularised(item_moment)
        values, vectors = np.linalg.eigh(kq)
        root = (vectors * np.sqrt(values)) @ vectors.T
        inverse_root = (vectors / np.sqrt(values)) @ vectors.T
        squared, basis = np.linalg.eigh(root @ kx @ root)
        order = np.argsort(squared)[::-1][:dim]
        s, u = np.sqrt(np.maximum(squared[order], np.finfo(np.float64).tiny)), basis[:, order]
        query_map = np.sqrt(s)[:, None] * (u.T @ inverse_root)
        item_map = (u.T @ root) / np.sqrt(s)[:, None]
        # The sign of an eigenvector is arbitrary: fix it, so that equal input gives equal maps on every machine.
        sign = np.sign(item_map[np.arange(dim), np.abs(item_map).argmax(axis=1)])[:, None]
        return cls((sign * query_map).astype(np.float32), (sign * item_map).astype(np.float32), source)

    def save(self, directory: Path, model: str) -> None:
        """Write the projection beside the model whose fingerprint is `model`."""
        facts = {"format": _FORMAT, "model": model, "source": self.source, "fingerprint": self.fingerprint}
        with atomic_path(directory / PROJECTION_FILE) as temporary:
            save_file(
                {"query_map": self.query_map, "item_map": self.item_map},
                temporary,
                metadata={"projection": json.dumps(facts)},
            )

    @classmethod
    def load(cls, directory: Path, model: str) -> Projection | None:
        """Read what `save` wrote; None where there is none, or one of another model.

        Raises:
            ModelFileError: the file is damaged or in a newer format.
        """
        path = directory / PROJECTION_FILE
        if not path.exists():
            return None
        try:
            with safe_open(str(path), framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["projection"])
                if facts["format"] != _FORMAT:
                    raise ModelFileError(
                        f"{path} has format {facts['format']!r}, this version reads {_FORMAT}; upgrade "
                        "compressae-qdrant"
                    )
                if facts["model"] != model:
                    return None
                maps = file.get_tensor("query_map"), file.get_tensor("item_map")
                return cls(*maps, str(facts["source"]), str(facts["fingerprint"]))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, DimensionError) as exc:
            raise ModelFileError(f"{path} is not a readable projection ({exc}); copy the model again") from exc


def second_moment(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """`E[x x']` of (n, d) embeddings, normalised to unit norm here: (d, d)."""
    if not len(rows):
        raise InvalidInputError("there are no embeddings to fit a projection to; give at least one")
    moment = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _BATCH):
        block = unit_rows(rows[start : start + _BATCH], start)
        moment += block.T @ block
    return moment / len(rows)


def _regularised(moment: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    symmetric = (moment + moment.T) / 2
    mean = np.trace(symmetric) / len(symmetric)
    return np.asarray(symmetric + _RIDGE * mean * np.eye(len(symmetric)), np.float64)
