"""Haystack's filters as filters of Qdrant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from qdrant_client import models

from ..lazy import needs_extra

with needs_extra("haystack", "a filter of Haystack", "haystack-ai"):
    from haystack.errors import FilterError

__all__ = ["haystack_filter"]

_BOUNDS: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_LOGICAL: Final = ("AND", "OR", "NOT")


def haystack_filter(filters: dict[str, Any] | models.Filter | None, key: Callable[[str], str]) -> models.Filter | None:
    """Translate a filter, as the documentation of Haystack's `DocumentStore.filter_documents` defines it.

    Args:
        filters: a comparison, or comparisons combined by AND, OR and NOT. A Qdrant filter is returned as it is.
        key: gives the payload key of a field.

    Raises:
        FilterError: the filter is not valid.
    """
    if not filters:
        return None
    if isinstance(filters, models.Filter):
        return filters
    return models.Filter(must=[_condition(filters, key)])


def _condition(condition: Any, key: Callable[[str], str]) -> models.Condition:
    if not isinstance(condition, dict) or "operator" not in condition:
        raise FilterError(
            f"the filter {condition!r} has no operator; it needs one of {', '.join(_LOGICAL)}, or ==, in, >"
        )
    if condition["operator"] not in _LOGICAL:
        return _comparison(condition, key)
    if not condition.get("conditions"):
        raise FilterError(f"the filter {condition!r} has no conditions, which {condition['operator']} combines")
    parts = [_condition(part, key) for part in condition["conditions"]]
    if condition["operator"] == "OR":
        return models.Filter(should=parts)
    every = models.Filter(must=parts)
    return every if condition["operator"] == "AND" else models.Filter(must_not=[every])


def _comparison(condition: dict[str, Any], key: Callable[[str], str]) -> models.Condition:
    for name in ("field", "value"):
        if name not in condition:
            raise FilterError(f"the filter {condition!r} has no {name}, which a comparison needs")
    field, operator, value = key(str(condition["field"])), condition["operator"], condition["value"]
    if operator == "==":
        return _equal(field, value)
    if operator == "!=":
        return models.Filter(must_not=[_equal(field, value)])
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"{operator!r} compares {field!r} with {value!r}; it needs a list")
        among = models.Filter(should=[_equal(field, each) for each in value]) if value else _nothing(field)
        return among if operator == "in" else models.Filter(must_not=[among])
    if operator in _BOUNDS:
        return _bound(field, operator, value)
    raise FilterError(f"{operator!r} is no operator of a filter; use ==, !=, >, >=, <, <=, in, not in, AND, OR or NOT")


def _equal(field: str, value: Any) -> models.Condition:
    if value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
    if isinstance(value, (bool, int, str)):
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))
    if isinstance(value, float):
        return models.FieldCondition(key=field, range=models.Range(gte=value, lte=value))
    raise FilterError(f"{field!r} is compared with a {type(value).__name__}; use a string, a number, a boolean or None")


def _bound(field: str, operator: str, value: Any) -> models.Condition:
    if value is None:
        return _nothing(field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return models.FieldCondition(key=field, range=models.Range(**{_BOUNDS[operator]: value}))
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as exc:
        raise FilterError(
            f"{operator!r} compares {field!r} with {value!r}; it needs a number or an ISO 8601 date"
        ) from exc
    return models.FieldCondition(key=field, range=models.DatetimeRange(**{_BOUNDS[operator]: moment}))


def _nothing(field: str) -> models.Filter:
    """A filter that matches no item."""
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
    return models.Filter(must=[empty], must_not=[empty])
