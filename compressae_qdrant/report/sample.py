"""A sample of a catalog that fits in memory: embeddings, ids and payloads of its items."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..codes import FloatArray
from ..errors import InvalidInputError, SourceError
from ..sources import Batch, Source
from ..vectors import reservoir_sample, unit_rows

__all__ = ["Sample", "draw_sample"]

_BLOCKS: Final = 64
_BATCH: Final = 2048
_TITLE: Final = 100


@dataclass(frozen=True)
class Sample:
    """Items of a catalog, row by row."""

    ids: list[int | str]
    """(n,) ids."""
    embeddings: FloatArray
    """(n, d) float32 of unit norm."""
    payloads: list[dict[str, Any]]
    """(n,) payloads."""
    catalog_items: int
    """Number of items of the catalog; its number of rows if not all of them were read."""

    def __len__(self) -> int:
        return len(self.ids)

    def title(self, row: int) -> str:
        """A readable line: the field `title` or `name`, else the first text of the payload, else the id."""
        payload = self.payloads[row]
        texts = [payload.get("title"), payload.get("name"), *payload.values()]
        text = next((text for text in texts if isinstance(text, str) and text.strip()), str(self.ids[row]))
        line = " ".join(text.split())
        return line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…"

    @property
    def whole(self) -> bool:
        """Whether the sample is the whole catalog."""
        return len(self) == self.catalog_items


def draw_sample(
    source: Source, limit: int, *, seed: int = 0, on_batch: Callable[[Batch], None] | None = None
) -> Sample:
    """Draw at most `limit` items: all of a small catalog, otherwise a part of it.

    If the number of rows is known and the source is seekable, only blocks of rows spread evenly over the catalog are
    read, so that the time does not grow with the catalog. Otherwise all rows are read, and a uniform sample is kept.

    Raises:
        InvalidInputError: `limit` is less than 2.
        SourceError: the source has less than 2 usable items.
    """
    if limit < 2:
        raise InvalidInputError(f"the sample is limited to {limit} items; it needs at least 2")
    random = np.random.default_rng(seed)
    rows = source.rows if source.seekable else None
    blocks = None if rows is None or rows <= limit else _blocks(source, rows, limit, random)

    def items() -> Iterator[tuple[int | str, FloatArray, dict[str, Any]]]:
        for batch in blocks or source.batches(_BATCH):
            for id, vector, payload in zip(batch.ids, batch.embeddings, batch.payloads, strict=True):
                yield id, vector.copy(), payload
            if on_batch is not None:
                on_batch(batch)

    kept, read = reservoir_sample(items(), limit, random)
    if len(kept) < 2:
        raise SourceError(f"the source has {len(kept)} usable items; a report needs at least 2")
    ids, vectors, payloads = (list(column) for column in zip(*kept, strict=True))
    total = read if blocks is None or rows is None else rows
    return Sample(ids, unit_rows(np.stack(vectors)), payloads, total)


def _blocks(source: Source, rows: int, limit: int, random: np.random.Generator) -> Iterator[Batch]:
    """Blocks of consecutive rows, each at a random place in one of `_BLOCKS` parts of about equal size."""
    count = min(_BLOCKS, limit)
    low = 0
    for size, rest in zip(_parts(limit, count), _parts(rows - limit, count), strict=True):
        yield from itertools.islice(source.batches(size, low + int(random.integers(0, rest + 1))), 1)
        low += size + rest


def _parts(whole: int, count: int) -> list[int]:
    """Split a number into parts of about equal size."""
    parts: list[int] = np.diff(np.linspace(0, whole, count + 1).astype(int)).tolist()
    return parts
