"""What a collection holds, compared with what its manifest promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from ...errors import IndexReplacedError
from ..manifest import DENSE_NAME, METADATA_KEY, NAVIGATION_NAME, VECTOR_NAME, Manifest
from ..settings import IndexSettings, ShardKey
from .calls import Call
from .collections import field_schemas

__all__ = ["Contents", "contents_call", "identity_call", "shard_keys_call"]


@dataclass(frozen=True)
class Contents:
    """The parts of a collection that a manifest can promise."""

    manifest: Manifest | None
    """None for a collection that this package did not create."""
    vectors: frozenset[str]
    """Names of the sparse vectors."""
    dense: frozenset[str] | None
    """Names of the dense vectors; None if the server reports none."""
    fields: Mapping[str, models.PayloadIndexInfo]
    """The payload fields that are indexed."""

    def missing_vectors(self, manifest: Manifest) -> list[str]:
        """Vectors that a manifest promises and that are not there."""
        missing = [] if VECTOR_NAME in self.vectors else [VECTOR_NAME]
        if manifest.adopted or self.dense is None:
            return missing
        dense = {DENSE_NAME: manifest.settings.keep_dense, NAVIGATION_NAME: manifest.navigation_dim is not None}
        return missing + [name for name, promised in dense.items() if promised and name not in self.dense]

    def missing_fields(self, settings: IndexSettings) -> list[str]:
        """Payload fields that settings promise to index and that have no such index."""
        return [name for name, schema in field_schemas(settings).items() if not _fulfils(self.fields.get(name), schema)]

    def other_fields(self, settings: IndexSettings) -> dict[str, str]:
        """Those of the missing fields that have an index of another type, with the type."""
        return {
            name: str(self.fields[name].data_type.value)
            for name, schema in field_schemas(settings).items()
            if name in self.fields and self.fields[name].data_type != _type_of(schema)
        }


def _fulfils(index: models.PayloadIndexInfo | None, schema: Any) -> bool:
    if index is None or index.data_type != _type_of(schema):
        return False
    return all(
        not getattr(schema, flag, False) or bool(getattr(index.params, flag, False))
        for flag in ("is_tenant", "scoring")
    )


def _type_of(schema: Any) -> models.PayloadSchemaType:
    return models.PayloadSchemaType(getattr(schema, "type", schema))


def contents_call(action: str, collection: str) -> Call[Contents]:
    """What a collection holds. `action` is what it is read for, for error messages."""

    def parse(answer: models.CollectionInfo) -> Contents:
        params = answer.config.params
        dense: Any = params.vectors
        return Contents(
            _manifest(collection, answer), frozenset(params.sparse_vectors or {}),
            frozenset(dense) if isinstance(dense, dict) and dense else None, answer.payload_schema,
        )  # fmt: skip

    return Call(action, lambda client: client.get_collection(collection_name=collection), parse)


def shard_keys_call(collection: str) -> Call[frozenset[ShardKey]]:
    """The shard keys of a collection."""

    def parse(answer: models.CollectionClusterInfo) -> frozenset[ShardKey]:
        shards: list[Any] = [*answer.local_shards, *answer.remote_shards]
        return frozenset(shard.shard_key for shard in shards if shard.shard_key is not None)

    return Call("inspect", lambda client: client.collection_cluster_info(collection_name=collection), parse)


def identity_call(collection: str, manifest: Manifest) -> Call[None]:
    """Compare the manifest that a collection has now with the one that was read when it was opened.

    Raises:
        IndexReplacedError: it is another collection of the same name.
    """

    def parse(answer: models.CollectionInfo) -> None:
        stored = _manifest(collection, answer)
        if stored is None:
            now = "it is now a collection without codes of this package"
        elif stored.fingerprint != manifest.fingerprint:
            now = f"it now holds codes of model {stored.fingerprint!r}, not of {manifest.fingerprint!r}"
        elif stored.identity != manifest.identity:
            now = "it now is another index of the same model"
        else:
            return
        raise IndexReplacedError(
            f"collection {collection!r} was deleted and created again after it was opened: {now}; open it again"
        )

    return Call("verify", lambda client: client.get_collection(collection_name=collection), parse)


def _manifest(collection: str, answer: models.CollectionInfo) -> Manifest | None:
    metadata = answer.config.metadata or {}
    if METADATA_KEY not in metadata:
        return None
    return Manifest.from_json(metadata[METADATA_KEY], f"collection {collection!r}")
