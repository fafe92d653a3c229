"""Measuring a baseline: at the end of training on its held-out items, or later on items of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..baseline import Baseline
from ..errors import InvalidInputError
from ..model import CompresSAE
from .observing import observe, pool_recalls

__all__ = ["LEAST_ITEMS", "QUERIES", "make_baseline"]

_POOLS: Final = (50, 100, 200, 500, 1000, 2000, 5000)
LEAST_ITEMS: Final = 50
"""Of a baseline, a batch or a segment, before anything is said of it."""
QUERIES: Final = 500
"""Items searched for in the spot check of recall, in pools of each size."""


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
