"""Creation of an Edge shard with the settings of an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import qdrant_edge as qe

from ...errors import CodeIndexError
from ..manifest import DENSE_NAME, NAVIGATION_NAME, VECTOR_NAME, Manifest
from ..settings import Datatype, DenseDatatype, FieldType, IndexSettings, Memory
from ..text import TextSettings

__all__ = ["check_vectors", "create_shard", "index_fields"]

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
    index_fields(shard, settings)
    shard.close()


def index_fields(shard: qe.EdgeShard, settings: IndexSettings) -> None:
    """Index the payload fields that settings promise and that are not indexed yet, and flush the shard."""
    fields: dict[str, FieldType] = dict(settings.payload_fields)
    if settings.tenant_field is not None:
        fields.setdefault(settings.tenant_field, "keyword")
    schemas: dict[str, qe.PayloadSchemaType | qe.TextIndexParams] = {
        name: _FIELDS[kind] for name, kind in fields.items()
    }
    schemas |= {name: _text_index(text) for name, text in settings.texts.items()}
    if schemas:
        existing = shard.info().payload_schema
        for name, schema in schemas.items():
            if name not in existing:
                shard.update(qe.UpdateOperation.create_field_index(name, schema))
    shard.flush()


def _text_index(text: TextSettings) -> qe.TextIndexParams:
    name = None if text.language is None else text.language.capitalize()
    return qe.TextIndexParams(
        scoring=True,
        memory=_MEMORY[text.memory],
        stemmer=None if name is None else qe.SnowballParams(getattr(qe.SnowballLanguage, name)),
        stopwords=None if name is None else getattr(qe.Language, name),
    )


def check_vectors(index: Path, shard: Path, manifest: Manifest) -> None:
    """Check that a shard has the vectors that the manifest of its index promises.

    Raises:
        CodeIndexError: it lacks one, for example because manifest and shard are of different backups.
    """
    try:
        config = json.loads((shard / "edge_config.json").read_bytes())
        existing = {*config["vectors"], *config["sparse_vectors"]}
    except (OSError, ValueError, KeyError, TypeError):
        return  # the engine says what is wrong
    missing = [name for name in (*_dense_vectors(manifest), VECTOR_NAME) if name not in existing]
    if missing:
        raise CodeIndexError(
            f"the index at {index} is damaged: its manifest promises the vectors {', '.join(map(repr, missing))}, "
            "which its shard does not have; restore manifest and shard together, or create the index again"
        )


def _dense_vectors(manifest: Manifest) -> dict[str, qe.EdgeVectorParams]:
    """The dense vectors of a shard: embeddings, read for rescoring only, and navigation vectors with their graph."""
    vectors = {}
    if manifest.settings.keep_dense:
        vectors[DENSE_NAME] = qe.EdgeVectorParams(
            size=manifest.dim,
            distance=qe.Distance.Cosine,
            datatype=_dense_datatype(manifest.settings.dense_datatype),
            hnsw_config=qe.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=1_000_000),
            memory=qe.Memory.Cold,
        )
    navigation, dim = manifest.settings.navigation, manifest.navigation_dim
    if navigation is not None and dim is not None:
        memory = _MEMORY[navigation.memory]
        vectors[NAVIGATION_NAME] = qe.EdgeVectorParams(
            size=dim,
            distance=qe.Distance.Dot,
            datatype=_dense_datatype(navigation.datatype),
            quantization_config=qe.TurboQuantQuantizationConfig(bits=_BITS[navigation.bits], memory=memory),
            hnsw_config=qe.HnswIndexConfig(
                m=navigation.m, ef_construct=navigation.ef_construct, full_scan_threshold=navigation.full_scan_kb,
                payload_m=navigation.links_of_values, memory=memory,
            ),
            memory=qe.Memory.Cold,
        )  # fmt: skip
    return vectors


def _dense_datatype(name: DenseDatatype) -> qe.VectorStorageDatatype:
    datatype: qe.VectorStorageDatatype = getattr(qe.VectorStorageDatatype, _DENSE_DATATYPES[name])
    return datatype
