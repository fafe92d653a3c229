"""The sample catalog that ships with the package: 8,000 software packages of Debian 12 (see NOTICE.md)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..codes import FloatArray

__all__ = ["SampleCatalog", "load_sample", "sample_path"]


@dataclass(frozen=True)
class SampleCatalog:
    """The sample catalog in memory; row i of each field belongs to item i."""

    ids: list[str]
    """Package names."""
    embeddings: FloatArray
    """(8000, 384) float32, unit norm: all-MiniLM-L6-v2 embeddings of name and description."""
    payloads: list[dict[str, Any]]
    """`title` (one-line summary), `section` (of the Debian archive) and `tags` (list of debtags, often empty)."""

    def __len__(self) -> int:
        return len(self.ids)


def sample_path() -> Path:
    """Path of the parquet file of the sample catalog, with the columns id, title, section, tags, embedding."""
    return Path(str(files(__name__) / "debian_packages_8k.parquet"))


def load_sample() -> SampleCatalog:
    """Load the sample catalog into memory."""
    table = pq.read_table(sample_path())
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return SampleCatalog(table["id"].to_pylist(), vectors, table.select(["title", "section", "tags"]).to_pylist())
