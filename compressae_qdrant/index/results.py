"""Results of an index: hits of a search, stored records, and information about the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError
from ..scoring import Explanation
from .settings import IndexSettings

__all__ = ["Hit", "HitOrigin", "IndexInfo", "ItemId", "Payload", "Record", "Stored", "stacked_codes"]

ItemId = int | str
"""An item's id in the catalog. Ids that Qdrant does not accept as point ids are mapped; see `index.ids`."""

Payload = Mapping[str, Any]


class HitOrigin(Protocol):
    """The search that found a hit."""

    def explain(self, hit: Hit) -> Explanation:
        """Explain the hit's score."""


@dataclass(frozen=True)
class Hit:
    """One hit of a search: the item's id in the catalog, its score (higher is closer) and its payload.

    The origin is not part of its value: it is not compared, shown or pickled. Code and embedding are not compared.
    """

    id: ItemId
    score: float
    payload: dict[str, Any] = field(default_factory=dict)
    origin: InitVar[HitOrigin | None] = None
    indices: npt.NDArray[np.int32] | None = field(default=None, compare=False, repr=False)
    """(<= k,) latents of its code, ascending, if the search had `with_codes`."""
    values: FloatArray | None = field(default=None, compare=False, repr=False)
    """(<= k,) stored values of its code, if the search had `with_codes`."""
    dense: FloatArray | None = field(default=None, compare=False, repr=False)
    """(d,) embedding of unit norm, if the search had `with_dense`."""
    found_by: ClassVar[HitOrigin | None] = None

    def __post_init__(self, origin: HitOrigin | None) -> None:
        object.__setattr__(self, "found_by", origin)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("id", "score", "payload", "indices", "values", "dense")}

    def explain(self) -> Explanation:
        """The concepts that query and item share, with shares that sum to the score.

        Reads the item's code from the index, in one call for each hit; `Retriever.explain` takes many hits in one.

        Raises:
            InvalidInputError: the hit is not from a `Retriever`, or is from an async one (use its `explain`).
            IndexNotFoundError: the item is no longer in the index.
        """
        if self.found_by is None:
            raise InvalidInputError(
                f"hit {self.id!r} was not found by a retriever, so its query is unknown; search with a Retriever"
            )
        return self.found_by.explain(self)


@dataclass(frozen=True)
class Record:
    """One stored item."""

    id: ItemId
    indices: npt.NDArray[np.int32]
    """(<= k,) latents of its code, ascending. Empty if the code was not asked for, or the item has none."""
    values: FloatArray
    """(<= k,) stored values."""
    payload: dict[str, Any] = field(default_factory=dict)
    dense: FloatArray | None = None
    """(d,) embedding of unit norm, if the index keeps it."""


class Stored(Protocol):
    """A hit or a record, which may carry its code."""

    @property
    def id(self) -> ItemId: ...
    @property
    def indices(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def values(self) -> FloatArray | None: ...


class Coder(Protocol):
    """A model, or an index of its codes."""

    @property
    def latents(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


def stacked_codes(items: Sequence[Stored], coder: Coder) -> SparseCodes:
    """The codes of hits or records as one value, in their order: `model.decode` takes it.

    Args:
        items: hits of a search with `with_codes=True`, or records.
        coder: the model of the codes, or the index that holds them.

    Raises:
        InvalidInputError: an item carries no code.
    """
    width = max([1, *(0 if item.indices is None else item.indices.size for item in items)])
    indices, values = np.empty((len(items), width), np.int32), np.zeros((len(items), width), np.float32)
    for row, item in enumerate(items):
        if item.indices is None or item.values is None or not item.indices.size:
            raise InvalidInputError(f"item {item.id!r} carries no code; search or scroll with with_codes=True")
        kept = item.indices.size
        if kept < width:  # unused latents with zero values pad the row
            unused = np.setdiff1d(np.arange(width, dtype=np.int32), item.indices)[: width - kept]
            row_indices = np.concatenate([item.indices, unused])
            order = np.argsort(row_indices)
            indices[row] = row_indices[order]
            values[row] = np.concatenate([item.values, np.zeros(width - kept, np.float32)])[order]
        else:
            indices[row], values[row] = item.indices, item.values
    return SparseCodes._trusted(indices, values, coder.latents, fingerprint=coder.fingerprint)


@dataclass(frozen=True)
class IndexInfo:
    """Size, state and settings of an index."""

    backend: Literal["edge", "qdrant"]
    location: str
    items: int
    segments: int
    indexed_items: int | None
    """Items in compressed, fast segments; the others wait for `optimize`. None while a server's optimisers run, which
    does not report it."""
    fingerprint: str
    """Fingerprint of the model whose codes the index holds."""
    latents: int
    settings: IndexSettings
    index_bytes: int | None
    """Measured bytes of the inverted index; None if the engine does not report them."""
    navigation_bytes: int | None
    """Measured bytes of quantised navigation vectors and their graph; None if the engine does not report them."""
    total_bytes: int | None
    """Measured bytes on disk, including stored codes, payloads and logs; None if unknown."""
    text_bytes: int | None = None
    """Measured bytes of the text indexes of payload fields, which are on disk unless their settings say otherwise; None
    if the engine does not report them."""

    @property
    def resident_bytes(self) -> int | None:
        """Bytes that stay in memory, without the engine's tables of items: navigation vectors and graph, and the
        inverted index unless it is cold. None if the engine does not report them, or before the index is optimised."""
        if not self.index_bytes or self.navigation_bytes is None:
            return None
        return self.navigation_bytes + (0 if self.settings.memory == "cold" else self.index_bytes)
