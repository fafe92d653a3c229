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

__all__ = ["CodeBytes", "CodeTimes", "Constants", "DenseCosts", "load_constants"]

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
class CodeTimes:
    """Milliseconds of one core for a two-stage search over one segment with a warm page cache."""

    fixed: float
    """Per search."""
    latent: float
    """Per latent of the model, since the query of the second stage holds all latents."""
    item: float
    """Per item of the segment, whose score is initialised and checked."""
    posting: float
    """Per posting that the first stage reads."""
    visit: float
    """Per first-stage latent and 10,000 items, since the engine visits all lists for each block of that many items."""
    candidate: float
    """Per rescored candidate."""
    candidate_latent: float
    """Per rescored candidate and latent of the model, since the candidate's code is merged with the full query."""
    segment: float
    """Per segment of a shard after the first, in addition to the above."""
    planning: float
    """In the client, per query."""
    planning_latent: float
    """In the client, per latent of the model."""
    planning_product: float
    """In the client, per latent and dimension of the product with the dictionary."""
    share_exponent: float
    """Exponent e: the m first-stage latents of h hold `(m / h)^e` of all postings. Below 1, because the latents of a
    query are used more often than others."""
    spread: float
    """Variation of repeated searches: the scale of a log-logistic distribution, `ln(p95 / p50) / ln 19`."""


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
    dense: tuple[DenseCosts, ...]
    """Costs of the methods for dense vectors."""
    codes_recall100: dict[str, float]
    """Recall@100 of two-stage searches over codes on the benchmark's catalog, by "k,dimensions", at h=4096."""
    machine: dict[str, Any]
    """Where and when the constants were measured: date, cpu, versions, and optionally a note."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Create constants from their JSON form.

        Raises:
            ConfigError: a constant is missing or unknown.
        """
        try:
            return cls(
                CodeBytes(**data["bytes"]), CodeTimes(**data["times"]),
                tuple(DenseCosts(**each) for each in data["dense"]), dict(data["codes_recall100"]),
                dict(data["machine"]),
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
