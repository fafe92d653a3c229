"""The embedded engine: codes in a Qdrant Edge shard, a directory that one process has open at a time."""

from .index import EdgeIndex

__all__ = ["EdgeIndex"]
