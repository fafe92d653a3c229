"""What bench_retrieval.py compares codes with: Qdrant's dense storage and quantisation, PCA, truncation, Faiss."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import qdrant_edge as qe

from compressae_qdrant.codes import FloatArray

__all__ = ["Built", "Rival", "rivals"]

Search = Callable[[FloatArray, int], Sequence[int]]
SearchBatch = Callable[[FloatArray, int], Sequence[Sequence[int]]]

HNSW_M, EF_CONSTRUCT, EF_SEARCH = 16, 100, 200
"""The engine's own defaults for building; a search of 101 hits looks at 200 candidates."""
OVERSAMPLING = 3.0


@dataclass
class Built:
    """An index that is ready to be asked."""

    search: Search
    search_batch: SearchBatch
    resident: float
    """Bytes an item that a search touches everywhere: vectors or codes, graph, postings."""
    disk: float | None
    """Bytes an item of everything on disk; None where the method lives in memory alone."""
    seconds: float
    """To build: training of the quantiser, encoding, loading and indexing."""
    keep: object = field(default=None, repr=False)
    """What must stay alive meanwhile."""


@dataclass(frozen=True)
class Rival:
    """One row of the comparison."""

    name: str
    family: str
    build: Callable[[FloatArray], Built]


@dataclass(frozen=True)
class EdgeDense:
    """Dense vectors in the embedded engine with HNSW."""

    datatype: str = "Float32"
    quantization: Any = None
    rescore: bool = False
    dim: int | None = None
    reduction: Literal["truncate", "pca"] = "truncate"

    def __call__(self, vectors: FloatArray) -> Built:
        started = time.perf_counter()
        reduce = self._reduction(vectors)
        stored = reduce(vectors)
        folder = tempfile.TemporaryDirectory()
        params = qe.EdgeVectorParams(
            size=stored.shape[1],
            distance=qe.Distance.Cosine,
            datatype=getattr(qe.VectorStorageDatatype, self.datatype),
            quantization_config=self.quantization,
            hnsw_config=qe.HnswIndexConfig(m=HNSW_M, ef_construct=EF_CONSTRUCT, full_scan_threshold=10),
            memory=qe.Memory.Cold if self.quantization else qe.Memory.Cached,
        )
        optimizers = qe.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)
        config = qe.EdgeConfig(vectors={"dense": params}, optimizers=optimizers, wal_enabled=False)
        shard = qe.EdgeShard.create(folder.name, config)
        for start in range(0, len(stored), 2048):
            part = stored[start : start + 2048].tolist()
            points = [qe.Point(start + i, {"dense": vector}, {}) for i, vector in enumerate(part)]
            shard.update(qe.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.flush()
        seconds = time.perf_counter() - started
        quantised = qe.QuantizationSearchParams(
            rescore=self.rescore, oversampling=OVERSAMPLING if self.rescore else None
        )
        params_of_search = qe.SearchParams(hnsw_ef=EF_SEARCH, quantization=quantised)

        def request(vector: list[float], limit: int) -> Any:
            query = qe.Query.Nearest(vector, using="dense")
            return qe.QueryRequest(limit=limit, query=query, params=params_of_search, with_payload=False)

        def search(vector: FloatArray, limit: int) -> list[int]:
            return [int(hit.id) for hit in shard.query(request(reduce(vector[None])[0].tolist(), limit))]

        def search_batch(batch: FloatArray, limit: int) -> list[list[int]]:
            requests = [request(vector, limit) for vector in reduce(batch).tolist()]
            return [[int(hit.id) for hit in hits] for hits in shard.query_batch(qe.QueryBatchRequest(requests))]

        resident, disk = _segment_bytes(Path(folder.name), self.quantization is not None)
        return Built(search, search_batch, resident / len(vectors), disk / len(vectors), seconds, (folder, shard))

    def _reduction(self, vectors: FloatArray) -> Callable[[FloatArray], FloatArray]:
        dim = self.dim
        if dim is None:
            return lambda x: x
        if self.reduction == "truncate":
            return lambda x: np.ascontiguousarray(x[:, :dim])
        sample = vectors[:: max(1, len(vectors) // 50_000)]
        mean = sample.mean(axis=0)
        _, _, axes = np.linalg.svd(sample - mean, full_matrices=False)
        return lambda x: np.ascontiguousarray((x - mean) @ axes[:dim].T)


def _segment_bytes(root: Path, quantised: bool) -> tuple[int, int]:
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


@dataclass(frozen=True)
class Faiss:
    """An exhaustive Faiss index by its factory string, inner product."""

    factory: str

    def __call__(self, vectors: FloatArray) -> Built:
        import faiss

        started = time.perf_counter()
        index = faiss.index_factory(vectors.shape[1], self.factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        seconds = time.perf_counter() - started
        resident = len(faiss.serialize_index(index)) / len(vectors)

        def search_batch(batch: FloatArray, limit: int) -> list[list[int]]:
            rows: list[list[int]] = index.search(np.ascontiguousarray(batch), limit)[1].tolist()
            return rows

        return Built(lambda vector, limit: search_batch(vector[None], limit)[0], search_batch, resident, None, seconds)


def rivals(dim: int, quick: bool = False) -> list[Rival]:
    """Every rival for embeddings of `dim` dimensions; a few of them if it has to be quick."""
    bits = qe.TurboQuantBitSize
    cached = qe.Memory.Cached
    found = [
        Rival("dense float32 + HNSW", "dense", EdgeDense()),
        Rival("turbo4 stored, no originals", "Qdrant, no originals", EdgeDense("Turbo4")),
    ]
    quantisers: list[tuple[str, Any]] = [
        (f"TurboQuant {label} bit", qe.TurboQuantQuantizationConfig(bits=size, memory=cached))
        for label, size in (("1", bits.Bits1), ("1.5", bits.Bits1_5), ("2", bits.Bits2), ("4", bits.Bits4))
    ]
    quantisers += [
        ("binary", qe.BinaryQuantizationConfig(memory=cached)),
        ("scalar int8", qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, memory=cached)),
    ]
    for name, config in quantisers:
        found.append(Rival(name, "Qdrant, no rescoring", EdgeDense(quantization=config)))
        found.append(
            Rival(f"{name} + originals", "Qdrant, originals on disk", EdgeDense(quantization=config, rescore=True))
        )
    for size in (32, 64):
        found.append(Rival(f"PCA {size}", "reduced", EdgeDense(dim=size, reduction="pca")))
        found.append(Rival(f"truncation {size}", "reduced", EdgeDense(dim=size)))
    if quick:
        return [*found, Rival("Faiss PQ96", "Faiss", Faiss("PQ96"))]
    sizes = [size for size in (48, 64, 128, 256) if size <= dim / 3 and dim % size == 0]
    found += [Rival(f"Faiss PQ{size}", "Faiss", Faiss(f"PQ{size}")) for size in sizes]
    found += [Rival(f"Faiss OPQ{size}", "Faiss", Faiss(f"OPQ{size},PQ{size}")) for size in sizes]
    found.append(Rival("Faiss RaBitQ 1 bit", "Faiss", Faiss("RaBitQ")))
    found.append(Rival("Faiss RaBitQ 2 bit", "Faiss", Faiss("RaBitQ2")))
    return found
