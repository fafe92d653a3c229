"""Indexes of codes: embedded (`EdgeIndex`), on a server (`QdrantIndex`, `AsyncQdrantIndex`), or by location."""

from .edge.index import EdgeIndex
from .location import add_navigation, create_index, open_index
from .plan import QueryPlan
from .protocol import CodeIndex
from .qdrant.async_index import AsyncQdrantIndex
from .qdrant.index import QdrantIndex
from .results import Hit, IndexInfo, Record, stacked_codes
from .settings import IndexSettings
from .text import TextSettings

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
    "TextSettings",
    "add_navigation",
    "create_index",
    "open_index",
    "stacked_codes",
]
