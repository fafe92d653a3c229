"""The command line program: a table of its commands, each loaded when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple, cast

import typer
from typer.core import TyperGroup

from .command import SETTINGS, build_command

__all__ = ["COMMANDS", "CommandGroup", "Entry", "app"]


class Entry(NamedTuple):
    """A command as `compressae --help` lists it."""

    section: str
    """Heading that the command is listed under."""
    module: str
    """Module of this package that defines the command under the command's name."""
    help: str
    """First sentence of the command's own help; a test compares the two."""


COMMANDS: Final[dict[str, Entry]] = {
    name: Entry(section, module, summary)
    for section, commands in {
        "Build and search": [
            ("train", "train", "Train a model on the embeddings of a catalog."),
            ("encode", "encode", "Encode a catalog into a file of codes, without an index."),
            ("ingest", "ingest", "Encode a catalog and load it into an index, which is created if it does not exist."),
            ("search", "search", "Search an index by text, by vector, or for items similar to one of its items."),
            ("info", "info", "Describe an index, a model, or both."),
        ],
        "Plan and measure": [
            ("plan", "plan", "Estimate memory, disk, nodes, latency and cost of a catalog as codes and as vectors."),
            ("tune", "tune", "Find settings that fit a memory budget or reach a recall, on a sample of the catalog."),
            (
                "calibrate",
                "calibrate",
                "Measure recall and cost of query plans, for searches that name a recall.",
            ),
            ("evaluate", "evaluate", "Measure recall, latency and size of an index against exact dense search."),
            ("report", "report", "Write one HTML page that shows what compression saved and what it lost."),
            ("concepts", "concepts", "Find what each latent of a model stands for, and show it."),
        ],
        "Operate": [
            ("sync", "sync", "Make an index equal to a catalog: add, rewrite and delete the items that differ."),
            ("delete", "delete", "Delete items from an index, by their ids or by a filter."),
            ("drop", "delete", "Delete a whole index: its directory, or its collection on a server."),
            (
                "add-navigation",
                "add_navigation",
                "Give an index that has none navigation vectors with a graph, which keep searches of large catalogs "
                "fast.",
            ),
            ("migrate", "migrate", "Encode a collection of dense vectors while it stays in service."),
            (
                "deploy",
                "deploy",
                "Build a collection for a new model, verify it, and switch the alias to it.",
            ),
            ("rollback", "deploy", "Point an alias back to the collection that was live before the last deploy."),
            ("monitor", "monitor", "Compare new items or a live index with the baseline stored with the model."),
            ("ab", "ab", "Run online A/B tests: assign users, plan the size, analyse the events."),
        ],
    }.items()
    for name, module, summary in commands
}
"""Every command by its name, in the order of the list."""


class CommandGroup(TyperGroup):
    """A click group that imports the module of a command when the command is asked for, and not to list it."""

    def __init__(self, *, commands: Any = None, **attributes: Any) -> None:
        super().__init__(commands=commands, **attributes)
        # The keys are enough for listing and for "did you mean"; `get_command` puts a command in place of None.
        self.commands.update(cast(dict[str, Any], dict.fromkeys(COMMANDS)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            module = import_module(f".{COMMANDS[cmd_name].module}", __package__)
            self.commands[cmd_name] = build_command(cmd_name, getattr(module, cmd_name.replace("-", "_")))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (the signature is click's)
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows: Sequence[tuple[str, str]] = [
                (name, entry.help) for name, entry in COMMANDS.items() if entry.section == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)


app = typer.Typer(cls=CommandGroup, no_args_is_help=True, **SETTINGS)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Compress the embeddings of a catalog into k-sparse codes, keep the codes in Qdrant, and search them."""
