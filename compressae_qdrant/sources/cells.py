"""Cells of a table as values that JSON can hold, without losing a digit; a cell that has no such value is an error."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

import numpy as np

from ..index.points import MAX_PAYLOAD_DEPTH

__all__ = ["BadCell", "Binary", "check_unicode", "iso_duration", "json_value", "looks_like_embedding"]

Binary = Literal["refuse", "base64", "text"]
"""What becomes of bytes: an error, text in base64, or the text that they hold in UTF-8."""

_MIN_EMBEDDING: Final = 64
"""Numbers in a list that count as an embedding even if they are not as many as the item's own embedding has."""
_MAX_POINT: Final = 3
"""Lists of up to this many numbers are places or sizes, never embeddings."""
_INTEGER_DIGITS: Final = 20


@dataclass(frozen=True)
class BadCell:
    """Stands for a cell that cannot be read."""

    reason: str
    """What is wrong with it, as the predicate of an error message: "holds text that is not UTF-8"."""


def json_value(value: Any, binary: Binary = "refuse", depth: int = 0) -> Any:
    """A cell as a value that JSON can hold.

    Dates, times and durations become ISO 8601 texts, UUIDs their canonical texts. A decimal becomes a number if a
    double or a 64-bit integer holds all of its digits, else a text.

    Raises:
        ValueError: there is no such value; the message is the predicate of an error message.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_unicode(value)
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"holds {value}, which JSON cannot represent; leave the cell empty")
        return float(value)
    if isinstance(value, (Mapping, list, tuple, np.ndarray)):
        return _nested(value, binary, depth)
    return _scalar(value, binary)


def _integer(value: int) -> int:
    if not -(2**63) <= value < 2**64:
        # Texts of thousands of digits are slow to make, and Python refuses them.
        digits = f"{value}" if value.bit_length() < 128 else "a number of more than 38 digits"
        raise ValueError(f"holds {digits}, which does not fit into 64 bits; write it as a text")
    return int(value)


def _nested(value: Any, binary: Binary, depth: int) -> Any:
    if depth >= MAX_PAYLOAD_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_PAYLOAD_DEPTH} levels; flatten it or leave it out")
    if isinstance(value, Mapping):
        converted = {_name(name, binary): json_value(inner, binary, depth + 1) for name, inner in value.items()}
        if len(converted) != len(value):
            raise ValueError("has a field twice")
        return converted
    return [json_value(inner, binary, depth + 1) for inner in value]


def _name(name: Any, binary: Binary) -> str:
    """The name of a field; keys of Arrow maps may be numbers, dates or bytes."""
    return name if isinstance(name, str) and json_value(name) else str(json_value(name, binary))


def _scalar(value: Any, binary: Binary) -> Any:
    if isinstance(value, BadCell):
        raise ValueError(value.reason)  # noqa: TRY004
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return iso_duration(value // timedelta(microseconds=1), 10**6)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _binary(bytes(value), binary)
    if isinstance(value, np.generic) and not isinstance(plain := value.item(), np.generic):
        return json_value(plain, binary)
    raise ValueError(f"holds a {type(value).__name__}, which has no value in JSON; write it as a text or a number")


def _binary(value: bytes, binary: Binary) -> str:
    if binary == "base64":
        return base64.b64encode(value).decode()
    if binary == "text":
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise ValueError(f"holds bytes that are not text in UTF-8 ({exc})") from exc
    raise ValueError(
        f"holds {len(value)} bytes, which JSON cannot represent; leave the column out (--drop), or store bytes by "
        "binary='base64' or binary='text' (--binary)"
    )


def _decimal(value: Decimal) -> int | float | str:
    if not value.is_finite():
        raise ValueError(f"holds {value}, which JSON cannot represent; leave the cell empty")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0 and value.adjusted() < _INTEGER_DIGITS:
        integer = int(value)
        return integer if -(2**63) <= integer < 2**64 else str(integer)
    number = float(value)
    return number if math.isfinite(number) and Decimal(repr(number)) == value else str(value)


def iso_duration(count: int, per_second: int) -> str:
    """A duration of `count` units, of which a second has `per_second` (a power of ten), as an ISO 8601 text."""
    seconds, rest = divmod(abs(count), per_second)
    fraction = f".{rest:0{len(str(per_second)) - 1}}".rstrip("0") if rest else ""
    return f"{'-' if count < 0 else ''}PT{seconds}{fraction}S"


def check_unicode(text: str) -> None:
    """Raise a ValueError for a text with surrogates, which no UTF-8 can hold."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"holds text that is not valid Unicode (character {text[exc.start]!r})") from exc


def looks_like_embedding(value: Any, dim: int | None) -> bool:
    """Whether a cell is a further embedding: a list of real numbers, `dim` or at least 64 of them, or such a text."""
    if isinstance(value, str):
        if not value.startswith("[") or not value.endswith("]") or not _is_long(value.count(",") + 1, dim):
            return False
        try:
            value = [float(number) for number in value[1:-1].split(",")]
        except ValueError:
            return False
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and np.issubdtype(value.dtype, np.floating) and _is_long(len(value), dim)
    if not isinstance(value, list) or not _is_long(len(value), dim):
        return False
    numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value)
    return numbers and any(isinstance(number, float) for number in value)


def _is_long(length: int, dim: int | None) -> bool:
    return length > _MAX_POINT and (length == dim or length >= _MIN_EMBEDDING)
