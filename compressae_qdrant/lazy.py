"""Late imports: exports of a package that are loaded when they are first used (PEP 562), and optional dependencies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from .errors import MissingExtraError

__all__ = ["lazy_exports", "needs_extra"]


@contextlib.contextmanager
def needs_extra(extra: str, what: str, library: str = "Matplotlib") -> Iterator[None]:
    """Import an optional dependency inside this context.

    Args:
        extra: extra of this package that installs the dependency.
        what: what needs it, in the singular, such as "a plot".
        library: name of the dependency, as its project spells it.

    Raises:
        MissingExtraError: the dependency is not installed; the message has the command that installs it.
    """
    try:
        yield
    except ImportError as exc:
        raise MissingExtraError(f"{what} needs {library}; run: pip install 'compressae-qdrant[{extra}]'") from exc


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Build the `__getattr__` and `__dir__` of a package.

    Args:
        package: name of the package, its `__name__`.
        modules: for each exported name, the module that defines it, relative to the package.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{modules[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
