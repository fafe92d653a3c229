"""README and docs: Python blocks run or compile, shell lines parse, and every command is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from compressae_qdrant import datasets
from compressae_qdrant.cli.program import COMMANDS, CommandGroup, app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
SETTINGS = "TrainConfig(latents=4096)"
SMALL = "TrainConfig(latents=256, k=16, steps=5, rounds=2, encoder_steps=1)"


def _python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL)


@pytest.mark.parametrize(("page", "hits"), [(README, 5), (ROOT / "docs" / "tutorial.md", 10)])
def test_the_python_block_runs(
    page: Path, hits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as written, with a smaller training on a part of the catalog."""
    (block,) = _python_blocks(page)
    assert SETTINGS in block
    part = tmp_path / "part.parquet"
    pq.write_table(pq.read_table(datasets.sample_path()).slice(0, 800), part)
    monkeypatch.setattr(datasets, "sample_path", lambda: part)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block.replace(SETTINGS, SMALL).replace("progress=True", "progress=False"), names)
    names["index"].close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == hits
    if hits == 10:  # the query of the first five is the item 0ad itself
        assert re.match(r"0\.\d{3} 0ad Real-time strategy game", lines[0])
    assert " 0ad " not in "".join(lines[-5:])


def test_readme_is_short() -> None:
    (block,) = _python_blocks(README)
    assert len(TEXTS[README].splitlines()) <= 120
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_every_python_block_compiles() -> None:
    for page in PAGES:
        for block in _python_blocks(page):
            compile(block, str(page), "exec")


def test_the_shell_lines_parse_and_show_every_command() -> None:
    group = get_command(app)
    assert isinstance(group, CommandGroup)
    lines = [line for text in TEXTS.values() for line in re.findall(r"^compressae ([\w-]+) (.*)$", text, re.MULTILINE)]
    assert {name for name, _ in lines} == set(COMMANDS)
    for name, rest in lines:
        command, arguments = group.get_command(None, name), shlex.split(rest, comments=True)
        if hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(name, arguments, resilient_parsing=False)


def test_every_file_that_the_pages_name_exists() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", TEXTS[README]):
        assert name.startswith("http") or (ROOT / name).exists(), name
    for text in TEXTS.values():
        for name in re.findall(r"\b(?:scripts|integration_tests|examples|tests)/[\w./-]*\w", text):
            assert (ROOT / name).exists() or "*" in name, name
