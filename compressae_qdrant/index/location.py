"""The location of an index as one string: a directory, or the address of a collection on a server.

| location                                | meaning                                                       |
|-----------------------------------------|---------------------------------------------------------------|
| `catalog/index`                         | an embedded shard in that directory                           |
| `http://host:6333/items`, `https://...` | collection `items` of a server, by REST                       |
| `https://host/qdrant/items`             | the same behind a reverse proxy that serves it under a prefix |
| `grpc://host:6334/items`, `grpcs://...` | the same by gRPC, which loads faster                          |
| `http://host:6333/items?shard_key=eu`   | one shard key of it                                           |

Without a port, `http` means 6333, `https` 443, and gRPC 6334. Special characters of a name are written as percent
escapes: `my%20items`. The API key comes from the environment variable QDRANT_API_KEY: an argument would be visible in
a list of processes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from qdrant_client import QdrantClient

from ..errors import ConfigError
from .address import Address, is_directory, parse_address
from .edge.index import EdgeIndex
from .edge.rebuild import rebuild_with_navigation
from .protocol import CodeIndex, CodeModel
from .qdrant.connection import make_client
from .qdrant.index import QdrantIndex
from .settings import IndexSettings, NavigationSettings, ShardKey

__all__ = ["add_navigation", "connect", "create_index", "open_index", "resolved_location"]

_LOG = logging.getLogger(__name__)
_WARNED: Final[set[str]] = set()
"""Servers to which this process has sent an API key without encryption."""
_TIMEOUT_SECONDS: Final = 60
"""The client's default of 5 s is too short for a busy server that is still writing a batch."""


def open_index(location: str, model: CodeModel | None = None) -> CodeIndex:
    """Open the index at a location; with `model`, only if it holds the codes of that model.

    Raises:
        ConfigError: the location is not valid.
        IndexNotFoundError, IndexUnavailableError, ModelMismatchError: as `EdgeIndex.open` and `QdrantIndex.open`.
    """
    if is_directory(location):
        return EdgeIndex.open(location, model)
    base, shard_key = _shard_key(location)
    client, collection = connect(base)
    index = QdrantIndex.open(client, collection, model, owns_client=True)
    return index if shard_key is None else index.of_shard(shard_key)


def create_index(location: str, model: CodeModel, settings: IndexSettings = IndexSettings()) -> CodeIndex:  # noqa: B008 (frozen)
    """Create an empty index at a location for the codes of `model`.

    Raises:
        ConfigError: the location is not valid.
        IndexExistsError, IndexUnavailableError: as `EdgeIndex.create` and `QdrantIndex.create`.
    """
    if is_directory(location):
        return EdgeIndex.create(location, model, settings)
    base, shard_key = _shard_key(location)
    client, collection = connect(base)
    index = QdrantIndex.create(client, collection, model, settings, owns_client=True)
    return index if shard_key is None else index.of_shard(shard_key)


def resolved_location(location: str, index: CodeIndex) -> str:
    """The location of an opened index with the name of its collection in place of an alias.

    Whoever opens it gets the same collection, also after the alias was switched.
    """
    if not isinstance(index, QdrantIndex):
        return location
    base, shard_key = _shard_key(location)
    path = base[: base.rindex("/") + 1] + quote(index.collection, safe="")
    return path if shard_key is None else path + location[len(base) :]


def add_navigation(
    location: str,
    model: CodeModel,
    navigation: NavigationSettings = NavigationSettings(),  # noqa: B008 (frozen)
    *,
    size: int = 2048,
    on_items: Callable[[int], None] | None = None,
) -> int:
    """Give navigation vectors to the items of an index that has none. They are computed from the stored codes.

    A collection of a server gets them in place and stays available; see `QdrantIndex.add_navigation`. An embedded index
    is rebuilt beside itself, which needs its bytes on disk a second time, and no process may have it open.

    Args:
        location: location of the index, without a shard key.
        model: the model of the codes.
        navigation: settings of the navigation vectors.
        size: items that are read and written at a time.
        on_items: called with the number of items after each batch.

    Returns:
        Number of items that got a navigation vector.

    Raises:
        ConfigError: the collection was adopted, the index has navigation vectors with other settings, or the location
            is not valid.
        ModelMismatchError: it holds the codes of another model.
        IndexNotFoundError, IndexUnavailableError: as `open_index`.
    """
    if is_directory(location):
        return rebuild_with_navigation(Path(location), model, navigation, size, on_items)
    base, shard_key = _shard_key(location)
    if shard_key is not None:
        raise ConfigError(f"navigation vectors are added to all shard keys at once; give the location {base}")
    client, collection = connect(base)
    with QdrantIndex.open(client, collection, model, owns_client=True) as index:
        return index.add_navigation(model, navigation, size=size, on_items=on_items)


def _shard_key(location: str) -> tuple[str, ShardKey | None]:
    """A location without its shard key, and the key; a key of digits is a number."""
    base, found, query = location.partition("?shard_key=")
    if not found or "&" in query:
        return location, None
    key = unquote(query)
    return base, int(key) if key.isdecimal() else key


def connect(location: str) -> tuple[QdrantClient, str]:
    """A client for the server of a location, and the name of the collection or alias.

    Raises:
        ConfigError: the location is not valid.
    """
    address = parse_address(location)
    key = os.environ.get("QDRANT_API_KEY") or None
    if key is not None and not address.secure:
        _warn_of_insecure_key(address)
    try:
        client = make_client(
            QdrantClient,
            host=address.host,
            https=address.secure,
            prefix=address.prefix or None,
            prefer_grpc=address.grpc,
            api_key=key,
            timeout=_TIMEOUT_SECONDS,
            check_compatibility=False,
            port=6333 if address.grpc else address.port,
            grpc_port=address.port if address.grpc else 6334,
        )
    except ValueError as exc:
        raise ConfigError(f"location has the server {address.server!r}, which is not valid ({exc})") from exc
    return client, address.collection


def _warn_of_insecure_key(address: Address) -> None:
    """Warn once for each server that the API key is sent unencrypted."""
    if address.server not in _WARNED:
        _WARNED.add(address.server)
        _LOG.warning(
            "the API key is sent to %s without encryption, so others on the network can read it; use %s:// if the "
            "server has TLS", address.server, f"{address.scheme}s",
        )  # fmt: skip
