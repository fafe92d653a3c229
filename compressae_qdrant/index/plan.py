"""QueryPlan: one query as every engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..scoring import QueryVector

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["QueryPlan"]


@dataclass(frozen=True)
class QueryPlan:
    """One query as an engine runs it: candidates by `first_stage`, then an exact rescoring of them by `rescoring`."""

    first_stage: QueryVector
    """Scored against the inverted index, over all items that pass the filter."""
    rescoring: QueryVector | None
    """Scored against the stored float32 values of the candidates; None returns the first stage's own scores."""
    limit: int
    """Hits to return."""
    prefetch: int
    """Candidates to rescore; at least `limit`."""
    filter: models.Filter | None = None
    """Restricts both stages to items whose payload matches."""
    with_payload: bool = True
    """Whether hits carry their payload."""
    rescore_in_engine: bool = True
    """False fetches the candidates' codes and rescores them here; the same ranking, for checks and old engines."""
    dense: FloatArray | None = None
    """(d,) the query itself: the best `dense_candidates` of the rescoring are scored once more, by the embeddings that
    an index with `keep_dense` has on disk. None leaves that out."""
    dense_candidates: int = 0
    """From `limit` to `prefetch`."""
    least: float | None = None
    """A candidate's product of its stored float32 values with `first_stage` must be at least this. So a first stage
    that is a concept restricts the search to the items that have it; None lets all candidates pass."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InvalidInputError(f"limit is {self.limit}; ask for at least 1 hit")
        if self.prefetch < self.limit:
            raise InvalidInputError(f"prefetch is {self.prefetch} and limit {self.limit}; prefetch must be >= limit")
        if self.dense is not None and not self.limit <= self.dense_candidates <= self.prefetch:
            raise InvalidInputError(
                f"dense_candidates is {self.dense_candidates}; it must be from limit ({self.limit}) to prefetch "
                f"({self.prefetch})"
            )
        if self.dense is not None and (self.rescoring is None or not self.rescore_in_engine):
            raise InvalidInputError(
                "dense embeddings rescore what the engine rescored; give the plan a rescoring there"
            )
        if self.least is not None and self.rescoring is None:
            raise InvalidInputError("a least product is asked of candidates; give the plan a rescoring")
        if not len(self.first_stage):
            raise InvalidInputError("the query vector is empty; nothing could match it")
