"""Catalogs as batches of items with embeddings, whatever file they are in; read as a stream."""

from .base import Batch, Columns, Source, sample_embeddings
from .files import open_source
from .qdrant import QdrantSource

__all__ = ["Batch", "Columns", "QdrantSource", "Source", "open_source", "sample_embeddings"]
