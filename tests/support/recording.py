"""A client that records what it is called with, in place of one of qdrant-client."""

from __future__ import annotations

from typing import Any

from compressae_qdrant.index.qdrant.calls import Call

__all__ = ["method_of", "sent"]


class _Recorder:
    """An attribute of a client: called, it records its dotted name and the arguments."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def __getattr__(self, name: str) -> _Recorder:
        return _Recorder(f"{self.name}.{name}".removeprefix("."))

    def __call__(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        return self.name, arguments


def sent(call: Call[Any]) -> dict[str, Any]:
    """The keyword arguments that a call passes to the client."""
    client: Any = _Recorder()
    arguments: dict[str, Any] = call.send(client)[1]
    return arguments


def method_of(call: Call[Any]) -> str:
    """The client's method that a call uses, dotted where it is in the client's lower layer."""
    client: Any = _Recorder()
    return str(call.send(client)[0])
