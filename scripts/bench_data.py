"""Catalog and model of a benchmark: files that the user names, or the shipped sample and a quickly trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from compressae_qdrant import CompresSAE, TrainConfig, load_sample, train

__all__ = ["LABELS", "catalog_arguments", "load_catalog", "load_labels", "load_or_train", "quick_config"]

LABELS = ("section", "tags")
"""Columns of a catalog's metadata: one section for each item, and a list of tags."""

Embeddings = npt.NDArray[np.floating[Any]]


def catalog_arguments(description: str | None, *, count: int | None = None) -> argparse.ArgumentParser:
    """A parser of what a benchmark of a catalog is told: its embeddings and a model, and the number of queries if there
    is a default for it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "vectors",
        nargs="*",
        help="(n, d) .npy of embeddings, one for each field of an item; default: the shipped sample",
    )
    parser.add_argument("--model", help="directory of a trained model; default: train a quick one")
    if count is not None:
        parser.add_argument("--count", type=int, default=count, help=f"number of queries (default: {count})")
    return parser


def load_catalog(files: Sequence[str | Path]) -> tuple[str, Embeddings]:
    """Load the embeddings to measure on.

    Args:
        files: .npy files of (n, d) embeddings, one for each field of an item. Several are joined along d. None: the
            sample that the package ships.

    Returns:
        A sentence fragment that names the catalog, for the first line of a benchmark, and its (n, d) embeddings.
    """
    if not files:
        rows: Embeddings = load_sample().embeddings
        return f"the shipped sample ({_shape(rows)}; name .npy files to measure on others)", rows
    parts = [np.load(file, mmap_mode="r") for file in files]
    rows = parts[0] if len(parts) == 1 else np.concatenate([part.astype(np.float32) for part in parts], axis=1)
    return f"{' + '.join(Path(file).stem for file in files)} ({_shape(rows)})", rows


def load_labels(metadata: str | Path | None) -> dict[str, list[Any]]:
    """Load the columns `LABELS` of a parquet file, row by row as the embeddings; None: those of the shipped sample."""
    if metadata is None:
        payloads = load_sample().payloads
        return {name: [payload[name] for payload in payloads] for name in LABELS}
    columns: dict[str, list[Any]] = pq.read_table(metadata, columns=list(LABELS)).to_pydict()
    return columns


def load_or_train(folder: str | Path | None, rows: Embeddings) -> CompresSAE:
    """Load a model, or train one with `quick_config()` if no folder is given; prints which of the two it did."""
    if folder is not None:
        print(f"Model: {folder}", flush=True)
        return CompresSAE.load(folder)
    print("Model: trained for this run with short settings; use --model for a well-trained one", flush=True)
    return train(rows, quick_config())


def quick_config(latents: int = 4096, k: int = 32) -> TrainConfig:
    """Settings of a short training: a few minutes on the shipped sample with two CPU cores."""
    return TrainConfig(latents=latents, k=k, steps=300, rounds=8, round_items=8192, encoder_steps=100)


def _shape(rows: Embeddings) -> str:
    return f"{len(rows):,} items, {rows.shape[1]} dimensions"
