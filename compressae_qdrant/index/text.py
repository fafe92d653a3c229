"""Search of words in payload fields: settings of a field's text index, and the part of a query plan that uses it.

The engine ranks the items that hold a word of the query in a field by BM25 (k 1.2, b 0.75; statistics of the whole
index). The embedded engine, servers from Qdrant 1.20 on, and the client's local mode do this by a text index of the
payload field, so items need no second vector and are indexed as they are written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from ..checks import check_choice, check_sequence, check_text
from ..errors import ConfigError, InvalidInputError

__all__ = ["RRF_K", "TEXT_LANGUAGES", "Fusion", "TextFields", "TextSearch", "TextSettings", "text_settings"]

Fusion = Literal["rrf", "dbsf"]
"""How the ranking by codes and the rankings by words become one: by ranks, or by normalised scores."""

RRF_K: Final = 2
"""Default constant of reciprocal rank fusion, as in the engine; larger ones make the first ranks count less. Measured
for title queries on 63,666 items (BENCHMARKS.md)."""

_TIE: Final = 1e-4
"""Share of its weight by which a ranking counts less than the one before."""

TEXT_LANGUAGES: Final = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian", "norwegian",
    "portuguese", "romanian", "russian", "spanish", "swedish", "turkish",
)  # fmt: skip
"""Languages with both a stemmer and stop words in the engine."""


@dataclass(frozen=True)
class TextSettings:
    """Settings of the text index of one payload field."""

    language: str | None = None
    """Language whose stemmer and stop words are applied, such as "english"; None takes words as they are, in lower
    case. The client's local mode cannot search fields with a language."""
    memory: Literal["pinned", "cached", "cold"] = "cold"
    """Where the text index is kept: pinned in RAM, in the page cache, or cold on disk."""

    def __post_init__(self) -> None:
        if self.language is not None:
            check_choice("text language", self.language, TEXT_LANGUAGES, error=ConfigError)
        check_choice("text memory", self.memory, ("pinned", "cached", "cold"), error=ConfigError)


TextFields: TypeAlias = Mapping[str, TextSettings] | Mapping[str, Any] | Sequence[str]
"""Fields to search for words: names, or names with their settings."""


def text_settings(fields: TextFields) -> dict[str, TextSettings]:
    """Settings of text fields by name, from a list of names, or from settings as given or read from JSON or TOML.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    if isinstance(fields, str):
        raise ConfigError(f"text_fields is one text, {fields!r}; give a list of names, [{fields!r}]")
    if not isinstance(fields, Mapping):
        check_sequence("text_fields", fields, error=ConfigError)
    for name in fields:
        check_text("a name in text_fields", name, error=ConfigError)
    if not isinstance(fields, Mapping):
        return {name: TextSettings() for name in fields}
    return {name: _settings(name, value) for name, value in fields.items()}


def _settings(name: str, value: Any) -> TextSettings:
    if isinstance(value, TextSettings):
        return value
    if value is None or isinstance(value, str):
        return TextSettings(language=value)
    try:
        return TextSettings(**value)
    except TypeError as exc:
        raise ConfigError(f"text_fields[{name!r}] is {value!r}; give TextSettings or a language") from exc


@dataclass(frozen=True)
class TextSearch:
    """The words of a query, and how their rankings and that of the codes become one. The engine does it in one call."""

    text: str
    """Words to search for. Items with at least one of them are ranked."""
    fields: Mapping[str, float]
    """Weight by field."""
    candidates: int
    """Hits of each ranking that are fused."""
    fusion: Fusion = "rrf"
    k: int = RRF_K
    """Constant of reciprocal rank fusion: an item gains 1 / (k - 1 + rank / weight) by each ranking, with ranks from 1
    on. So a weight of 2 makes rank 10 count as rank 5."""
    code_weight: float = 1.0
    """Weight of the ranking by codes; 0 searches for words alone."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InvalidInputError(f"text is {self.text!r}; give the words to search for")
        if not self.fields:
            raise InvalidInputError("text is given without a field to search; name one in text_fields")
        check_choice("fusion", self.fusion, get_args(Fusion))
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise InvalidInputError(f"fusion_k is {self.k!r}; it must be a whole number of at least 1")
        for name, weight in (*self.fields.items(), ("codes", self.code_weight)):
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
                raise InvalidInputError(f"the weight of {name!r} is {weight!r}; it must be a finite number")
            if weight < 0 or (weight == 0 and name != "codes"):
                raise InvalidInputError(
                    f"the weight of {name!r} is {weight:g}; it must be above 0 (code_weight may be 0)"
                )
        if self.fusion == "dbsf" and any(weight != 1 for weight in self.weights):
            raise InvalidInputError(
                "fusion 'dbsf' adds up normalised scores and has no weights; leave weights at 1, or use 'rrf'"
            )

    @property
    def weights(self) -> list[float]:
        """Weights of the fused rankings, in the order in which engines get them: codes, if they count, then fields."""
        return [float(self.code_weight)] * bool(self.code_weight) + [float(weight) for weight in self.fields.values()]

    @property
    def engine_weights(self) -> list[float]:
        """`weights`, each a little below the one before. Items at the same rank of different rankings would otherwise
        have the same score, and engines order them at random."""
        return [weight * (1 - _TIE * place) for place, weight in enumerate(self.weights)]
