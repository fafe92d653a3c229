"""Catalogs as batches of items with embeddings, whatever file they are in; read as a stream."""

from .files import open_source
from .qdrant import QdrantSource
from .source import Batch, Columns, Source, draw_embeddings, sample_embeddings

__all__ = ["Batch", "Columns", "QdrantSource", "Source", "draw_embeddings", "open_source", "sample_embeddings"]
