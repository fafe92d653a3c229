"""Vector search over large catalogs at a tenth of the bytes: k-sparse codes of embeddings, in Qdrant.

An embedding enters through `train` and `ingest`, becomes a code in `CompresSAE.encode`, and is kept by an index. A
query is planned and answered by a `Retriever`, or an `AsyncRetriever`.
"""

from .codes import SparseCodes
from .datasets import load_sample
from .embedders import load_embedder
from .errors import CompresSAEError
from .index import AsyncQdrantIndex, EdgeIndex, IndexSettings, QdrantIndex
from .ingest import ingest
from .model import CompresSAE
from .retriever import AsyncRetriever, Retriever
from .sources import open_source
from .training import TrainConfig, train

__all__ = [
    "AsyncQdrantIndex",
    "AsyncRetriever",
    "CompresSAE",
    "CompresSAEError",
    "EdgeIndex",
    "IndexSettings",
    "QdrantIndex",
    "Retriever",
    "SparseCodes",
    "TrainConfig",
    "ingest",
    "load_embedder",
    "load_sample",
    "open_source",
    "train",
]
