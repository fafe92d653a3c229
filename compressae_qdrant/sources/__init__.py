"""Sources: catalogs in files or collections, read as a stream of batches of checked items with embeddings."""

from .columns import Columns
from .files import open_source
from .qdrant import QdrantSource
from .sampling import draw_embeddings, sample_embeddings
from .source import Batch, Source

__all__ = ["Batch", "Columns", "QdrantSource", "Source", "draw_embeddings", "open_source", "sample_embeddings"]
