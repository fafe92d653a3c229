"""The command line `compressae`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

from ..errors import CompresSAEError

__all__ = ["main"]

_INTERRUPTED: Final = "interrupted; run the same command again to resume it, if it keeps a checkpoint or a journal"


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def main() -> None:
    """Run the command line. An error of the package gives one line and exit code 2; --debug shows the traceback.

    Ctrl-C ends with exit code 130, SIGTERM with 143, and an output that nobody reads (`| head`) with 1.
    """
    # Imported here so that an import error of a broken installation is raised by the call, not by the entry point.
    from .command import InterruptedCommandError
    from .program import app

    _accept_all_characters()
    debug = "--debug" in sys.argv[1:]
    try:
        with _sigterm_interrupts():
            app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except (CompresSAEError, OSError) as exc:
        if debug:
            raise
        _fail(str(exc))
    except InterruptedCommandError as exc:
        _end_now(str(exc) or _INTERRUPTED, 143 if isinstance(exc.__cause__, _Terminated) else 130)
    except KeyboardInterrupt:
        _end_now(_INTERRUPTED, 130)
    except SystemExit as exc:
        raise SystemExit(_flushed(exc.code)) from exc.__cause__


def _accept_all_characters() -> None:
    """Escape the characters that the encoding of a stream does not have, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Raise an interruption at SIGTERM, so that a command ends as at Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a signal handler)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _flushed(code: object) -> object:
    """The exit code once the output is written; 1 if its reader has gone, which is no error to report."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_unwritable_output()
        return code or 1
    except OSError as exc:
        _fail(f"can't write the output: {exc}")
    return code


def _end_now(message: str, code: int) -> NoReturn:
    """Report an interruption and end, without waiting for threads whose requests a server has not answered."""
    _report(message)
    _flushed(code)
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _fail(message: str) -> NoReturn:
    _report(message)
    _discard_unwritable_output()
    raise SystemExit(2)


def _discard_unwritable_output() -> None:
    """Send output that cannot be written nowhere: Python writes it again at its exit, and would fail with code 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):  # an output that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(message: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"compressae: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 (the output of a command line)
