"""Hybrid search: the words of queries become part of their plans, beside the vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import InvalidInputError
from ..index.plan import QueryPlan
from ..index.text import TextSearch
from .defaults import fused_candidates_of
from .settings import SearchSettings, ranks_of

__all__ = ["with_words"]


def with_words(plans: list[QueryPlan], settings: SearchSettings, known: Iterable[str]) -> list[QueryPlan]:
    """The plans with the words of their queries, if there are any.

    Args:
        plans: plans of the vectors.
        settings: options of the searches.
        known: text fields of the index.

    Raises:
        InvalidInputError: there are fewer or more texts than plans, the index has no text field, or an option is out of
            range.
    """
    text = settings["text"]
    if text is None:
        return plans
    texts = [text] * len(plans) if isinstance(text, str) else list(text)
    if len(texts) != len(plans):
        raise InvalidInputError(
            f"there are {len(texts)} texts for {len(plans)} queries; give one text, or one for each"
        )
    fields = _weights(settings["text_fields"], known)
    if not fields:
        raise InvalidInputError(
            "text is given, but the index has no text field to search for words; create it with "
            "IndexSettings(text_fields=[...])"
        )
    return [_with_text(plan, one, fields, settings) for plan, one in zip(plans, texts, strict=True)]


def _with_text(plan: QueryPlan, text: str, fields: Mapping[str, float], settings: SearchSettings) -> QueryPlan:
    search = TextSearch(
        text=text,
        fields=fields,
        candidates=fused_candidates_of(ranks_of(settings)),
        fusion=settings["fusion"],
        k=settings["fusion_k"],
        code_weight=settings["code_weight"],
    )
    if search.code_weight:
        return replace(plan, text=search)
    return replace(
        plan, text=search, first_stage=None, navigation=None, navigation_ef=None, navigation_candidates=0,
        rescoring=None, dense=None, dense_candidates=0,
    )  # fmt: skip


def _weights(fields: Mapping[str, float] | Sequence[str] | None, known: Iterable[str]) -> dict[str, float]:
    if fields is None:
        return dict.fromkeys(known, 1.0)
    if isinstance(fields, str):
        raise InvalidInputError(f"text_fields is one text, {fields!r}; give a list of names, [{fields!r}]")
    return dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields, 1.0)
