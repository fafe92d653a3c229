"""EdgeIndex: codes in an embedded Qdrant Edge shard, a directory that one process can open at a time."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe

from ...checks import check_sequence
from ...codes import SparseCodes
from ...errors import CodeIndexError, IndexExistsError, IndexNotFoundError, IndexReplacedError
from ...files import write_text
from ...telemetry import operation
from ..filters import check_deletion
from ..ids import ITEM_FIELDS, content_hash, item_id, plain_id
from ..manifest import Described, Manifest
from ..plan import QueryPlan
from ..points import check_batch, points_of, to_points
from ..protocol import CodeModel, ScrollOptions, all_pages, check_page
from ..reads import check_plan, scroll_settings
from ..results import Hit, IndexInfo, ItemId, Payload, Record
from ..settings import IndexSettings
from . import requests as edge_requests
from .errors import engine_errors
from .files import DirectoryLock, check_own_files, remove_directory, remove_leftovers, shard_use
from .filters import edge_filter
from .forks import abandon_in_children
from .shard import check_vectors, create_shard, index_fields

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["MANIFEST", "EdgeIndex"]

MANIFEST: Final = "index.json"
"""Name of the manifest's file in the directory of an index."""
_LOCK: Final = "lock"
_SHARD: Final = "shard"
_JOURNAL: Final = "ingest.json"
_OWN_FILES: Final = (MANIFEST, _LOCK, _SHARD, _JOURNAL)
_ABANDONED: Final[list[qe.EdgeShard]] = []
"""Shards of a parent process. Deallocating one would wait for threads that do not exist in this process."""


