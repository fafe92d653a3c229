"""Checks of single arguments and settings. A value of another type is refused, and NumPy's numbers become Python's."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sized
from numbers import Real
from operator import index
from typing import Any, Final, SupportsIndex

import numpy as np

from .errors import CompresSAEError, InvalidInputError

__all__ = [
    "check_choice",
    "check_flag",
    "check_number",
    "check_sequence",
    "check_text",
    "check_whole",
    "length_of",
    "shown",
]

MAX_WHOLE: Final = 2**31 - 1
"""Limit of sizes and counts: more than any can be, and few enough for every engine's integers."""
_SHOWN: Final = 60

Error = type[CompresSAEError]


def check_whole(
    name: str, value: object, least: int | None = None, most: int = MAX_WHOLE, *, error: Error = InvalidInputError
) -> int:
    """A whole number as an int.

    Args:
        name: what messages call it.
        value: the value; integers of NumPy and tensors of one integer are taken too.
        least: smallest value; None is no limit.
        most: largest value.
        error: type of the errors.

    Raises:
        InvalidInputError: the value is of another type, too small or too large; or `error` in its place.
    """
    number = None
    if isinstance(value, SupportsIndex) and not isinstance(value, (bool, np.bool_)):
        try:
            number = index(value)
        except Exception:  # noqa: BLE001 (whatever a foreign __index__ raises, it is no number)
            number = None
    if number is None or number > most:
        raise error(f"{name} is {shown(value)}; it must be a whole number of at most {most}")
    if least is not None and number < least:
        raise error(f"{name} is {number}; it must be at least {least}")
    return number


def check_number(name: str, value: object, *, error: Error = InvalidInputError) -> float:
    """A finite real number as a float; whole numbers are taken too.

    Raises:
        InvalidInputError: the value is of another type, NaN or infinite; or `error` in its place.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else math.nan
    except (OverflowError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise error(f"{name} is {shown(value)}; it must be a finite number")
    return number


def check_flag(name: str, value: object, *, error: Error = InvalidInputError) -> bool:
    """True or False.

    Raises:
        InvalidInputError: the value is of another type; or `error` in its place.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise error(f"{name} is {shown(value)}; it must be True or False")
    return bool(value)


def check_text(name: str, value: object, *, error: Error = InvalidInputError) -> str:
    """A text.

    Raises:
        InvalidInputError: the value is of another type, empty or not valid Unicode; or `error` in its place.
    """
    if not isinstance(value, str) or not value:
        raise error(f"{name} is {shown(value)}; it must be a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise error(f"{name} is {shown(value)}, which is not valid Unicode ({exc})") from exc
    return value


def check_choice(name: str, value: object, choices: Collection[Any], *, error: Error = InvalidInputError) -> None:
    """Check that a value is one of some texts or numbers.

    Raises:
        InvalidInputError: it is not; or `error` in its place.
    """
    known = isinstance(value, (str, int, float)) and not isinstance(value, bool) and value in choices
    if not known:
        raise error(f"{name} is {shown(value)}; it must be one of {', '.join(map(str, choices))}")


def check_sequence(name: str, value: object, *, error: Error = InvalidInputError) -> None:
    """Check that a value has a length and can be read item by item, and is no text, mapping or set of one.

    Raises:
        InvalidInputError: it is not; or `error` in its place.
    """
    ordered = isinstance(value, Sized) and isinstance(value, Iterable) and hasattr(value, "__getitem__")
    if isinstance(value, (str, bytes, dict)) or not ordered or length_of(value) is None:
        raise error(f"{name} are {shown(value)}; pass a list")


def length_of(value: object) -> int | None:
    """The length of a value; None if it has none, as an array of no dimension or a sparse matrix."""
    try:
        return len(value) if isinstance(value, Sized) else None
    except TypeError:
        return None


def shown(value: object) -> str:
    """A value as messages show it: short, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a foreign __repr__ may raise anything)
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({type(value).__name__})"
