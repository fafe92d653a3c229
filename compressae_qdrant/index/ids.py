"""Item ids, which a catalog gives to its items, and point ids, which the engine gives to their points.

The engine accepts unsigned 64-bit integers and UUIDs as point ids. An item id of that form is used unchanged; any other
string is mapped to a UUIDv5 in a fixed namespace, and the original is stored in the payload under `ID_FIELD`:

| item id                                          | point id                          | in the payload      |
|--------------------------------------------------|-----------------------------------|---------------------|
| int in 0 .. 2**64 - 1                            | the same                          | no                  |
| UUID as 36 lower-case characters with hyphens    | the same                          | no                  |
| UUID in another spelling: in upper case, without | the UUID as 36 lower-case         | yes                 |
| hyphens, in braces, after `urn:uuid:`            | characters with hyphens           |                     |
| any other string (`"42"`, `"sku/9"`, `"SKU/9"`)  | `uuid5(NAMESPACE, item id)`       | yes                 |

So the spellings of a UUID are one item, and other ids are different items if they differ: `"42"` is not `42`. The index
returns every id as it was given when the item was written. Indexes of version 0.1 treat the other spellings of a UUID
as any other string.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, Self, overload

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from .results import ItemId

__all__ = [
    "HASH_FIELD",
    "ID_FIELD",
    "ITEM_FIELDS",
    "NAMESPACE",
    "RESERVED_FIELDS",
    "ItemIds",
    "PointId",
    "canonical_uuid",
    "content_hash",
    "id_digests",
    "item_id",
    "plain_id",
    "point_id",
    "public_payload",
    "spelling_of",
    "stored_payload",
]

PointId = int | str
"""An id that the engine accepts: an unsigned 64-bit integer, or a UUID in its canonical form."""

NAMESPACE: Final = uuid.UUID("92d3b1c5-2f4d-5f7e-9a56-0c8ae10e2c41")
"""Namespace of the UUIDv5 of item ids. It must never change: the items of existing
indexes could not be found again."""

ID_FIELD: Final = "__compressae_id"
"""Reserved payload field for an item id that is not a point id."""

HASH_FIELD: Final = "__compressae_content"
"""Reserved payload field for the hash of an item's content; `sync` compares it."""

_OLD_ID, _OLD_HASH = "_id", "_content"
"""The same fields in points that version 0.1 wrote. A point with one of today's reserved fields is not of that version,
so these names are the user's own there."""

RESERVED_FIELDS: Final = (ID_FIELD, HASH_FIELD)
ITEM_FIELDS: Final = (ID_FIELD, HASH_FIELD, _OLD_ID, _OLD_HASH)
"""Payload fields to read where only the item id and the content hash of a point are needed."""

_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_DIGITS: Final = r"[0-9a-f]{8}(?:-(?:[0-9a-f]{4}-){3}|[0-9a-f]{12})[0-9a-f]{12}"
_ANY_UUID: Final = re.compile(rf"(?:urn:uuid:)?(?:({_DIGITS})|\{{({_DIGITS})\}})", re.IGNORECASE | re.ASCII)


def point_id(item: ItemId, *, old: bool = False) -> PointId:
    """The point id of an item id. A `uuid.UUID` is taken as its text.

    Args:
        item: the item id.
        old: whether the index treats the other spellings of a UUID as any other string, as version 0.1 did.

    Raises:
        InvalidInputError: the id is negative, too large, or neither an integer nor a string.
    """
    if isinstance(item, str):
        if _CANONICAL_UUID.fullmatch(item):
            return str(item)
        if not old and (canonical := canonical_uuid(item)) is not None:
            return canonical
        try:
            return str(uuid.uuid5(NAMESPACE, item))
        except UnicodeEncodeError as exc:
            raise InvalidInputError(
                f"item id {item!r} is not valid Unicode ({exc}); correct the ids of the catalog"
            ) from exc
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        if 0 <= item < 2**64:
            return int(item)
        raise InvalidInputError(f"item id {item} is outside 0..2**64-1; pass it as a string, str({item})")
    if isinstance(item, uuid.UUID):
        return str(item)
    raise InvalidInputError(f"item id {item!r} is a {type(item).__name__}; ids are non-negative integers or strings")


def canonical_uuid(text: str) -> str | None:
    """A UUID in any spelling as 36 lower-case characters with hyphens; None if the text is no UUID."""
    found = _ANY_UUID.fullmatch(text)
    if found is None:
        return None
    digits = (found[1] or found[2]).replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def spelling_of(ids: Iterable[ItemId]) -> Callable[[ItemId], ItemId]:
    """A function that returns an id as it is spelled among `ids`, or as it is given if it is not among them."""
    known = set(ids)
    by_point = {point_id(item): item for item in known if isinstance(item, str) and canonical_uuid(item) is not None}

    def spelled(item: ItemId) -> ItemId:
        return item if item in known or not by_point else by_point.get(point_id(item), item)

    return spelled


