"""A client of a Qdrant server that survives a fork of the process."""

from __future__ import annotations

import os
import warnings
from typing import Any, Generic, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient

from ...errors import CodeIndexError
from .client import Transport

__all__ = ["Connection", "make_client"]

C = TypeVar("C", QdrantClient, AsyncQdrantClient)


def make_client(kind: type[C], **options: Any) -> C:
    """A client with these options, without the library's warning about API keys; the caller gives its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        made: C = kind(**options)
        return made


class Connection(Generic[C]):
    """A client. In a forked process it is replaced by a new one with the same options, because two processes that use
    the same sockets would read each other's answers.

    Args:
        client: the client of the process that makes the connection.
    """

    def __init__(self, client: C) -> None:
        self._client: C = client
        self._process = os.getpid()
        self._inherited: C | None = None
        """Client of the parent process. It is kept, because deallocating it could close the parent's connections."""

    @property
    def client(self) -> C:
        """The client to use in this process.

        Raises:
            CodeIndexError: the process was forked, and the client uses gRPC or is the client's local mode.
        """
        if os.getpid() != self._process:
            self._replace()
        return self._client

    def _replace(self) -> None:
        options = self._client.init_options
        kind = Transport.of(options).kind
        if kind != "rest":
            name = "a gRPC connection" if kind == "grpc" else "the client's local mode"
            raise CodeIndexError(
                f"process {self._process} opened the index and then forked this process, and {name} does not survive "
                "a fork; create the client and open the index after the fork, or use http(s)://"
            )
        self._inherited, self._client = (
            self._client,
            make_client(type(self._client), **{**options, "check_compatibility": False}),
        )
        self._process = os.getpid()
