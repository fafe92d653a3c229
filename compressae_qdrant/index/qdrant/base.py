"""The base of the indexes in a collection of a Qdrant server, sync and async."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from ..manifest import Described, Manifest
from ..protocol import CodeModel
from ..settings import ShardKey
from .client import Transport
from .requests import Requests
from .steps import Watch
from .target import Target

__all__ = ["CollectionIndex"]

_PARALLEL_UPSERTS: Final = 4


class CollectionIndex(Described):
    """What the sync and async indexes share: everything except making calls.

    Args:
        options: `init_options` of the client.
        collection: name of the collection.
        manifest: manifest of the collection.
        model: model of the codes; needed to write to a collection with navigation vectors.
    """

    def __init__(
        self, options: Mapping[str, Any], collection: str, manifest: Manifest, model: CodeModel | None = None
    ) -> None:
        self._collection = collection
        self._manifest = manifest
        self._transport = Transport.of(options)
        self._watch = Watch()
        self._requests = Requests(Target(collection, self._transport), manifest, model)

    @property
    def collection(self) -> str:
        """Name of the collection, also where the index was opened by an alias."""
        return self._collection

    @property
    def is_local(self) -> bool:
        """Whether the collection is in the client's local mode, inside this process."""
        return self._transport.kind == "local"

    @property
    def parallel_upserts(self) -> int:
        """How many upserts to run at once: 4 on a server, 1 in the client's local mode, which runs in this process."""
        return 1 if self.is_local else _PARALLEL_UPSERTS

    def of_shard(self, shard_key: ShardKey) -> Self:
        """This index restricted to one shard key: its writes, searches, counts and scans.

        Raises:
            ConfigError: the collection has no such shard key.
        """
        part = copy.copy(self)
        part._requests = self._requests.of_shard(shard_key)
        return part

    def only_new(self) -> Self:
        """This index with an `upsert` that leaves existing items unchanged (Qdrant 1.17 or newer; older servers replace
        them). Use it to fill an index while another process writes newer items."""
        index = copy.copy(self)
        index._requests = self._requests.only_new()
        return index

    def without_splitting(self) -> Self:
        """This index with an `upsert` that is one request, for callers that split and repeat requests themselves."""
        index = copy.copy(self)
        index._requests = self._requests.without_splitting()
        return index

    @property
    def journal(self) -> Path | None:
        """None: a server has no place for an ingestion's journal; pass a file to `ingest`."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._collection!r}, model={self.fingerprint!r})"
