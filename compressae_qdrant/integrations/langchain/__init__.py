"""LangChain: a vector store and a retriever on an index of codes, sync and async.

The store holds the code of each document, and a payload with its text and metadata. So it also reads indexes that were
not loaded through LangChain.
"""

from ...lazy import needs_extra

with needs_extra("langchain", "a LangChain vector store", "langchain-core"):
    from .embeddings import EmbedderEmbeddings
    from .retriever import CompresSAERetriever
    from .store import CompresSAEVectorStore

__all__ = ["CompresSAERetriever", "CompresSAEVectorStore", "EmbedderEmbeddings"]
