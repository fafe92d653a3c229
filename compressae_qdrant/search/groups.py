"""Search for groups: the best hits of each value of a payload field, such as the chunks of each document.

Both engines are called in the same way. A first search finds the groups in the order of their best hits. While there
are too few, another search leaves out the groups that are known. Groups that could have more hits are then searched one
by one, in one call. Scores of an item are the same in all of these searches, so groups are those of the complete
ranking, as far as a search finds it: with `exact=True`, every item is scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qdrant_client import models

from ..errors import InvalidInputError
from ..index.plan import QueryPlan
from ..index.results import Hit
from .settings import SearchOptions

__all__ = ["Group", "follow_searches", "follow_searches_async", "group_steps", "groups_options", "hits_for_groups"]

_FACTOR: Final = 3
"""Hits of the first search for each hit that is asked for."""

Searches = Generator[list[QueryPlan], list[list[Hit]], list["Group"]]
"""Yields plans to run in one call, is sent their hits, and returns the groups."""


@dataclass(frozen=True)
class Group:
    """The best hits of one value of the field that a search grouped by."""

    id: int | str
    """Value of the field."""
    hits: list[Hit]
    """Best first."""


def hits_for_groups(limit: int, group_size: int) -> int:
    """Hits of the first search for groups.

    Raises:
        InvalidInputError: one of the numbers is below 1.
    """
    for name, value in (("limit", limit), ("group_size", group_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return _FACTOR * limit * group_size


def groups_options(options: SearchOptions) -> SearchOptions:
    """The options of the searches for groups: payloads are read, as they hold the field.

    Raises:
        InvalidInputError: there is an offset, which hits have and groups do not, or a text.
    """
    if options.get("offset"):
        raise InvalidInputError(f"offset is {options['offset']}, but groups have no pages; raise limit instead")
    if options.get("text") is not None:
        raise InvalidInputError("text is given, but fused scores differ between searches for groups; leave text out")
    return {**options, "with_payload": True}


def group_steps(plan: QueryPlan, field: str, limit: int, group_size: int, *, with_payload: bool) -> Searches:
    """Search for the groups of a field.

    Args:
        plan: plan of the query for `hits_for_groups` hits.
        field: payload field with one string or whole number for an item; `author.id` is a field of an object. Items
            without it are left out.
        limit: groups to return.
        group_size: hits of a group.
        with_payload: whether hits keep their payload.

    Raises:
        InvalidInputError: the name of the field is no plain path, or an item has a list of values.
    """
    _check_field(field)
    groups: dict[int | str, list[Hit]] = {}
    (hits,) = yield [plan]
    complete = len(hits) < plan.limit
    _collect(groups, hits, field)
    while len(groups) < limit and not complete:
        known = len(groups)
        (hits,) = yield [_restricted(plan, models.Filter(must_not=[_is_empty(field), *_any_of(field, groups)]))]
        complete = len(hits) < plan.limit
        _collect(groups, hits, field)
        if len(groups) == known:  # only values that form no groups
            break
    # A later search may find an item that scores higher than what an earlier one found.
    best = sorted(groups, key=lambda value: -groups[value][0].score)[:limit]
    short = [value for value in best if len(groups[value]) < group_size and not (complete and len(groups) == len(best))]
    if short:
        results = yield [_restricted(plan, models.Filter(must=[_equals(field, value)]), group_size) for value in short]
        for value, found in zip(short, results, strict=True):
            groups[value] = _merged(groups[value], found)
        best.sort(key=lambda value: -groups[value][0].score)
    return [Group(value, [_shown(hit, with_payload) for hit in groups[value][:group_size]]) for value in best]


def follow_searches(steps: Searches, search: Callable[[Sequence[QueryPlan]], list[list[Hit]]]) -> list[Group]:
    """Run the searches of `group_steps` and return its groups."""
    plans = next(steps)
    while True:
        try:
            plans = steps.send(search(plans))
        except StopIteration as end:
            groups: list[Group] = end.value
            return groups


async def follow_searches_async(
    steps: Searches, search: Callable[[Sequence[QueryPlan]], Awaitable[list[list[Hit]]]]
) -> list[Group]:
    """`follow_searches` with searches that are awaited."""
    plans = next(steps)
    while True:
        try:
            plans = steps.send(await search(plans))
        except StopIteration as end:
            groups: list[Group] = end.value
            return groups


def _check_field(field: str) -> None:
    if not isinstance(field, str) or not all(field.split(".")) or any(character in field for character in '[]"'):
        raise InvalidInputError(
            f"group_by is {field!r}; it must be the name of a payload field, or a path such as 'author.id'"
        )


def _collect(groups: dict[int | str, list[Hit]], hits: Sequence[Hit], field: str) -> None:
    for hit in hits:
        value: Any = hit.payload
        for name in field.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            raise InvalidInputError(
                f"item {hit.id!r} has a list in field {field!r}, so it could be in several groups; group by a field "
                "with one value for an item"
            )
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            groups.setdefault(value, []).append(hit)


def _merged(known: Sequence[Hit], found: Sequence[Hit]) -> list[Hit]:
    """The hits of two searches, each item once, best first."""
    return sorted({hit.id: hit for hit in (*known, *found)}.values(), key=lambda hit: -hit.score)


def _shown(hit: Hit, with_payload: bool) -> Hit:
    return hit if with_payload else dataclasses.replace(hit, payload={}, origin=hit.found_by)


def _restricted(plan: QueryPlan, condition: models.Filter, limit: int | None = None) -> QueryPlan:
    """The plan with a further condition."""
    filter = condition if plan.filter is None else models.Filter(must=[plan.filter, condition])
    return dataclasses.replace(plan, filter=filter, limit=plan.limit if limit is None else limit)


def _is_empty(field: str) -> models.IsEmptyCondition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))


def _equals(field: str, value: int | str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _any_of(field: str, values: Iterable[int | str]) -> list[models.FieldCondition]:
    """Conditions that the field is one of the values, for the texts and the numbers among them."""
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int)]
    matches = [models.MatchAny(any=texts)] * bool(texts) + [models.MatchAny(any=numbers)] * bool(numbers)
    return [models.FieldCondition(key=field, match=match) for match in matches]
