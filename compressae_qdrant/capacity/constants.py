"""Constants of the capacity estimates, in bytes and milliseconds, measured by `scripts/bench_capacity.py`.

`measured.json`, shipped with the package, holds the machine, all measurements, and the constants that `fit` computes
from them. The planner reads only the constants.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError
from ..index.settings import Datatype
from ..search.costs import CodeTimes, GraphTimes, SearchCosts

__all__ = [
    "CodeBytes", "CodeTimes", "Constants", "DenseCosts", "DiskReads", "GraphBytes", "GraphTimes", "load_constants",
]  # fmt: skip

_FORMAT: Final = 1


@dataclass(frozen=True)
class CodeBytes:
    """Bytes of codes. A posting list is stored in packed blocks of 128 postings; the remaining postings are loose."""

    list: float
    """Bytes per posting list and segment, without its postings."""
    loose: float
    """Bytes per loose posting."""
    packed: dict[Datatype, float]
    """Bytes per packed posting by index datatype, without the log2(h / k) / 8 bytes of its item number."""
    loose_sharpness: float
    """Exponent s of `64 L / (L^s + 64^s)^(1/s)`: the loose postings of a list of L, which level off at 64."""
    item: float
    """Bytes per item in memory, without its postings: its id and the location of its code."""
    disk_item: float
    """Bytes per item on disk, without postings, code and payload."""
    code: float
    """Bytes per stored code, without its non-zeros."""
    code_nonzero: float
    """Bytes per stored non-zero, before the code is rounded up to whole cells."""
    code_nonzero_bit: float
    """Additional bytes per stored non-zero and unit of log2(h)."""
    cell: float
    """Bytes of an allocation cell; stored codes and payloads are rounded up to whole cells."""
    payload: float
    """Bytes on disk per byte of payload as JSON."""
    payload_item: float
    """Bytes on disk per item with a payload, without the payload; includes the rounding up to cells."""
    dense_dimension: float
    """Bytes per dimension of an embedding kept on disk (`keep_dense`)."""


@dataclass(frozen=True)
class GraphBytes:
    """Bytes of navigation vectors and their graph."""

    vector: float
    """Bytes per quantised navigation vector in memory, without its `dim * bits / 8`: corrections of the quantiser."""
    item: float
    """Bytes per item of the graph in memory, without its links: the links' places."""
    link: float
    """Bytes per item, per unit of `m^link_exponent` and of log2(items of the segment): packed links."""
    link_exponent: float
    """Exponent of m. Below 1, as items with room for more links do not fill them."""
    disk_dimension: float
    """Bytes on disk per dimension of a navigation vector: the vector itself, which a search reads for some nodes."""
    disk_item: float
    """Bytes on disk per item besides vectors, links, codes and the inverted index."""


@dataclass(frozen=True)
class DiskReads:
    """Reads from disk of a search whose items are not in the page cache."""

    pointer: float
    """Bytes per item of the table that says where its code is stored."""
    page_ms: float
    """Milliseconds per page of 4 KiB read, one after another."""


@dataclass(frozen=True)
class DenseCosts:
    """Costs of one method for dense vectors, with one HNSW graph per shard (m=16, 200 candidates per search)."""

    name: str
    """Name of the method."""
    resident_dimension: float
    """Bytes in memory per dimension of an item."""
    resident_item: float
    """Bytes in memory per item, without its dimensions: corrections of the quantiser, and the graph."""
    disk_dimension: float
    """Bytes on disk per dimension of an item."""
    disk_item: float
    """Bytes on disk per item, without its dimensions."""
    fixed: float
    """Milliseconds per search."""
    log_item: float
    """Milliseconds per search and unit of ln(items of the shard)."""
    log_item_dimension: float
    """Milliseconds per search, unit of ln(items of the shard) and dimension."""
    originals: int
    """Original vectors read from disk per hit; 0 without rescoring."""
    recall100: dict[str, float]
    """Recall@100 on the benchmark's catalog, by dimensions. Only for display; no formula uses it."""


@dataclass(frozen=True)
class Constants:
    """All constants of `plan`."""

    bytes: CodeBytes
    """Bytes of codes."""
    times: CodeTimes
    """Times of searches over codes."""
    graph_bytes: GraphBytes
    """Bytes of navigation vectors and their graph."""
    graph_times: GraphTimes
    """Times of searches by the graph."""
    disk: DiskReads
    """Reads of a search from a cold disk."""
    dense: tuple[DenseCosts, ...]
    """Costs of the methods for dense vectors."""
    codes_recall100: dict[str, float]
    """Recall@100 of two-stage searches over codes on the benchmark's catalog, by "k,dimensions", at h=4096."""
    graph_recall100: dict[str, float]
    """The same for searches by the graph, with the default navigation settings."""
    machine: dict[str, Any]
    """Where and when the constants were measured: date, cpu, versions, and optionally a note."""

    @property
    def search(self) -> SearchCosts:
        """Times of searches by both first stages."""
        return SearchCosts(self.times, self.graph_times)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Create constants from their JSON form.

        Raises:
            ConfigError: a constant is missing or unknown.
        """
        try:
            return cls(
                CodeBytes(**data["bytes"]), CodeTimes(**data["times"]), GraphBytes(**data["graph_bytes"]),
                GraphTimes(**data["graph_times"]), DiskReads(**data["disk"]),
                tuple(DenseCosts(**each) for each in data["dense"]), dict(data["codes_recall100"]),
                dict(data["graph_recall100"]), dict(data["machine"]),
            )  # fmt: skip
        except (TypeError, KeyError) as exc:
            raise ConfigError(
                f"the capacity constants were written by another version ({exc}); measure them again"
            ) from exc

    def to_json(self) -> dict[str, Any]:
        """JSON form of the constants."""
        return asdict(self)


def load_constants(file: Path | None = None) -> Constants:
    """Read the constants of a measurement file; None reads the shipped one.

    Raises:
        ConfigError: the file is missing, damaged, or was written by another version.
    """
    try:
        text = (file or files(__package__).joinpath("measured.json")).read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} is not a file of capacity measurements ({exc})") from exc
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ConfigError(f"{file} is not in format {_FORMAT}; create it with scripts/bench_capacity.py")
    return Constants.from_json(data["constants"])
