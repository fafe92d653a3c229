"""Target: the collection that calls go to, and how they reach it."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import ShardKey
from .client import Transport

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """Where calls go, and how."""

    collection: str
    transport: Transport = Transport()  # noqa: RUF009 (frozen)
    shard_key: ShardKey | None = None
    """None is the whole collection."""
    only_new: bool = False
    """Whether an upsert leaves existing items unchanged (Qdrant 1.17 or newer; older servers replace them)."""
