"""Sources: catalogs in files or collections, read as a stream of batches of checked items with embeddings."""

from .columns import Columns
from .files import open_source
from .qdrant import QdrantSource
from .sampling import draw_embeddings, sample_embeddings
from .source import Batch, Source, check_source, expecting

__all__ = [
    "Batch", "Columns", "QdrantSource", "Source", "check_source", "draw_embeddings", "expecting", "open_source",
    "sample_embeddings",
]  # fmt: skip
