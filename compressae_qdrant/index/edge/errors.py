"""Errors of the embedded engine as errors of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...errors import CodeIndexError

__all__ = ["engine_errors"]


@contextlib.contextmanager
def engine_errors(action: str, path: object) -> Iterator[None]:
    """Raise CodeIndexError in place of the engine's errors: a bare `Exception`, or a panic, which is a `BaseException`.

    Args:
        action: what is done to the index, for the message: "search", "upsert into".
        path: directory of the index.
    """
    try:
        yield
    except BaseException as exc:
        if type(exc) is Exception or type(exc).__name__ == "PanicException":
            raise CodeIndexError(f"cannot {action} the index at {path}: {exc}") from exc
        raise
