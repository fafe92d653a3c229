"""The location of an index as one string: a directory, or the address of a collection on a server.

| location                                | meaning                                                       |
|-----------------------------------------|---------------------------------------------------------------|
| `catalog/index`                         | an embedded shard in that directory                           |
| `http://host:6333/items`, `https://...` | collection `items` of a server, by REST                       |
| `grpc://host:6334/items`, `grpcs://...` | the same by gRPC, which loads faster                          |
| `http://host:6333/items?shard_key=eu`   | one shard key of it                                           |

The API key comes from the environment variable QDRANT_API_KEY: an argument would be visible in a list of processes.
"""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote, urlsplit

from qdrant_client import QdrantClient

from ..errors import ConfigError
from .edge.index import EdgeIndex
from .protocol import CodeIndex, CodeModel
from .qdrant.index import QdrantIndex
from .settings import IndexSettings, ShardKey

__all__ = ["connect", "create_index", "open_index"]

_TIMEOUT_SECONDS: Final = 60
"""The client's default of 5 s is too short for a busy server that is still writing a batch."""


def open_index(location: str, model: CodeModel | None = None) -> CodeIndex:
    """Open the index at a location; with `model`, only if it holds the codes of that model.

    Raises:
        ConfigError: the location is not valid.
        IndexNotFoundError, IndexUnavailableError, ModelMismatchError: as `EdgeIndex.open` and `QdrantIndex.open`.
    """
    if "://" not in location:
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
    if "://" not in location:
        return EdgeIndex.create(location, model, settings)
    base, shard_key = _shard_key(location)
    client, collection = connect(base)
    index = QdrantIndex.create(client, collection, model, settings, owns_client=True)
    return index if shard_key is None else index.of_shard(shard_key)


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
    url = urlsplit(location)
    collection = url.path.strip("/")
    if url.username or url.password:
        raise ConfigError("the location holds a user name or password; set QDRANT_API_KEY in the environment instead")
    shown = f"{url.scheme}://{url.hostname}{url.path}"  # the rest may contain a secret
    if url.scheme not in ("http", "https", "grpc", "grpcs") or not url.hostname:
        raise ConfigError(
            f"location {shown!r} is neither a directory nor http(s)://host:port/collection or grpc(s)://..."
        )
    if not collection or "/" in collection or url.query or url.fragment:
        raise ConfigError(
            f"location {shown!r} must name one collection, {url.scheme}://host:port/collection, and may end with "
            "?shard_key=KEY; the API key comes from QDRANT_API_KEY"
        )
    try:
        port = url.port
    except ValueError as exc:
        raise ConfigError(f"location {shown!r} has an invalid port ({exc})") from exc
    secure = url.scheme in ("https", "grpcs")
    grpc = url.scheme in ("grpc", "grpcs")
    client = QdrantClient(
        host=f"[{url.hostname}]" if ":" in url.hostname else url.hostname,
        https=secure,
        prefer_grpc=grpc,
        api_key=os.environ.get("QDRANT_API_KEY") or None,
        timeout=_TIMEOUT_SECONDS,
        check_compatibility=False,
        port=6333 if grpc else port or 6333,
        grpc_port=port or 6334 if grpc else 6334,
    )
    return client, collection
