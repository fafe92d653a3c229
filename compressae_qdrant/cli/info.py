"""compressae info: describe an index or a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .options import JsonOption
from .output import show

__all__ = ["info"]


def info(
    index: Annotated[
        str | None,
        typer.Option(
            "--index", "-i", metavar="LOCATION",
            help="Index to describe: a directory, or http://host:6333/collection.",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", metavar="DIRECTORY", help="Directory of a model to describe.")
    ] = None,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Describe an index, a model, or both.

    Given both, the command also checks that the index holds codes of that model.

    Example:
        compressae info --index index --model model
    """
    from ..index import open_index
    from ..model.compressae import CompresSAE

    if index is None and model is None:
        raise ConfigError("neither an index nor a model was given; give --index, --model or both")
    coder = None if model is None else CompresSAE.load(model)
    facts: dict[str, Any] = {}
    if coder is not None:
        facts["model"] = {
            "fingerprint": coder.fingerprint, "dim": coder.dim, "latents": coder.latents, "k": coder.k,
            "posting_mass": coder.posting_mass,
        }  # fmt: skip
    if index is not None:
        with open_index(index, coder) as opened:
            facts["index"] = dataclasses.asdict(opened.info())
    show(facts, json_output)
