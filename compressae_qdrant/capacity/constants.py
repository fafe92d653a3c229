"""What a search costs in bytes and milliseconds, as `scripts/bench_capacity.py` measured it.

`measured.json` ships with the package: the machine, every measurement, and the constants that `fitting` makes of
them. A planner reads the constants alone.
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
    """Bytes of codes. A posting list is kept in blocks of 128 postings, the rest of it loose."""

    list: float
    """Of a latent's posting list besides its postings, in each segment."""
    loose: float
    """Of a posting that fills no block."""
    packed: dict[Datatype, float]
    """Of a posting in a block, by index datatype, besides the log2(h / k) / 8 of its item number."""
    loose_sharpness: float
    """How sharply loose postings of a list of L level off at 64: `64 L / (L^s + 64^s)^(1/s)`."""
    item: float
    """Of an item in memory besides its postings: its id, and where its code lies."""
    disk_item: float
    """Of an item on disk besides postings, code and payload."""
    code: float
    """Of a stored code besides its non-zeros."""
    code_nonzero: float
    """Of a stored non-zero, before the code is rounded up to whole cells."""
    code_nonzero_bit: float
    """The same, for each unit of log2(h)."""
    cell: float
    """What stored codes and payloads are rounded up to."""
    payload: float
    """Bytes on disk of a byte of payload as JSON."""
    payload_item: float
    """Of an item that has a payload, besides the payload; rounding up to cells is in it."""
    dense_dimension: float
    """Of a dimension of an embedding that is kept on disk (`keep_dense`)."""


@dataclass(frozen=True)
class CodeTimes:
    """Milliseconds of one core for one two-stage search over one segment, everything in the page cache."""

    fixed: float
    """A search."""
    latent: float
    """A latent of the model: the second stage's query holds them all."""
    item: float
    """An item of the segment: its score is zeroed and looked at."""
    posting: float
    """A posting that the first stage walks."""
    visit: float
    """A latent of the first stage, every 10,000 items: the engine goes through lists in blocks of that many items."""
    candidate: float
    """A candidate that is rescored."""
    candidate_latent: float
    """The same, for each latent: the candidate's code is merged with the full query."""
    segment: float
    """A segment of a shard after its first, besides what is above."""
    planning: float
    """In the client: a query."""
    planning_latent: float
    """In the client: a latent of the model."""
    planning_product: float
    """In the client: a latent and dimension of the product with the dictionary."""
    share_exponent: float
    """m of h latents hold `(m / h)^e` of all postings; below 1, as a query's latents are used more than others."""
    spread: float
    """How one search repeated varies: the scale of a log-logistic distribution, `ln(p95 / p50) / ln 19`."""


@dataclass(frozen=True)
class DenseCosts:
    """One way to keep dense vectors in the engine, each in one HNSW graph a shard (m=16, 200 candidates a search)."""

    name: str
    resident_dimension: float
    """Bytes in memory of a dimension."""
    resident_item: float
    """Bytes in memory of an item besides its dimensions: corrections of the quantiser, the graph."""
    disk_dimension: float
    disk_item: float
    fixed: float
    """Milliseconds of a search."""
    log_item: float
    """The same, for each unit of ln(items of the shard)."""
    log_item_dimension: float
    """The same, for each unit of ln(items) and dimension."""
    originals: int
    """Originals that a search reads from disk for each hit asked for; 0 without rescoring."""
    recall100: dict[str, float]
    """Recall@100 on the benchmark's catalog, by dimensions; for orientation, it is no part of any formula."""


@dataclass(frozen=True)
class Constants:
    """Everything that `plan` multiplies."""

    bytes: CodeBytes
    times: CodeTimes
    dense: tuple[DenseCosts, ...]
    codes_recall100: dict[str, float]
    """Recall@100 of codes in two stages on the benchmark's catalog, by "k,dimensions" at h=4096."""
    machine: dict[str, Any]
    """Where and when they were measured: date, cpu, versions; a note where there is something to know."""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """From what `to_json` gives.

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
            raise ConfigError(f"the capacity constants are not of this version ({exc}); measure them again") from exc

    def to_json(self) -> dict[str, Any]:
        """For a measurement file, or for another language."""
        return asdict(self)


def load_constants(file: Path | None = None) -> Constants:
    """The constants of a measurement file; of the shipped one if none is given.

    Raises:
        ConfigError: the file is missing, damaged, or of another version.
    """
    try:
        text = (file or files(__package__).joinpath("measured.json")).read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} is no file of capacity measurements ({exc})") from exc
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ConfigError(f"{file} is not in format {_FORMAT}; make it with scripts/bench_capacity.py")
    return Constants.from_json(data["constants"])
