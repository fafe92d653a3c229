"""LangChain: a vector store and a retriever on an index of codes, sync and async.

The store holds the code of each document, and a payload with its text and metadata. So it also reads indexes that were
not loaded through LangChain.
"""

from ...errors import MissingExtraError

try:
    from .embeddings import EmbedderEmbeddings
    from .retriever import CompresSAERetriever
    from .store import CompresSAEVectorStore
except ModuleNotFoundError as exc:
    raise MissingExtraError(
        "a LangChain vector store needs langchain-core; install it by: pip install 'compressae-qdrant[langchain]'"
    ) from exc

__all__ = ["CompresSAERetriever", "CompresSAEVectorStore", "EmbedderEmbeddings"]
