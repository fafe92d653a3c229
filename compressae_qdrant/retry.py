"""Trying again what a server failed to do for a while: exponential backoff with full jitter.

Jitter as in Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): each wait is uniform between
nothing and the cap of its attempt, so that many clients don't come back at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import telemetry
from .errors import ConfigError, IndexUnavailableError

__all__ = ["RetryPolicy"]

_LOG = logging.getLogger(__name__)
_RANDOM = random.SystemRandom()  # apart from the seeded generators of training

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and how long in between. The defaults wait up to a minute and a half in all, half of
    that on average, besides the time that calls take themselves: a server's restart."""

    attempts: int = 9
    """Calls in all; 1 never tries again."""
    first_seconds: float = 0.5
    """Longest wait before the second call; doubled before each further one."""
    longest_seconds: float = 30.0
    """No wait is longer, unless the server asks for it by Retry-After."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_seconds < 0 or self.longest_seconds < 0:
            raise ConfigError(f"{self} makes no sense; attempts must be at least 1 and seconds at least 0")

    def wait(self, failures: int, error: IndexUnavailableError) -> float:
        """Seconds to wait after so many failures, the last of them `error`."""
        wanted = _RANDOM.uniform(0, min(self.longest_seconds, self.first_seconds * 2 ** (failures - 1)))
        return max(wanted, error.retry_after or 0.0)

    def run(self, call: Callable[[], T]) -> T:
        """Call until it doesn't fail by `IndexUnavailableError`, which is raised when the attempts are used up.

        The call must do no harm when it is done twice: a failure doesn't tell whether the server had already acted.
        """
        for failures in range(1, self.attempts):
            try:
                return call()
            except IndexUnavailableError as exc:
                seconds = self.wait(failures, exc)
                _LOG.warning("%s; trying again in %.1f s (%d of %d)", exc, seconds, failures, self.attempts - 1)
                telemetry.count("compressae.retries", attributes={"error.type": type(exc).__name__})
                time.sleep(seconds)
        return call()
