"""What a benchmark compares: indexes that can be built, and ways to ask them. Ours are here, others in `rivals`."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..codes import FloatArray, Scale
from ..index import EdgeIndex, IndexSettings
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..search.planner import SearchOptions
from ..search.retriever import Retriever

__all__ = ["Built", "Contender", "Search", "SearchBatch", "Way", "codes", "searches"]

Search = Callable[[FloatArray, int], Sequence[int]]
"""A (d,) query and a limit to rows of the catalog, best first."""
SearchBatch = Callable[[FloatArray, int], Sequence[Sequence[int]]]
"""The same for (q, d) queries at once."""

_LOAD: Final = 4096
_STATISTICS_ITEMS: Final = 20_000


@dataclass(frozen=True)
class Way:
    """One way to ask an index: one row of the comparison."""

    name: str
    family: str
    """What it is drawn with."""
    search: Search
    search_batch: SearchBatch


@dataclass(frozen=True)
class Built:
    """An index that is ready to be asked."""

    ways: Sequence[Way]
    resident: float
    """Bytes an item that a search touches everywhere: vectors or codes, graph, postings."""
    disk: float | None
    """Bytes an item of everything on disk; None where the method lives in memory alone."""
    build_seconds: float | None
    """Training of the quantiser, encoding, loading and indexing; None where it was built before."""
    encode_seconds: float | None = None
    """Of that, finding the codes."""


@dataclass(frozen=True)
class Contender:
    """An index that can be built."""

    names: tuple[str, ...]
    """Of its ways, known before it is built."""
    build: Callable[[FloatArray], AbstractContextManager[Built]]
    """From (n, d) unit-norm vectors, item i being row i."""


def codes(
    label: str,
    ways: Mapping[str, tuple[str, SearchOptions]],
    model: Callable[[], CompresSAE],
    *,
    method: Method = "pursuit",
    scale: Scale = "projection",
    keep_dense: bool = False,
) -> Contender:
    """Codes of a model in the embedded engine.

    Args:
        label: what the names of the ways begin with.
        ways: family and options of each way to ask, by how its name ends.
        model: called when it is needed.
        method: of coding, of items and, where a query needs a code, of queries.
        scale: of stored values.
        keep_dense: keep the embeddings on disk.
    """

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[Built]:
        coder = model()
        started = time.perf_counter()
        coded = coder.encode(vectors, method, scale=scale)
        encoded = time.perf_counter() - started
        settings = IndexSettings(scale=scale, keep_dense=keep_dense)
        with (
            tempfile.TemporaryDirectory() as folder,
            EdgeIndex.create(Path(folder) / "index", coder, settings) as index,
        ):
            for start in range(0, len(coded), _LOAD):
                part = coded[start : start + _LOAD]
                dense = vectors[start : start + len(part)] if keep_dense else None
                index.upsert(range(start, start + len(part)), part, dense=dense)
            index.optimize()
            seconds = time.perf_counter() - started
            info = index.info()
            assert info.index_bytes is not None
            assert info.total_bytes is not None
            retriever = Retriever(coder, index)
            asked = [
                Way(f"{label}, {name}", family, *searches(retriever, {**options, "query_method": method}))
                for name, (family, options) in ways.items()
            ]
            yield Built(asked, info.index_bytes / len(coded), info.total_bytes / len(coded), seconds, encoded)

    return Contender(tuple(f"{label}, {name}" for name in ways), build)


def searches(
    retriever: Retriever, options: SearchOptions, rows: Mapping[int | str, int] | None = None
) -> tuple[Search, SearchBatch]:
    """A retriever as a benchmark asks it. `rows` says which row an id is (-1 for one that is in no row); None takes ids
    as rows."""
    asked: SearchOptions = {**options, "with_payload": False}

    def row(id: int | str) -> int:
        return int(id) if rows is None else rows.get(id, -1)

    def search(vector: FloatArray, limit: int) -> list[int]:
        return [row(hit.id) for hit in retriever.search(vector, limit, **asked)]

    def search_batch(vectors: FloatArray, limit: int) -> list[list[int]]:
        return [[row(hit.id) for hit in hits] for hits in retriever.search_batch(vectors, limit, **asked)]

    return search, search_batch
