"""Embeddings as catalogs write them: lists of numbers, or texts of numbers."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import numpy as np

from ..codes import FloatArray

__all__ = ["vector_of"]

_SEPARATORS: Final = {
    "commas": re.compile(r"\s*,\s*"), "semicolons": re.compile(r"\s*;\s*"), "spaces": re.compile(r"\s+"),
}  # fmt: skip
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE | re.ASCII
)
_SHOWN: Final = 60


def vector_of(value: Any) -> FloatArray:
    """An embedding as (d,) float32.

    Raises:
        ValueError: the value is not a list of numbers, nor a text of numbers in one notation.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("the value is missing")
    if isinstance(value, (bytes, bytearray, dict)):
        raise ValueError(f"the value is {type(value).__name__}, expected a list of numbers")  # noqa: TRY004
    if isinstance(value, str):
        value = _numbers(value)
    with np.errstate(over="ignore"):  # an infinite norm is reported
        try:
            vector = np.asarray(value, np.float32)
        except OverflowError as exc:
            raise ValueError("a number is too large") from exc
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"the value has shape {vector.shape}, expected a list of numbers")
    return vector


def _numbers(text: str) -> list[float]:
    text = text.strip()
    if text.startswith("[") and "[" not in text[1:]:
        try:
            numbers = json.loads(text)  # the common notation, ten times as fast as the others
        except ValueError:
            pass
        else:
            if isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers):
                return numbers
    inner = text.strip("[]()").strip()
    if ";" in inner and "," in inner:
        raise ValueError(f"the text {_shown(text)} has decimal commas; write numbers with decimal points")
    separator = "commas" if "," in inner else "semicolons" if ";" in inner else "spaces"
    tokens = _SEPARATORS[separator].split(inner)
    if len(tokens) > 1 and not tokens[-1]:
        tokens.pop()  # a separator after the last number
    for token in tokens:
        if not _NUMBER.fullmatch(token):
            raise ValueError(
                f"the text {_shown(text)} is read as numbers separated by {separator}, and {_shown(token)} is no number"
                f"{_advice(token)}"
            )
    return [float(token) for token in tokens]


def _advice(token: str) -> str:
    if "..." in token:
        return "; the text was shortened when it was written"
    if re.fullmatch(r"0\d+", token) or " " in token:
        return "; write numbers with decimal points and one kind of separator"
    return ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
