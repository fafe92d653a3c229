"""Results of an index: hits of a search, stored records, and information about the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..scoring import Explanation
from .settings import IndexSettings

__all__ = ["Hit", "HitOrigin", "IndexInfo", "ItemId", "Payload", "Record"]

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

    The origin is not part of its value: it is not compared, shown or pickled.
    """

    id: ItemId
    score: float
    payload: dict[str, Any] = field(default_factory=dict)
    origin: InitVar[HitOrigin | None] = None
    found_by: ClassVar[HitOrigin | None] = None

    def __post_init__(self, origin: HitOrigin | None) -> None:
        object.__setattr__(self, "found_by", origin)

    def __getstate__(self) -> dict[str, Any]:
        return {"id": self.id, "score": self.score, "payload": self.payload}

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
    """(<= k,) latents of its code, ascending."""
    values: FloatArray
    """(<= k,) stored values."""
    payload: dict[str, Any] = field(default_factory=dict)
    dense: FloatArray | None = None
    """(d,) embedding of unit norm, if the index keeps it."""


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

    @property
    def resident_bytes(self) -> int | None:
        """Bytes that stay in memory, without the engine's tables of items: navigation vectors and graph, and the
        inverted index unless it is cold. None if the engine does not report them, or before the index is optimised."""
        if not self.index_bytes or self.navigation_bytes is None:
            return None
        return self.navigation_bytes + (0 if self.settings.memory == "cold" else self.index_bytes)
