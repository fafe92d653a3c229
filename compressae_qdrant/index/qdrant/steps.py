"""What takes several calls of a server, as steps that a sync or an async index follows.

A step is a call to make, whose answer (or error) is sent back, or a number of seconds to wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

import numpy.typing as npt

from ...codes import SparseCodes
from ...errors import CodeIndexError, IndexExistsError, IndexNotFoundError
from ..manifest import VECTOR_NAME, Manifest
from ..protocol import CodeModel
from ..results import ItemId, Payload
from .calls import Call
from .collections import (
    add_vector_call,
    adoptable_call,
    create_call,
    delete_call,
    exists_call,
    manifest_call,
    note_call,
    place_vector_call,
    setup_calls,
    target_call,
)
from .requests import Requests

__all__ = ["Steps", "adopting", "creating", "follow", "follow_async", "opening", "until_optimised", "upserting"]

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.2
_LONGEST_POLL: Final = 5.0
_REPORT_SECONDS: Final = 10.0

T = TypeVar("T")

Steps = Generator[Call[Any] | float, Any, T]


def opening(name: str, model: CodeModel | None) -> Steps[tuple[str, Manifest]]:
    """The collection behind a name or an alias, and its manifest.

    An alias is followed here and once: what comes later goes to the collection itself, so that a switch never lets the
    queries of one model meet the codes of another.

    Raises:
        IndexNotFoundError: there is none, or it was not made by this package.
        ModelMismatchError: it holds the codes of another model.
    """
    collection = (yield target_call(name)) or name
    manifest = yield manifest_call(collection)
    manifest.check_model(model, f"collection {collection!r}")
    return collection, manifest


def creating(collection: str, manifest: Manifest) -> Steps[None]:
    """Make an empty collection, whole or not at all.

    Raises:
        IndexExistsError: there is one of this name.
    """
    if (yield exists_call(collection)):
        raise IndexExistsError(f"there is a collection {collection!r} already; open it, or choose another name")
    yield create_call(collection, manifest)
    try:
        yield from setup_calls(collection, manifest.settings)
    except CodeIndexError:
        yield delete_call(collection)
        raise


def adopting(collection: str, manifest: Manifest) -> Steps[None]:
    """Add an empty vector for codes to a collection that is there. Done again, it changes nothing.

    It is noted before the vector is added: a vector without a note is someone else's.

    Raises:
        IndexNotFoundError: there is no such collection.
        ModelMismatchError: it has the codes of another model.
        CodeIndexError: the server can't add vectors (before 1.18), the collection is an index of this package, or it
            has a vector of that name already.
    """
    has_vector, found = yield adoptable_call(collection)
    if found is not None:
        found.check_model(manifest, f"collection {collection!r}")
        if not found.adopted:
            raise CodeIndexError(f"collection {collection!r} is an index of codes already; ingest into it instead")
    elif has_vector:
        raise CodeIndexError(
            f"collection {collection!r} has a sparse vector {VECTOR_NAME!r} that is not ours; migrate to another "
            "collection (--index)"
        )
    yield note_call(collection, manifest)
    if not has_vector:
        yield add_vector_call(collection, manifest)
    yield place_vector_call(collection, manifest)


def upserting(
    requests: Requests,
    ids: Sequence[ItemId],
    codes: SparseCodes,
    payloads: Sequence[Payload | None] | None,
    dense: npt.NDArray[Any] | None,
    hashes: Sequence[str] | None,
) -> Steps[None]:
    """Write a batch. Codes that are added to someone's points pass over points that have gone meanwhile."""
    call = requests.upsert(ids, codes, payloads, dense, hashes)
    if call is None:
        return
    try:
        yield call
    except IndexNotFoundError:
        stored = yield requests.hashes(ids)
        there = [row for row, content in enumerate(stored) if content is not None]
        if not requests.adopted or len(there) == len(ids):
            raise
        call = requests.upsert([ids[row] for row in there], codes[there], None)
        if call is not None:
            yield call


def until_optimised(requests: Requests, collection: str, patience: float) -> Steps[None]:
    """Wait until there is nothing left to optimise, however long that takes as long as something changes.

    A restarted server leaves its optimisers waiting ("grey") until something is written; they are nudged once.

    Raises:
        CodeIndexError: they failed, or nothing has changed for `patience` seconds.
    """
    started = changed = reported = time.monotonic()
    pause, nudged, last = _POLL_SECONDS, False, None
    while (state := (yield requests.state())).status != "green":
        now = time.monotonic()
        if state != last:
            last, changed = state, now
        elif now - changed > patience:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} have come no further for {patience:g} s "
                f"({state.status}, {state.segments} segments); look at the server's load and log"
            )
        if state.status == "grey" and not nudged:
            nudged = True
            yield requests.nudge()
        if now - reported > _REPORT_SECONDS:
            reported = now
            _LOG.info(
                "collection %r: optimisers at work for %.0f s (%s, %d segments)", collection, now - started,
                state.status, state.segments,
            )  # fmt: skip
        yield pause
        pause = min(1.5 * pause, _LONGEST_POLL)


def follow(steps: Steps[T], run: Callable[[Call[Any]], Any]) -> T:
    """Take steps one after the other, and give what they come to."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a T, as the steps say
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = run(step)
            else:
                time.sleep(step)
        except CodeIndexError as exc:
            failure = exc


async def follow_async(steps: Steps[T], run: Callable[[Call[Any]], Awaitable[Any]]) -> T:
    """`follow`, awaiting each step."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a T, as the steps say
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = await run(step)
            else:
                await asyncio.sleep(step)
        except CodeIndexError as exc:
            failure = exc