class EdgeIndex(Described):
    """Codes in an embedded Qdrant Edge shard. Make one by `create` or `open`.

    The directory holds `index.json` (the manifest), `shard/` (files of the engine) and `lock` (held while the index is
    open). Writes are durable once `flush` returns; `close` flushes. The shard has no write-ahead log: if the process is
    killed, whole items written since the last flush are lost. The log would cost 315 bytes per item on disk (k=32,
    measured), and ingestion repeats such writes anyway.
    """

    def __init__(
        self, path: Path, manifest: Manifest, shard: qe.EdgeShard, lock: DirectoryLock, model: CodeModel | None = None
    ) -> None:
        self._path = path
        self._model = model
        self._manifest = manifest
        self._shard = shard
        # Unlike __del__, a finalizer also runs when the interpreter exits, so that a missing close() loses nothing.
        self._finalizer = weakref.finalize(self, _shut, shard, lock, str(path))
        self._lock, self._lock_file = lock, path / _LOCK
        self._parent: int | None = None
        """Process that had the index open when this one was forked from it."""
        abandon_in_children(self)

    @classmethod
    def create(cls, path: str | Path, model: CodeModel, settings: IndexSettings = IndexSettings()) -> Self:  # noqa: B008 (frozen)
        """Create an empty index for the codes of `model` in a new directory `path`.

        The index is built beside `path` and moved there when it is complete, so a failure leaves nothing behind.

        Raises:
            IndexExistsError: `path` exists and is not an empty directory.
            CodeIndexError: the engine or the file system refused.
        """
        path = Path(path).absolute()  # the engine keeps opening files in it, also after a change of directory
        _refuse_existing(path)
        manifest = Manifest.of(model, settings)
        remove_leftovers(path, _LOCK)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            (temporary / _SHARD).mkdir(parents=True)
            lock = DirectoryLock(temporary / _LOCK, str(path))
            write_text(temporary / MANIFEST, json.dumps(manifest.to_json(), indent=2) + "\n")
            with engine_errors("create", path):
                create_shard(temporary / _SHARD, manifest)
            temporary.rename(path)
        except OSError as exc:
            _refuse_existing(path)
            raise CodeIndexError(f"cannot create an index at {path}: {exc}") from exc
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls._load(path, manifest, lock, model)

    @classmethod
    def open(cls, path: str | Path, model: CodeModel | None = None) -> Self:
        """Open the index in directory `path`; with `model`, only if it holds the codes of that model.

        Raises:
            IndexNotFoundError: there is no index at `path`.
            IndexUnavailableError: the index is already open, in this process or another.
            ModelMismatchError: it holds the codes of another model than `model`.
            CodeIndexError: it is damaged, or was written by a newer version.
        """
        path = Path(path).absolute()
        try:
            text = (path / MANIFEST).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise IndexNotFoundError(
                f"there is no index at {path}; create one with `compressae ingest` or EdgeIndex.create"
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise CodeIndexError(f"cannot read the index at {path}: {exc}") from exc
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise CodeIndexError(f"the manifest of {path} is damaged ({exc}); create the index again") from exc
        manifest = Manifest.from_json(data, str(path))
        manifest.check_model(model, str(path))
        return cls._load(path, manifest, DirectoryLock(path / _LOCK, str(path)), model)

    @classmethod
    def _load(cls, path: Path, manifest: Manifest, lock: DirectoryLock, model: CodeModel | None) -> Self:
        try:
            check_vectors(path, path / _SHARD, manifest)
            with engine_errors("open", path):
                shard = qe.EdgeShard.load(str(path / _SHARD))
                index_fields(shard, manifest.settings)
        except CodeIndexError:
            lock.release()
            raise
        return cls(path, manifest, shard, lock, model)

    @property
    def parallel_upserts(self) -> int:
        """How many upserts to run at once: 1, because the engine runs in this process."""
        return 1

    @property
    def journal(self) -> Path:
        """File for an ingestion's progress, beside the shard, so that both are moved or deleted together."""
        return self._path / _JOURNAL

    def upsert(
        self,
        ids: Sequence[ItemId],
        codes: SparseCodes,
        payloads: Sequence[Payload | None] | None = None,
        dense: npt.NDArray[np.floating] | None = None,
        hashes: Sequence[str] | None = None,
    ) -> None:
        """Insert or replace items. The whole batch is checked before any of it is written.

        Raises:
            InvalidInputError, InvalidCodeError: the batch is not valid; see `points.check_batch`.
        """
        batch = check_batch(ids, codes, payloads, dense, self._manifest, hashes, self._model)
        if not batch.ids:
            return
        points = [qe.Point(point.id, edge_requests.vectors(point), point.payload) for point in to_points(batch)]
        with self._open("upsert into") as shard:
            shard.update(qe.UpdateOperation.upsert_points(points))

    def verify(self) -> None:
        """Check that the directory still is the one that was opened. Other calls check it too.

        Raises:
            IndexReplacedError: it was deleted or moved, or another was put in its place.
        """
        if not self._lock.holds(self._lock_file):
            raise IndexReplacedError(
                f"the index at {self._path} was deleted, moved or replaced after it was opened, so what is written "
                "here is lost; open it again"
            )

    def delete(self, ids: Sequence[ItemId]) -> None:
        """Delete items; ids that are not in the index are ignored."""
        points = points_of(ids, old=self._manifest.old_ids)
        with self._open("delete from") as shard:
            shard.update(qe.UpdateOperation.delete_points(list(dict.fromkeys(points))))

    def delete_by_filter(self, filter: models.Filter, *, all_items: bool = False) -> int:
        """Delete the items that match a filter; see `CodeIndex.delete_by_filter`."""
        check_deletion(filter, all_items=all_items)
        translated = edge_filter(filter, old_ids=self._manifest.old_ids)
        with self._open("delete from") as shard:
            matching = shard.count(qe.CountRequest(exact=True, filter=translated))
            shard.update(qe.UpdateOperation.delete_points_by_filter(translated))
        return matching

    def count(self, filter: models.Filter | None = None, *, exact: bool = True) -> int:
        """Number of items, or of those that match a filter; with `exact=False`, an estimate."""
        translated = None if filter is None else edge_filter(filter, old_ids=self._manifest.old_ids)
        with self._open("count") as shard:
            return shard.count(qe.CountRequest(exact=exact, filter=translated))

    def info(self) -> IndexInfo:
        """Size, state and settings. Flushes first, so that the bytes include everything written."""
        with self._open("measure") as shard:
            shard.flush()
            segments, items = shard.info().segments_count, shard.count(qe.CountRequest(exact=True))
        use = shard_use(self._path, str(self._path))
        return IndexInfo(
            backend="edge",
            location=str(self._path),
            items=items,
            segments=segments,
            indexed_items=use.indexed_items,
            fingerprint=self.fingerprint,
            latents=self.latents,
            settings=self.settings,
            index_bytes=use.index_bytes,
            navigation_bytes=use.navigation_bytes,
            total_bytes=use.total_bytes,
            text_bytes=use.text_bytes,
        )

    def search(self, plan: QueryPlan) -> list[Hit]:
        """Hits of one query, best first, in one engine call.

        Items that share no latent with the plan's first stage are not returned.
        """
        request = self._query(plan)
        with self._open("search") as shard:
            found = shard.query(request)
        return edge_requests.hits(plan, found)

    def search_batch(self, plans: Sequence[QueryPlan]) -> list[list[Hit]]:
        """Hits of many queries, in order, in one engine call."""
        check_sequence("plans", plans)
        requests = [self._query(plan) for plan in plans]
        with self._open("search") as shard:
            found = shard.query_batch(qe.QueryBatchRequest(requests)) if requests else []
        return [edge_requests.hits(plan, points) for plan, points in zip(plans, found, strict=True)]

    def retrieve(self, ids: Sequence[ItemId]) -> list[Record]:
        """Stored items, in the order of `ids`; missing ones are left out."""
        points = points_of(ids, old=self._manifest.old_ids)
        with self._open("retrieve from") as shard:
            found = shard.retrieve(list(dict.fromkeys(points)), with_payload=True, with_vector=True)
        records = {plain_id(point.id): edge_requests.record(point) for point in found}
        return [records[point] for point in points if point in records]

    def hashes(self, ids: Sequence[ItemId]) -> list[str | None]:
        """Content hashes of items: "" for an item without one, None for an item that is missing."""
        points = points_of(ids, old=self._manifest.old_ids)
        with self._open("retrieve from") as shard:
            found = shard.retrieve(list(dict.fromkeys(points)), with_payload=list(ITEM_FIELDS), with_vector=False)
        stored = {plain_id(point.id): content_hash(point.payload) for point in found}
        return [stored.get(point) for point in points]

    def page(self, size: int, offset: Any = None) -> tuple[list[ItemId], Any]:
        """Ids of `size` items from an offset on, and the next offset; see `CodeIndex.page`."""
        size = check_page(size, offset)
        with self._open("scan") as shard:
            points, next_offset = shard.scroll(
                qe.ScrollRequest(offset=offset, limit=size, with_payload=list(ITEM_FIELDS))
            )
        return [item_id(point, point.payload) for point in points], next_offset

    def scan(self, size: int = 4096) -> Iterator[list[ItemId]]:
        """Ids of all items, `size` at a time."""
        return all_pages(self.page, size)

    def scroll(
        self, size: int = 1024, offset: Any = None, **options: Unpack[ScrollOptions]
    ) -> tuple[list[Record], Any]:
        """One page of the stored items; see `CodeIndex.scroll`."""
        wanted = scroll_settings(size, options, self._manifest)
        request = qe.ScrollRequest(
            offset=offset,
            limit=wanted.size,
            filter=None if wanted.filter is None else edge_filter(wanted.filter, old_ids=self._manifest.old_ids),
            with_payload=wanted.payload,
            with_vector=wanted.vectors or False,
        )
        with self._open("scan") as shard:
            points, next_offset = shard.scroll(request)
        return [edge_requests.record(point) for point in points], next_offset

    def scan_records(self, size: int = 1024, **options: Unpack[ScrollOptions]) -> Iterator[list[Record]]:
        """The stored items, `size` at a time; see `CodeIndex.scroll`."""
        return all_pages(lambda size, offset: self.scroll(size, offset, **options), size)

    def drop(self) -> None:
        """Delete the index with its directory, and close it.

        Raises:
            CodeIndexError: the directory holds files that are not the index's, or cannot be deleted.
        """
        with self._open("drop"):
            check_own_files(self._path, _OWN_FILES)
        self._finalizer.detach()
        self._shard.close()
        try:
            remove_directory(self._path)
        finally:
            self._lock.release()

    def optimize(self) -> None:
        """Build compressed segments now, and wait until they are built.

        The engine does not compress segments with less than 1 KB of codes.
        """
        with self._open("optimize") as shard:
            shard.optimize()
            shard.flush()

    def flush(self) -> None:
        """Return once everything written is durable."""
        with self._open("flush") as shard:
            shard.flush()

    def close(self) -> None:
        """Flush, and let other processes open the index. Closing it again does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EdgeIndex({str(self._path)!r}, model={self.fingerprint!r})"

    def abandon(self) -> None:
        """Leave the index to the parent of this forked process: release this copy of the lock, call no engine."""
        if self._finalizer.detach() is not None:
            self._parent = os.getppid()
            self._lock.release()  # the parent keeps the lock: it holds another descriptor
            _ABANDONED.append(self._shard)

    def _query(self, plan: QueryPlan) -> qe.QueryRequest:
        return edge_requests.query(check_plan(plan, self._manifest), old_ids=self._manifest.old_ids)

    @contextlib.contextmanager
    def _open(self, action: str) -> Iterator[qe.EdgeShard]:
        if self._parent is not None:
            raise CodeIndexError(
                f"cannot {action} the index at {self._path}: process {self._parent} opened it and then forked this "
                "process, in which the engine has no threads. Open an embedded index after the fork, in one process "
                "only, or use a Qdrant server for several processes"
            )
        if not self._finalizer.alive:
            raise CodeIndexError(f"the index at {self._path} is closed; open it again with EdgeIndex.open")
        self.verify()
        with operation("qdrant_edge", action.split()[0]), engine_errors(action, self._path):
            yield self._shard


def _shut(shard: qe.EdgeShard, lock: DirectoryLock, location: str) -> None:
    try:
        if lock.holds(Path(location) / _LOCK):  # otherwise there is nothing left to flush
            with engine_errors("flush", location):
                shard.flush()
    finally:
        shard.close()
        lock.release()


def _refuse_existing(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        if (path / MANIFEST).exists():
            raise IndexExistsError(f"there is already an index at {path}; open it, or choose another path")
        raise IndexExistsError(f"{path} already exists and is not an empty directory; choose another path")
