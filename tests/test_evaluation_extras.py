"""Evaluation, capacity, tuning and report without their optional dependencies: an error names the extra."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant.capacity import Workload, load_constants, plan
from compressae_qdrant.capacity.chart import draw_plan
from compressae_qdrant.errors import MissingExtraError
from compressae_qdrant.evaluation.baselines import faiss_index
from compressae_qdrant.evaluation.comparison import Row
from compressae_qdrant.evaluation.tables import write_report
from compressae_qdrant.report.page import render_page
from compressae_qdrant.tuning import Goal, draw_front

ROW = Row("a", "dense", 100.0, None, 0.5, 0.25, (0.2, 0.3), {})


def _faiss(_: Path) -> None:
    with faiss_index("Faiss SQ8", "SQ8", "Faiss PQ").build(np.eye(4, dtype=np.float32)):
        pass


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("faiss", "bench", _faiss),
        ("jinja2", "report", lambda _: render_page()),
        ("matplotlib.artist", "plots", lambda out: write_report(out, "items", [ROW], 96)),
        ("matplotlib.figure", "plots", lambda out: draw_front(out / "front.png", [], Goal(budget=1), None)),
        (
            "matplotlib.figure",
            "plots",
            lambda out: draw_plan(out / "plan.png", plan(Workload(1000, 24), load_constants()), "plan"),
        ),
    ],
)
def test_a_missing_dependency_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str, use: Callable[[Path], object]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "compressae_qdrant.evaluation.plots", raising=False)
    with pytest.raises(MissingExtraError, match=re.escape(f"pip install 'compressae-qdrant[{extra}]'")):
        use(tmp_path)


def test_no_optional_dependency_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, compressae_qdrant.evaluation.tables, compressae_qdrant.evaluation.baselines, "
        "compressae_qdrant.capacity.chart, compressae_qdrant.tuning, compressae_qdrant.report; "
        "print(sorted({'matplotlib', 'jinja2', 'faiss', 'optuna'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() in ("[]", "['jinja2']")  # torch may import Jinja itself
