"""ingest(): a source into an index. It streams, survives being killed, and doing it twice changes nothing.

After each durable stretch (upsert, then `flush`) a journal notes the next row. A run that finds a journal of the same
source, model and index goes on there. Rows after the last note may be in the index already; writing them again under
the same ids changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import (
    CodeIndexError,
    CompresSAEError,
    ConfigError,
    IngestError,
    ModelMismatchError,
)
from ..files import write_text
from ..index.protocol import CodeIndex
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..retry import RetryPolicy
from ..sources import Batch, Source
from .writer import Writer

__all__ = ["IngestReport", "ingest"]

_LOG = logging.getLogger(__name__)
_FORMAT: Final = 1
_FLUSH_SECONDS: Final = 5.0
"""Least time between two durable notes: what a kill costs at most, besides the batch in flight."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion did."""

    items: int
    """Items written by this run."""
    skipped: int
    """Malformed rows left out, by all runs."""
    resumed_from: int
    """Row that this run began at; 0 unless an earlier one was interrupted."""
    rows: int
    """Rows of the source gone through by all runs."""
    repeated: int | None
    """Items that aren't in the index as a later row has their id; None where it can't be told: the index held items
    before the first row, or doesn't say how many it holds."""
    seconds: float
    """Time of this run, with the building of compressed segments."""


@dataclass
class _Journal:
    source: str
    model: str
    method: str
    index: str
    """Where it is; nothing where the journal lies in the index itself, and moves with it."""
    empty: bool = False
    """Whether the index was when the first row came."""
    next_row: int = 0
    skipped: int = 0
    complete: bool = False


def ingest(
    source: Source,
    model: CompresSAE,
    index: CodeIndex,
    *,
    journal: str | Path | None = None,
    method: Method = "pursuit",
    atoms_per_step: int = ATOMS_PER_STEP,
    batch_size: int = 2048,
    restart: bool = False,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
) -> IngestReport:
    """Encode every item of a source and upsert it, resuming where an earlier run was interrupted.

    Args:
        source: what to read; see `sources.open_source`.
        model: encodes the embeddings.
        index: an index of that model's codes.
        journal: file that notes progress. None keeps it in the directory of an embedded index; an index on a server
            needs one to be resumable, and without it starts from the first row.
        method: how codes are found; see `model.Method`.
        atoms_per_step: of pursuit.
        batch_size: rows read, encoded and upserted at once.
        restart: ignore the journal and begin with the first row.
        retry: what to do while a server can't be reached, is overloaded or fails inside.
        on_batch: called after each batch is in the index.

    Raises:
        ModelMismatchError: the index holds another model's codes.
        ConfigError: the journal is of another source, model, method or index.
        RowError: a row is malformed and the source doesn't skip. What came before is in the index, and noted.
        IngestError: a batch can't be encoded or upserted, or the server stayed away for longer than `retry` waits; says
            what is in and how to go on.
    """
    if index.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"the index holds codes of model {index.fingerprint!r} but model {model.fingerprint!r} was given; use the "
            "index's own model, or create a new index"
        )
    started = time.perf_counter()
    file = index.journal if journal is None else Path(journal)
    where = "" if file is None or file == index.journal else retry.run(index.info).location
    wanted = _Journal(_short(source.identity), model.fingerprint, f"{method}/{atoms_per_step}", where)
    note = wanted if file is None or restart else _resume(file, wanted, index, retry)
    first, items, noted = note.next_row, 0, time.perf_counter()
    if note.complete:
        return IngestReport(0, note.skipped, first, note.next_row, None, time.perf_counter() - started)
    if not first:
        note.empty = _count(index) == 0

    def confirmed(batch: Batch) -> None:
        nonlocal items, noted
        note.next_row, note.skipped = batch.stop, note.skipped + batch.skipped
        items += len(batch.ids)
        if time.perf_counter() - noted >= _FLUSH_SECONDS:
            _make_durable(index, file, note)
            noted = time.perf_counter()
        if on_batch is not None:
            on_batch(batch)

    try:
        with Writer(model, index, method, atoms_per_step, retry, confirmed) as writer:
            try:
                for batch in source.batches(batch_size, first):
                    writer.write(batch)
            finally:
                writer.drain()  # what came before a failure gets in, and is noted
    except CompresSAEError:
        _make_durable(index, file, note)
        raise
    _make_durable(index, file, note)
    try:
        retry.run(index.optimize)
    except CodeIndexError as exc:
        raise IngestError(
            f"all is in the index but may not be optimised: {exc}. Rows before {note.next_row} are in the index, and "
            "there are no more; run the same command to wait again"
        ) from exc
    note.complete = True
    _make_durable(index, file, note)
    there = _count(index) if note.empty else None
    repeated = None if there is None else max(0, note.next_row - note.skipped - there)
    if repeated:
        _LOG.warning("%d items are not in the index, as a later row has their id; give every item its own", repeated)
    return IngestReport(items, note.skipped, first, note.next_row, repeated, time.perf_counter() - started)


def _count(index: CodeIndex) -> int | None:
    """How many items there are, if the index says so at once: only a figure of the report depends on it."""
    try:
        return index.count()
    except CodeIndexError:
        return None


def _make_durable(index: CodeIndex, file: Path | None, note: _Journal) -> None:
    index.flush()
    if file is not None:
        write_text(file, json.dumps({"format": _FORMAT, **asdict(note)}) + "\n")


def _resume(file: Path, wanted: _Journal, index: CodeIndex, retry: RetryPolicy) -> _Journal:
    """The journal's note if it belongs to this ingestion, or a fresh one if there is none."""
    if not file.exists():
        return wanted
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        written = data.pop("format")
        found = _Journal(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{file} is not an ingestion journal ({exc}); delete it to begin with the first row") from exc
    if written != _FORMAT:
        raise ConfigError(f"{file} is a journal of format {written!r}, this version reads {_FORMAT}; use --restart")
    for name, what in (("model", "model"), ("source", "source"), ("method", "encoding method"), ("index", "index")):
        if getattr(found, name) != getattr(wanted, name):
            raise ConfigError(
                f"journal {file} is of an ingestion with another {what} ({getattr(found, name)}, now "
                f"{getattr(wanted, name)}); restart=True (--restart) begins with the first row and replaces items by id"
            )
    if found.next_row and not retry.run(index.count):
        return wanted  # the index was emptied or made anew since
    return found


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
