"""Creation of an Edge shard with the settings of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import qdrant_edge as qe

from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME, Manifest
from ..settings import Datatype, DenseDatatype, FieldType, Memory

__all__ = ["create_shard"]

_DATATYPES: Final[dict[Datatype, qe.VectorStorageDatatype]] = {
    "float32": qe.VectorStorageDatatype.Float32,
    "float16": qe.VectorStorageDatatype.Float16,
    "uint8": qe.VectorStorageDatatype.Uint8,
}
_DENSE_DATATYPES: Final[dict[DenseDatatype, str]] = {"float16": "Float16", "turbo8": "Turbo8", "turbo4": "Turbo4"}
"""Names in the engine's enumeration; its type stubs lack the newer ones."""
_MEMORY: Final[dict[Memory, qe.Memory]] = {
    "pinned": qe.Memory.Pinned,
    "cached": qe.Memory.Cached,
    "cold": qe.Memory.Cold,
}
_FIELDS: Final[dict[FieldType, qe.PayloadSchemaType]] = {
    "keyword": qe.PayloadSchemaType.Keyword,
    "integer": qe.PayloadSchemaType.Integer,
    "float": qe.PayloadSchemaType.Float,
    "bool": qe.PayloadSchemaType.Bool,
    "datetime": qe.PayloadSchemaType.Datetime,
    "text": qe.PayloadSchemaType.Text,
    "uuid": qe.PayloadSchemaType.Uuid,
    "geo": qe.PayloadSchemaType.Geo,
}


_BITS: Final[dict[float, qe.TurboQuantBitSize]] = {
    1: qe.TurboQuantBitSize.Bits1,
    1.5: qe.TurboQuantBitSize.Bits1_5,
    2: qe.TurboQuantBitSize.Bits2,
    4: qe.TurboQuantBitSize.Bits4,
}
_FULL_SCAN_KB: Final = 10_000
"""Filters that match items with fewer KB of navigation vectors are answered without the graph, exactly."""


def create_shard(path: Path, manifest: Manifest) -> None:
    """Create an empty, closed shard for an index in an existing directory."""
    settings = manifest.settings
    config = qe.EdgeConfig(
        vectors=_dense_vectors(manifest) or None,
        sparse_vectors={
            VECTOR_NAME: qe.EdgeSparseVectorParams(
                full_scan_threshold=settings.full_scan_threshold,
                datatype=_DATATYPES[settings.datatype],
                memory=_MEMORY[settings.memory or "pinned"],
            )
        },
        # Segments of more KB than this become compressed. The default would leave a small catalog in a plain segment,
        # which is slow, uncompressed and rebuilt at each load.
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=settings.segments),
        wal_enabled=False,
    )
    shard = qe.EdgeShard.create(str(path), config)
    fields: dict[str, FieldType] = dict(settings.payload_fields)
    if settings.tenant_field is not None:
        fields.setdefault(settings.tenant_field, "keyword")
    for name, kind in fields.items():
        shard.update(qe.UpdateOperation.create_field_index(name, _FIELDS[kind]))
    shard.flush()
    shard.close()


def _dense_vectors(manifest: Manifest) -> dict[str, qe.EdgeVectorParams]:
    """The dense vectors of a shard: embeddings, read for rescoring only, and navigation vectors with their graph."""
    vectors = {}
    if manifest.settings.keep_dense:
        vectors[DENSE_NAME] = qe.EdgeVectorParams(
            size=manifest.dim,
            distance=qe.Distance.Cosine,
            datatype=getattr(qe.VectorStorageDatatype, _DENSE_DATATYPES[manifest.settings.dense_datatype]),
            hnsw_config=qe.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=1_000_000),
            memory=qe.Memory.Cold,
        )
    navigation, dim = manifest.settings.navigation, manifest.navigation_dim
    if navigation is not None and dim is not None:
        memory = _MEMORY[navigation.memory]
        vectors[NAVIGATION_NAME] = qe.EdgeVectorParams(
            size=dim,
            distance=qe.Distance.Dot,
            datatype=qe.VectorStorageDatatype.Float16,
            quantization_config=qe.TurboQuantQuantizationConfig(bits=_BITS[navigation.bits], memory=memory),
            hnsw_config=qe.HnswIndexConfig(
                m=navigation.m, ef_construct=navigation.ef_construct, full_scan_threshold=_FULL_SCAN_KB,
                payload_m=0, memory=memory,
            ),
            memory=qe.Memory.Cold,
        )  # fmt: skip
    return vectors
