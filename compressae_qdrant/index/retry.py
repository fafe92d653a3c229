"""Retries of calls to a server that is temporarily unavailable: exponential backoff with full jitter.

Each wait is uniform between 0 and the cap of its attempt, so that many clients do not call again at the same time
(Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .. import telemetry
from ..checks import check_number, check_whole
from ..errors import ConfigError, IndexUnavailableError

__all__ = ["RetryPolicy"]

_LOG = logging.getLogger(__name__)
_RANDOM = random.SystemRandom()  # independent of the seeded generators of training

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts and waits between them.

    The defaults outlast the restart of a server: they wait at most 91 seconds in all and half of that on average, in
    addition to the time of the calls.
    """

    attempts: int = 9
    """Calls in total, including the first; 1 turns retries off."""
    first_seconds: float = 0.5
    """Maximum wait before the second call, in seconds. It doubles before each further call."""
    longest_seconds: float = 30.0
    """Maximum of any wait, in seconds. A longer Retry-After of the server takes precedence."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attempts", check_whole("attempts", self.attempts, error=ConfigError))
        for name in ("first_seconds", "longest_seconds"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), error=ConfigError))
        if self.attempts < 1 or self.first_seconds < 0 or self.longest_seconds < 0:
            raise ConfigError(f"{self} is invalid; attempts must be at least 1, and both seconds at least 0")

    def wait(self, failures: int, error: IndexUnavailableError) -> float:
        """Return the seconds to wait after a number of failures, the last of which is `error`."""
        backoff = _RANDOM.uniform(0, min(self.longest_seconds, self.first_seconds * 2 ** (failures - 1)))
        return max(backoff, error.retry_after or 0.0)

    def run(self, call: Callable[[], T], stopped: threading.Event | None = None) -> T:
        """Call a function, and repeat it while it raises `IndexUnavailableError`.

        Once `stopped` is set, the next failure is raised at once. The call must be idempotent, because a server may
        have executed a call that failed.

        Raises:
            IndexUnavailableError: the last attempt failed.
        """
        for failures in range(1, self.attempts):
            try:
                return call()
            except IndexUnavailableError as exc:
                if stopped is not None and stopped.is_set():
                    raise
                seconds = self.wait(failures, exc)
                _LOG.warning("%s; retrying in %.1f s (retry %d of %d)", exc, seconds, failures, self.attempts - 1)
                telemetry.count("compressae.retries", attributes={"error.type": type(exc).__name__})
                if stopped is None:
                    time.sleep(seconds)
                else:
                    stopped.wait(seconds)
        return call()
