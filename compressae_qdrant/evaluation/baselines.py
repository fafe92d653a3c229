"""Baselines: Qdrant's dense storage and quantisation, PCA, truncation, and Faiss."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import qdrant_edge as qe

from ..codes import FloatArray
from ..lazy import needs_extra
from .methods import BuiltIndex, ComparedMethod, Search, SearchBatch, SearchConfig

__all__ = [
    "OVERSAMPLING", "baselines", "dense", "dense_bytes", "dense_request", "dense_shard", "faiss_index", "quantisers",
]  # fmt: skip

HNSW_M: Final = 16
EF_CONSTRUCT: Final = 100
"""Both are the defaults of the engine."""
EF_SEARCH: Final = 200
"""Candidates that HNSW keeps in a search for 101 hits."""
OVERSAMPLING: Final = 3.0
"""Candidates per hit that are rescored with the original vectors."""
_SUBQUANTISERS: Final = (48, 64, 96, 128, 192, 256)
"""Bytes per item of product quantisation."""
_ROTATION_ITEMS: Final = 16_384
"""Items that train the rotation of OPQ, which takes a third of the time; codebooks are trained on all items."""
_MAX_BYTES: Final = 256
"""Bytes per item of the largest RaBitQ index, without corrections."""
_LOAD_ITEMS: Final = 2048
_PCA_ITEMS: Final = 50_000


def baselines(dim: int, keep: Path | None = None, *, quick: bool = False) -> list[ComparedMethod]:
    """The baselines for embeddings of `dim` dimensions.

    Args:
        dim: dimensions of the embeddings.
        keep: directory for Faiss indexes, which take minutes to train; existing ones are read, not trained again.
        quick: only the engine's own methods, PCA and truncation, the last two in one size.
    """
    methods = [dense("dense float32 + HNSW", "dense"),
             dense("turbo4 stored, no originals", "Qdrant, no originals", datatype="Turbo4")]  # fmt: skip
    methods += [_quantised(name, config) for name, config in quantisers().items()]
    for reduced in (64,) if quick else (16, 32, 64, 128, 256, 512):
        if reduced < dim:
            methods.append(dense(f"PCA {reduced}", "PCA", dim=reduced, reduction="pca"))
            methods.append(dense(f"truncation {reduced}", "truncation", dim=reduced))
    if quick:
        return methods
    counts = [count for count in _SUBQUANTISERS if dim % count == 0]
    methods += [faiss_index(f"Faiss PQ{count}", f"PQ{count}", "Faiss PQ", keep) for count in counts]
    methods += [faiss_index(f"Faiss OPQ{count}", f"OPQ{count},PQ{count}", "Faiss OPQ", keep) for count in counts]
    bits = range(1, min(8, max(1, _MAX_BYTES * 8 // dim)) + 1)
    methods += [
        faiss_index(f"Faiss RaBitQ {n} bit", f"RaBitQ{n}" if n > 1 else "RaBitQ", "Faiss RaBitQ", keep) for n in bits
    ]
    return methods


def quantisers() -> dict[str, Any]:
    """Quantisation settings of the engine by name, with quantised vectors in memory."""
    bits, cached = qe.TurboQuantBitSize, qe.Memory.Cached
    sizes = (("1", bits.Bits1), ("1.5", bits.Bits1_5), ("2", bits.Bits2), ("4", bits.Bits4))
    configs: dict[str, Any] = {
        f"TurboQuant {label} bit": qe.TurboQuantQuantizationConfig(bits=size, memory=cached) for label, size in sizes
    }
    configs["binary"] = qe.BinaryQuantizationConfig(memory=cached)
    configs["scalar int8"] = qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, memory=cached)
    return configs


def dense(
    name: str,
    family: str,
    *,
    datatype: str = "Float32",
    dim: int | None = None,
    reduction: Literal["truncate", "pca"] = "truncate",
) -> ComparedMethod:
    """Dense vectors in the embedded engine with HNSW, reduced to `dim` dimensions if given."""

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[BuiltIndex]:
        started = time.perf_counter()
        reduce = _reduction(vectors, dim, reduction)
        with _shard(reduce(vectors), datatype, None) as (shard, folder):
            seconds = time.perf_counter() - started
            resident, disk = dense_bytes(folder, quantised=False)
            config = SearchConfig(name, family, *_searches(shard, reduce, rescore=False))
            yield BuiltIndex([config], resident / len(vectors), disk / len(vectors), seconds)

    return ComparedMethod((name,), build)


def _quantised(name: str, quantization: Any) -> ComparedMethod:
    """Quantised vectors in the embedded engine with HNSW, searched without and with rescoring by originals on disk."""
    originals = f"{name} + originals"

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[BuiltIndex]:
        started = time.perf_counter()
        with _shard(vectors, "Float32", quantization) as (shard, folder):
            seconds = time.perf_counter() - started
            resident, disk = dense_bytes(folder, quantised=True)
            configs = [
                SearchConfig(name, "Qdrant, no rescoring", *_searches(shard, _unchanged, rescore=False)),
                SearchConfig(originals, "Qdrant, originals on disk", *_searches(shard, _unchanged, rescore=True)),
            ]
            yield BuiltIndex(configs, resident / len(vectors), disk / len(vectors), seconds)

    return ComparedMethod((name, originals), build)


def faiss_index(name: str, factory: str, family: str, keep: Path | None = None) -> ComparedMethod:
    """An exhaustive Faiss index with inner product.

    Codebooks and rotations do not grow with the catalog, so their bytes are not counted, and neither are those of a
    model's atoms.

    Args:
        name: name of the row.
        factory: factory string of the index.
        family: family of the row.
        keep: directory to keep the trained index in.

    Raises:
        MissingExtraError: when built, if Faiss is not installed.
    """

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[BuiltIndex]:
        with needs_extra("bench", name, "Faiss"):
            import faiss
        file = None if keep is None else keep / f"{factory.replace(',', '-')}.faiss"
        seconds: float | None = None
        if file is not None and file.exists():
            index = faiss.read_index(str(file))
        else:
            started = time.perf_counter()
            index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            if factory.startswith("OPQ"):
                chain = cast(Any, index).chain  # an IndexPreTransform has one
                cast(Any, faiss.downcast_VectorTransform(chain.at(0))).max_train_points = _ROTATION_ITEMS
            index.train(vectors)
            index.add(vectors)
            seconds = time.perf_counter() - started
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                faiss.write_index(index, str(file))
        empty = faiss.clone_index(index)
        empty.reset()
        resident = (len(faiss.serialize_index(index)) - len(faiss.serialize_index(empty))) / len(vectors)

        def search_batch(batch: FloatArray, limit: int) -> list[list[int]]:
            rows: list[list[int]] = index.search(np.ascontiguousarray(batch), limit)[1].tolist()
            return rows

        config = SearchConfig(name, family, lambda vector, limit: search_batch(vector[None], limit)[0], search_batch)
        yield BuiltIndex([config], resident, None, seconds)

    return ComparedMethod((name,), build)


def _unchanged(vectors: FloatArray) -> FloatArray:
    return vectors


def _reduction(
    vectors: FloatArray, dim: int | None, reduction: Literal["truncate", "pca"]
) -> Callable[[FloatArray], FloatArray]:
    if dim is None:
        return _unchanged
    if reduction == "truncate":
        return lambda x: np.ascontiguousarray(x[:, :dim])
    sample = vectors[:: max(1, len(vectors) // _PCA_ITEMS)]
    mean = sample.mean(axis=0)
    _, eigenvectors = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    axes = np.ascontiguousarray(eigenvectors[:, ::-1][:, :dim], np.float32)
    return lambda x: (x - mean) @ axes


@contextlib.contextmanager
def _shard(stored: FloatArray, datatype: str, quantization: Any) -> Iterator[tuple[qe.EdgeShard, Path]]:
    """Create a shard of dense vectors in a temporary directory."""
    with tempfile.TemporaryDirectory() as folder:
        shard = dense_shard(Path(folder), stored, datatype, quantization)
        try:
            yield shard, Path(folder)
        finally:
            shard.close()


def dense_shard(
    folder: Path,
    stored: FloatArray,
    datatype: str,
    quantization: Any,
    numbers: Mapping[str, Sequence[int]] | None = None,
    hnsw: qe.HnswIndexConfig | None = None,
) -> qe.EdgeShard:
    """Create, load and optimise a shard of dense vectors in an empty directory.

    Args:
        folder: the directory.
        stored: (n, d) vectors.
        datatype: name of the engine's datatype.
        quantization: settings of the quantised vectors; None stores no others.
        numbers: payload fields, indexed for filters, with a number for each vector.
        hnsw: settings of the graph; None takes the engine's defaults.
    """
    numbers = numbers or {}
    params = qe.EdgeVectorParams(
        size=stored.shape[1],
        distance=qe.Distance.Cosine,
        datatype=getattr(qe.VectorStorageDatatype, datatype),
        quantization_config=quantization,
        hnsw_config=hnsw or qe.HnswIndexConfig(m=HNSW_M, ef_construct=EF_CONSTRUCT, full_scan_threshold=10),
        memory=qe.Memory.Cold if quantization else qe.Memory.Cached,
    )
    optimizers = qe.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)
    config = qe.EdgeConfig(vectors={"dense": params}, optimizers=optimizers, wal_enabled=False)
    shard = qe.EdgeShard.create(str(folder), config)
    for name in numbers:
        shard.update(qe.UpdateOperation.create_field_index(name, qe.PayloadSchemaType.Integer))
    for start in range(0, len(stored), _LOAD_ITEMS):
        part = stored[start : start + _LOAD_ITEMS].tolist()
        points = [
            qe.Point(row, {"dense": vector}, {name: int(column[row]) for name, column in numbers.items()})
            for row, vector in enumerate(part, start)
        ]
        shard.update(qe.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    return shard


def dense_request(
    vector: list[float], limit: int, *, rescore: bool, filter: qe.Filter | None = None
) -> qe.QueryRequest:
    """The request of a search in a shard of `dense_shard`, with rescoring by originals or without."""
    quantised = qe.QuantizationSearchParams(rescore=rescore, oversampling=OVERSAMPLING if rescore else None)
    params = qe.SearchParams(hnsw_ef=EF_SEARCH, quantization=quantised)
    query = qe.Query.Nearest(vector, using="dense")
    return qe.QueryRequest(limit=limit, query=query, params=params, filter=filter, with_payload=False)


def _searches(
    shard: qe.EdgeShard, reduce: Callable[[FloatArray], FloatArray], *, rescore: bool
) -> tuple[Search, SearchBatch]:
    def search(vector: FloatArray, limit: int) -> list[int]:
        request = dense_request(reduce(vector[None])[0].tolist(), limit, rescore=rescore)
        return [int(hit.id) for hit in shard.query(request)]

    def search_batch(batch: FloatArray, limit: int) -> list[list[int]]:
        requests = [dense_request(vector, limit, rescore=rescore) for vector in reduce(batch).tolist()]
        return [[int(hit.id) for hit in hits] for hits in shard.query_batch(qe.QueryBatchRequest(requests))]

    return search, search_batch


def dense_bytes(root: Path, *, quantised: bool) -> tuple[int, int]:
    """Bytes of the files that searches need in memory, and of all files on disk but the empty payload storage."""
    resident = disk = 0
    for folder, _, names in os.walk(root):
        for name in names:
            stat = Path(folder, name).stat()
            disk += stat.st_blocks * 512 if "payload_storage" not in folder else 0
            graph = Path(folder).name == "vector_index-dense"
            codes = name.startswith("quantized.data") if quantised else name in ("matrix.dat", "tq_vectors.dat")
            # An optimised shard keeps an empty segment beside the full one: sparse files, whose length would overcount.
            resident += min(stat.st_size, stat.st_blocks * 512) if graph or codes else 0
    return resident, disk
