"""Progress bars show the work and the rate of this run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from compressae_qdrant.cli import options, output
from compressae_qdrant.cli.output import progress_bar
from compressae_qdrant.ingestion.prepared import MAX_REQUEST_BYTES


def test_a_bar_shows_the_rate_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress_bar("migrate", None, quiet=True) as advance:
        advance.expect(9000)
        batch: Any = SimpleNamespace(start=7000, stop=8000)  # rows before 7000 were written by an earlier run
        advance(batch)
        task = advance._bar.tasks[0]
        assert (task.completed, task.total, task.fields["rate"]) == (8000, 9000, "100 items/s")
        assert task.fields["left"] == "0:00:10 left"


def test_the_default_size_of_a_request() -> None:
    assert options.MAX_REQUEST_MB * 2**20 == MAX_REQUEST_BYTES
