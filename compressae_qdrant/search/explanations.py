"""Explanations of hits: each hit keeps the query that found it, and its stored code splits the score into latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..checks import check_sequence, shown
from ..errors import IndexNotFoundError, InvalidInputError
from ..index.ids import point_id
from ..index.protocol import CodeIndex
from ..index.results import Hit, ItemId, Record
from ..model.compressae import CompresSAE
from ..scoring import Explanation, QueryVector, explain

__all__ = ["Origin", "explain_hits", "ids_of"]


@dataclass(frozen=True, eq=False)
class Origin:
    """The search that found a hit."""

    model: CompresSAE
    query: Callable[[], QueryVector] | None
    """Makes the query vector by which codes are scored. If embeddings scored the hit, it estimates that score. None for
    the score of a fusion with words, which latents do not make up."""
    index: CodeIndex | None
    """The index that was searched; None if it is async."""
    first_stage: str = "codes"
    """What found the candidates: "codes", "graph" or "both"."""

    def explain(self, hit: Hit) -> Explanation:
        """Explain one hit with its code, read from the index."""
        if self.index is None:
            raise InvalidInputError(
                f"hit {hit.id!r} comes from an async retriever; use `await retriever.explain([hit])`"
            )
        return explain_hits([hit], self.index.retrieve([hit.id]))[0]

    def explain_record(self, hit: Hit, record: Record) -> Explanation:
        """Explain one hit with its stored code."""
        if self.query is None:
            raise InvalidInputError(
                f"hit {hit.id!r} has the score of a fusion with words, which concepts do not make up; search without "
                "text to have its score explained"
            )
        query, concepts = self.query(), self.model.concepts

        def concept_of(latent: int) -> tuple[str, int] | None:
            concept = None if concepts is None else concepts.of_latent(latent)
            return None if concept is None else (concept.name, concept.sign)

        explanation = explain(query, record.indices, record.values, hit.score, concept_of)
        return replace(explanation, first_stage=self.first_stage)


def ids_of(hits: Sequence[Hit]) -> list[ItemId]:
    """The ids of the hits, each once.

    Raises:
        InvalidInputError: they are not hits.
    """
    check_sequence("hits", hits)
    for hit in hits:
        if not isinstance(hit, Hit):
            raise InvalidInputError(f"a hit is {shown(hit)}; pass hits of a search")
    return list(dict.fromkeys(hit.id for hit in hits))


def explain_hits(hits: Sequence[Hit], records: Sequence[Record]) -> list[Explanation]:
    """Explain each hit by its record.

    Raises:
        InvalidInputError: a hit was not found by a retriever, so its query is unknown.
        IndexNotFoundError: a hit has no record.
    """
    codes = {point_id(record.id): record for record in records}
    explanations = []
    for hit in hits:
        if not isinstance(hit.found_by, Origin):
            raise InvalidInputError(
                f"hit {hit.id!r} was not found by a retriever, so its query is unknown; search with a Retriever"
            )
        record = codes.get(point_id(hit.id))
        if record is None:
            raise IndexNotFoundError(f"item {hit.id!r} is no longer in the index; search again")
        explanations.append(hit.found_by.explain_record(hit, record))
    return explanations
