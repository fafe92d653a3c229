"""The server: codes in a collection of a Qdrant server, by synchronous and asynchronous clients."""

from .index import AsyncQdrantIndex, QdrantIndex

__all__ = ["AsyncQdrantIndex", "QdrantIndex"]
