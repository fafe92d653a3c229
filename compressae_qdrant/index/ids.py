"""Item ids and point ids: what a catalog calls an item, and what the engine calls its point.

The engine's points are named by unsigned 64-bit integers or UUIDs. An item id that is one goes as it is; any other
string becomes a UUIDv5 in a fixed namespace, and the original travels in the payload under `ID_FIELD`:

| item id                                          | point id                          | kept in the payload |
|--------------------------------------------------|-----------------------------------|---------------------|
| int in 0 .. 2**64 - 1                            | the same                          | no                  |
| UUID as 36 lower-case characters with hyphens    | the same                          | no                  |
| any other string (`"42"`, `"A0EE..."`, `"sku/9"`)| `uuid5(NAMESPACE, item id)`       | yes                 |

So different item ids are different items: `"42"` is not `42`, and a UUID in upper case is not the one in lower case.
What was given is what comes back.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from .results import ItemId

__all__ = [
    "HASH_FIELD",
    "ID_FIELD",
    "NAMESPACE",
    "PointId",
    "id_digests",
    "item_id",
    "point_id",
    "public_payload",
    "stored_payload",
]

PointId = int | str
"""An id that the engine accepts: an unsigned 64-bit integer, or a UUID in its canonical form."""

NAMESPACE: Final = uuid.UUID("92d3b1c5-2f4d-5f7e-9a56-0c8ae10e2c41")
"""Namespace of the UUIDv5 of item ids. Changing it would orphan the items of every index, so it never changes."""

ID_FIELD: Final = "_id"
"""Reserved payload field that keeps an item id which is no point id."""

HASH_FIELD: Final = "_content"
"""Reserved payload field that keeps the hash of what an item was made from; `sync` compares it."""

_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def point_id(item: ItemId) -> PointId:
    """The point id of an item id.

    Raises:
        InvalidInputError: the id is negative, too large, or neither an integer nor a string.
    """
    if isinstance(item, str):
        if _CANONICAL_UUID.fullmatch(item):
            return str(item)
        try:
            return str(uuid.uuid5(NAMESPACE, item))
        except UnicodeEncodeError as exc:
            raise InvalidInputError(
                f"item id {item!r} is not valid Unicode ({exc}); clean the ids of the catalog"
            ) from exc
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        if 0 <= item < 2**64:
            return int(item)
        raise InvalidInputError(f"item id {item} is outside 0..2**64-1; pass it as a string, str({item})")
    raise InvalidInputError(f"item id {item!r} is a {type(item).__name__}; ids are non-negative integers or strings")


def id_digests(items: Sequence[ItemId]) -> npt.NDArray[np.uint64]:
    """64 bits of each item's point id: what remembers 10^8 items in 800 MB."""
    numbers = []
    for item in items:
        point = point_id(item)
        whole = point if isinstance(point, int) else uuid.UUID(point).int
        numbers.append((whole ^ (whole >> 64)) & 0xFFFF_FFFF_FFFF_FFFF)
    return np.array(numbers, np.uint64)


def item_id(point: int | str | uuid.UUID, payload: Mapping[str, Any] | None) -> ItemId:
    """The item id of a stored point: the kept original, or else the point id itself."""
    if payload and ID_FIELD in payload:
        original: ItemId = payload[ID_FIELD]
        return original
    return point if isinstance(point, int) else str(point)


def stored_payload(
    item: ItemId, point: PointId, payload: Mapping[str, Any] | None, content: str | None = None
) -> dict[str, Any]:
    """The payload to store: the user's, the original id where the point id can't give it back, and the content hash.

    Raises:
        InvalidInputError: the user's payload holds a reserved field.
    """
    stored = dict(payload or {})
    for name in (ID_FIELD, HASH_FIELD):
        if name in stored:
            raise InvalidInputError(f"payload of item {item!r} has a field {name!r}, which is reserved; rename it")
    if isinstance(item, str) and item != point:
        stored[ID_FIELD] = str(item)
    if content is not None:
        stored[HASH_FIELD] = content
    return stored


def public_payload(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """A stored payload as the user gave it, without the reserved fields."""
    return {name: value for name, value in (payload or {}).items() if name not in (ID_FIELD, HASH_FIELD)}
