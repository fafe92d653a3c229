"""Calls that create, adopt and describe a collection of a Qdrant server."""

from __future__ import annotations

import re
from typing import Any, Final

from qdrant_client import models

from ...errors import CodeIndexError
from ..manifest import DENSE_NAME, METADATA_KEY, NAVIGATION_NAME, VECTOR_NAME, Manifest
from ..settings import FieldType, IndexSettings, ShardKey
from ..text import TextSettings
from .calls import Call, ignore_answer

__all__ = [
    "FieldSchema",
    "add_navigation_call",
    "add_vector_call",
    "aliases_call",
    "configure_navigation_call",
    "configure_vector_call",
    "create_call",
    "delete_call",
    "exists_call",
    "field_call",
    "field_schemas",
    "scoring_call",
    "setup_calls",
    "shard_key_call",
    "store_manifest_call",
    "target_call",
]

_INDEXING_THRESHOLD_KB: Final = 1000
"""Segments above this size become compressed: about 4,000 items of k=32. The server's default leaves segments of up to
80,000 items uncompressed."""


def create_call(collection: str, manifest: Manifest) -> Call[None]:
    """Create a collection for the codes of a model."""
    settings = manifest.settings
    return Call(
        "create",
        lambda client: client.create_collection(
            collection_name=collection,
            vectors_config=_dense_params(manifest),
            sparse_vectors_config={VECTOR_NAME: models.SparseVectorParams(index=_index_params(settings))},
            optimizers_config=models.OptimizersConfigDiff(
                indexing_threshold=_INDEXING_THRESHOLD_KB, default_segment_number=settings.segments
            ),
            shard_number=settings.shards,
            sharding_method=models.ShardingMethod.CUSTOM if settings.shard_keys else None,
            replication_factor=settings.replicas,
            write_consistency_factor=settings.write_consistency,
            metadata={METADATA_KEY: manifest.to_json()},
        ),
        ignore_answer,
    )


FieldSchema = models.PayloadSchemaType | models.KeywordIndexParams | models.TextIndexParams


def field_schemas(settings: IndexSettings) -> dict[str, FieldSchema]:
    """The payload fields that settings promise to index, and how."""
    schemas: dict[str, FieldSchema] = {name: _FIELDS[kind] for name, kind in settings.payload_fields.items()}
    if settings.tenant_field is not None:
        kind = models.KeywordIndexType.KEYWORD
        schemas[settings.tenant_field] = models.KeywordIndexParams(type=kind, is_tenant=True)
    return schemas | {name: _text_index(text) for name, text in settings.texts.items()}


def _text_index(text: TextSettings) -> models.TextIndexParams:
    language = text.language
    return models.TextIndexParams(
        type=models.TextIndexType.TEXT,
        scoring=True,
        memory=models.Memory(text.memory),
        stemmer=None if language is None else models.SnowballParams(
            type=models.Snowball.SNOWBALL, language=models.SnowballLanguage(language)
        ),
        stopwords=None if language is None else models.Language(language),
    )  # fmt: skip


def scoring_call(collection: str, settings: IndexSettings) -> Call[None]:
    """Check that the text indexes of a collection can rank; servers before 1.20 ignore the setting."""

    def parse(answer: models.CollectionInfo) -> None:
        for name in settings.texts:
            index = answer.payload_schema.get(name)  # the client's local mode lists none
            if index is not None and not getattr(index.params, "scoring", None):
                raise CodeIndexError(
                    f"the server of collection {collection!r} cannot rank by the words of field {name!r}; text_fields "
                    "need Qdrant 1.20 or newer: upgrade the server, or create the index without them"
                )

    return Call("inspect", lambda client: client.get_collection(collection_name=collection), parse)


def setup_calls(collection: str, settings: IndexSettings) -> list[Call[None]]:
    """Complete a new collection: create its shard keys, and index the payload fields that the settings name."""
    keys = [shard_key_call(collection, key) for key in settings.shard_keys]
    return [*keys, *(field_call(collection, name, schema) for name, schema in field_schemas(settings).items())]


def shard_key_call(collection: str, key: ShardKey) -> Call[None]:
    """Create a shard key."""
    return Call(
        f"create shard key {key!r} of",
        lambda client: client.create_shard_key(collection_name=collection, shard_key=key),
        ignore_answer,
    )


def field_call(collection: str, field: str, schema: FieldSchema) -> Call[None]:
    """Index a payload field. Repeating it changes nothing."""
    return Call(
        f"index field {field!r} of",
        lambda client: client.create_payload_index(
            collection_name=collection, field_name=field, field_schema=schema, wait=True
        ),
        ignore_answer,
    )


def store_manifest_call(collection: str, manifest: Manifest) -> Call[None]:
    """Store the manifest in the metadata of an existing collection; other metadata stays."""
    return Call(
        "store the manifest of",
        lambda client: client.update_collection(
            collection_name=collection, metadata={METADATA_KEY: manifest.to_json()}
        ),
        ignore_answer,
    )


def add_vector_call(collection: str, manifest: Manifest) -> Call[None]:
    """Add the sparse vector of the codes to an existing collection (Qdrant 1.18 or newer)."""
    config = models.SparseVectorConfig(datatype=models.VectorStorageDatatype(manifest.settings.datatype))
    return _add_call("add a vector to", collection, VECTOR_NAME, models.SparseVectorNameConfig(sparse=config))


def configure_vector_call(collection: str, manifest: Manifest) -> Call[None]:
    """Set those index parameters of an added vector that `add_vector_call` cannot set."""
    params = {VECTOR_NAME: models.SparseVectorParams(index=_index_params(manifest.settings))}
    return Call(
        "configure the codes of",
        lambda client: client.update_collection(collection_name=collection, sparse_vectors_config=params),
        ignore_answer,
    )


