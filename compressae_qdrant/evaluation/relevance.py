"""nDCG of an index for judged queries: by codes, by words, and by both with weights chosen by the judgements."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..index.results import ItemId
from ..metrics import Estimate, bootstrap, ndcg
from ..search.retriever import Retriever

__all__ = ["DEPTH", "FusionChoice", "JudgedQueries", "Relevance", "measure_relevance", "read_judgements"]

DEPTH: Final = 10
"""Hits of a query that count."""
_CONSTANTS: Final = (2, 10, 60)
_WEIGHTS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
_BATCH: Final = 50


@dataclass(frozen=True)
class JudgedQueries:
    """Queries with the items that are relevant to them."""

    embeddings: FloatArray
    """(q, d) embeddings."""
    texts: list[str | None]
    """Words of each query, if it has some."""
    grades: list[Mapping[ItemId, float]]
    """Grade of each relevant item, above 0."""


@dataclass(frozen=True)
class FusionChoice:
    """Settings of a fusion by ranks, with codes at weight 1."""

    fusion_k: int
    word_weight: float
    """Weight of every text field."""


@dataclass(frozen=True)
class Relevance:
    """Mean nDCG@10 of several rankings, with 95% bootstrap intervals."""

    queries: int
    rankings: dict[str, Estimate]
    """Mean by ranking. "fused, chosen weights" is measured on each half of the queries with the weights that the other
    half chose."""
    choice: FusionChoice | None
    """The weights that are best for all queries; None without words to search for."""


def read_judgements(path: Path) -> JudgedQueries:
    """Read judged queries from JSON lines: `{"embedding": [...], "text": "red shoes", "relevant": {"sku-1": 2}}`.

    `relevant` maps ids to grades above 0, or is a list of ids, which get grade 1; ids that are numbers need a list, as
    keys of JSON are texts. `text` may be left out.

    Raises:
        InvalidInputError: a line is not of this form; the message has its number. Or the file cannot be read.
    """
    embeddings: list[Any] = []
    texts: list[str | None] = []
    grades: list[Mapping[ItemId, float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"cannot read the judgements in {path}: {exc}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            embedding, text, relevant = np.array(row["embedding"], np.float32), row.get("text"), row["relevant"]
            graded = dict.fromkeys(relevant, 1.0) if isinstance(relevant, list) else {
                item: float(grade) for item, grade in relevant.items()
            }  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InvalidInputError(
                f"line {number} of {path} is no judged query ({type(exc).__name__}: {exc}); write "
                '{"embedding": [...], "text": "red shoes", "relevant": {"sku-1": 2}}'
            ) from exc
        if not any(grade > 0 for grade in graded.values()) or not (text is None or isinstance(text, str)):
            raise InvalidInputError(f"line {number} of {path} has no relevant item, or a text that is no text")
        embeddings.append(embedding)
        texts.append(text)
        grades.append({item: grade for item, grade in graded.items() if grade > 0})
    if len({each.shape for each in embeddings}) != 1:
        raise InvalidInputError(f"{path} has no judged queries, or embeddings of different lengths")
    return JudgedQueries(np.stack(embeddings), texts, grades)


def measure_relevance(retriever: Retriever, queries: JudgedQueries, options: Mapping[str, Any]) -> Relevance:
    """Measure nDCG@10 of the rankings by codes, by words and by both.

    Args:
        retriever: searches the index.
        queries: judged queries.
        options: options of every search.
    """
    rankings = {"codes": bootstrap(_scores(retriever, queries, options))}
    fields = list(retriever.index.settings.texts)
    worded = [row for row, text in enumerate(queries.texts) if text and text.strip()]
    if not fields or len(worded) < len(queries.texts):
        return Relevance(len(queries.texts), rankings, None)
    words = {**options, "text": queries.texts}
    rankings["words"] = bootstrap(_scores(retriever, queries, {**words, "code_weight": 0}))
    rankings["fused"] = bootstrap(_scores(retriever, queries, words))
    rankings["fused by scores (dbsf)"] = bootstrap(_scores(retriever, queries, {**words, "fusion": "dbsf"}))
    grid = {
        choice: _scores(
            retriever, queries,
            {**words, "fusion_k": choice.fusion_k, "text_fields": dict.fromkeys(fields, choice.word_weight)},
        )
        for choice in (FusionChoice(k, weight) for k, weight in itertools.product(_CONSTANTS, _WEIGHTS))
    }  # fmt: skip
    halves = np.arange(len(queries.texts)) % 2
    if len(queries.texts) > 1:
        rankings["fused, chosen weights"] = bootstrap(_crossed(grid, halves))
    return Relevance(len(queries.texts), rankings, max(grid, key=lambda choice: float(grid[choice].mean())))


def _crossed(grid: Mapping[FusionChoice, FloatArray], halves: npt.NDArray[np.int_]) -> FloatArray:
    """(q,) nDCG of each query with the weights that are best for the half it is not in."""
    scores = np.empty(len(halves), np.float32)
    for half in (0, 1):
        best = max(grid, key=lambda choice: float(grid[choice][halves != half].mean()))
        scores[halves == half] = grid[best][halves == half]
    return scores


def _scores(retriever: Retriever, queries: JudgedQueries, options: Mapping[str, Any]) -> FloatArray:
    """(q,) nDCG@10."""
    found: list[list[ItemId]] = []
    texts: Any = options.get("text")
    for start in range(0, len(queries.texts), _BATCH):
        part = slice(start, start + _BATCH)
        each: Any = {**options, "with_payload": False}
        if texts is not None:
            each["text"] = texts[part]
        found += [[hit.id for hit in hits] for hits in retriever.search_batch(queries.embeddings[part], DEPTH, **each)]
    return ndcg(found, queries.grades, DEPTH)
