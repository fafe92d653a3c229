"""What README says works as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from compressae_qdrant import datasets
from compressae_qdrant.cli.program import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as written, with a smaller training on a part of the catalog."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    settings = "TrainConfig(latents=4096, k=32)"
    assert settings in block
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    part = tmp_path / "part.parquet"
    pq.write_table(pq.read_table(datasets.sample_path()).slice(0, 800), part)
    monkeypatch.setattr(datasets, "sample_path", lambda: part)
    monkeypatch.chdir(tmp_path)
    small = "TrainConfig(latents=256, k=16, steps=5, rounds=2, encoder_steps=1)"
    made: dict[str, Any] = {}
    exec(block.replace(settings, small).replace("progress=True", "progress=False"), made)
    made["index"].close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert re.match(r"0\.\d{3} 0ad Real-time strategy game", lines[0])
    assert " 0ad " not in "".join(lines[5:])


def test_the_shell_lines_parse() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group
    lines = re.findall(r"^compressae (\w+) (.*)$", README, re.MULTILINE)
    assert {name for name, _ in lines} == set(commands)
    for name, rest in lines:
        commands[name].make_context(name, shlex.split(rest, comments=True), resilient_parsing=False)


def test_every_file_that_readme_names_is_there() -> None:
    root = Path(__file__).parents[1]
    for name in re.findall(r"\]\(([^)#]+)\)", README):
        assert name.startswith("http") or (root / name).exists(), name
