"""The embedded engine: codes in a Qdrant Edge shard, a directory that one process can open at a time."""

from .index import EdgeIndex

__all__ = ["EdgeIndex"]
