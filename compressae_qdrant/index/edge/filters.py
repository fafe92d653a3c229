"""Translation of a qdrant-client filter to one of Qdrant Edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

import numpy as np
import qdrant_edge as qe
from qdrant_client import models

from ...errors import InvalidInputError, UnsupportedFilterError
from ..filters import FIELD_TESTS, clause_conditions, point_filter

__all__ = ["edge_filter"]

_CLAUSES: Final = ("must", "should", "must_not")


def edge_filter(filter: models.Filter, *, old_ids: bool = False) -> qe.Filter:
    """The filter for Qdrant Edge, with point ids in place of item ids; `old_ids` as in `ids.point_id`.

    Raises:
        InvalidInputError: a path, date or coordinate in it is malformed.
        UnsupportedFilterError: Edge cannot evaluate a part of it; the message names the part.
    """
    return _edge_filter(point_filter(filter, old_ids=old_ids))


def _edge_filter(filter: models.Filter) -> qe.Filter:
    clauses: dict[str, Any] = {
        clause: [_edge_condition(condition) for condition in clause_conditions(getattr(filter, clause))]
        for clause in _CLAUSES
        if getattr(filter, clause) is not None
    }
    if filter.min_should is not None:
        conditions = [_edge_condition(condition) for condition in filter.min_should.conditions]
        clauses["min_should"] = qe.MinShould(conditions, filter.min_should.min_count)
    return qe.Filter(**clauses)


def _edge_condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return _edge_filter(condition)
    translate = _CONDITIONS.get(type(condition).__name__)
    if translate is None:
        raise UnsupportedFilterError(
            f"Qdrant Edge does not support {type(condition).__name__}; remove that condition, or use a Qdrant server"
        )
    try:
        return translate(condition)
    except (ValueError, OverflowError) as exc:
        raise InvalidInputError(f"filter condition ({condition!r}) is malformed: {exc}") from exc


def _edge_field(condition: Any) -> qe.FieldCondition:
    test = next(name for name in FIELD_TESTS if getattr(condition, name) is not None)
    value = getattr(condition, test)
    translate = _FIELD_TESTS.get(type(value).__name__)
    if translate is None:
        raise UnsupportedFilterError(
            f"Qdrant Edge does not support {type(value).__name__} (on field {condition.key!r}); use another test, or a "
            "Qdrant server"
        )
    tests: dict[str, Any] = {test: translate(value)}
    return qe.FieldCondition(condition.key, **tests)


def _edge_value(match: Any) -> qe.MatchValue:
    value = match.value
    # qdrant-edge 0.9 reads a Python bool as the integer 0 or 1, which matches no boolean field; it reads NumPy's bool
    # as a boolean.
    return qe.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]


def _edge_dates(dates: Any) -> qe.RangeDateTime:
    def text(value: date | None) -> str | None:
        return None if value is None else value.isoformat()

    return qe.RangeDateTime(text(dates.gte), text(dates.gt), text(dates.lte), text(dates.lt))


def _edge_point(point: Any) -> qe.GeoPoint:
    return qe.GeoPoint(point.lon, point.lat)


def _edge_polygon(polygon: Any) -> qe.GeoPolygon:
    interiors = [[_edge_point(point) for point in line.points] for line in polygon.interiors or []]
    return qe.GeoPolygon([_edge_point(point) for point in polygon.exterior.points], interiors or None)


_CONDITIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "FieldCondition": _edge_field,
    "IsEmptyCondition": lambda c: qe.IsEmptyCondition(c.is_empty.key),
    "IsNullCondition": lambda c: qe.IsNullCondition(c.is_null.key),
    "HasIdCondition": lambda c: qe.HasIdCondition(set(c.has_id)),
    "HasVectorCondition": lambda c: qe.HasVectorCondition(c.has_vector),
    "NestedCondition": lambda c: qe.NestedCondition(c.nested.key, _edge_filter(c.nested.filter)),
}

_FIELD_TESTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "MatchValue": _edge_value,
    "MatchText": lambda m: qe.MatchText(m.text),
    "MatchTextAny": lambda m: qe.MatchTextAny(m.text_any),
    "MatchPhrase": lambda m: qe.MatchPhrase(m.phrase),
    "MatchPrefix": lambda m: qe.MatchPrefix(m.prefix),
    "MatchSubstring": lambda m: qe.MatchSubstring(m.substring),
    "MatchAny": lambda m: qe.MatchAny(list(m.any)),
    "MatchExcept": lambda m: qe.MatchExcept(list(m.except_)),
    "Range": lambda r: qe.RangeFloat(r.gte, r.gt, r.lte, r.lt),
    "DatetimeRange": _edge_dates,
    "GeoBoundingBox": lambda g: qe.GeoBoundingBox(_edge_point(g.top_left), _edge_point(g.bottom_right)),
    "GeoRadius": lambda g: qe.GeoRadius(_edge_point(g.center), g.radius),
    "GeoPolygon": _edge_polygon,
    "ValuesCount": lambda v: qe.ValuesCount(lt=v.lt, gt=v.gt, lte=v.lte, gte=v.gte),
    "bool": bool,
}
