"""compressae train: a model from the embeddings of a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .groups import EmbeddingOptions
from .inputs import open_catalog, parse_device
from .options import (
    ConfigOption,
    JsonOption,
    SourceArgument,
    TrainingDeviceOption,
)
from .output import show

__all__ = ["train"]

_TRAINING = "Training options"


def train(
    *,
    source: SourceArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIRECTORY", help="Directory to write the model and checkpoints to.")
    ],
    config: ConfigOption = None,
    latents: Annotated[
        int | None,
        typer.Option(
            help="Latents of the model (h).", show_default="by the number of items, at most 4096",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(help="Non-zeros of a code (k).", show_default="44", rich_help_panel=_TRAINING),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Optimiser steps of the autoencoder phase.", show_default="1500", rich_help_panel=_TRAINING
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Rounds of dictionary refinement. 0 skips it.", show_default="36", rich_help_panel=_TRAINING
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed. On CPUs of one kind, equal seeds give equal models.", show_default="0",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Items of an optimiser step, over all processes.", show_default="2048", rich_help_panel=_TRAINING
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            help="Maximum number of items to train on, for catalogs that must be held in memory.",
            rich_help_panel=_TRAINING,
        ),
    ] = 500_000,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Embeddings of logged queries, as a file like SOURCE, if queries differ from items. "
            "The navigation vectors of the graph are fitted to them.", rich_help_panel=_TRAINING,
        ),
    ] = None,
    device: TrainingDeviceOption = None,
    columns: EmbeddingOptions,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Train a model on the embeddings of a catalog.

    If the command is interrupted, run it again: it resumes from the last checkpoint. The [train] table of --config may
    set every field of TrainConfig. To train on several GPUs, run `torchrun --nproc-per-node=4 -m compressae_qdrant
    train ...`; every process must be able to read the directory --out.

    Example:
        compressae train sample --out model
    """
    from ..sources import draw_embeddings, sample_embeddings
    from ..training import TrainConfig
    from ..training import train as train_model
    from ..training.distributed import default_device, join_process_group
    from ..tuning.settings_file import Settings

    target = parse_device(default_device(device))
    catalog = open_catalog(source, columns)
    given = {"latents": latents, "k": k, "seed": seed, "steps": steps, "rounds": rounds, "batch_size": batch_size}
    chosen = {**Settings.read(config).train, **{name: value for name, value in given.items() if value is not None}}
    training = TrainConfig(**chosen)
    logged = None
    if queries is not None:
        logged, _ = draw_embeddings(open_catalog(queries, columns), limit)
    with join_process_group(target) as group:
        model = train_model(
            sample_embeddings(catalog, limit, seed=training.seed),
            training,
            checkpoint=out / "training.checkpoint",
            progress=group.is_first and not json_output,
            device=target,
            queries=logged,
        )
        if not group.is_first:
            return
        model.save(out)
    assert model.history is not None
    facts = {
        "model": str(out),
        "fingerprint": model.fingerprint,
        "dim": model.dim,
        "latents": model.latents,
        "k": model.k,
        "notes": model.history.notes,
        "posting_mass": model.posting_mass,
        "navigation": f"fitted to {model.projection.source}",
        "dead_latents": int((model.latent_use == 0).sum()),
    } | ({"pursuit_loss": model.history.records[-1].pursuit_loss} if model.history.records else {})
    show(facts, json_output)
