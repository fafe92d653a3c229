"""Arrow columns as Python values, cell by cell where a whole column cannot be converted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from .cells import BadCell, iso_duration

__all__ = ["column_values"]

_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400
_ERRORS: Final = (ValueError, TypeError, OverflowError, KeyError, pa.ArrowException)


def column_values(column: pa.Array, uuid: bool = False) -> Sequence[Any]:
    """A column as Python values: vectors as NumPy rows, which is far faster than lists, and unreadable cells as
    `BadCell`.

    Args:
        column: the column.
        uuid: whether its 16 bytes are UUIDs, where only the file's schema says so.
    """
    while not _is_stored(column.type):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        elif pa.types.is_run_end_encoded(column.type):
            column = pc.run_end_decode(column)
        else:
            uuid = uuid or column.type.extension_name == "arrow.uuid"
            column = column.storage
    vectors = _vectors(column)
    if vectors is not None:
        return vectors
    if not uuid and _is_plain(column.type):
        try:
            return cast(Sequence[Any], column.to_pylist())
        except _ERRORS:
            pass
    return [_cell(scalar, uuid) for scalar in column]


def _is_stored(kind: pa.DataType) -> bool:
    encoded = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return not encoded and not isinstance(kind, pa.BaseExtensionType)


def _vectors(column: pa.Array) -> Sequence[Any] | None:
    """Lists of floats as NumPy rows; None for a column of another type."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type) and not column.null_count:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return cast(Sequence[Any], flat.reshape(len(column), kind.list_size))
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_floating(kind.value_type):
        flat, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return [flat[a:b] if ok else None for a, b, ok in zip(offsets[:-1], offsets[1:], valid, strict=True)]
    return None


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow converts a whole column of this type to the values that `_python` gives."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(number).type) for number in range(kind.num_fields))
    if types.is_timestamp(kind) or types.is_time64(kind):
        return bool(kind.unit != "ns")
    tests = (
        types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_decimal,
        types.is_date32, types.is_time32, types.is_null, types.is_binary, types.is_large_binary,
        types.is_fixed_size_binary,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _cell(scalar: pa.Scalar, uuid: bool) -> Any:
    try:
        value = _python(scalar)
        return UUID(bytes=value) if uuid and isinstance(value, bytes) else value
    except UnicodeDecodeError as exc:
        return BadCell(f"holds text that is not UTF-8 ({exc})")
    except _ERRORS as exc:
        return BadCell(f"cannot be read: {exc}")


def _python(scalar: pa.Scalar) -> Any:
    """The value of a cell. Dates and times of any range and resolution become ISO 8601 texts."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        inner = _python(scalar.value)
        return UUID(bytes=inner) if kind.extension_name == "arrow.uuid" else inner
    if pa.types.is_dictionary(kind):
        return _python(scalar.value)
    if pa.types.is_timestamp(kind):
        return _iso_timestamp(scalar.value, kind.unit, kind.tz)
    if pa.types.is_time64(kind) or pa.types.is_time32(kind):
        return _iso_timestamp(scalar.value, kind.unit, None).partition("T")[2]
    if pa.types.is_date32(kind):
        return _iso_timestamp(scalar.value * _DAY_SECONDS, "s", None).partition("T")[0]
    if pa.types.is_date64(kind):
        return _iso_timestamp(scalar.value, "ms", None).partition("T")[0]
    if pa.types.is_duration(kind):
        return iso_duration(scalar.value, _PER_SECOND[kind.unit])
    if pa.types.is_map(kind):
        entries = scalar.values
        return dict(zip(map(_key, entries.field(0)), map(_python, entries.field(1)), strict=True))
    if pa.types.is_struct(kind):
        return {kind.field(number).name: _python(scalar[number]) for number in range(kind.num_fields)}
    if hasattr(scalar, "values") and not isinstance(scalar.values, type(None)):
        return [_python(inner) for inner in scalar.values]
    return scalar.as_py()


def _key(scalar: pa.Scalar) -> Any:
    key = _python(scalar)
    return key.isoformat() if isinstance(key, date) else key


def _iso_timestamp(value: int, unit: str, zone: str | None) -> str:
    """A point in time as an ISO 8601 text.

    Raises:
        ValueError: it is outside the years 1 to 9999, or the time zone is unknown.
    """
    seconds, rest = divmod(value, _PER_SECOND[unit])
    nanoseconds = rest * (10**9 // _PER_SECOND[unit])
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
        if zone is not None:
            moment = moment.astimezone(pa.lib.string_to_tzinfo(zone))
    except OverflowError as exc:
        raise ValueError("the date is outside the years 1 to 9999") from exc
    if zone is None:
        moment = moment.replace(tzinfo=None)
    text = moment.isoformat()
    if nanoseconds % 1000:
        text = moment.isoformat(timespec="microseconds")
        end = text.index(".") + 7
        text = f"{text[:end]}{nanoseconds % 1000:03}{text[end:]}"
    return text
