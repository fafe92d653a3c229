"""Indexes of codes: embedded (`EdgeIndex`), on a server (`QdrantIndex`, `AsyncQdrantIndex`), or by location."""

from .base import CodeIndex, Hit, IndexInfo, IndexSettings, QueryPlan, Record
from .edge import EdgeIndex
from .location import create_index, open_index
from .qdrant import AsyncQdrantIndex, QdrantIndex

__all__ = [
    "AsyncQdrantIndex",
    "CodeIndex",
    "EdgeIndex",
    "Hit",
    "IndexInfo",
    "IndexSettings",
    "QdrantIndex",
    "QueryPlan",
    "Record",
    "create_index",
    "open_index",
]
