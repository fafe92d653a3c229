"""The search methods of a benchmark, and the codes of a model as one of them. `baselines` has the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..codes import FloatArray, Scale
from ..index import IndexSettings
from ..index.ids import spelling_of
from ..index.settings import NavigationSettings
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..search.retriever import Retriever
from ..search.settings import SearchOptions
from .temporary_index import temporary_index

__all__ = ["BuiltIndex", "ComparedMethod", "Search", "SearchBatch", "SearchConfig", "codes", "searches"]

Search = Callable[[FloatArray, int], Sequence[int]]
"""Takes a (d,) query and a limit, and returns rows of the catalog, best first."""
SearchBatch = Callable[[FloatArray, int], Sequence[Sequence[int]]]
"""The same for (q, d) queries at once."""


@dataclass(frozen=True)
class SearchConfig:
    """One way to search an index: one row of the comparison."""

    name: str
    """Name of the row."""
    family: str
    """Group of rows that share a colour, a marker and a line in plots."""
    search: Search
    """Search for one query."""
    search_batch: SearchBatch
    """Search for a batch of queries."""


@dataclass(frozen=True)
class BuiltIndex:
    """An index that is ready for searches."""

    configs: Sequence[SearchConfig]
    """The ways to search it."""
    resident: float
    """Bytes per item that searches access at random: vectors or codes, graph, postings."""
    disk: float | None
    """Bytes per item on disk, all files; None for a method that lives in memory alone."""
    build_seconds: float | None
    """Seconds to train the quantiser, encode, load and index; None for an index that was read from a file."""
    encode_seconds: float | None = None
    """Seconds of these that encoding took."""


@dataclass(frozen=True)
class ComparedMethod:
    """An index that can be built, and the names of its search configurations."""

    names: tuple[str, ...]
    """Names of the search configurations; known before the index is built."""
    build: Callable[[FloatArray], AbstractContextManager[BuiltIndex]]
    """Builds the index from (n, d) unit-norm vectors; row i gets id i."""


def codes(
    label: str,
    configs: Mapping[str, tuple[str, SearchOptions]],
    model: Callable[[], CompresSAE],
    *,
    method: Method = "pursuit",
    scale: Scale = "projection",
    keep_dense: bool = False,
    navigation: NavigationSettings | None = None,
) -> ComparedMethod:
    """Codes of a model in the embedded engine.

    Args:
        label: prefix of the configurations' names.
        configs: family and search options of each configuration, by the suffix of its name.
        model: returns the model; called when the index is built.
        method: encoding method of items, and of queries where a search needs their codes.
        scale: scale of stored values.
        keep_dense: keep the embeddings on disk.
        navigation: settings of the graph, which is then what is in memory, with its navigation vectors; None leaves it
            out, and the inverted index is in memory.
    """

    @contextlib.contextmanager
    def build(vectors: FloatArray) -> Iterator[BuiltIndex]:
        coder = model()
        started = time.perf_counter()
        coded = coder.encode(vectors, method, scale=scale)
        encode_seconds = time.perf_counter() - started
        settings = IndexSettings(scale=scale, keep_dense=keep_dense, navigation=navigation)
        with temporary_index(coder, coded, settings, dense=vectors if keep_dense else None) as index:
            build_seconds = time.perf_counter() - started
            info = index.info()
            assert info.resident_bytes is not None
            assert info.total_bytes is not None
            retriever = Retriever(coder, index)
            built = [
                SearchConfig(f"{label}, {name}", family, *searches(retriever, {**options, "query_method": method}))
                for name, (family, options) in configs.items()
            ]
            yield BuiltIndex(
                built, info.resident_bytes / len(coded), info.total_bytes / len(coded), build_seconds, encode_seconds
            )

    return ComparedMethod(tuple(f"{label}, {name}" for name in configs), build)


def searches(
    retriever: Retriever, options: SearchOptions, rows: Mapping[int | str, int] | None = None
) -> tuple[Search, SearchBatch]:
    """Adapt a retriever to `Search` and `SearchBatch`.

    Args:
        retriever: the retriever.
        options: options of every search; payloads are never read.
        rows: row of the catalog for each id; ids without a row become -1. None takes the ids as rows.
    """
    options = {**options, "with_payload": False}
    spelled = spelling_of(rows or ())

    def row(id: int | str) -> int:
        return int(id) if rows is None else rows.get(spelled(id), -1)

    def search(vector: FloatArray, limit: int) -> list[int]:
        return [row(hit.id) for hit in retriever.search(vector, limit, **options)]

    def search_batch(vectors: FloatArray, limit: int) -> list[list[int]]:
        return [[row(hit.id) for hit in hits] for hits in retriever.search_batch(vectors, limit, **options)]

    return search, search_batch
