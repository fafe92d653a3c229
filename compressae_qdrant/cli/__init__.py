"""The command line `compressae`."""

from __future__ import annotations

import sys
from typing import NoReturn

from ..errors import CompresSAEError

__all__ = ["main"]


def main() -> None:
    """Run the command line. An error of the package gives one line and exit code 2; --debug shows the traceback."""
    # Imported here so that an import error of a broken installation is raised by the call, not by the entry point.
    from .program import app

    debug = "--debug" in sys.argv[1:]
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except (CompresSAEError, OSError) as exc:
        if debug:
            raise
        _fail(str(exc))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to resume it, if it keeps a checkpoint or a journal")


def _fail(message: str) -> NoReturn:
    print(f"compressae: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 (the output of a command line)
    raise SystemExit(2)
