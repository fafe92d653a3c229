"""Operations of several calls, written once as generators that a sync or an async index follows.

A generator yields a call to make and is sent its result or error; or it yields a number of seconds to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

import numpy.typing as npt
from qdrant_client import models

from ...checks import check_number
from ...codes import SparseCodes
from ...errors import (
    CodeIndexError,
    ConfigError,
    ExactCountError,
    IndexNotFoundError,
    IndexReplacedError,
    IndexUnavailableError,
    RequestTooLargeError,
)
from ..filters import check_deletion
from ..protocol import ScrollOptions, check_page
from ..results import ItemId, Payload, Record
from .calls import Call
from .collections import aliases_call, delete_call
from .requests import Requests

__all__ = [
    "Steps",
    "Watch",
    "count_steps",
    "delete_steps",
    "drop_steps",
    "follow",
    "follow_async",
    "optimise_steps",
    "page_steps",
    "read_steps",
    "scroll_steps",
    "upsert_steps",
    "verify_steps",
    "watched_steps",
]

_LOG = logging.getLogger(__name__)
_COUNTED_ITEMS: Final = 1024
"""Items of a page, where items are counted page by page."""
_POLL_SECONDS: Final = 0.2
_MAX_POLL_SECONDS: Final = 5.0
_REPORT_SECONDS: Final = 10.0
_DETAIL_SECONDS: Final = 5.0
"""How long optimisers may run before their progress is asked for in detail."""
_PATIENCE_SECONDS: Final = 120.0
"""How long optimisers may show no progress, where the server counts the steps of their work."""
_BLIND_PATIENCE_SECONDS: Final = 600.0
"""The same where only the state of the collection tells. Building one large segment may take minutes."""
_VERIFY_SECONDS: Final = 2.0
"""How long an open index may go on without a look whether it is still the same."""
_WAITING_SECONDS: Final = 30.0
"""How long optimisers may go on waiting after they were started."""

T = TypeVar("T")

Steps = Generator[Call[Any] | float, Any, T]


class Watch:
    """When somebody last looked whether an open index is still the one that was opened."""

    def __init__(self) -> None:
        self.looks()

    def is_due(self) -> bool:
        """Whether it is time to look again. Whoever is told so looks, so that parallel calls look once."""
        if time.monotonic() - self._looked < _VERIFY_SECONDS:
            return False
        self.looks()
        return True

    def looks(self) -> None:
        """Note that somebody looks now."""
        self._looked = time.monotonic()


def verify_steps(requests: Requests, watch: Watch) -> Steps[None]:
    """Check that the collection is still the one that was opened.

    Raises:
        IndexReplacedError: it was deleted, or another was created under its name.
    """
    watch.looks()
    try:
        yield requests.verify()
    except IndexReplacedError:
        raise
    except IndexNotFoundError as exc:
        raise IndexReplacedError(f"the collection was deleted after it was opened: {exc}") from exc


def watched_steps(requests: Requests, watch: Watch, call: Call[T]) -> Steps[T]:
    """Make a call of an open index; afterwards, at most every two seconds, check that the index is still the same.

    Raises:
        IndexReplacedError: it was deleted, or another was created under its name, so that the answer or the error of
            the call may be of another collection.
    """
    try:
        answer: T = yield call
    except (IndexUnavailableError, RequestTooLargeError, IndexReplacedError):
        raise
    except CodeIndexError as exc:
        try:
            yield from verify_steps(requests, watch)
        except IndexReplacedError as replaced:
            raise replaced from exc
        except CodeIndexError:
            raise exc from None
        raise
    # A collection is deleted by "delete", and there is nothing to look at after that.
    if call.action != "delete" and watch.is_due():
        with contextlib.suppress(IndexUnavailableError):  # the call succeeded; a later one looks
            yield from verify_steps(requests, watch)
    return answer


def upsert_steps(
    requests: Requests,
    ids: Sequence[ItemId],
    codes: SparseCodes,
    payloads: Sequence[Payload | None] | None,
    dense: npt.NDArray[Any] | None,
    hashes: Sequence[str] | None,
) -> Steps[None]:
    """Write a batch, in several requests if one would be too large for the server.

    In an adopted collection, points that were deleted meanwhile are left out.

    Raises:
        RequestTooLargeError: a row is too large by itself; names it. The rows before it are written.
    """
    batch = requests.checked(ids, codes, payloads, dense, hashes)
    parts = [list(range(len(batch.ids)))] if batch.ids else []
    while parts:
        rows = parts.pop()
        call = requests.write(batch.take(rows) if len(rows) < len(batch.ids) else batch)
        if requests.splits and call.size > requests.max_bytes and len(rows) > 1:
            parts += reversed(_split(rows, -(-call.size // requests.max_bytes)))
            continue
        try:
            yield call
        except RequestTooLargeError as exc:
            if not requests.splits:
                raise
            if len(rows) == 1:
                raise _too_large(ids[rows[0]], batch.payloads[rows[0]], exc) from exc
            requests.max_bytes = max(1, min(requests.max_bytes, call.size // 2 or requests.max_bytes))
            parts += reversed(_split(rows, 2))
        except IndexNotFoundError:
            stored = yield requests.hashes([ids[row] for row in rows])
            left = [row for row, content in zip(rows, stored, strict=True) if content is not None]
            if not requests.adopted or len(left) == len(rows):
                raise
            parts += [left] if left else []


def _split(rows: list[int], parts: int) -> list[list[int]]:
    """Rows in at most so many parts of about equal length."""
    size = -(-len(rows) // parts)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _too_large(item: ItemId, payload: Payload, exc: RequestTooLargeError) -> RequestTooLargeError:
    size = len(json.dumps(payload, ensure_ascii=False, default=str).encode())
    return RequestTooLargeError(
        f"item {item!r} is too large for the server by itself: its payload takes {size:,} bytes; shorten the payload, "
        f"or raise the limit of the server ({exc})"
    )


def read_steps(read: Callable[[Sequence[ItemId]], Call[list[T]]], ids: Sequence[ItemId]) -> Steps[list[T]]:
    """Read items by their ids, in several requests if the server refuses one as too large."""
    found: list[T] = []
    parts = [ids]
    while parts:
        part = parts.pop()
        try:
            found += yield read(part)
        except RequestTooLargeError:
            part = list(part)
            middle = len(part) // 2
            if not middle:
                raise
            parts += [part[middle:], part[:middle]]
    return found


def count_steps(requests: Requests, filter: models.Filter | None = None, *, exact: bool = True) -> Steps[int]:
    """Number of items, or of those that match a filter.

    Where strict mode forbids exact counts, the items that match a filter are counted page by page, and the number of
    all items is the server's estimate, which is exact once its optimisers are done.
    """
    items: int
    try:
        items = yield requests.count(filter, exact=exact)
    except ExactCountError:
        items = yield from _count_otherwise(requests, filter)
    return items


def _count_otherwise(requests: Requests, filter: models.Filter | None) -> Steps[int]:
    if filter is None:
        estimate: int = yield requests.count(None, exact=False)
        return estimate
    items, offset = 0, None
    options: ScrollOptions = {"filter": filter, "with_payload": False}
    while True:
        page, offset = yield from scroll_steps(requests, _COUNTED_ITEMS, offset, options)
        items += len(page)
        if offset is None:
            return items


def delete_steps(requests: Requests, filter: models.Filter, *, all_items: bool) -> Steps[int]:
    """Delete the items that match a filter, and return how many there were just before.

    Raises:
        InvalidInputError: the filter has no condition and `all_items` is not set.
        ConfigError: the collection was adopted, or has shard keys and the calls are of none.
    """
    check_deletion(filter, all_items=all_items)
    delete = requests.delete_by_filter(filter)
    matching = yield from count_steps(requests, filter)
    yield delete
    return matching


def drop_steps(requests: Requests, collection: str, *, aliases: bool) -> Steps[None]:
    """Delete a collection.

    Raises:
        ConfigError: it has aliases and `aliases` is not set, it was adopted, or the calls are of one shard key.
    """
    requests.check_droppable()
    names: list[str] = yield aliases_call(collection)
    if names and not aliases:
        raise ConfigError(
            f"collection {collection!r} is in use under {'alias' if len(names) == 1 else 'aliases'} "
            f"{', '.join(map(repr, names))}; point them elsewhere first (`compressae deploy`), or pass aliases=True to "
            "delete them too"
        )
    yield delete_call(collection)


def scroll_steps(requests: Requests, size: int, offset: Any, options: ScrollOptions) -> Steps[tuple[list[Record], Any]]:
    """Read one page of stored items, of fewer than `size` if the collection's strict mode allows no more at a time."""
    wanted = requests.scroll_settings(size, options)
    if requests.query_limit is None:
        requests.query_limit = yield requests.read_query_limit()
    page: tuple[list[Record], Any] = yield requests.scroll(wanted, min(wanted.size, requests.query_limit), offset)
    return page


