"""Documents of other frameworks as payloads: where text and metadata are, filters, batches, hybrid searches."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from qdrant_client import models

from ..errors import InvalidInputError
from ..index.results import ItemId

__all__ = ["DocumentFields", "NewTexts", "hybrid_options"]


@dataclass(frozen=True)
class DocumentFields:
    """Payload fields of a document."""

    content: str = "page_content"
    """Field that holds the text."""
    metadata: str | None = "metadata"
    """Field that holds the metadata as an object; None if every field except the text is metadata."""

    def payload(self, content: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a document.

        Raises:
            InvalidInputError: the metadata has a field of the text's name.
        """
        if self.metadata is not None:
            return {self.content: content, self.metadata: dict(metadata)}
        if self.content in metadata:
            raise InvalidInputError(
                f"the metadata has a field {self.content!r}, which holds the text; rename it, or choose another field "
                "for the text"
            )
        return {self.content: content, **metadata}

    def document(self, item: ItemId, payload: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The text and the metadata in a payload. A text that is missing (null) is empty.

        Raises:
            InvalidInputError: the payload has no text, or its metadata is no object.
        """
        if self.content not in payload:
            raise InvalidInputError(
                f"item {item!r} has no payload field {self.content!r}, which holds the text; it has "
                f"{', '.join(map(repr, payload)) or 'no fields'}; name the field of the text when you make the store"
            )
        text = payload[self.content]
        if self.metadata is None:
            metadata: Any = {name: value for name, value in payload.items() if name != self.content}
        else:
            metadata = payload.get(self.metadata) or {}
        if not isinstance(metadata, Mapping):
            raise InvalidInputError(
                f"item {item!r} has a {type(metadata).__name__} in its payload field {self.metadata!r}; metadata is an "
                "object. Name another field, or None to take all fields as metadata"
            )
        return "" if text is None else str(text), dict(metadata)

    def filter(self, condition: models.Filter | Mapping[str, Any] | None) -> models.Filter | None:
        """A filter as it is, or one that compares metadata fields with values.

        Args:
            condition: a Qdrant filter on payload fields; or metadata fields with the value that each must have, or a
                list, set or tuple of allowed values. None is no filter.

        Raises:
            InvalidInputError: a value can't be compared.
        """
        if condition is None or isinstance(condition, models.Filter):
            return condition
        if not isinstance(condition, Mapping):
            raise InvalidInputError(
                f"the filter is a {type(condition).__name__}; pass a Qdrant Filter, or metadata fields with values"
            )
        prefix = "" if self.metadata is None else f"{self.metadata}."
        return models.Filter(must=[_condition(prefix + name, value) for name, value in condition.items()])


class NewTexts(NamedTuple):
    """New texts with their metadata and ids."""

    texts: list[str]
    metadatas: list[dict[str, Any]]
    ids: list[str]

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Sequence[str | None] | None,
    ) -> Self:
        """The texts with empty metadata and new ids where there are none."""
        listed = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(listed):
                raise InvalidInputError(f"there are {len(values)} {name} for {len(listed)} texts; give one for each")
        chosen = [None] * len(listed) if ids is None else ids
        return cls(
            listed,
            [{} for _ in listed] if metadatas is None else list(metadatas),
            [str(uuid.uuid4()) if each is None else each for each in chosen],
        )

    def batches(self, size: int) -> Iterator[NewTexts]:
        """The texts in batches, the last one of each id."""
        if size < 1:
            raise InvalidInputError(f"batch_size is {size}; it must be at least 1")
        rows = sorted({id: row for row, id in enumerate(self.ids)}.values())
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield NewTexts(
                [self.texts[row] for row in part],
                [self.metadatas[row] for row in part],
                [self.ids[row] for row in part],
            )


def hybrid_options(query: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a search by text, which searches for its words too if they say so."""
    ishybrid_options = options.pop("hybrid", False)
    return {**options, "text": query} if ishybrid_options else options


def _condition(key: str, value: Any) -> models.Condition:
    if value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if isinstance(value, (list, tuple, set, frozenset)):
        if not value:
            raise InvalidInputError(f"filter field {key!r} is compared with an empty list; give at least one value")
        return models.Filter(should=[_condition(key, each) for each in value])
    if isinstance(value, (bool, int, str)):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    raise InvalidInputError(
        f"filter field {key!r} is compared with a {type(value).__name__}; use a string, number, boolean or None, a "
        "list of them, or a Qdrant Filter"
    )
