"""Runs the command line inside the test's process."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from compressae_qdrant.cli import main

__all__ = ["Shell"]


class Shell:
    """Runs `compressae` as a shell would, and returns the exit code, standard output and standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr("sys.argv", ["compressae", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    def json(self, line: str) -> Any:
        """Run a command with --json and return its parsed output; the command must succeed."""
        code, out, err = self(f"{line} --json")
        assert code == 0, err
        return json.loads(out)
