"""What makes, adopts and describes a collection of a Qdrant server: calls that the sync and async indexes share."""

from __future__ import annotations

from typing import Any, Final

from qdrant_client import models

from ...errors import IndexNotFoundError
from ..manifest import DENSE_NAME, METADATA_KEY, VECTOR_NAME, Manifest
from ..settings import FieldType, IndexSettings
from .calls import Call, nothing

__all__ = [
    "add_vector_call",
    "adoptable_call",
    "create_call",
    "delete_call",
    "exists_call",
    "manifest_call",
    "note_call",
    "place_vector_call",
    "setup_calls",
    "target_call",
]

_INDEXING_THRESHOLD_KB: Final = 1000
"""Segments above this become compressed: about 4,000 items of k=32. The server's default would leave 80,000 plain."""


def create_call(collection: str, manifest: Manifest) -> Call[None]:
    """Create a collection for the codes of a model."""
    settings = manifest.settings
    arguments: dict[str, Any] = {
        "collection_name": collection,
        "vectors_config": _dense_params(manifest) if settings.keep_dense else {},
        "sparse_vectors_config": {VECTOR_NAME: models.SparseVectorParams(index=_index_params(settings))},
        "optimizers_config": models.OptimizersConfigDiff(
            indexing_threshold=_INDEXING_THRESHOLD_KB, default_segment_number=settings.segments
        ),
        "shard_number": settings.shards,
        "replication_factor": settings.replicas,
        "write_consistency_factor": settings.write_consistency,
        "metadata": {METADATA_KEY: manifest.to_json()},
    }
    if settings.shard_keys:
        arguments["sharding_method"] = models.ShardingMethod.CUSTOM
    return Call("create_collection", arguments, nothing, "create")


def setup_calls(collection: str, settings: IndexSettings) -> list[Call[None]]:
    """What a new collection needs besides: its shard keys, and indexes of the payload fields that the settings name."""
    name = {"collection_name": collection}
    schemas: dict[str, Any] = {name: _FIELDS[kind] for name, kind in settings.payload_fields.items()}
    if settings.tenant_field is not None:
        kind = models.KeywordIndexType.KEYWORD
        schemas[settings.tenant_field] = models.KeywordIndexParams(type=kind, is_tenant=True)
    keys = [
        Call("create_shard_key", {**name, "shard_key": key}, nothing, f"make shard key {key!r} of")
        for key in settings.shard_keys
    ]
    fields = [
        Call(
            "create_payload_index",
            {**name, "field_name": field, "field_schema": schema, "wait": True},
            nothing,
            f"index field {field!r} of",
        )
        for field, schema in schemas.items()
    ]
    return [*keys, *fields]


def note_call(collection: str, manifest: Manifest) -> Call[None]:
    """Note in the metadata of a collection that codes are added to it; what else is there stays."""
    arguments = {"collection_name": collection, "metadata": {METADATA_KEY: manifest.to_json()}}
    return Call("update_collection", arguments, nothing, "note the model in")


def add_vector_call(collection: str, manifest: Manifest) -> Call[None]:
    """Add the codes' vector to a collection that is there (Qdrant 1.18 or newer)."""
    config = models.SparseVectorConfig(datatype=models.VectorStorageDatatype(manifest.settings.datatype))
    vector = {"vector_name": VECTOR_NAME, "vector_name_config": models.SparseVectorNameConfig(sparse=config)}
    arguments = {"collection_name": collection, **vector, "wait": True}
    return Call("create_vector_name", arguments, nothing, "add a vector to")


def place_vector_call(collection: str, manifest: Manifest) -> Call[None]:
    """Give an added vector's index what can't be said when it is added."""
    vectors = {VECTOR_NAME: models.SparseVectorParams(index=_index_params(manifest.settings))}
    arguments = {"collection_name": collection, "sparse_vectors_config": vectors}
    return Call("update_collection", arguments, nothing, "set up the codes of")


def delete_call(collection: str) -> Call[None]:
    """Remove a collection."""
    return Call("delete_collection", {"collection_name": collection}, nothing, "remove")


def exists_call(collection: str) -> Call[bool]:
    """Whether there is such a collection (or alias)."""
    return Call("collection_exists", {"collection_name": collection}, bool, "look for")


def target_call(name: str) -> Call[str | None]:
    """The collection that an alias points to; None if there is no such alias."""

    def parse(answer: Any) -> str | None:
        return next((str(each.collection_name) for each in answer.aliases if each.alias_name == name), None)

    return Call("get_aliases", {}, parse, "look up")


def manifest_call(collection: str) -> Call[Manifest]:
    """The manifest of a collection, from its metadata."""

    def parse(answer: Any) -> Manifest:
        metadata = answer.config.metadata or {}
        if METADATA_KEY not in metadata:
            raise IndexNotFoundError(
                f"collection {collection!r} is there but was not made by this package (its metadata has no "
                f"{METADATA_KEY!r}); create the index under another name"
            )
        return Manifest.from_json(metadata[METADATA_KEY], f"collection {collection!r}")

    return Call("get_collection", {"collection_name": collection}, parse, "open")


def adoptable_call(collection: str) -> Call[tuple[bool, Manifest | None]]:
    """Whether a collection has the codes' vector already, and the manifest if it has one."""

    def parse(answer: Any) -> tuple[bool, Manifest | None]:
        metadata = answer.config.metadata or {}
        found = metadata.get(METADATA_KEY)
        manifest = None if found is None else Manifest.from_json(found, f"collection {collection!r}")
        return VECTOR_NAME in (answer.config.params.sparse_vectors or {}), manifest

    return Call("get_collection", {"collection_name": collection}, parse, "look at")


def _index_params(settings: IndexSettings) -> models.SparseIndexParams:
    placement: dict[str, Any] = {"on_disk": settings.memory == "cold"}
    if "memory" in models.SparseIndexParams.model_fields:  # newer clients; a server before 1.19 goes by on_disk
        placement["memory"] = models.Memory(settings.memory)
    return models.SparseIndexParams(
        full_scan_threshold=settings.full_scan_threshold, datatype=models.Datatype(settings.datatype), **placement
    )


def _dense_params(manifest: Manifest) -> dict[str, models.VectorParams]:
    """Embeddings that are only read to rescore: half precision, on disk, no graph."""
    params = models.VectorParams(
        size=manifest.dim,
        distance=models.Distance.COSINE,
        datatype=models.Datatype.FLOAT16,
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(m=0),
    )
    return {DENSE_NAME: params}


_FIELDS: Final[dict[FieldType, models.PayloadSchemaType]] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "text": models.PayloadSchemaType.TEXT,
    "uuid": models.PayloadSchemaType.UUID,
}
