"""Which columns of a table hold the id, the embedding or text, and the payload of an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import ConfigError, SourceError
from ..index.ids import RESERVED_FIELDS
from .cells import Binary, check_unicode, json_value, looks_like_embedding

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the id, the embedding or text, and the payload of an item.

    Raises:
        ConfigError: settings contradict each other.
    """

    id: str | None = "id"
    """Column of the item ids; None uses the row numbers as ids."""
    embedding: str | None = "embedding"
    """Column of the embeddings: lists of numbers, or text of numbers separated by spaces, commas or semicolons."""
    text: str | None = None
    """Column of the texts to embed, instead of `embedding`."""
    payload: tuple[str, ...] | None = None
    """Columns that become the payload; None takes all other columns but further embeddings, () takes none."""
    drop: tuple[str, ...] = ()
    """Columns that do not become payload."""
    rename: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    """Payload fields with another name than their column: column and field of each."""
    binary: Binary = "refuse"
    """What becomes of bytes: "refuse" makes the row malformed, "base64" stores them as such a text, "text" as the text
    that they hold in UTF-8."""

    def __post_init__(self) -> None:
        pairs = tuple(self.rename.items()) if isinstance(self.rename, Mapping) else tuple(map(tuple, self.rename))
        object.__setattr__(self, "rename", pairs)
        object.__setattr__(self, "drop", tuple(self.drop))
        if self.payload is not None:
            object.__setattr__(self, "payload", tuple(self.payload))
        if self.binary not in get_args(Binary):
            raise ConfigError(f"binary is {self.binary!r}; it must be one of {', '.join(get_args(Binary))}")
        names, targets = [old for old, _ in pairs], [new for _, new in pairs]
        for what, twice in (("renamed", _repeated(names)), ("the new name of", _repeated(targets))):
            if twice:
                raise ConfigError(f"{twice[0]!r} is {what} two columns; give every payload field one name")
        for name in names:
            if name in self.drop or (self.payload is not None and name not in self.payload):
                raise ConfigError(f"column {name!r} is renamed but is not part of the payload; keep it or rename none")
            if name in (self.id, self.embedding if self.text is None else None):
                raise ConfigError(f"column {name!r} is renamed but holds the id or the embedding, not payload")

    @property
    def identity(self) -> str:
        """A text that changes with every setting. Journals of version 0.1 hold it without the later settings."""
        later = {"drop": (), "rename": (), "binary": "refuse"}
        given = "".join(f", {name}={getattr(self, name)!r}" for name, default in later.items()
                        if getattr(self, name) != default)  # fmt: skip
        roles = f"id={self.id!r}, embedding={self.embedding!r}, text={self.text!r}"
        return f"Columns({roles}, payload={self.payload!r}{given})"

    def check(self, names: Iterable[str], table: str, *, complete: bool = True) -> None:
        """Check that a table has the columns.

        Args:
            names: columns of the table.
            table: the table's name in messages.
            complete: whether these are all columns; the first rows of a JSON file may not show all.

        Raises:
            SourceError: a column is missing, the message lists those that the table has; or two columns would become
                one payload field.
        """
        present = list(names)
        required = [self.id, self.embedding if self.text is None else self.text, *(self.payload or ())]
        if complete:
            required += [*self.drop, *dict(self.rename)]
        missing = [name for name in required if name is not None and name not in present]
        if missing:
            raise SourceError(
                f"{table} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, present))}; name "
                "the columns that hold the id and the embedding or text"
            )
        twice = _repeated(self._fields(present).values())
        if twice:
            raise SourceError(f"{table} has two columns for the payload field {twice[0]!r}; rename or drop one of them")

    def needed(self, names: Iterable[str]) -> list[str]:
        """Those of a table's columns that are read."""
        present = list(names)
        roles = {self.id, self.embedding if self.text is None else self.text, *self._fields(present)}
        return [name for name in present if name in roles]

    def payload_of(
        self, row: Mapping[str, Any], dim: int | None = None, left_out: set[str] | None = None
    ) -> dict[str, Any]:
        """The payload of a row, as values that JSON can hold.

        Args:
            row: the row.
            dim: dimension of the item's embedding, to recognise further embeddings by it.
            left_out: gains the names of columns that are left out as further embeddings.

        Raises:
            ValueError: a cell has no such value.
        """
        payload: dict[str, Any] = {}
        renamed = dict(self.rename)
        for name, field in self._fields(row).items():
            value = row.get(name)
            if value is None:
                continue
            if self.payload is None and name not in renamed and looks_like_embedding(value, dim):
                if left_out is not None:
                    left_out.add(name)
                continue
            if field in payload or field in RESERVED_FIELDS:
                problem = "reserved" if field in RESERVED_FIELDS else "taken by another column"
                raise ValueError(f"column {name!r} has a name that is {problem}; rename it (--rename)")
            try:
                check_unicode(field)
                payload[field] = json_value(value, self.binary)
            except ValueError as exc:
                raise ValueError(f"column {name!r} {exc}") from exc
        return payload

    def _fields(self, names: Iterable[str]) -> dict[str, str]:
        """The payload columns of a table or a row, and the field that each becomes."""
        chosen = names if self.payload is None else self.payload
        excluded = {*self.drop, *((self.id, self.embedding) if self.payload is None else ())}
        renamed = dict(self.rename)
        return {name: renamed.get(name, name) for name in chosen if name not in excluded}


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]  # add gives None
