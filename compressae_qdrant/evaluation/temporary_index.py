"""An embedded index in a temporary directory, for measurements."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..codes import FloatArray, SparseCodes
from ..index import EdgeIndex, IndexSettings
from ..index.results import ItemId, Payload
from ..model.compressae import CompresSAE

__all__ = ["temporary_index"]

_BATCH_ITEMS: Final = 4096


@contextlib.contextmanager
def temporary_index(
    model: CompresSAE,
    codes: SparseCodes,
    settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    *,
    ids: Sequence[ItemId] | None = None,
    payloads: Sequence[Payload | None] | None = None,
    dense: FloatArray | None = None,
) -> Iterator[EdgeIndex]:
    """Load and optimise an embedded index, and delete it when the context ends.

    Args:
        model: the model that made the codes.
        codes: codes of n items.
        settings: settings of the index.
        ids: ids of the items; None numbers them from 0.
        payloads: payloads of the items.
        dense: (n, d) embeddings of the items; required by an index with `keep_dense`.
    """
    ids = range(len(codes)) if ids is None else ids
    with (
        tempfile.TemporaryDirectory() as directory,
        EdgeIndex.create(Path(directory) / "index", model, settings) as index,
    ):
        for start in range(0, len(codes), _BATCH_ITEMS):
            batch = slice(start, start + _BATCH_ITEMS)
            index.upsert(
                ids[batch],
                codes[batch],
                None if payloads is None else payloads[batch],
                None if dense is None else dense[batch],
            )
        index.optimize()
        yield index
