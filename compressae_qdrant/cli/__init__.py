"""compressae: everything that the package does, from a shell."""

from __future__ import annotations

import sys
from typing import NoReturn

from ..errors import CompresSAEError

__all__ = ["main"]


def main() -> None:
    """Entry point. An error of ours becomes one line and exit code 2, never a traceback; --debug shows it."""
    # Here, as it brings torch: a misspelt option needn't wait for a broken install to explain itself.
    from .program import app

    debug = "--debug" in sys.argv[1:]
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except (CompresSAEError, OSError) as exc:
        if debug:
            raise
        _fail(str(exc))
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it was, if it keeps a checkpoint or a journal")


def _fail(message: str) -> NoReturn:
    print(f"compressae: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 (a command line talks)
    raise SystemExit(2)