class ItemIds(Sequence[ItemId]):
    """Item ids together with their point ids, so that each id is checked and hashed once.

    Every method of an index that takes ids also takes this type, and then uses the point ids in it.

    Args:
        items: item ids; repeats are allowed.

    Raises:
        InvalidInputError: an id is negative, too large, or neither an integer nor a string.
    """

    __slots__ = ("_items", "_points")

    def __init__(self, items: Iterable[ItemId]) -> None:
        self._items = tuple(items)
        self._points = tuple(point_id(item) for item in self._items)

    @classmethod
    def of(cls, items: Sequence[ItemId]) -> Self:
        """The same ids if they are of this type already, else a new value."""
        return items if isinstance(items, cls) else cls(items)

    @classmethod
    def _trusted(cls, items: Iterable[ItemId], points: Iterable[PointId]) -> Self:
        """Ids whose point ids are known; nothing is checked."""
        ids = cls.__new__(cls)
        ids._items, ids._points = tuple(items), tuple(points)
        return ids

    @property
    def points(self) -> tuple[PointId, ...]:
        """The point id of each item."""
        return self._points

    def take(self, rows: Iterable[int]) -> Self:
        """The ids in these rows."""
        rows = list(rows)
        return self._trusted((self._items[row] for row in rows), (self._points[row] for row in rows))

    @overload
    def __getitem__(self, row: int) -> ItemId: ...
    @overload
    def __getitem__(self, row: slice) -> Self: ...
    def __getitem__(self, row: int | slice) -> ItemId | Self:
        if isinstance(row, slice):
            return self._trusted(self._items[row], self._points[row])
        return self._items[row]

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same ids."""
        if isinstance(other, (str, bytes)) or not isinstance(other, Sequence):
            return NotImplemented
        return self._items == tuple(other)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"ItemIds({list(self._items)!r})"


def id_digests(items: Sequence[ItemId]) -> npt.NDArray[np.uint64]:
    """64 bits of each item's point id: what remembers 10^8 items in 800 MB."""
    numbers = []
    for point in ItemIds.of(items).points:
        whole = point if isinstance(point, int) else uuid.UUID(point).int
        numbers.append((whole ^ (whole >> 64)) & 0xFFFF_FFFF_FFFF_FFFF)
    return np.array(numbers, np.uint64)


class _StoredPoint(Protocol):
    @property
    def id(self) -> Any: ...


def item_id(point: _StoredPoint, payload: Mapping[str, Any] | None) -> ItemId:
    """The item id of a stored point: the one in its payload, or else the point id.

    The embedded engine makes a new object of a point's id or payload at each access, so this reads the id only if it is
    needed, and takes the payload.
    """
    name = _OLD_ID if _is_old(payload) else ID_FIELD
    if payload and name in payload:
        original: ItemId = payload[name]
        return original
    return plain_id(point.id)


def plain_id(point: int | str | uuid.UUID) -> PointId:
    """The id of a stored point, which an engine may return as a `uuid.UUID`."""
    return point if isinstance(point, int) else str(point)


def stored_payload(
    item: ItemId, point: PointId, payload: Mapping[str, Any] | None, content: str | None = None
) -> dict[str, Any]:
    """The payload to store: the user's payload, the item id if it differs from the point id, and the content hash.

    Raises:
        InvalidInputError: the user's payload has a reserved field.
    """
    stored = dict(payload or {})
    for name in RESERVED_FIELDS:
        if name in stored:
            raise InvalidInputError(f"payload of item {item!r} has a field {name!r}, which is reserved; rename it")
    if isinstance(item, str) and item != point:
        stored[ID_FIELD] = str(item)
    if content is not None:
        stored[HASH_FIELD] = content
    elif (_OLD_ID in stored or _OLD_HASH in stored) and _is_old(stored):
        stored[HASH_FIELD] = ""  # marks the user's own fields of these names as such
    return stored


def public_payload(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """A stored payload without the reserved fields, as the user gave it."""
    reserved = (_OLD_ID, _OLD_HASH) if _is_old(payload) else RESERVED_FIELDS
    public = dict(payload or ())
    for name in reserved:
        public.pop(name, None)
    return public


def content_hash(payload: Mapping[str, Any] | None) -> str:
    """The content hash in a stored payload; "" if there is none."""
    return str((payload or {}).get(_OLD_HASH if _is_old(payload) else HASH_FIELD, ""))


def _is_old(payload: Mapping[str, Any] | None) -> bool:
    """Whether a stored payload has none of today's reserved fields, as version 0.1 left it."""
    return not payload or payload.keys().isdisjoint(RESERVED_FIELDS)
