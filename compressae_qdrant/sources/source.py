"""The protocol of a source: a catalog of items that is read in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import RowError
from ..index.results import ItemId
from ..vectors import UnitRows

__all__ = ["Batch", "CheckedSource", "OnError", "Row", "Source", "check_source", "expecting"]

OnError = Literal["raise", "skip"]
Row = tuple[int, "Mapping[str, Any] | RowError"]
"""Number of a row in its source, and its columns or the error that makes it unusable."""


@dataclass(frozen=True)
class Batch:
    """The items of some consecutive rows of a source."""

    ids: Sequence[ItemId]
    """Item ids; `ItemIds` if the source has checked them already."""
    embeddings: FloatArray
    """(n, d) float32, finite, no zero row."""
    payloads: list[dict[str, Any]]
    """Payload of each item."""
    start: int
    """Number of the first row, counted from 0 from the beginning of the source."""
    stop: int
    """Number of the first row after the batch; larger than start + n if rows were skipped."""
    skipped: int
    """Number of malformed rows that were left out."""
    norms: npt.NDArray[np.float64] | None = None
    """(n,) norms of the embeddings, if the source has computed them already."""

    def unit_rows(self) -> UnitRows:
        """The embeddings, normalised.

        Raises:
            InvalidInputError: an embedding is zero or not finite, which only a batch without `norms` can have.
        """
        if self.norms is None:
            return UnitRows(self.embeddings, self.start)
        return UnitRows._trusted(np.asarray(self.embeddings / self.norms[:, None], np.float32))


class Source(Protocol):
    """A catalog that can be read repeatedly, from any row on."""

    @property
    def dim(self) -> int:
        """Dimension d of the embeddings."""

    @property
    def rows(self) -> int | None:
        """Number of rows, or None if only reading the whole source would tell."""

    @property
    def seekable(self) -> bool:
        """Whether reading can start at a row without reading the rows before it."""

    @property
    def identity(self) -> str:
        """A short text that changes with the data and with the settings of reading, so that resuming can check it."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of `size` rows from row `start` on. A batch holds fewer items if rows are skipped."""

    def matrix(self) -> npt.NDArray[np.floating] | None:
        """All embeddings as one array or memory map, or None if the source does not store them like that."""


@runtime_checkable
class CheckedSource(Source, Protocol):
    """A source whose rows are checked one by one, as those of this package are."""

    def expecting(self, dim: int) -> Source:
        """The same source, for which rows with another dimension are malformed."""

    def check(self, rows: int) -> None:
        """Check the first rows without embedding texts; see `check_source`."""


def expecting(source: Source, dim: int) -> Source:
    """The source, for which rows with another dimension than the model's are malformed where it checks rows."""
    return source.expecting(dim) if isinstance(source, CheckedSource) else source


def check_source(source: Source, dim: int, rows: int = 2048) -> Source:
    """Check the first rows of a source before anything is created for it.

    Args:
        source: the source. A foreign one, which does not check rows, is returned as it is.
        dim: dimension that the embeddings must have.
        rows: rows to check. If a source that skips malformed rows has only such rows there, it is read on to the first
            well-formed one.

    Returns:
        The source, for which rows with another dimension are malformed.

    Raises:
        RowError: a row is malformed and the source does not skip such rows.
        SourceError: no row is well-formed.
    """
    checked = expecting(source, dim)
    if isinstance(checked, CheckedSource):
        checked.check(rows)
    return checked
