"""QueryPlan: one query in the form that every engine runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..scoring import EmbeddingQuery, QueryVector
from .results import HitOrigin
from .text import TextSearch

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["ACORN_SHARE", "QueryPlan"]

ACORN_SHARE: Final = 0.8
"""Share of items that match a filter up to which a search of the graph also follows the links of items that do not
match (ACORN). The links among those that match do not lead everywhere: with m=8, recall@10 fell from 0.94 to 0.81 where
a third of the items match, and to nothing where a tenth does (EXPERIMENTS.md)."""


@dataclass(frozen=True)
class QueryPlan:
    """One query: the engine finds candidates by `first_stage` and rescores them exactly by `rescoring`."""

    first_stage: QueryVector | None
    """Scored against the inverted index, over all items that pass the filter; None leaves the inverted index out, if
    `navigation` finds the candidates."""
    rescoring: QueryVector | EmbeddingQuery | None
    """Scored against the stored float32 values of the candidates. None leaves that out: embeddings rank all candidates,
    if there is a `dense` query; otherwise hits have the first stage's own scores. The engine needs a query vector; a
    query by its embedding is for a few candidates that are rescored in this process."""
    limit: int
    """Hits to return."""
    prefetch: int
    """Candidates to rescore; at least `limit`."""
    filter: models.Filter | None = None
    """Restricts both stages to items whose payload matches."""
    with_payload: bool = True
    """Whether hits carry their payload."""
    rescore_in_engine: bool = True
    """False fetches the candidates' codes and rescores them in this process. The ranking is the same. A few
    candidates take less time so, if `rescoring` is an `EmbeddingQuery`; it also works with old engines."""
    dense: FloatArray | None = None
    """(d,) the query's embedding. The best `dense_candidates` of the rescoring are scored again by the embeddings that
    an index with `keep_dense` has on disk. None skips that."""
    dense_candidates: int = 0
    """Candidates to score by their embeddings: from `limit` to `prefetch`."""
    score_threshold: float | None = None
    """Minimum score of a candidate by `first_stage`, computed from its stored float32 values. With a concept as the
    first stage, it restricts the search to the items that have the concept. None sets no minimum."""
    navigation: FloatArray | None = None
    """(D,) navigation vector of the query, which finds candidates by the graph: alone, or besides `first_stage`."""
    navigation_ef: int | None = None
    """Nodes that the search of the graph keeps, at least `prefetch`; None takes the engine's default."""
    navigation_candidates: int = 0
    """Best of these nodes that are compared again by their stored navigation vectors, of which the best `prefetch` are
    the candidates; 0 takes the best `prefetch` nodes by their quantised vectors."""
    offset: int = 0
    """Best hits to leave out; `limit` hits after them are returned."""
    min_score: float | None = None
    """Lowest score of a hit, in the unit of the scores that the plan returns. None sets no minimum."""
    with_codes: bool = False
    """Whether hits carry their code."""
    with_dense: bool = False
    """Whether hits carry their embedding, which the index must keep."""
    text: TextSearch | None = None
    """Words of the query. Their rankings are fused with that of the codes, so that scores are those of the fusion; None
    searches by codes alone."""
    origin: HitOrigin | None = field(default=None, compare=False, repr=False)
    """What explains the hits of this plan; every hit refers to it."""

    def __post_init__(self) -> None:
        for name, value in (("limit", self.limit), ("prefetch", self.prefetch), ("offset", self.offset)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidInputError(f"{name} is {value!r}; it must be a whole number")
        if self.limit < 1:
            raise InvalidInputError(f"limit is {self.limit}; it must be at least 1")
        if self.prefetch < self.limit:
            raise InvalidInputError(f"prefetch is {self.prefetch} but limit is {self.limit}; prefetch must be >= limit")
        if self.offset < 0:
            raise InvalidInputError(f"offset is {self.offset}; it must be at least 0")
        if self.prefetch < self.limit + self.offset:
            raise InvalidInputError(
                f"prefetch is {self.prefetch} but limit and offset are {self.limit} and {self.offset}; prefetch must "
                "be at least their sum"
            )
        if self.dense is not None and not self.limit + self.offset <= self.dense_candidates <= self.prefetch:
            raise InvalidInputError(
                f"dense_candidates is {self.dense_candidates}; it must be from limit and offset "
                f"({self.limit + self.offset}) to prefetch ({self.prefetch})"
            )
        if self.min_score is not None and not np.isfinite(self.min_score):
            raise InvalidInputError(f"min_score is {self.min_score}; it must be a finite number or None")
        if self.dense is not None and not self.rescore_in_engine:
            raise InvalidInputError(
                "the plan has a dense query, by which only the engine can rank; set rescore_in_engine=True"
            )
        if isinstance(self.rescoring, EmbeddingQuery) and self.rescore_in_engine:
            raise InvalidInputError(
                "the plan rescores by an embedding, which only this process can; set rescore_in_engine=False, or give "
                "rescoring.vector()"
            )
        if self.dense is not None and self.rescoring is None and self.dense_candidates < self.prefetch:
            raise InvalidInputError(
                f"the plan has a dense query for {self.dense_candidates} of {self.prefetch} candidates but nothing "
                "that chooses them; set rescoring, or dense_candidates=prefetch"
            )
        if self.score_threshold is not None and self.rescoring is None:
            raise InvalidInputError("the plan has a score_threshold but no rescoring, which applies it; set rescoring")
        if self.text is not None:
            self._check_text(self.text)
        words_only = self.text is not None and not self.text.code_weight
        if self.first_stage is None and self.navigation is None and not words_only:
            raise InvalidInputError("the plan has neither a first_stage nor a navigation vector; set one of them")
        if self.first_stage is not None and not len(self.first_stage):
            raise InvalidInputError("first_stage is empty, so no item can match it; give it at least one latent")
        if self.navigation is not None and not self.has_second_stage:
            raise InvalidInputError(
                "the plan has a navigation vector, which only finds candidates; set rescoring or a dense query"
            )
        if self.navigation_candidates and self.navigation_candidates < self.prefetch:
            raise InvalidInputError(
                f"navigation_candidates is {self.navigation_candidates} but prefetch is {self.prefetch}; it must be "
                "0 or at least prefetch"
            )
        if self.score_threshold is not None and (self.first_stage is None or self.navigation is not None):
            raise InvalidInputError(
                "the plan has a score_threshold, which applies to first_stage; set it, and leave navigation out"
            )

    def _check_text(self, text: TextSearch) -> None:
        if text.candidates < self.limit + self.offset:
            raise InvalidInputError(
                f"the text search has {text.candidates} candidates but limit and offset are {self.limit} and "
                f"{self.offset}; it needs at least as many"
            )
        if text.code_weight and not self.has_second_stage:
            raise InvalidInputError("the plan has a text but no rescoring, which ranks items by codes; set rescoring")
        if self.min_score is not None or not self.rescore_in_engine or self.score_threshold is not None:
            raise InvalidInputError(
                "the plan has a text, whose fused scores have no unit and are computed in the engine; leave out "
                "min_score, score_threshold and rescore_in_engine=False"
            )

    @property
    def oversampling(self) -> float | None:
        """`navigation_candidates` as engines take it: relative to `prefetch`. None skips that comparison."""
        if not self.navigation_candidates:
            return None
        # Engines round the product down, which must not lose a candidate to the rounding of the quotient.
        return (self.navigation_candidates + 0.5) / self.prefetch

    @property
    def has_second_stage(self) -> bool:
        """Whether codes or embeddings rank the candidates."""
        return self.rescoring is not None or self.dense is not None

    @property
    def is_rescored_here(self) -> bool:
        """Whether candidates are fetched with their codes and rescored in this process."""
        return self.rescoring is not None and not self.rescore_in_engine

    @property
    def engine_rescoring(self) -> QueryVector:
        """The query vector by which the engine rescores, in a plan that has one."""
        assert isinstance(self.rescoring, QueryVector)
        return self.rescoring

    @property
    def engine_threshold(self) -> float | None:
        """`min_score` as engines take it: they return only scores above their threshold, and compare in float32."""
        if self.min_score is None:
            return None
        return float(np.nextafter(np.float32(self.min_score), np.float32(-np.inf)))
