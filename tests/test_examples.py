"""Every script in examples/ runs as it is."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = {
    "arrow_tables": 7,
    "async_search": 5,
    "filter_and_tenant": 10,
    "haystack_pipeline": 4,
    "langchain_store": 8,
    "load_and_search": 10,
    "mteb_task": 2,
    "sklearn_pipeline": 4,
    "sparse_encoder": 4,
    "steer_and_explain": 6,
    "train_and_evaluate": 4,
}
"""Lines that each script prints."""
FRAMEWORKS = {"haystack_pipeline": "haystack", "langchain_store": "langchain_core", "mteb_task": "mteb"}
"""Examples that need a framework which is not installed here; scripts/conformance runs them."""


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(LINES)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
@pytest.mark.parametrize("name", sorted(LINES))
def test_example(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name in FRAMEWORKS:
        pytest.importorskip(FRAMEWORKS[name], reason=f"needs {FRAMEWORKS[name]}; bash scripts/conformance runs it")
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == LINES[name], lines
    if name == "filter_and_tenant":
        assert all(line.endswith("(games)") for line in lines[1:5])
        assert all(line.endswith("(shop-1)") for line in lines[6:])
    if name == "steer_and_explain":
        assert lines[-1].partition(": ")[2] != lines[-2].partition(": ")[2]