def page_steps(requests: Requests, size: int, offset: Any) -> Steps[tuple[list[ItemId], Any]]:
    """Read one page of ids, of fewer than `size` items if the collection's strict mode allows no more at a time."""
    size = check_page(size, offset)
    if requests.query_limit is None:
        requests.query_limit = yield requests.read_query_limit()
    page: tuple[list[ItemId], Any] = yield requests.page(min(size, requests.query_limit), offset)
    return page


def optimise_steps(requests: Requests, collection: str, patience: float | None) -> Steps[None]:
    """Wait until the optimisers are done, for as long as they make progress.

    Progress is a change of the collection's state, or of the numbers that a server reports of running optimisers
    (Qdrant 1.17 or newer). Without these numbers nothing may change while one large segment is built, so the default
    patience is longer then. After a restart of the server its optimisers wait ("grey") for a write; they are started
    once.

    Raises:
        CodeIndexError: they failed, are switched off, did not start within 30 s, or made no progress for `patience`
            seconds.
    """
    if patience is not None:
        check_number("patience", patience)
    chosen = patience
    started = changed = reported = time.monotonic()
    pause, restarted, last = _POLL_SECONDS, False, None
    progress: str | None = ""
    while (state := (yield requests.state())).status != "green":
        now = time.monotonic()
        before = progress
        if progress is not None and state.status == "yellow" and now - started >= _DETAIL_SECONDS:
            try:
                progress = yield requests.optimiser_progress()
            except CodeIndexError:
                progress = None  # an older server, or one that is reached by gRPC alone
        if (state, progress) != (last, before):
            last, changed = state, now
        patience = chosen if chosen is not None else _PATIENCE_SECONDS if progress else _BLIND_PATIENCE_SECONDS
        if state.switched_off:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} are switched off ({state.switched_off}), so "
                "searches stay slow; switch them on with qdrant-client's update_collection"
            )
        longest = min(patience, _WAITING_SECONDS) if state.status == "grey" else patience
        if now - changed > longest:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} made no progress for {longest:g} s "
                f"({state.status}, {state.segments} segments); check the server's load and log, or wait longer by "
                "patience= (--patience)"
            )
        if state.status == "grey" and not restarted:
            restarted = True
            yield requests.start_optimisers()
        if now - reported > _REPORT_SECONDS:
            reported = now
            _LOG.info(
                "collection %r: optimisers have been running for %.0f s (%s, %d segments)", collection, now - started,
                state.status, state.segments,
            )  # fmt: skip
        yield pause
        pause = min(1.5 * pause, _MAX_POLL_SECONDS)


def follow(steps: Steps[T], run: Callable[[Call[Any]], Any]) -> T:
    """Follow steps to their end and return their result; `run` makes a call."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # the generator returns a T
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = run(step)
            else:
                time.sleep(step)
        except CodeIndexError as exc:
            failure = exc


async def follow_async(steps: Steps[T], run: Callable[[Call[Any]], Awaitable[Any]]) -> T:
    """`follow` with calls that are awaited."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # the generator returns a T
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = await run(step)
            else:
                await asyncio.sleep(step)
        except CodeIndexError as exc:
            failure = exc
