"""Closed formulas of bytes: in memory, on disk, and read from disk by a search that finds nothing in the page cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ..index.settings import NAVIGATION_DIM, DenseDatatype
from .constants import Constants, DenseCosts
from .workload import Workload

__all__ = [
    "BLOCK", "PAGE", "STORED_BYTES", "TEXT_ITEM_BYTES", "TEXT_WORD_BYTES", "dense_pages", "embedding_bytes",
    "graph_disk_bytes", "index_bytes", "item_bytes", "link_bytes", "loose_postings", "navigation_dim", "pages_read",
    "payload_bytes", "vector_bytes",
]  # fmt: skip  # fmt: skip

BLOCK: Final = 128
"""Postings per block of the engine."""
TEXT_ITEM_BYTES: Final = 95
TEXT_WORD_BYTES: Final = 1.2
"""Bytes on disk of a text index for each item and for each of its words. Measured by `scripts/bench_hybrid.py`: 100
bytes an item of 7 words on the shipped sample, 155 of 48 words and 161 of 54 words on 63,666 items."""
PAGE: Final = 4096
"""Bytes that the engine reads from disk at once, at random places."""
STORED_BYTES: Final[Mapping[DenseDatatype, float]] = {"float16": 2, "turbo8": 1, "turbo4": 0.5}
"""Bytes per dimension of a kept embedding, or of a navigation vector on disk."""
_ORIGINAL: Final = 4
"""Bytes per dimension of the original vectors of dense methods, float32."""


def index_bytes(workload: Workload, constants: Constants, segments: int) -> float:
    """Bytes of the posting lists of one copy, whose segments each have their own lists."""
    size, lists = constants.bytes, segments * workload.latents
    length = workload.items * workload.k / lists
    loose = loose_postings(length, size.loose_sharpness)
    packed = size.packed[workload.datatype] + math.log2(workload.latents / workload.k) / 8
    return lists * (size.list + loose * size.loose + (length - loose) * packed)


def loose_postings(length: float, sharpness: float) -> float:
    """Expected postings of a list outside full blocks: all of a short list, half a block of a long one."""
    half = BLOCK / 2
    return half * length / math.pow(math.pow(length, sharpness) + math.pow(half, sharpness), 1 / sharpness)


def item_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk per item, without its postings: code, payload, embedding and tables."""
    size = constants.bytes
    dense = embedding_bytes(workload, constants) if workload.keep_dense else 0
    return size.disk_item + _code_bytes(workload, constants) + payload_bytes(workload, constants) + dense


def embedding_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk of a kept embedding. The constant is of float16."""
    of_float16 = constants.bytes.dense_dimension * workload.dim
    return of_float16 * STORED_BYTES[workload.dense_datatype] / STORED_BYTES["float16"]


def _code_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes of a stored code, in whole cells."""
    size = constants.bytes
    code = size.code + (size.code_nonzero + size.code_nonzero_bit * math.log2(workload.latents)) * workload.k
    return size.cell * math.ceil(code / size.cell)


def payload_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk of an item's payload and of the text index of its words."""
    words = TEXT_ITEM_BYTES + TEXT_WORD_BYTES * workload.text_words if workload.text_words else 0.0
    if not workload.payload_bytes:
        return words
    return constants.bytes.payload_item + constants.bytes.payload * workload.payload_bytes + words


def vector_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes in memory of a quantised navigation vector."""
    return constants.graph_bytes.vector + navigation_dim(workload) * workload.navigation_bits / 8


def link_bytes(workload: Workload, constants: Constants, segment_items: float) -> float:
    """Bytes in memory of an item's links in the graph of a segment."""
    size = constants.graph_bytes
    links = math.pow(workload.navigation_m, size.link_exponent) * math.log2(max(segment_items, 2))
    return size.item + size.link * links


def graph_disk_bytes(workload: Workload, constants: Constants, segment_items: float) -> float:
    """Bytes on disk per item that navigation adds to an index: its vectors, as they are and quantised, and links."""
    size = constants.graph_bytes
    kept = size.disk_item + _stored_vector_bytes(workload, constants)
    return kept + vector_bytes(workload, constants) + link_bytes(workload, constants, segment_items)


def _stored_vector_bytes(workload: Workload, constants: Constants) -> float:
    """Bytes on disk of a navigation vector from which the quantised one is made. The constant is of float16."""
    of_float16 = constants.graph_bytes.disk_dimension * navigation_dim(workload)
    return of_float16 * STORED_BYTES[workload.navigation_datatype] / STORED_BYTES["float16"]


def pages_read(workload: Workload, constants: Constants, candidates: int, embeddings: int, compared: int = 0) -> float:
    """Pages that a search reads if the page cache holds none: of codes and the table of their places, of embeddings,
    and of navigation vectors.

    Args:
        workload: the catalog.
        constants: the constants.
        candidates: candidates that their codes rank.
        embeddings: candidates that kept embeddings rank.
        compared: nodes of the graph that are compared by their stored navigation vectors.
    """
    code = _distinct(candidates, workload.items * _code_bytes(workload, constants) / PAGE)
    place = _distinct(candidates, workload.items * constants.disk.pointer / PAGE)
    vector = _distinct(compared, workload.items * _stored_vector_bytes(workload, constants) / PAGE)
    return code + place + vector + _record_pages(embeddings, embedding_bytes(workload, constants))


def dense_pages(workload: Workload, costs: DenseCosts) -> float:
    """Pages that rescoring by the original vectors of a dense method reads."""
    return _record_pages(costs.originals * workload.limit, _ORIGINAL * workload.dim)


def _record_pages(records: int, size: float) -> float:
    """Pages of records of so many bytes at random places, which may lie across the border of pages."""
    return records * (1 + size / PAGE)


def _distinct(reads: int, pages: float) -> float:
    """Expected different pages among so many, for reads at random places."""
    return pages * -math.expm1(-reads / pages)


def navigation_dim(workload: Workload) -> int:
    """Dimensions of a navigation vector."""
    return workload.navigation_dim or min(NAVIGATION_DIM, workload.dim)
