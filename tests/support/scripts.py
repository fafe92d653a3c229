"""Loads the files of scripts/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["SCRIPTS", "load_script"]

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import scripts/NAME.py, which may import its neighbours until the end of the test."""
    for neighbour in SCRIPTS.glob("*.py"):
        monkeypatch.delitem(sys.modules, neighbour.stem, raising=False)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
