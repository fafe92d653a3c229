"""What can be said of a batch of items by their codes, and the baseline made of a held-out batch."""

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

__all__ = ["LEAST_ITEMS", "QUERIES", "Observation", "make_baseline", "observe", "pool_recalls", "projection_losses"]

DEPTH: Final = 10
"""k of the recall@k that is spot-checked."""

_POOLS: Final = (50, 100, 200, 500, 1000, 2000, 5000)
LEAST_ITEMS: Final = 50
"""Of a baseline, a batch or a segment, before anything is said of it."""
QUERIES: Final = 500
"""Items searched for in the spot check of recall, in pools of each size."""


@dataclass(frozen=True, eq=False)
class Observation:
    """n items, coded."""

    codes: SparseCodes
    losses: FloatArray | None
    """(n,) `1 - cos(x, x_hat)`; None where it can't be known."""
    embeddings: FloatArray | None
    """(n, d) of unit norm; None where they are not there."""
    segments: Sequence[str | None] | None
    """(n,) value of the segment field of each item, if one was asked for."""
    missing: str = ""
    """Why losses or embeddings are not there."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Observation:
        """Some of the items, by their numbers."""
        return Observation(
            self.codes[rows],
            None if self.losses is None else self.losses[rows],
            None if self.embeddings is None else self.embeddings[rows],
            None if self.segments is None else [self.segments[row] for row in rows],
            self.missing,
        )

    @property
    def supports(self) -> npt.NDArray[np.int32]:
        """(n, k) latents of each code; -1 where it uses fewer than k."""
        return np.where(self.codes.values != 0, self.codes.indices, np.int32(-1))


def observe(
    model: CompresSAE, embeddings: npt.NDArray[np.floating], segments: Sequence[str | None] | None = None
) -> Observation:
    """Encode (n, d) embeddings by pursuit, as an ingestion does."""
    x = unit_rows(embeddings)
    codes = model.encode(x, scale="projection")
    return Observation(codes, projection_losses(model, codes), x, segments)


def pool_recalls(
    model: CompresSAE, seen: Observation, size: int, queries: int, *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Recall@10 of codes against exact dense search among random pools of `size` of the items themselves.

    The smaller the pool, the farther apart its items and the easier the search, so only equal sizes compare. Items are
    dealt into pools at random; each of the first `queries` dealt searches its own pool, itself left out.

    Returns:
        (n,) recall of each item, NaN where it was no query.
    """
    assert seen.embeddings is not None
    recalls = np.full(len(seen), np.nan, np.float32)
    order = np.random.default_rng([seed, size]).permutation(len(seen))
    atoms = model.atoms.detach().cpu().numpy()
    for start in range(0, min(len(seen) // size * size, queries), size):
        pool = order[start : start + size]
        asked = np.arange(min(size, queries - start))
        x = seen.embeddings[pool]
        truth = exact_neighbours(x[asked], x, DEPTH, asked)
        found, _ = top(seen.codes[pool], asymmetric(atoms, x[asked]), DEPTH + 1)
        others = [[row for row in rows if row != own] for own, rows in enumerate(found.tolist())]
        recalls[pool[asked]] = recall(others, truth.tolist(), DEPTH)
    return recalls


def projection_losses(model: CompresSAE, codes: SparseCodes) -> FloatArray:
    """From codes at projection scale: their reconstructions' norms are the cosines."""
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
        embeddings: (n, d). On items of the training the losses come out too low (by 15% for 512 latents and 5,600
            items), and every later batch would seem worse than it is.
        source: what the items are, for people who read a report.
        segments: value of the segment field of each item, where batches are to be compared segment by segment.
        field: name of that field.
        seed: of the pools.

    Raises:
        InvalidInputError: there are fewer than 50 items, or one is unusable.
    """
    if len(embeddings) < LEAST_ITEMS:
        raise InvalidInputError(f"a baseline of {len(embeddings)} items says nothing; give at least {LEAST_ITEMS}")
    seen = observe(model, embeddings, segments)
    assert seen.losses is not None
    pools = tuple(size for size in _POOLS if size <= len(seen))
    names = tuple(sorted({name for name in segments or () if name is not None}))
    number: dict[str | None, int] = {name: at for at, name in enumerate(names)}
    labels = None if segments is None else np.array([number.get(name, -1) for name in segments], np.int32)
    recalls = np.stack([pool_recalls(model, seen, size, 2 * QUERIES, seed=seed) for size in pools])
    return Baseline(
        model.fingerprint, model.latents, seen.supports, seen.losses, pools, recalls, source, field, names, labels
    )
