"""The help of `compressae` and of every command: it loads fast, is complete, and agrees with the library."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any, get_args

import pytest
from typer.main import get_command

from compressae_qdrant.cli import options
from compressae_qdrant.cli.program import COMMANDS, CommandGroup, app
from compressae_qdrant.evaluation.calibrate import LIMITS
from compressae_qdrant.index.settings import Datatype, IndexSettings
from compressae_qdrant.model.config import Method
from compressae_qdrant.model.pursuit import ATOMS_PER_STEP
from compressae_qdrant.scoring import Scoring
from compressae_qdrant.search.defaults import FIRST_STAGE
from compressae_qdrant.training import TrainConfig

HEAVY = {"torch", "qdrant_client", "qdrant_edge", "pyarrow", "numpy", "scipy", "matplotlib", "sklearn"}


def _group() -> CommandGroup:
    group = get_command(app)
    assert isinstance(group, CommandGroup)
    return group


def _commands() -> dict[str, Any]:
    """Every command under its name; those of `ab` as "ab size"."""
    group = _group()
    commands: dict[str, Any] = {}
    for name in COMMANDS:
        command = group.get_command(None, name)
        inner = getattr(command, "commands", None)
        commands |= {name: command} if inner is None else {f"{name} {each}": inner[each] for each in inner}
    return commands


def _help(command: Any, name: str) -> str:
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=100)
    return str(command.get_help(context))


def test_help_loads_nothing_heavy() -> None:
    """Run in a separate process, because this one has loaded everything."""
    lines = [["--help"], *([name, "--help"] for name in COMMANDS), ["ab", "size", "--help"]]
    code = (
        "import sys\nfrom compressae_qdrant.cli import main\n"
        f"for words in {lines!r}:\n"
        "    sys.argv = ['compressae', *words]\n"
        "    try:\n        main()\n    except SystemExit as ended:\n        assert not ended.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_the_table_has_the_first_sentence_of_every_commands_help() -> None:
    group = _group()
    for name, entry in COMMANDS.items():
        text = " ".join(str(group.get_command(None, name).help).split())
        assert f"{text} ".startswith(f"{entry.help} "), name
        assert entry.help.endswith(".")


@pytest.mark.parametrize("name", _commands())
def test_every_command_has_an_example_that_parses(name: str) -> None:
    command = _commands()[name]
    words = shlex.split(command.epilog)
    assert words[: 1 + len(name.split())] == ["compressae", *name.split()]
    context = command.make_context(name, words[1 + len(name.split()) :])
    assert context.args == []
    assert f"Example:\n  {command.epilog}\n" in f"{_help(command, name)}\n"


@pytest.mark.parametrize("name", _commands())
def test_every_option_has_a_help_text_that_is_a_sentence(name: str) -> None:
    for parameter in _commands()[name].params:
        text = parameter.help
        assert text, parameter.name
        assert text[0].isupper(), text
        assert text.endswith("."), text
        assert "or:" not in text, text


@pytest.mark.parametrize("words", [[], ["ab"]], ids=["compressae", "ab"])
def test_the_list_of_commands_is_not_cut(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _group().main([*words, "--help"], prog_name="compressae", terminal_width=80)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    listed = " ".join(out.partition("Commands:" if words else "Build and search:")[2].split())
    assert "..." not in listed
    assert "…" not in listed
    summaries = (
        {name: entry.help for name, entry in COMMANDS.items()}
        if not words
        else {name: command.short_help for name, command in _group().get_command(None, "ab").commands.items()}
    )
    for name, summary in summaries.items():
        assert f"{name} {summary}" in listed


def test_defaults_in_words_have_no_parentheses() -> None:
    text = " ".join(_help(_commands()["train"], "train").split())
    assert "[default: by the number of items, at most 4096]" in text
    assert "[default: (" not in text


def test_one_option_has_one_declaration() -> None:
    """Shared options have the same help text in every command."""
    texts: dict[str, set[str]] = {}
    for command in _commands().values():
        for parameter in command.params:
            for option in parameter.opts:
                texts.setdefault(option, set()).add(parameter.help)
    shared = (
        "--id",
        "--embedding",
        "--text",
        "--metadata",
        "--method",
        "--device",
        "--scoring",
        "--prefetch",
        "--json",
    )
    for option in shared:
        assert len(texts[option]) == 1, option


def test_every_command_that_reads_a_catalog_can_skip_bad_rows() -> None:
    """A catalog that was loaded with --skip-bad-rows can be evaluated, tuned and deployed too."""
    readers = {name for name in COMMANDS if "embedding" in _shown(name)}
    assert {"train", "ingest", "sync", "deploy", "evaluate", "calibrate", "tune", "report", "monitor"} <= readers
    for name in readers:
        assert "skip_bad_rows" in _shown(name), name
        assert "embedder_option" in _shown(name), name


def test_help_shows_the_defaults_and_choices_of_the_library() -> None:
    assert options.ATOMS_PER_STEP == ATOMS_PER_STEP
    training, shown = TrainConfig(), _shown("train")
    for name in ("k", "steps", "rounds", "seed", "batch_size"):
        assert shown[name].show_default == str(getattr(training, name))
    ingest, search = _shown("ingest"), _shown("search")
    assert ingest["method"].metavar == f"[{'|'.join(get_args(Method))}]"
    assert sorted(ingest["datatype"].metavar.strip("[]").split("|")) == sorted(get_args(Datatype))
    assert ingest["datatype"].show_default == IndexSettings().datatype
    assert sorted(search["scoring"].metavar.strip("[]").split("|")) == sorted(get_args(Scoring))
    assert search["first_stage_latents"].show_default.startswith(f"{FIRST_STAGE},")
    assert _shown("calibrate")["limit"].show_default == ", ".join(map(str, LIMITS))


def _shown(command: str) -> dict[str, Any]:
    """The parameters of a command by name; none for a group of commands."""
    return {parameter.name: parameter for parameter in getattr(_group().get_command(None, command), "params", ())}


def test_a_misspelt_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _group().main(["serch"])
    assert ended.value.code == 2
    assert "Did you mean 'search'?" in capsys.readouterr().err
