"""ingest_with_ray(): many files into one index as a Ray Data job, on one machine or a cluster (extra `ray`).

Files are read by tasks, encoded by actors (one for each GPU, where there are some), and written: to a server by a few
actors, to an embedded index by the process that started the job, as one process at a time may have it open. Batches
stream from stage to stage; nothing holds a whole file. All of it may be done twice without harm, so Ray may do again
what a lost machine had begun.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ..codes import FloatArray, SparseCodes
from ..errors import (
    CompresSAEError,
    ConfigError,
    IngestError,
    MissingExtraError,
    ModelMismatchError,
)
from ..files import write_text
from ..index import open_index
from ..index.protocol import CodeIndex
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..retry import RetryPolicy
from ..sources import Batch, Columns, open_source
from ..sources.identity import file_identity
from ..sources.source import OnError
from .writer import request_slices

__all__ = ["RayReport", "ingest_with_ray"]

_FORMAT: Final = 1
_READER_CPUS: Final = 0.5
_WRITER_CPUS: Final = 0.25
_WRITERS: Final = 2
_CPU_STEP: Final = 2**-10
"""Shares of a core are whole multiples: Ray counts in ten thousandths, and a sum must not exceed the cores."""


@dataclass(frozen=True)
class RayReport:
    """What a job did."""

    items: int
    """Items written by this run."""
    skipped: int
    """Malformed rows left out by this run."""
    files: int
    """Files gone through by this run."""
    files_before: int
    """Files that an earlier, interrupted run had finished."""
    encoders: int
    """Actors that encoded."""
    seconds: float


def ingest_with_ray(
    files: Sequence[str | Path],
    model: str | Path,
    location: str,
    *,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    method: Method = "pursuit",
    atoms_per_step: int = ATOMS_PER_STEP,
    batch_size: int = 2048,
    encoders: int | None = None,
    on_error: OnError = "raise",
    journal: str | Path | None = None,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_file: Callable[[str], None] | None = None,
) -> RayReport:
    """Encode the items of many files and write them to the index at a location, which must be there.

    Ray must have been started (`ray.init`). On a cluster, files and model are read by every machine at these paths
    (made absolute here), and the key of a server comes from each machine's own QDRANT_API_KEY. Ids must differ across
    files, which are done in no particular order.

    Args:
        files: parquet, JSON lines, CSV or NumPy files, as `sources.open_source` reads them.
        model: directory of the model.
        location: of the index; see `index.location`.
        columns: which columns hold what; texts are not embedded here.
        method: how codes are found; see `model.Method`.
        atoms_per_step: of pursuit.
        batch_size: rows read, encoded and written at once.
        encoders: actors that encode; None takes one for each GPU, or else for each core but one. More than there are
            cores share them.
        on_error: what a malformed row does.
        journal: file that notes which files are done; a later run leaves them out.
        retry: what to do while a server fails.
        on_file: called with the path of each file that is in.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelMismatchError: the index holds another model's codes.
        ConfigError: the journal is of another model or index, Ray was not started, or it lacks GPUs for the encoders.
        IngestError: a file can't be read, encoded or written, which its cause tells, or the job broke off; says how
            many files are in.
    """
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("loading with Ray needs the extra 'ray'; pip install 'compressae-qdrant[ray]'") from exc
    if not ray.is_initialized():
        raise ConfigError("Ray was not started; call ray.init() before")
    started = time.perf_counter()
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    cpus = resources.get("CPU", 1.0)
    actors = _encoders(encoders, cpus, gpus)
    remote = "://" in location
    reader, encoder, writer = _shares(cpus, actors, _WRITERS if remote else 0)
    model = Path(model).resolve()
    with open_index(location) as index:
        fingerprint = CompresSAE.load(model).fingerprint
        if index.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"the index holds codes of model {index.fingerprint!r} but model {fingerprint!r} was given; use the "
                "index's own model, or create a new index"
            )
        done = _Done(None if journal is None else Path(journal), fingerprint, index)
        left = [path for path in (str(Path(file).resolve()) for file in files) if not done.has(path)]
        report = RayReport(0, 0, len(left), len(files) - len(left), actors, 0.0)
        if left:
            batches = (
                ray.data.from_items([{"path": path} for path in left], override_num_blocks=len(left))
                .flat_map(_Reader(columns, batch_size, on_error), num_cpus=reader)
                .map(
                    _Encoder,
                    fn_constructor_args=(
                        str(model),
                        method,
                        atoms_per_step,
                        index.settings.scale,
                        index.settings.keep_dense,
                    ),
                    compute=ray.data.ActorPoolStrategy(size=actors),
                    num_cpus=encoder,
                    num_gpus=1 if gpus else 0,
                )
            )
            here: CodeIndex | None = index
            if remote:
                here = None
                writers = ray.data.ActorPoolStrategy(size=_WRITERS)
                batches = batches.map(_Writing, fn_constructor_args=(location, retry), compute=writers, num_cpus=writer)
            rows = _received(batches.iter_rows(), done)
            report = _gather(rows, here, index, done, retry, report, on_file)
        retry.run(index.optimize)
        index.flush()
    return RayReport(**{**report.__dict__, "seconds": time.perf_counter() - started})


def _encoders(asked: int | None, cpus: float, gpus: int) -> int:
    """Actors that encode."""
    if asked is None:
        return gpus or max(1, int(cpus) - 1)
    if asked < 1:
        raise ConfigError(f"encoders is {asked}; it must be at least 1")
    if gpus and asked > gpus:
        raise ConfigError(f"encoders is {asked}, and each takes a GPU, of which Ray has {gpus}; ask for {gpus} at most")
    return asked


def _shares(cpus: float, encoders: int, writers: int) -> tuple[float, float, float]:
    """CPUs that a reader, an encoder and a writer ask for: less each where cores are few, so that every stage has its
    place."""
    fit = min(1.0, cpus / (_READER_CPUS + encoders + writers * _WRITER_CPUS))
    reader, encoder, writer = (
        math.floor(fit * share / _CPU_STEP) * _CPU_STEP for share in (_READER_CPUS, 1.0, _WRITER_CPUS)
    )
    return reader, encoder, writer


def _gather(
    rows: Iterator[dict[str, Any]], here: CodeIndex | None, index: CodeIndex, done: _Done, retry: RetryPolicy,
    report: RayReport, on_file: Callable[[str], None] | None,
) -> RayReport:  # fmt: skip
    """Take what comes out of the job, write it if that is for this process to do, and note which files are through."""
    items = skipped = 0
    seen: dict[str, set[int]] = defaultdict(set)
    wanted: dict[str, int] = {}
    for row in rows:
        if here is not None:
            _write(row, here, retry)
        items, skipped = items + row["items"], skipped + row["skipped"]
        path = row["path"]
        seen[path].add(row["number"])
        if row["last"]:
            wanted[path] = row["number"] + 1
        if len(seen[path]) == wanted.get(path):
            index.flush()
            done.note(path)
            if on_file is not None:
                on_file(path)
    return RayReport(items, skipped, report.files, report.files_before, report.encoders, 0.0)


def _received(rows: Iterable[dict[str, Any]], done: _Done) -> Iterator[dict[str, Any]]:
    """What comes out of the job. Errors of ours come as rows, as Ray wraps those that are raised in its workers."""
    from ray.exceptions import RayError

    try:
        for row in rows:
            if row["error"]:
                error: CompresSAEError = pickle.loads(row["error"])  # noqa: S301 (a worker's of this job)
                raise IngestError(f"{row['path']}: {error}. {done.said()}") from error
            yield row
    except RayError as exc:
        last = str(exc).strip().rpartition("\n")[2]
        raise IngestError(f"the Ray job broke off: {last}. {done.said()}") from exc


class _Done:
    """The files that are in, kept in a journal if there is one."""

    def __init__(self, file: Path | None, model: str, index: CodeIndex) -> None:
        self._file, self._model, self._index = file, model, "" if file is None else index.info().location
        self._files: dict[str, str] = {}
        if file is None or not file.exists():
            return
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            written, fingerprint, files = data["format"], data["model"], dict(data["files"])
            where = data["index"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{file} is not a journal of a Ray job ({exc}); delete it to begin anew") from exc
        if (written, fingerprint) != (_FORMAT, model):
            raise ConfigError(f"journal {file} is of model {fingerprint!r}, now {model!r}; delete it to begin anew")
        if where != self._index:
            raise ConfigError(f"journal {file} is of index {where!r}, now {self._index!r}; delete it to begin anew")
        if index.count():  # otherwise it was emptied or made anew since
            self._files = files

    def said(self) -> str:
        """What is in, and how to go on."""
        again = "goes through all of them" if self._file is None else "leaves them out"
        return f"{len(self._files)} files are in; mend that and run the same job again, which {again}"

    def has(self, path: str) -> bool:
        """Whether the file is in, as it is now."""
        return path in self._files and self._files[path] == file_identity(Path(path))

    def note(self, path: str) -> None:
        """A file is in, and durable."""
        self._files[path] = file_identity(Path(path))
        if self._file is not None:
            noted = {"format": _FORMAT, "model": self._model, "index": self._index, "files": self._files}
            write_text(self._file, json.dumps(noted) + "\n")


class _Reader:
    """Reads a file into batches, each a row of plain columns that Ray moves around."""

    def __init__(self, columns: Columns, batch_size: int, on_error: OnError) -> None:
        self._columns, self._batch_size, self._on_error = columns, batch_size, on_error

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        held: dict[str, Any] | None = None
        try:
            source = open_source(row["path"], columns=self._columns, on_error=self._on_error)
            for number, batch in enumerate(source.batches(self._batch_size)):
                if held is not None:
                    yield held
                held = _row(row["path"], number, batch)
        except CompresSAEError as exc:
            yield _failed(_row(row["path"]), exc)
            return
        if held is not None:
            yield held | {"last": True}


def _row(path: str, number: int = 0, batch: Batch | None = None) -> dict[str, Any]:
    """A batch of a file as plain columns; without one, none of its items."""
    ids, payloads = ([], []) if batch is None else (list(batch.ids), batch.payloads)
    embeddings = b"" if batch is None else np.ascontiguousarray(batch.embeddings, np.float32).tobytes()
    return {
        "path": path, "number": number, "last": False, "items": len(ids), "error": b"",
        "skipped": 0 if batch is None else batch.skipped, "ids": json.dumps(ids), "payloads": json.dumps(payloads),
        "embeddings": embeddings,
    }  # fmt: skip


def _failed(row: dict[str, Any], error: CompresSAEError) -> dict[str, Any]:
    """A row that carries an error in place of its items."""
    return row | {"items": 0, "error": pickle.dumps(error)}


class _Encoder:
    """Encodes batches; on its GPU if it was given one."""

    def __init__(self, model: str, method: Method, atoms_per_step: int, scale: Any, keep_dense: bool) -> None:
        self._model = CompresSAE.load(model).to("cuda" if torch.cuda.is_available() else "cpu")
        self._method, self._atoms_per_step, self._scale, self._keep_dense = method, atoms_per_step, scale, keep_dense

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        indices = values = b""
        if row["items"]:
            embeddings = np.frombuffer(row["embeddings"], np.float32).reshape(row["items"], -1)
            try:
                codes = self._encode(embeddings)
                indices, values = codes.indices.tobytes(), codes.values.tobytes()
            except CompresSAEError as exc:
                row = _failed(row, exc)
        kept = row["embeddings"] if self._keep_dense else b""
        return row | {"embeddings": kept, "indices": indices, "values": values}

    def _encode(self, embeddings: FloatArray) -> SparseCodes:
        return self._model.encode(embeddings, self._method, atoms_per_step=self._atoms_per_step, scale=self._scale)


class _Writing:
    """Writes encoded batches to a server, and passes on what became of them."""

    def __init__(self, location: str, retry: RetryPolicy) -> None:
        self._index, self._retry = open_index(location), retry

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            _write(row, self._index, self._retry)
        except CompresSAEError as exc:
            row = _failed(row, exc)
        return {name: row[name] for name in ("path", "number", "last", "items", "skipped", "error")}


def _write(row: dict[str, Any], index: CodeIndex, retry: RetryPolicy) -> None:
    if not row["items"]:
        return
    ids, payloads = json.loads(row["ids"]), json.loads(row["payloads"])
    shape = (row["items"], -1)
    indices = np.frombuffer(row["indices"], np.int32).reshape(shape)
    codes = SparseCodes(indices, np.frombuffer(row["values"], np.float32).reshape(shape), index.latents,
                        index.settings.scale)  # fmt: skip
    dense = np.frombuffer(row["embeddings"], np.float32).reshape(shape) if index.settings.keep_dense else None
    numbers = 2 * codes.k + (0 if dense is None else dense.shape[1])
    for part in request_slices(payloads, numbers):
        embeddings = None if dense is None else dense[part]
        retry.run(lambda part=part, embeddings=embeddings: index.upsert(  # type: ignore[misc]  # bound at once
            ids[part], codes[part], payloads[part], embeddings))  # fmt: skip
