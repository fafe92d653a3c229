"""What codes are compared with: Qdrant's dense storage and quantisation, PCA, truncation and Faiss."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import qdrant_edge as qe

from ..codes import FloatArray
from ..errors import MissingExtraError
from .methods import Built, Contender, Search, SearchBatch, Way

__all__ = [
    "OVERSAMPLING", "dense", "dense_bytes", "dense_request", "dense_shard", "faiss_index", "quantisers", "rivals",
]  # fmt: skip

HNSW_M: Final = 16
EF_CONSTRUCT: Final = 100
"""Both the engine's own defaults."""
EF_SEARCH: Final = 200
"""Candidates that a search of 101 hits looks at."""
OVERSAMPLING: Final = 3.0
"""Candidates a hit that are rescored by originals."""
_SUBQUANTISERS: Final = (48, 64, 96, 128, 192, 256)
"""Bytes of a product-quantised item."""
_ROTATION_ITEMS: Final = 16_384
"""Items that the rotation of OPQ is found on, the codebooks still on all: a third of the time."""
_MOST_BYTES: Final = 256
"""Of an item's bits in the largest RaBitQ index."""
_LOAD: Final = 2048
_PCA_ITEMS: Final = 50_000


def rivals(dim: int, keep: Path | None = None, *, quick: bool = False) -> list[Contender]:
    """Every rival for embeddings of `dim` dimensions, or a few of them.

    Args:
        dim: d.
        keep: directory for Faiss indexes, which take minutes to train; one that is there is not trained again.
        quick: the engine's own methods and one size of each other kind.
    """
    found = [dense("dense float32 + HNSW", "dense"),
             dense("turbo4 stored, no originals", "Qdrant, no originals", datatype="Turbo4")]  # fmt: skip
    found += [_quantised(name, config) for name, config in quantisers().items()]
    for reduced in (64,) if quick else (16, 32, 64, 128, 256, 512):
        if reduced < dim:
            found.append(dense(f"PCA {reduced}", "PCA", dim=reduced, reduction="pca"))
            found.append(dense(f"truncation {reduced}", "truncation", dim=reduced))
    if quick:
        return found
    whole = [count for count in _SUBQUANTISERS if dim % count == 0]
    found += [faiss_index(f"Faiss PQ{count}", f"PQ{count}", "Faiss PQ", keep) for count in whole]
    found += [faiss_index(f"Faiss OPQ{count}", f"OPQ{count},PQ{count}", "Faiss OPQ", keep) for count in whole]
    bits = range(1, min(8, max(1, _MOST_BYTES * 8 // dim)) + 1)
    found += [
        faiss_index(f"Faiss RaBitQ {n} bit", f"RaBitQ{n}" if n > 1 else "RaBitQ", "Faiss RaBitQ", keep) for n in bits
    ]
    return found


def quantisers() -> dict[str, Any]:
    """The engine's quantisers by name, each with its codes in memory."""
    bits, cached = qe.TurboQuantBitSize, qe.Memory.Cached
    sizes = (("1", bits.Bits1), ("1.5", bits.Bits1_5), ("2", bits.Bits2), ("4", bits.Bits4))
    found: dict[str, Any] = {
        f"TurboQuant {label} bit": qe.TurboQuantQuantizationConfig(bits=size, memory=cached) for label, size in sizes
    }
    found["binary"] = qe.BinaryQuantizationConfig(memory=cached)
    found["scalar int8"] = qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, memory=cached)
    return found


def dense(
    name: str,
    family: str,
    *,
    datatype: str = "Float32",
    dim: int | None = None,
    reduction: Literal["truncate", "pca"] = "truncate",
) -> Contender:
    """Dense vectors in the embedded engine with HNSW, perhaps reduced to fewer dimensions."""

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[Built]:
        started = time.perf_counter()
        reduce = _reduction(vectors, dim, reduction)
        with _shard(reduce(vectors), datatype, None) as (shard, folder):
            seconds = time.perf_counter() - started
            resident, disk = dense_bytes(folder, quantised=False)
            way = Way(name, family, *_searches(shard, reduce, rescore=False))
            yield Built([way], resident / len(vectors), disk / len(vectors), seconds)

    return Contender((name,), build)


def _quantised(name: str, config: Any) -> Contender:
    """Quantised vectors in the embedded engine with HNSW, originals on disk: asked without them and with them."""
    originals = f"{name} + originals"

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[Built]:
        started = time.perf_counter()
        with _shard(vectors, "Float32", config) as (shard, folder):
            seconds = time.perf_counter() - started
            resident, disk = dense_bytes(folder, quantised=True)
            ways = [
                Way(name, "Qdrant, no rescoring", *_searches(shard, _same, rescore=False)),
                Way(originals, "Qdrant, originals on disk", *_searches(shard, _same, rescore=True)),
            ]
            yield Built(ways, resident / len(vectors), disk / len(vectors), seconds)

    return Contender((name, originals), build)


def faiss_index(name: str, factory: str, family: str, keep: Path | None = None) -> Contender:
    """An exhaustive Faiss index by its factory string, inner product.

    Its bytes in memory are those of the items. Codebooks and rotations don't grow with the catalog and aren't counted,
    as the atoms of codes aren't.
    """

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[Built]:
        try:
            import faiss
        except ImportError as exc:
            raise MissingExtraError(f"{name} needs Faiss; pip install 'compressae-qdrant[bench]'") from exc
        file = None if keep is None else keep / f"{factory.replace(',', '-')}.faiss"
        seconds: float | None = None
        if file is not None and file.exists():
            index = faiss.read_index(str(file))
        else:
            started = time.perf_counter()
            index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            if factory.startswith("OPQ"):
                chain = cast(Any, index).chain  # of an IndexPreTransform
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

        way = Way(name, family, lambda vector, limit: search_batch(vector[None], limit)[0], search_batch)
        yield Built([way], resident, None, seconds)

    return Contender((name,), build)


def _same(vectors: FloatArray) -> FloatArray:
    return vectors


def _reduction(
    vectors: FloatArray, dim: int | None, reduction: Literal["truncate", "pca"]
) -> Callable[[FloatArray], FloatArray]:
    if dim is None:
        return _same
    if reduction == "truncate":
        return lambda x: np.ascontiguousarray(x[:, :dim])
    sample = vectors[:: max(1, len(vectors) // _PCA_ITEMS)]
    mean = sample.mean(axis=0)
    _, vectors_of = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    axes = np.ascontiguousarray(vectors_of[:, ::-1][:, :dim], np.float32)
    return lambda x: (x - mean) @ axes


@contextlib.contextmanager
def _shard(stored: FloatArray, datatype: str, quantization: Any) -> Iterator[tuple[qe.EdgeShard, Path]]:
    """A shard of dense vectors in a temporary directory."""
    with tempfile.TemporaryDirectory() as folder:
        shard = dense_shard(Path(folder), stored, datatype, quantization)
        try:
            yield shard, Path(folder)
        finally:
            shard.close()


def dense_shard(folder: Path, stored: FloatArray, datatype: str, quantization: Any) -> qe.EdgeShard:
    """A shard of dense vectors in an empty directory, loaded and optimised."""
    params = qe.EdgeVectorParams(
        size=stored.shape[1],
        distance=qe.Distance.Cosine,
        datatype=getattr(qe.VectorStorageDatatype, datatype),
        quantization_config=quantization,
        hnsw_config=qe.HnswIndexConfig(m=HNSW_M, ef_construct=EF_CONSTRUCT, full_scan_threshold=10),
        memory=qe.Memory.Cold if quantization else qe.Memory.Cached,
    )
    optimizers = qe.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)
    config = qe.EdgeConfig(vectors={"dense": params}, optimizers=optimizers, wal_enabled=False)
    shard = qe.EdgeShard.create(str(folder), config)
    for start in range(0, len(stored), _LOAD):
        part = stored[start : start + _LOAD].tolist()
        points = [qe.Point(start + i, {"dense": vector}, {}) for i, vector in enumerate(part)]
        shard.update(qe.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    return shard


def dense_request(vector: list[float], limit: int, *, rescore: bool) -> qe.QueryRequest:
    """A search of such a shard."""
    quantised = qe.QuantizationSearchParams(rescore=rescore, oversampling=OVERSAMPLING if rescore else None)
    params = qe.SearchParams(hnsw_ef=EF_SEARCH, quantization=quantised)
    query = qe.Query.Nearest(vector, using="dense")
    return qe.QueryRequest(limit=limit, query=query, params=params, with_payload=False)


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
    """Length of the files that a search needs in memory, and allocated bytes of all files but the empty payloads'."""
    resident = disk = 0
    for folder, _, names in os.walk(root):
        for name in names:
            stat = Path(folder, name).stat()
            disk += stat.st_blocks * 512 if "payload_storage" not in folder else 0
            graph = Path(folder).name == "vector_index-dense"
            codes = name.startswith("quantized.data") if quantised else name in ("matrix.dat", "tq_vectors.dat")
            # A shard that was filled and then optimised keeps an empty segment of mapped pages beside the full one.
            resident += min(stat.st_size, stat.st_blocks * 512) if graph or codes else 0
    return resident, disk
