"""Indexes of both engines for tests that must give the same results on each."""

from pathlib import Path

from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, QdrantIndex
from compressae_qdrant.index.protocol import CodeIndex

ENGINES = ("edge", "local")


def create_on(
    engine: str,
    directory: Path,
    model: CompresSAE,
    settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
) -> CodeIndex:
    """A new index: "edge" is the embedded engine in `directory`, "local" is the client's local mode in memory."""
    if engine == "edge":
        return EdgeIndex.create(directory / "index", model, settings)
    return QdrantIndex.create(QdrantClient(":memory:"), "items", model, settings, owns_client=True)
