"""Indexes in a collection of a Qdrant server, for sync and async clients."""

from .async_index import AsyncQdrantIndex
from .index import QdrantIndex

__all__ = ["AsyncQdrantIndex", "QdrantIndex"]