def add_navigation_call(collection: str, manifest: Manifest) -> Call[None]:
    """Add the vector of the navigation vectors to an existing collection (Qdrant 1.18 or newer)."""
    params = _dense_params(manifest)[NAVIGATION_NAME]
    assert manifest.settings.navigation is not None
    datatype = models.VectorStorageDatatype(manifest.settings.navigation.datatype)
    config = models.DenseVectorConfig(size=params.size, distance=params.distance, datatype=datatype)
    return _add_call(
        "add navigation vectors to", collection, NAVIGATION_NAME, models.DenseVectorNameConfig(dense=config)
    )


def _add_call(
    action: str, collection: str, name: str, config: models.SparseVectorNameConfig | models.DenseVectorNameConfig
) -> Call[None]:
    return Call(
        action,
        lambda client: client.create_vector_name(
            collection_name=collection, vector_name=name, vector_name_config=config, wait=True
        ),
        ignore_answer,
    )


def configure_navigation_call(collection: str, manifest: Manifest) -> Call[None]:
    """Set quantisation, graph and placement of added navigation vectors, and keep the inverted index on disk."""
    params = _dense_params(manifest)[NAVIGATION_NAME]
    diff = models.VectorParamsDiff(
        hnsw_config=params.hnsw_config, quantization_config=params.quantization_config, on_disk=params.on_disk
    )
    sparse = {VECTOR_NAME: models.SparseVectorParams(index=_index_params(manifest.settings))}
    return Call(
        "configure the navigation vectors of",
        lambda client: client.update_collection(
            collection_name=collection, vectors_config={NAVIGATION_NAME: diff}, sparse_vectors_config=sparse
        ),
        ignore_answer,
    )


def delete_call(collection: str) -> Call[None]:
    """Delete a collection."""
    return Call("delete", lambda client: client.delete_collection(collection_name=collection), ignore_answer)


def exists_call(collection: str) -> Call[bool]:
    """Whether there is a collection or an alias of this name."""
    return Call("look up", lambda client: client.collection_exists(collection_name=collection), bool)


def target_call(name: str) -> Call[str | None]:
    """The collection that an alias points to; None if there is no such alias."""

    def parse(answer: models.CollectionsAliasesResponse) -> str | None:
        return next((alias.collection_name for alias in answer.aliases if alias.alias_name == name), None)

    return Call("look up", lambda client: client.get_aliases(), parse)


def aliases_call(collection: str) -> Call[list[str]]:
    """The aliases of a collection, by name."""

    def parse(answer: models.CollectionsAliasesResponse) -> list[str]:
        return sorted(alias.alias_name for alias in answer.aliases if alias.collection_name == collection)

    return Call("look up", lambda client: client.get_aliases(), parse)


def version_call() -> Call[tuple[int, ...]]:
    """The version of the server, such as (1, 18, 3); empty if it cannot be read."""

    def parse(answer: models.VersionInfo) -> tuple[int, ...]:
        numbers = re.match(r"\d+(\.\d+)*", answer.version)
        return tuple(map(int, numbers[0].split("."))) if numbers else ()

    return Call("look up the version of the server of", lambda client: client.info(), parse)


def _index_params(settings: IndexSettings) -> models.SparseIndexParams:
    placement: dict[str, Any] = {"on_disk": settings.memory == "cold"}
    if "memory" in models.SparseIndexParams.model_fields:  # newer clients; servers before 1.19 read on_disk only
        placement["memory"] = models.Memory(settings.memory)
    return models.SparseIndexParams(
        full_scan_threshold=settings.full_scan_threshold, datatype=models.Datatype(settings.datatype), **placement
    )


def _dense_params(manifest: Manifest) -> dict[str, models.VectorParams]:
    """The dense vectors of a collection: embeddings, read for rescoring only, and navigation vectors with their graph.
    Both are stored on disk."""
    vectors = {}
    if manifest.settings.keep_dense:
        vectors[DENSE_NAME] = models.VectorParams(
            size=manifest.dim,
            distance=models.Distance.COSINE,
            datatype=models.Datatype(manifest.settings.dense_datatype),
            on_disk=True,
            hnsw_config=models.HnswConfigDiff(m=0),
        )
    navigation, dim = manifest.settings.navigation, manifest.navigation_dim
    if navigation is not None and dim is not None:
        in_memory = navigation.memory != "cold"
        turbo = models.TurboQuantQuantizationConfig(bits=_BITS[navigation.bits], always_ram=in_memory)
        vectors[NAVIGATION_NAME] = models.VectorParams(
            size=dim,
            distance=models.Distance.DOT,
            datatype=models.Datatype(navigation.datatype),
            on_disk=True,
            quantization_config=models.TurboQuantization(turbo=turbo),
            hnsw_config=models.HnswConfigDiff(
                m=navigation.m,
                ef_construct=navigation.ef_construct,
                payload_m=navigation.links_of_values,
                on_disk=not in_memory,
                full_scan_threshold=navigation.full_scan_kb,
            ),
        )
    return vectors


_BITS: Final[dict[float, models.TurboQuantBitSize]] = {
    1: models.TurboQuantBitSize.BITS1,
    1.5: models.TurboQuantBitSize.BITS1_5,
    2: models.TurboQuantBitSize.BITS2,
    4: models.TurboQuantBitSize.BITS4,
}

_FIELDS: Final[dict[FieldType, models.PayloadSchemaType]] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "text": models.PayloadSchemaType.TEXT,
    "uuid": models.PayloadSchemaType.UUID,
    "geo": models.PayloadSchemaType.GEO,
}
