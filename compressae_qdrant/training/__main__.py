"""Training by several processes, one for each GPU (or on CPUs, with gloo)::

    torchrun --nproc-per-node=4 -m compressae_qdrant.training embeddings.npy --out model --steps 500 --batch-size 100000

Every field of `TrainConfig` is an option. A batch is shared by the processes, so the result is that of one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import typing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from .config import TrainConfig
from .loop import train


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, and let the first process save the model."""
    parser = argparse.ArgumentParser(
        prog="python -m compressae_qdrant.training", description="Train a model, by all processes under torchrun."
    )
    parser.add_argument("embeddings", type=Path, help="(n, d) .npy file of embeddings")
    parser.add_argument("--out", type=Path, required=True, help="directory of the model")
    parser.add_argument("--checkpoint", type=Path, help="file to save progress in and to go on from; all must see it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        choices = typing.get_args(types[field.name])
        kind = type(field.default) if field.default is not None else next(t for t in choices if t is not type(None))
        allowed = choices if typing.get_origin(types[field.name]) is typing.Literal else None
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, choices=allowed, default=field.default)
    options = vars(parser.parse_args(arguments))
    _run(options, TrainConfig(**{field.name: options[field.name] for field in dataclasses.fields(TrainConfig)}))


def _run(options: dict[str, Any], config: TrainConfig) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if options["device"] == "cuda" else torch.device("cpu")
    together = "RANK" in os.environ
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if together:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        first = not together or distributed.get_rank() == 0
        embeddings = np.load(options["embeddings"], mmap_mode="r")
        model = train(embeddings, config, checkpoint=options["checkpoint"], progress=first, device=device)
        if first:
            model.save(options["out"])
    finally:
        if together:
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()
