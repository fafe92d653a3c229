"""ingest_with_ray(): load many files into one index with a Ray Data job, on one machine or a cluster (extra `ray`).

Tasks read the files and actors encode them, one actor on each GPU if there are any. A few actors write to a server. The
process that started the job writes to an embedded index, which only one process can have open. Batches stream from
stage to stage, so no stage holds a whole file. Every step can be repeated safely, as Ray does after losing a machine.
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

from ..checks import check_whole
from ..codes import FloatArray, SparseCodes
from ..errors import CompresSAEError, ConfigError, IndexReplacedError, IngestError
from ..index import open_index
from ..index.location import resolved_location
from ..index.protocol import CodeIndex
from ..index.retry import RetryPolicy
from ..lazy import needs_extra
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..sources import Batch, Columns, expecting, open_source
from ..sources.source import OnError
from .loaded_files import LoadedFiles
from .prepared import MAX_REQUEST_BYTES, payload_texts, request_slices
from .requests import EncodedRows, upload

__all__ = ["RayReport", "ingest_with_ray"]

_READER_CPUS: Final = 0.5
_WRITER_CPUS: Final = 0.25
_WRITERS: Final = 2
_REPLACED: Final = (
    "The files loaded before are not in the index that is there now, or only in part; delete the journal and run the "
    "job again"
)
_CPU_STEP: Final = 2**-10
"""CPU shares are multiples of this: Ray counts in ten thousandths, and their sum must not exceed the cores."""


@dataclass(frozen=True)
class RayReport:
    """Result of a job."""

    items: int
    """Items written by this run."""
    skipped: int
    """Malformed rows skipped by this run."""
    files: int
    """Files loaded by this run."""
    files_before: int
    """Files that an earlier, interrupted run had loaded."""
    encoders: int
    """Number of encoding actors."""
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
    max_request_bytes: int = MAX_REQUEST_BYTES,
    on_file: Callable[[str], None] | None = None,
) -> RayReport:
    """Encode the items of many files and write them to an existing index.

    Ray must be running (`ray.init`). On a cluster, every machine reads the files and the model from these paths (made
    absolute here), and takes the API key of a server from its own QDRANT_API_KEY. Ids must differ across files, which
    are loaded in no particular order.

    Args:
        files: parquet, JSON lines, CSV or NumPy files that `sources.open_source` can read.
        model: directory of the model.
        location: location of the index; see `index.location`.
        columns: roles of the columns; texts are not embedded here.
        method: coding method; see `model.Method`.
        atoms_per_step: atoms selected in each step of pursuit.
        batch_size: rows read, encoded and written at a time.
        encoders: number of encoding actors; None uses one for each GPU, or without GPUs one less than there are cores.
            If there are more actors than cores, they share the cores.
        on_error: whether a malformed row stops the job or is skipped.
        journal: file that records the loaded files; a later run skips them.
        retry: how to retry when a server fails.
        max_request_bytes: approximate size of the largest request; see `Writer`.
        on_file: called with the path of each file once it is loaded.

    Raises:
        MissingExtraError: Ray is not installed (extra `ray`).
        ModelMismatchError: the index holds codes of another model.
        ConfigError: the journal belongs to another model or index, Ray is not running, or there are fewer GPUs than
            encoders.
        IngestError: a file cannot be read, encoded or written (see its cause), or the job failed. The message says how
            many files are loaded.
    """
    with needs_extra("ray", "ingest_with_ray", "Ray"):
        import ray
    if not ray.is_initialized():
        raise ConfigError("Ray is not running; call ray.init() first")
    max_request_bytes = check_whole("max_request_bytes", max_request_bytes, 1, 2**63, error=ConfigError)
    started = time.perf_counter()
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    cpus = resources.get("CPU", 1.0)
    actors = _encoder_count(encoders, cpus, gpus)
    on_server = "://" in location
    reader_cpus, encoder_cpus, writer_cpus = _cpu_shares(cpus, actors, _WRITERS if on_server else 0)
    model = Path(model).resolve()
    encoder = CompresSAE.load(model)
    with open_index(location, encoder) as index:
        fingerprint = encoder.fingerprint
        loaded = LoadedFiles(None if journal is None else Path(journal), fingerprint, index, retry)
        remaining = [path for path in (str(Path(file).resolve()) for file in files) if not loaded.contains(path)]
        items = skipped = 0
        if remaining:
            settings = (str(model), method, atoms_per_step, index.settings.scale, index.settings.keep_dense)
            batches = (
                ray.data.from_items([{"path": path} for path in remaining], override_num_blocks=len(remaining))
                .flat_map(_FileReader(columns, batch_size, on_error, encoder.dim), num_cpus=reader_cpus)
                .map(
                    _BatchEncoder,
                    fn_constructor_args=settings,
                    compute=ray.data.ActorPoolStrategy(size=actors),
                    num_cpus=encoder_cpus,
                    num_gpus=1 if gpus else 0,
                )
            )
            if on_server:
                # An alias is resolved once, here, so that all writers write to one collection.
                target = (resolved_location(location, index), index.identity, str(model), retry, max_request_bytes)
                pool = ray.data.ActorPoolStrategy(size=_WRITERS)
                batches = batches.map(_BatchWriter, fn_constructor_args=target, compute=pool, num_cpus=writer_cpus)
            rows = _successful_rows(batches.iter_rows(), loaded)
            if not on_server:
                rows = _write_rows(rows, index, retry, max_request_bytes)
            items, skipped = _record_files(rows, index, loaded, on_file)
            if skipped and not items:
                raise IngestError(f"all {skipped} rows of the files are malformed and were skipped; correct the files")
        try:
            retry.run(index.optimize)
            index.flush()
            loaded.finish()
        except IndexReplacedError as exc:
            raise IngestError(f"the job stopped: {exc}. {_REPLACED}") from exc
    seconds = time.perf_counter() - started
    return RayReport(items, skipped, len(remaining), len(files) - len(remaining), actors, seconds)


def _encoder_count(requested: int | None, cpus: float, gpus: int) -> int:
    """Number of encoding actors."""
    if requested is None:
        return gpus or max(1, int(cpus) - 1)
    if requested < 1:
        raise ConfigError(f"encoders is {requested}; it must be at least 1")
    if gpus and requested > gpus:
        raise ConfigError(
            f"encoders is {requested}, but each needs a GPU and Ray has {gpus}; request {gpus} encoders at most"
        )
    return requested


def _cpu_shares(cpus: float, encoders: int, writers: int) -> tuple[float, float, float]:
    """CPUs that a reader, an encoder and a writer request, reduced if there are too few for all stages to run."""
    fit = min(1.0, cpus / (_READER_CPUS + encoders + writers * _WRITER_CPUS))
    reader, encoder, writer = (
        math.floor(fit * share / _CPU_STEP) * _CPU_STEP for share in (_READER_CPUS, 1.0, _WRITER_CPUS)
    )
    return reader, encoder, writer


def _write_rows(
    rows: Iterable[dict[str, Any]], index: CodeIndex, retry: RetryPolicy, max_request_bytes: int
) -> Iterator[dict[str, Any]]:
    """Write the encoded batches of a job in this process, and pass them on."""
    for row in rows:
        _write(row, index, retry, max_request_bytes)
        yield row


def _record_files(
    rows: Iterable[dict[str, Any]], index: CodeIndex, loaded: LoadedFiles, on_file: Callable[[str], None] | None
) -> tuple[int, int]:
    """Record each file once all of its batches are written; the numbers of items and of skipped rows."""
    items = skipped = 0
    written: dict[str, set[int]] = defaultdict(set)
    batch_counts: dict[str, int] = {}
    for row in rows:
        items, skipped = items + row["items"], skipped + row["skipped"]
        path = row["path"]
        written[path].add(row["number"])
        loaded.note(json.loads(row["ends"]))
        if row["last"]:
            batch_counts[path] = row["number"] + 1
        if len(written[path]) == batch_counts.get(path):
            try:
                index.flush()
                loaded.add(path)
            except IndexReplacedError as exc:
                raise IngestError(f"the job stopped: {exc}. {_REPLACED}") from exc
            if on_file is not None:
                on_file(path)
    return items, skipped


def _successful_rows(rows: Iterable[dict[str, Any]], loaded: LoadedFiles) -> Iterator[dict[str, Any]]:
    """The output rows of a job, until one carries an error. Workers return this package's errors as rows, because Ray
    wraps an error that is raised.

    Raises:
        IngestError: a worker returned an error, or Ray failed.
    """
    from ray.exceptions import RayError

    try:
        for row in rows:
            if row["error"]:
                error: CompresSAEError = pickle.loads(row["error"])  # noqa: S301 (written by a worker of this job)
                then = _REPLACED if isinstance(error, IndexReplacedError) else loaded.summary()
                raise IngestError(f"{row['path']}: {error}. {then}") from error
            yield row
    except RayError as exc:
        last = str(exc).strip().rpartition("\n")[2]
        raise IngestError(f"the Ray job failed: {last}. {loaded.summary()}") from exc


class _FileReader:
    """Reads a file into batches, each as a row of plain columns that Ray can transfer."""

    def __init__(self, columns: Columns, batch_size: int, on_error: OnError, dim: int) -> None:
        self._columns, self._batch_size, self._on_error, self._dim = columns, batch_size, on_error, dim

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        previous: dict[str, Any] | None = None
        try:
            source = open_source(row["path"], columns=self._columns, on_error=self._on_error)
            for number, batch in enumerate(expecting(source, self._dim).batches(self._batch_size)):
                if previous is not None:
                    yield previous
                previous = _batch_row(row["path"], number, batch)
        except CompresSAEError as exc:
            yield _error_row(_batch_row(row["path"]), exc)
            return
        if previous is not None:
            yield previous | {"last": True}


def _batch_row(path: str, number: int = 0, batch: Batch | None = None) -> dict[str, Any]:
    """A batch of a file as plain columns; an empty batch if None is given."""
    ids, payloads = ([], []) if batch is None else (list(batch.ids), batch.payloads)
    embeddings = b"" if batch is None else np.ascontiguousarray(batch.embeddings, np.float32).tobytes()
    return {
        "path": path, "number": number, "last": False, "items": len(ids), "error": b"",
        "skipped": 0 if batch is None else batch.skipped, "ids": json.dumps(ids), "payloads": json.dumps(payloads),
        "embeddings": embeddings, "model": "", "ends": json.dumps(ids[:1] + ids[-1:]),
    }  # fmt: skip


def _error_row(row: dict[str, Any], error: CompresSAEError) -> dict[str, Any]:
    """A row that carries an error instead of items."""
    return row | {"items": 0, "error": pickle.dumps(error)}


class _BatchEncoder:
    """Encodes batches, on a GPU if it has one."""

    def __init__(self, model: str, method: Method, atoms_per_step: int, scale: Any, keep_dense: bool) -> None:
        self._model = CompresSAE.load(model).to("cuda" if torch.cuda.is_available() else "cpu")
        self._method, self._atoms_per_step, self._scale, self._keep_dense = method, atoms_per_step, scale, keep_dense

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        indices = values = b""
        made_by = ""
        if row["items"]:
            embeddings = np.frombuffer(row["embeddings"], np.float32).reshape(row["items"], -1)
            try:
                codes = self._encode(embeddings)
                indices, values = codes.indices.tobytes(), codes.values.tobytes()
                made_by = codes.fingerprint or ""
            except CompresSAEError as exc:
                row = _error_row(row, exc)
        embeddings_kept = row["embeddings"] if self._keep_dense else b""
        return row | {"embeddings": embeddings_kept, "indices": indices, "values": values, "model": made_by}

    def _encode(self, embeddings: FloatArray) -> SparseCodes:
        return self._model.encode(embeddings, self._method, atoms_per_step=self._atoms_per_step, scale=self._scale)


class _BatchWriter:
    """Writes encoded batches to a server, and returns their counts or their error."""

    def __init__(
        self, location: str, identity: str | None, model: str, retry: RetryPolicy, max_request_bytes: int
    ) -> None:
        self._index, self._retry = open_index(location, CompresSAE.load(model)), retry
        self._max_request_bytes = max_request_bytes
        self._is_replaced = self._index.identity != identity

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._is_replaced:
                raise IndexReplacedError("the index was created again while the job ran")
            _write(row, self._index, self._retry, self._max_request_bytes)
        except CompresSAEError as exc:
            row = _error_row(row, exc)
        return {name: row[name] for name in ("path", "number", "last", "items", "skipped", "error", "ends")}


def _write(row: dict[str, Any], index: CodeIndex, retry: RetryPolicy, max_request_bytes: int) -> None:
    if not row["items"]:
        return
    ids, payloads = json.loads(row["ids"]), json.loads(row["payloads"])
    shape = (row["items"], -1)
    indices = np.frombuffer(row["indices"], np.int32).reshape(shape)
    codes = SparseCodes(indices, np.frombuffer(row["values"], np.float32).reshape(shape), index.latents,
                        index.settings.scale, row["model"] or None)  # fmt: skip
    dense = np.frombuffer(row["embeddings"], np.float32).reshape(shape) if index.settings.keep_dense else None
    items = EncodedRows(ids, codes, payloads, payload_texts(payloads), dense)
    for part in request_slices(items.texts, items.numbers, max_request_bytes):
        upload(index, items, part, retry)
