"""Operations of several calls, written once as generators that a sync or an async index follows.

A generator yields a call to make and is sent its result or error; or it yields a number of seconds to wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

import numpy.typing as npt
from qdrant_client import models

from ...codes import SparseCodes
from ...errors import CodeIndexError, ConfigError, IndexExistsError, IndexNotFoundError, IndexUnavailableError
from ..filters import check_deletion
from ..manifest import VECTOR_NAME, Manifest
from ..protocol import CodeModel, ScrollOptions
from ..results import ItemId, Payload, Record
from .calls import Call
from .collections import (
    add_vector_call,
    adoption_call,
    aliases_call,
    configure_vector_call,
    create_call,
    delete_call,
    exists_call,
    manifest_call,
    setup_calls,
    store_manifest_call,
    target_call,
)
from .requests import Requests

__all__ = [
    "Steps",
    "adopt_steps",
    "create_steps",
    "delete_steps",
    "drop_steps",
    "follow",
    "follow_async",
    "open_steps",
    "optimise_steps",
    "page_steps",
    "scroll_steps",
    "upsert_steps",
]

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.2
_MAX_POLL_SECONDS: Final = 5.0
_REPORT_SECONDS: Final = 10.0
_WAITING_SECONDS: Final = 30.0
"""How long optimisers may go on waiting after they were started."""

T = TypeVar("T")

Steps = Generator[Call[Any] | float, Any, T]


def open_steps(name: str, model: CodeModel | None) -> Steps[tuple[str, Manifest]]:
    """The name of a collection, given by its name or an alias, and its manifest.

    An alias is resolved once. Later calls go to the collection itself, so that a switch of the alias never runs the
    queries of one model against the codes of another.

    Raises:
        IndexNotFoundError: there is none, or it was not created by this package.
        ModelMismatchError: it holds the codes of another model.
    """
    collection = (yield target_call(name)) or name
    manifest = yield manifest_call(collection)
    manifest.check_model(model, f"collection {collection!r}")
    return collection, manifest


def create_steps(collection: str, manifest: Manifest) -> Steps[None]:
    """Create an empty collection. A failure leaves none behind.

    Raises:
        IndexExistsError: there is a collection of this name.
    """
    if (yield exists_call(collection)):
        raise IndexExistsError(f"collection {collection!r} already exists; open it, or choose another name")
    try:
        yield create_call(collection, manifest)
    except IndexUnavailableError:
        raise
    except CodeIndexError as exc:
        if manifest.projection is None:
            raise
        raise CodeIndexError(
            f"{exc}. Navigation vectors need Qdrant 1.18 or newer; for an older server, create the index with "
            "IndexSettings(navigation=None) (--no-navigation)"
        ) from exc
    try:
        yield from setup_calls(collection, manifest.settings)
    except CodeIndexError:
        yield delete_call(collection)
        raise


def adopt_steps(collection: str, manifest: Manifest) -> Steps[None]:
    """Add an empty vector for codes to an existing collection. Repeating it changes nothing.

    The manifest is stored before the vector is added, so a vector of this name without a manifest is the user's own.

    Raises:
        IndexNotFoundError: there is no such collection.
        ModelMismatchError: it has the codes of another model.
        CodeIndexError: the server cannot add vectors (before 1.18), the collection is an index of this package, or it
            has another vector of that name.
    """
    has_vector, stored = yield adoption_call(collection)
    if stored is not None:
        stored.check_model(manifest, f"collection {collection!r}")
        if not stored.adopted:
            raise CodeIndexError(f"collection {collection!r} is already an index of codes; ingest into it instead")
    elif has_vector:
        raise CodeIndexError(
            f"collection {collection!r} has a sparse vector {VECTOR_NAME!r} that this package did not create; migrate "
            "to another collection (--index)"
        )
    yield store_manifest_call(collection, manifest)
    if not has_vector:
        yield add_vector_call(collection, manifest)
    yield configure_vector_call(collection, manifest)


def upsert_steps(
    requests: Requests,
    ids: Sequence[ItemId],
    codes: SparseCodes,
    payloads: Sequence[Payload | None] | None,
    dense: npt.NDArray[Any] | None,
    hashes: Sequence[str] | None,
) -> Steps[None]:
    """Write a batch. In an adopted collection, points that were deleted meanwhile are left out."""
    call = requests.upsert(ids, codes, payloads, dense, hashes)
    if call is None:
        return
    try:
        yield call
    except IndexNotFoundError:
        stored = yield requests.hashes(ids)
        rows = [row for row, content in enumerate(stored) if content is not None]
        if not requests.adopted or len(rows) == len(ids):
            raise
        call = requests.upsert([ids[row] for row in rows], codes[rows], None)
        if call is not None:
            yield call


def delete_steps(requests: Requests, filter: models.Filter, *, all_items: bool) -> Steps[int]:
    """Delete the items that match a filter, and return how many there were just before.

    Raises:
        InvalidInputError: the filter has no condition and `all_items` is not set.
        ConfigError: the collection was adopted, or has shard keys and the calls are of none.
    """
    check_deletion(filter, all_items=all_items)
    delete = requests.delete_by_filter(filter)
    matching: int = yield requests.count(filter)
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
    if requests.query_limit is None:
        requests.query_limit = yield requests.read_query_limit()
    page: tuple[list[ItemId], Any] = yield requests.page(min(size, requests.query_limit), offset)
    return page


def optimise_steps(requests: Requests, collection: str, patience: float) -> Steps[None]:
    """Wait until the optimisers are done, for as long as they make progress.

    After a restart of the server its optimisers wait ("grey") for a write; they are started once.

    Raises:
        CodeIndexError: they failed, are switched off, did not start within 30 s, or made no progress for `patience`
            seconds.
    """
    started = changed = reported = time.monotonic()
    pause, restarted, last = _POLL_SECONDS, False, None
    while (state := (yield requests.state())).status != "green":
        now = time.monotonic()
        if state != last:
            last, changed = state, now
        if state.switched_off:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} are switched off ({state.switched_off}), so "
                "searches stay slow; switch them on with qdrant-client's update_collection"
            )
        longest = min(patience, _WAITING_SECONDS) if state.status == "grey" else patience
        if now - changed > longest:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} made no progress for {longest:g} s "
                f"({state.status}, {state.segments} segments); check the server's load and log"
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
