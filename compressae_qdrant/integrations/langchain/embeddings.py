"""LangChain's embeddings by an embedder of this package."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from ...embedders import Embedder, embed_documents, embed_queries

__all__ = ["EmbedderEmbeddings"]


class EmbedderEmbeddings(Embeddings):  # type: ignore[misc]  # untyped
    """LangChain's `Embeddings` by an embedder of this package, such as `load_embedder` returns.

    Args:
        embedder: the embedder; its query side embeds queries.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The embeddings of documents."""
        vectors: list[list[float]] = embed_documents(self.embedder, texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The embedding of a query."""
        vector: list[float] = embed_queries(self.embedder, [text])[0].tolist()
        return vector
