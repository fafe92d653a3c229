"""What an index returns: hits of a search, stored records, and a description of the index itself."""

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
"""An item's id as the catalog has it. Ids that are no point id of Qdrant are mapped; see `index.ids`."""

Payload = Mapping[str, Any]


class HitOrigin(Protocol):
    """The search that found a hit."""

    def explain(self, hit: Hit) -> Explanation:
        """Take the hit's score apart."""


@dataclass(frozen=True)
class Hit:
    """One answer: the catalog's own id, the score (higher is closer) and the item's payload.

    Where it comes from is no part of its value: neither compared, nor shown, nor pickled.
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
        """Which concepts made query and item meet, with shares that sum to the score. Reads the item's code from the
        index: one call a hit; `Retriever.explain` takes several hits in one.

        Raises:
            InvalidInputError: no `Retriever` found this hit, or an async one did (use its `explain`).
            IndexNotFoundError: the item is no longer in the index.
        """
        if self.found_by is None:
            raise InvalidInputError(f"hit {self.id!r} is of no retriever, which alone knows its query")
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
    """(d,) its embedding, of unit norm, where the index keeps it."""


@dataclass(frozen=True)
class IndexInfo:
    """What an index says about itself."""

    backend: Literal["edge", "qdrant"]
    location: str
    items: int
    segments: int
    indexed_items: int | None
    """Items in compressed, fast segments; the rest wait for `optimize`. None on a server whose optimisers are at work:
    it doesn't say."""
    fingerprint: str
    """Of the model whose codes it holds."""
    latents: int
    settings: IndexSettings
    index_bytes: int | None
    """Measured bytes of the inverted index; None where the engine doesn't say."""
    total_bytes: int | None
    """Measured bytes of everything on disk, with stored codes, payloads and logs; None where unknown."""
