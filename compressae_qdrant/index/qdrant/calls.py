"""One call of a Qdrant client, as a value: a method, its arguments, and how to read the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

__all__ = ["Call", "State", "Transport", "nothing"]

T = TypeVar("T")


@dataclass(frozen=True)
class Transport:
    """How a client reaches its collections."""

    kind: Literal["local", "rest", "grpc"] = "local"
    """"local" is the client's own emulation, in this process."""
    timeout: float = 5
    """Seconds that a gRPC call may take. The client's lower layer, unlike the upper, has to be told."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From the options that a client was made with."""
        if options.get("location") == ":memory:" or options.get("path"):
            return cls("local")
        return cls("grpc" if options.get("prefer_grpc") else "rest", options.get("timeout") or cls.timeout)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of a client's method."""

    method: str
    """Its name; dotted where it is in the client's own lower layer."""
    arguments: dict[str, Any]
    parse: Callable[[Any], T]
    """Reads the answer."""
    doing: str
    """What is being done, for error messages."""


@dataclass(frozen=True)
class State:
    """What a collection says of its optimisers."""

    status: str
    """"green" when nothing is left to do, "yellow" at work, "grey" waiting for a nudge."""
    segments: int
    indexed: int
    """Vectors in an index of some kind, as the server counts them."""


def nothing(_: Any) -> None:
    """Of an answer that says nothing."""
