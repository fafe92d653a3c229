"""One call of a Qdrant client, sync or async, as a value; and how to make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient

from ...telemetry import operation
from .client import Answer, Client
from .errors import client_errors

__all__ = ["Call", "OptimiserState", "ignore_answer", "run_call", "run_call_async"]

A = TypeVar("A")
T = TypeVar("T")


class Call(Generic[T]):
    """One call of a client's method.

    Args:
        action: what the call does to a collection, for error messages: "search", "upsert into".
        send: makes the call by a client.
        parse: turns the client's answer into the result.
        size: bytes of the request, where they are known before it is sent.
    """

    def __init__(
        self, action: str, send: Callable[[Client], Answer[A]], parse: Callable[[A], T], size: int = 0
    ) -> None:
        self.action = action
        self.size = size
        self.send: Callable[[Client], Any] = send
        self.parse: Callable[[Any], T] = parse


@dataclass(frozen=True)
class OptimiserState:
    """The state of a collection's optimisers."""

    status: str
    """"green" when they are done, "yellow" when they work, "grey" when they wait for a write to start them."""
    segments: int
    indexed: int
    """Vectors in an index of any kind, as the server counts them."""
    switched_off: str = ""
    """The setting that switches the optimisers off; empty if they are on."""


def ignore_answer(_: object) -> None:
    """Parse an answer that carries no information."""


def run_call(client: QdrantClient, collection: str, call: Call[T]) -> T:
    """Make a call by a sync client. `collection` is named in errors and telemetry.

    Raises:
        CodeIndexError: the call failed; see `client_errors`.
    """
    failures = client_errors(call.action, collection, client.init_options)
    with operation("qdrant", call.action.split()[0], collection), failures:
        answer = call.send(client)
    return call.parse(answer)


async def run_call_async(client: AsyncQdrantClient, collection: str, call: Call[T]) -> T:
    """`run_call` by an async client."""
    failures = client_errors(call.action, collection, client.init_options)
    with operation("qdrant", call.action.split()[0], collection), failures:
        answer = await call.send(client)
    return call.parse(answer)
