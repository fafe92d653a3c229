"""What takes several calls of a server, as steps that a sync or an async index follows.

A step is a call to make, whose answer (or error) is sent back, or a number of seconds to wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final

import numpy.typing as npt

from ..codes import SparseCodes
from ..errors import CodeIndexError, IndexExistsError, IndexNotFoundError
from .base import ItemId, Payload
from .calls import Call
from .collection_requests import adopt_calls, adoptable_call, create_call, delete_call, exists_call, setup_calls
from .manifest import Manifest
from .requests import Requests

__all__ = ["Steps", "adopting", "creating", "follow", "follow_async", "until_optimised", "upserting"]

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.2
_REPORT_SECONDS: Final = 10.0

Steps = Generator[Call[Any] | float, Any, None]


def creating(collection: str, manifest: Manifest) -> Steps:
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


def adopting(collection: str, manifest: Manifest) -> Steps:
    """Add an empty vector for codes to a collection that is there. Done again, it changes nothing.

    Raises:
        IndexNotFoundError: there is no such collection.
        ModelMismatchError: it has the codes of another model.
        CodeIndexError: the server can't add vectors (before 1.18), or the collection is an index of this package.
    """
    has_vector, found = yield adoptable_call(collection)
    if found is not None:
        found.check_model(manifest, f"collection {collection!r}")
        if not found.adopted:
            raise CodeIndexError(f"collection {collection!r} is an index of codes already; ingest into it instead")
    yield from adopt_calls(collection, manifest, has_vector=has_vector)


def upserting(
    requests: Requests,
    ids: Sequence[ItemId],
    codes: SparseCodes,
    payloads: Sequence[Payload | None] | None,
    dense: npt.NDArray[Any] | None,
    hashes: Sequence[str] | None,
) -> Steps:
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


def until_optimised(requests: Requests, collection: str, timeout: float) -> Steps:
    """Wait until there is nothing left to optimise.

    A restarted server leaves its optimisers waiting ("grey") until something is written; they are nudged once.

    Raises:
        CodeIndexError: they failed, or are still at it after `timeout` seconds.
    """
    started = reported = time.monotonic()
    nudged = False
    while (state := (yield requests.state())) != "green":
        now = time.monotonic()
        if now - started > timeout:
            raise CodeIndexError(
                f"the optimisers of collection {collection!r} are still at work after {timeout:g} s ({state}); wait "
                "longer, or look at the server's load"
            )
        if state == "grey" and not nudged:
            nudged = True
            yield requests.nudge()
        if now - reported > _REPORT_SECONDS:
            reported = now
            _LOG.info("collection %r: optimisers at work for %.0f s (%s)", collection, now - started, state)
        yield _POLL_SECONDS


def follow(steps: Steps, run: Callable[[Call[Any]], Any]) -> None:
    """Take steps one after the other."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration:
            return
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = run(step)
            else:
                time.sleep(step)
        except CodeIndexError as exc:
            failure = exc


async def follow_async(steps: Steps, run: Callable[[Call[Any]], Awaitable[Any]]) -> None:
    """`follow`, awaiting each step."""
    answer: Any = None
    failure: CodeIndexError | None = None
    while True:
        try:
            step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration:
            return
        answer = failure = None
        try:
            if isinstance(step, Call):
                answer = await run(step)
            else:
                await asyncio.sleep(step)
        except CodeIndexError as exc:
            failure = exc
