"""Vector search over large catalogs at a tenth of the memory, by k-sparse codes of embeddings in Qdrant.

`train` fits a model to a catalog, `ingest` encodes the catalog and writes the codes to an index, and a `Retriever` or
an `AsyncRetriever` answers queries from the index.

Names are imported when they are first used, so that `import compressae_qdrant` loads neither torch nor qdrant-client.
"""

from typing import TYPE_CHECKING

from .errors import (
    CodeIndexError,
    CompresSAEError,
    ConfigError,
    DimensionError,
    ExactCountError,
    IncompleteIndexError,
    IndexExistsError,
    IndexNotFoundError,
    IndexReplacedError,
    IndexUnavailableError,
    IngestError,
    InvalidCodeError,
    InvalidInputError,
    MissingExtraError,
    ModelFileError,
    ModelMismatchError,
    RequestTooLargeError,
    RowError,
    SourceError,
    UnsupportedFilterError,
    VerificationError,
)
from .lazy import lazy_exports

if TYPE_CHECKING:
    from .codes import SparseCodes
    from .datasets import load_sample
    from .embedders import load_embedder
    from .index import AsyncQdrantIndex, EdgeIndex, Hit, IndexSettings, QdrantIndex, QueryPlan
    from .index.retry import RetryPolicy
    from .ingestion.ingest import ingest
    from .ingestion.sync import sync
    from .model import CompresSAE
    from .search import AliasRetriever, AsyncRetriever, Retriever
    from .sources import open_source
    from .training import TrainConfig, train
else:
    _MODULES = {
        "AliasRetriever": "search",
        "AsyncQdrantIndex": "index",
        "AsyncRetriever": "search",
        "CompresSAE": "model",
        "EdgeIndex": "index",
        "Hit": "index",
        "IndexSettings": "index",
        "QdrantIndex": "index",
        "QueryPlan": "index",
        "Retriever": "search",
        "RetryPolicy": "index.retry",
        "SparseCodes": "codes",
        "TrainConfig": "training",
        "ingest": "ingestion.ingest",
        "load_embedder": "embedders",
        "load_sample": "datasets",
        "open_source": "sources",
        "sync": "ingestion.sync",
        "train": "training",
    }
    __getattr__, __dir__ = lazy_exports(__name__, _MODULES)

__version__ = "0.2.0"

__all__ = [
    "AliasRetriever",
    "AsyncQdrantIndex",
    "AsyncRetriever",
    "CodeIndexError",
    "CompresSAE",
    "CompresSAEError",
    "ConfigError",
    "DimensionError",
    "EdgeIndex",
    "ExactCountError",
    "Hit",
    "IncompleteIndexError",
    "IndexExistsError",
    "IndexNotFoundError",
    "IndexReplacedError",
    "IndexSettings",
    "IndexUnavailableError",
    "IngestError",
    "InvalidCodeError",
    "InvalidInputError",
    "MissingExtraError",
    "ModelFileError",
    "ModelMismatchError",
    "QdrantIndex",
    "QueryPlan",
    "RequestTooLargeError",
    "Retriever",
    "RetryPolicy",
    "RowError",
    "SourceError",
    "SparseCodes",
    "TrainConfig",
    "UnsupportedFilterError",
    "VerificationError",
    "__version__",
    "ingest",
    "load_embedder",
    "load_sample",
    "open_source",
    "sync",
    "train",
]
