"""QdrantIndex: codes in a collection of a Qdrant server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient

from ...errors import ConfigError
from ..manifest import Manifest
from ..protocol import CodeModel
from ..settings import IndexSettings, NavigationSettings
from .async_index import AsyncQdrantIndex
from .calls import Call, run_call
from .client import Transport
from .connection import Connection, make_client
from .creation import adopt_steps, create_steps, open_steps
from .navigation import navigation_steps
from .operations import SyncOperations
from .steps import follow, watched_steps

__all__ = ["QdrantIndex"]

T = TypeVar("T")


class QdrantIndex(SyncOperations):
    """Codes in a collection of a Qdrant server (1.15.5 or newer). Make one by `create`, `adopt` or `open`.

    The client determines address, key, TLS, timeouts, and REST or gRPC. It belongs to the caller: `close` closes it
    only with `owns_client=True`.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        manifest: Manifest,
        owns_client: bool = False,
        model: CodeModel | None = None,
    ) -> None:
        super().__init__(client.init_options, collection, manifest, model)
        self._connection = Connection(client)
        self._owns_client = owns_client

    @classmethod
    def create(
        cls,
        client: QdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        *,
        owns_client: bool = False,
    ) -> Self:
        """Create an empty collection for the codes of `model`.

        If the server refuses, it leaves no collection behind. If the server stops answering or the process is killed,
        the collection may be incomplete; creating it again, with the same model and settings, completes it.

        Raises:
            IndexExistsError: there is a collection of this name, and it is complete or of another model or settings.
            IndexUnavailableError: the server cannot be reached.
            CodeIndexError: the server refused.
        """
        steps = create_steps(collection, Manifest.of(model, settings), local=_is_local(client))
        manifest = follow(steps, lambda call: run_call(client, collection, call))
        return cls(client, collection, manifest, owns_client, model)

    @classmethod
    def adopt(
        cls,
        client: QdrantClient,
        collection: str,
        model: CodeModel,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        *,
        owns_client: bool = False,
    ) -> Self:
        """Add a vector for the codes of `model` to an existing collection, beside its own (Qdrant 1.18 or newer).

        The collection is given by its name or an alias. Its points, payloads and other vectors do not change: `upsert`
        only adds codes to existing points, without payloads, and `delete` is refused. The tenant field and the payload
        fields of the settings are indexed; of the other settings, `datatype`, `memory`, `full_scan_threshold` and
        `scale` can be chosen. Adopting a collection again opens it.

        Raises:
            IndexNotFoundError: there is no such collection.
            ModelMismatchError: it has the codes of another model.
            ConfigError: a setting cannot be chosen, or differs from that of the codes already there.
            CodeIndexError: the server refused, or the collection is an index of this package.
        """
        steps = adopt_steps(collection, Manifest.of(model, settings, adopted=True), local=_is_local(client))
        target, manifest = follow(steps, lambda call: run_call(client, collection, call))
        return cls(client, target, manifest, owns_client, model)

    @classmethod
    def open(
        cls, client: QdrantClient, collection: str, model: CodeModel | None = None, *, owns_client: bool = False
    ) -> Self:
        """Open a collection by its name or an alias; with `model`, only if it holds the codes of that model.

        An alias is resolved once, here. Use `AliasRetriever` to follow later switches.

        Raises:
            IndexNotFoundError: there is none, or it was not created by this package.
            ModelMismatchError: it holds the codes of another model.
            IncompleteIndexError: its creation was not completed; `create` completes it.
            IndexUnavailableError: the server cannot be reached.
        """
        steps = open_steps(collection, model, local=_is_local(client))
        target, manifest = follow(steps, lambda call: run_call(client, collection, call))
        return cls(client, target, manifest, owns_client, model)

    def add_navigation(
        self,
        model: CodeModel,
        navigation: NavigationSettings = NavigationSettings(),  # noqa: B008 (frozen)
        *,
        size: int = 2048,
        on_items: Callable[[int], None] | None = None,
    ) -> int:
        """Give navigation vectors to the items of the collection, in place (Qdrant 1.18 or newer).

        Its inverted index moves to disk. Searches go on meanwhile. Open the index again afterwards, everywhere: indexes
        that were opened before write items without navigation vectors. Repeating the call completes such items.

        Args:
            model: the model of the codes.
            navigation: settings of the navigation vectors.
            size: items that are read and written at a time.
            on_items: called with the number of items after each batch.

        Returns:
            Number of items that got a navigation vector.

        Raises:
            ConfigError: the collection was adopted, or has navigation vectors with other settings.
            ModelMismatchError: it holds the codes of another model.
            CodeIndexError: the server cannot add vectors to a collection, or refused otherwise.
        """
        manifest = self._manifest.with_navigation(model, navigation)
        keys = manifest.settings.shard_keys
        parts = [self._requests.of_shard(key) for key in keys] if keys else [self._requests]
        added = follow(navigation_steps(self._collection, manifest, model, parts, size, on_items), self._run)
        self._manifest = manifest
        self._requests = self._requests.with_manifest(manifest, model)
        return added

    def to_async(self, client: AsyncQdrantClient | None = None) -> AsyncQdrantIndex:
        """The same index for asyncio, without a request to the server.

        Args:
            client: the client to use. By default one is made with the options of this index's client; it belongs to
                the index returned, whose `close` closes it.

        Raises:
            ConfigError: no client is given, and this one is the client's local mode, whose data no other client sees.
        """
        connection = self._connection.client
        if client is None and self.is_local:
            raise ConfigError(
                "the index is in the client's local mode, whose data an async client does not see; use a server, or "
                "make an AsyncQdrantIndex in the first place"
            )
        made = client or make_client(AsyncQdrantClient, **{**connection.init_options, "check_compatibility": False})
        index = AsyncQdrantIndex(made, self._collection, self._manifest, owns_client=client is None)
        index._requests = self._requests.over(index._transport)
        return index

    def close(self) -> None:
        """Close the client if this index owns it."""
        if self._owns_client:
            self._connection.client.close()

    def _run(self, call: Call[T]) -> T:
        return follow(
            watched_steps(self._requests, self._watch, call),
            lambda each: run_call(self._connection.client, self._collection, each),
        )


def _is_local(client: QdrantClient) -> bool:
    return Transport.of(client.init_options).kind == "local"
