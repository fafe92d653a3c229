"""Exact dense search, block by block: the truth of every recall."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..model import check_embeddings, unit_rows

__all__ = ["exact_neighbours"]

_BATCH: Final = 16_384


def exact_neighbours(
    queries: npt.ArrayLike, catalog: npt.ArrayLike, depth: int, own: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """The rows of the catalog closest to each query by cosine, exactly: what every recall here is against.

    Args:
        queries: (q, d).
        catalog: (n, d) array or memory map, read in blocks.
        depth: neighbours of each query; fewer than n.
        own: (q,) row of the catalog that each query is, which doesn't count as its neighbour; None for outside queries.

    Returns:
        (q, depth) rows, closest first.
    """
    rows = check_embeddings(catalog, None, "")
    asked = unit_rows(check_embeddings(queries, rows.shape[1], "the catalog"))
    if depth + (own is not None) > len(rows):
        raise InvalidInputError(
            f"a catalog of {len(rows)} items doesn't have {depth} neighbours for each; ask for fewer"
        )
    scores = np.empty((len(asked), 0), np.float32)
    numbers = np.empty((len(asked), 0), np.int64)
    for start in range(0, len(rows), _BATCH):
        block = unit_rows(rows[start : start + _BATCH], start)
        found = asked @ block.T
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + len(block)))
            found[inside, own[inside] - start] = -np.inf
        here = np.broadcast_to(np.arange(start, start + len(block)), found.shape)
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, here], axis=1)
        if scores.shape[1] > depth:
            best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return np.take_along_axis(numbers, np.argsort(-scores, axis=1, kind="stable"), 1)
