"""Filters of a search, given as qdrant-client's `models.Filter` for both engines.

`point_filter` replaces the catalog's ids in a filter by point ids; `edge.filters` translates the result for Qdrant
Edge. That module identifies conditions by the names of their classes, because older clients lack some of the classes.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from qdrant_client import models

from ..errors import InvalidInputError, UnsupportedFilterError
from .ids import point_id

__all__ = ["FIELD_TESTS", "check_deletion", "clause_conditions", "filter_fields", "point_filter"]

_CLAUSES: Final = ("must", "should", "must_not")
FIELD_TESTS: Final = (
    "match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null",
)  # fmt: skip


def point_filter(filter: models.Filter, *, old_ids: bool = False) -> models.Filter:
    """A copy of the filter with point ids in place of item ids in its `HasIdCondition`s.

    Args:
        filter: the filter.
        old_ids: see `ids.point_id`.

    Raises:
        InvalidInputError: it is not a `models.Filter`, or names an invalid id.
        UnsupportedFilterError: a field condition has no test, or has several, which the engines interpret differently.
    """
    if not isinstance(filter, models.Filter):
        raise InvalidInputError(f"filter is a {type(filter).__name__}; pass a qdrant_client.models.Filter")
    changes: dict[str, Any] = {
        clause: [_point_condition(condition, old_ids) for condition in clause_conditions(getattr(filter, clause))]
        for clause in _CLAUSES
        if getattr(filter, clause) is not None
    }
    if filter.min_should is not None:
        conditions = [_point_condition(condition, old_ids) for condition in filter.min_should.conditions]
        changes["min_should"] = filter.min_should.model_copy(update={"conditions": conditions})
    return filter.model_copy(update=changes)


def filter_fields(filter: models.Filter) -> set[str]:
    """The payload fields that the conditions of a filter name, at any depth."""
    found: set[str] = set()
    left: list[Any] = [filter.model_dump(exclude_none=True)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("key"), str):
                found.add(value["key"])
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return found


def check_deletion(filter: models.Filter, *, all_items: bool) -> None:
    """Check the filter of a deletion.

    Raises:
        InvalidInputError: it is not a `models.Filter`, or it has no condition, so that it matches every item, and
            `all_items` is not set.
    """
    if not isinstance(filter, models.Filter):
        raise InvalidInputError(f"filter is a {type(filter).__name__}; pass a qdrant_client.models.Filter")
    if not all_items and not _has_condition(filter):
        raise InvalidInputError(
            "the filter has no condition, so it matches every item; add one, pass all_items=True to delete all items, "
            "or drop the index"
        )


def _has_condition(filter: models.Filter) -> bool:
    clauses = [clause_conditions(getattr(filter, clause)) for clause in _CLAUSES if getattr(filter, clause) is not None]
    if filter.min_should is not None:
        clauses.append(filter.min_should.conditions)
    conditions = [condition for clause in clauses for condition in clause]
    return any(not isinstance(condition, models.Filter) or _has_condition(condition) for condition in conditions)


def clause_conditions(conditions: Any) -> list[Any]:
    """The conditions of a clause, which is one condition or a list of them."""
    return conditions if isinstance(conditions, list) else [conditions]


def _point_condition(condition: Any, old_ids: bool) -> Any:
    if isinstance(condition, models.Filter):
        return point_filter(condition, old_ids=old_ids)
    if isinstance(condition, models.HasIdCondition):
        ids = [point_id(str(item) if isinstance(item, uuid.UUID) else item, old=old_ids) for item in condition.has_id]
        return condition.model_copy(update={"has_id": ids})
    if isinstance(condition, models.NestedCondition):
        inner = point_filter(condition.nested.filter, old_ids=old_ids)
        nested = condition.nested.model_copy(update={"filter": inner})
        return condition.model_copy(update={"nested": nested})
    if isinstance(condition, models.FieldCondition):
        tests = [name for name in FIELD_TESTS if getattr(condition, name) is not None]
        if len(tests) != 1:
            raise UnsupportedFilterError(
                f"the condition on field {condition.key!r} has {len(tests)} tests ({', '.join(tests) or 'none'}); "
                "give each condition one test, and combine conditions by must or should"
            )
    return condition
