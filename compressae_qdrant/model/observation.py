"""Measurements of a batch of items and their codes, and the baseline of a held-out batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError
from ..metrics import recall
from ..scoring import asymmetric, top
from ..vectors import exact_neighbours, unit_rows
from .baseline import Baseline
from .compressae import CompresSAE

__all__ = ["MIN_ITEMS", "QUERIES", "Observation", "make_baseline", "observe", "pool_recalls", "projection_losses"]

DEPTH: Final = 10
"""k of the recall@k that pools measure."""

_POOLS: Final = (50, 100, 200, 500, 1000, 2000, 5000)
MIN_ITEMS: Final = 50
"""Smallest baseline, batch or segment that is evaluated."""
QUERIES: Final = 500
"""Queries that measure recall, for each pool size."""


@dataclass(frozen=True, eq=False)
class Observation:
    """n items, encoded."""

    codes: SparseCodes
    losses: FloatArray | None
    """(n,) `1 - cos(x, x_hat)`; None if it is not known."""
    embeddings: FloatArray | None
    """(n, d) embeddings of unit norm; None if they are not available."""
    segments: Sequence[str | None] | None
    """(n,) value of the segment field of each item, if a field was given."""
    missing: str = ""
    """Reason why losses or embeddings are None."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Observation:
        """Select items by their row numbers."""
        return Observation(
            self.codes[rows],
            None if self.losses is None else self.losses[rows],
            None if self.embeddings is None else self.embeddings[rows],
            None if self.segments is None else [self.segments[row] for row in rows],
            self.missing,
        )

    @property
    def supports(self) -> npt.NDArray[np.int32]:
        """(n, k) latents of each code; -1 where a code uses fewer than k."""
        return np.where(self.codes.values != 0, self.codes.indices, np.int32(-1))


def observe(
    model: CompresSAE, embeddings: npt.NDArray[np.floating], segments: Sequence[str | None] | None = None
) -> Observation:
    """Encode (n, d) embeddings by pursuit and measure their losses."""
    x = unit_rows(embeddings)
    codes = model.encode(x, scale="projection")
    return Observation(codes, projection_losses(model, codes), x, segments)


def pool_recalls(
    model: CompresSAE, seen: Observation, size: int, queries: int, *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Measure recall@10 of codes against exact dense search, in random pools of the items.

    The items are divided into pools at random. Each of the first `queries` items searches its own pool without itself.
    Searches in smaller pools are easier, because items are farther apart, so only recalls of equal pool sizes compare.

    Args:
        model: the model.
        seen: the items, with embeddings.
        size: items of a pool.
        queries: maximum number of queries.
        seed: random seed of the division.

    Returns:
        (n,) recall of each item; NaN for items that were not queries.
    """
    assert seen.embeddings is not None
    recalls = np.full(len(seen), np.nan, np.float32)
    order = np.random.default_rng([seed, size]).permutation(len(seen))
    atoms = model.atoms.detach().cpu().numpy()
    for start in range(0, min(len(seen) // size * size, queries), size):
        pool = order[start : start + size]
        query_rows = np.arange(min(size, queries - start))
        x = seen.embeddings[pool]
        truth = exact_neighbours(x[query_rows], x, DEPTH, query_rows)
        found, _ = top(seen.codes[pool], asymmetric(atoms, x[query_rows]), DEPTH + 1)
        others = [[row for row in rows if row != own] for own, rows in enumerate(found.tolist())]
        recalls[pool[query_rows]] = recall(others, truth.tolist(), DEPTH)
    return recalls


def projection_losses(model: CompresSAE, codes: SparseCodes) -> FloatArray:
    """Return (n,) `1 - cos(x, x_hat)` of codes at projection scale: the norm of a reconstruction is the cosine."""
    return np.asarray(1 - np.linalg.norm(model.decode(codes), axis=1), np.float32)


def make_baseline(
    model: CompresSAE,
    embeddings: npt.NDArray[np.floating],
    *,
    source: str,
    segments: Sequence[str | None] | None = None,
    field: str | None = None,
    seed: int = 0,
) -> Baseline:
    """Measure a model on items that it was not trained on.

    Args:
        model: the model.
        embeddings: (n, d) embeddings of held-out items. Training items have losses that are too low (by 15% with 512
            latents and 5,600 items), so that every later batch would seem worse than it is.
        source: description of the items, for reports.
        segments: value of the segment field of each item, for comparisons segment by segment.
        field: name of the segment field.
        seed: random seed of the pools.

    Raises:
        InvalidInputError: there are fewer than 50 items, or an embedding is invalid.
    """
    if len(embeddings) < MIN_ITEMS:
        raise InvalidInputError(
            f"a baseline needs at least {MIN_ITEMS} items but there are {len(embeddings)}; give more held-out items"
        )
    seen = observe(model, embeddings, segments)
    assert seen.losses is not None
    pools = tuple(size for size in _POOLS if size <= len(seen))
    names = tuple(sorted({name for name in segments or () if name is not None}))
    label: dict[str | None, int] = {name: position for position, name in enumerate(names)}
    labels = None if segments is None else np.array([label.get(name, -1) for name in segments], np.int32)
    recalls = np.stack([pool_recalls(model, seen, size, 2 * QUERIES, seed=seed) for size in pools])
    return Baseline(
        model.fingerprint, model.latents, seen.supports, seen.losses, pools, recalls, source, field, names, labels
    )
