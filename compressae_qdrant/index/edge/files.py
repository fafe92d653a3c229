"""The directory of an embedded shard: its lock and its size on disk.

Two facts are read from the engine's files, because its API does not report them. They were checked on qdrant-edge-py
0.9, and the dependency is pinned to that minor version:

- A compressed segment has `vector_index-<name>/inverted_index_config.json` with its `vector_count`. The API's
  `indexed_vectors_count` includes plain segments.
- `id_tracker.deleted` of such a segment is one bit for each point, set once the point is deleted or replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ...errors import CodeIndexError, IndexUnavailableError
from ..manifest import NAVIGATION_NAME, VECTOR_NAME

__all__ = ["DirectoryLock", "ShardUse", "check_own_files", "remove_directory", "remove_leftovers", "shard_use"]

_LEFTOVER_SECONDS: Final = 60.0
"""Age from which on an unlocked directory is left over, and not one that another process just begins to fill."""


class DirectoryLock:
    """An exclusive lock on an index directory, held until it is released or the process ends.

    Raises:
        IndexUnavailableError: the lock is held by this process or another.
        CodeIndexError: the directory is not writable, or its file system has no locks.
    """

    def __init__(self, file: Path, location: str) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(opened, 32, 0).decode("ascii", "replace") or "unknown"
            self.release()
            raise IndexUnavailableError(
                f"{location} is open in process {holder}; one process at a time can open an embedded index: close "
                "it there, or use a Qdrant server"
            ) from exc
        except OSError as exc:
            self.release()
            raise CodeIndexError(
                f"cannot lock {location}: {exc}; an embedded index needs a writable directory"
            ) from exc
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def holds(self, file: Path) -> bool:
        """Whether `file` still is the locked one, and was not deleted or replaced."""
        try:
            return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), file.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock. Releasing it again does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def check_own_files(path: Path, own: Collection[str]) -> None:
    """Check that the directory of an index holds nothing but its files, before it is deleted.

    Raises:
        CodeIndexError: it holds other files; the message names some.
    """
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in own)
    if others:
        raise CodeIndexError(
            f"cannot drop the index at {path}: the directory also holds {', '.join(map(repr, others[:3]))}, which are "
            "not the index's; move them elsewhere first"
        )


def remove_directory(path: Path) -> None:
    """Delete the directory of an index. It is renamed first, so that an interruption leaves no half of an index there.

    Raises:
        CodeIndexError: it cannot be deleted.
    """
    place = path.resolve()
    doomed = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            place.rename(doomed)
        except OSError:  # a mount point, or a parent that is not writable
            doomed = place
        shutil.rmtree(doomed)
        if path.is_symlink():
            path.unlink()
    except OSError as exc:
        raise CodeIndexError(f"cannot delete {doomed} ({exc}); delete the directory by hand") from exc


def remove_leftovers(path: Path, lock: str) -> None:
    """Remove the directories that killed creations of the index at `path` left beside it.

    Args:
        path: directory of the index.
        lock: name of the lock file, which a creation that is still running holds.
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    beside = [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)] if path.parent.is_dir() else []
    for entry in beside:
        with contextlib.suppress(OSError, CodeIndexError):
            if time.time() - entry.stat().st_mtime > _LEFTOVER_SECONDS:
                held = DirectoryLock(entry / lock, str(entry))
                shutil.rmtree(entry, ignore_errors=True)
                held.release()


class ShardUse(NamedTuple):
    """The size of a shard on disk."""

    indexed_items: int
    """Live items in compressed segments."""
    index_bytes: int
    """Length of the inverted index files, which is the memory that a pinned index takes."""
    navigation_bytes: int
    """Length of the files of quantised navigation vectors and their graph."""
    text_bytes: int
    """Allocated blocks of the text indexes of payload fields."""
    total_bytes: int
    """Allocated blocks of all files. Their lengths would mislead: the engine maps sparse files of 32 MB."""


def shard_use(root: Path, location: str) -> ShardUse:
    """Measure the index directory `root`, after a flush.

    Raises:
        CodeIndexError: the files of a compressed segment are not as expected.
    """
    files = list(_files(root))
    index = f"vector_index-{VECTOR_NAME}"
    indexed = 0
    try:
        for path in root.glob(f"**/{index}/inverted_index_config.json"):
            counts = json.loads(path.read_bytes())
            deleted = path.parent.parent / "id_tracker.deleted"
            dropped = int(np.unpackbits(np.fromfile(deleted, np.uint8)).sum()) if deleted.exists() else 0
            indexed += int(counts["vector_count"]) - dropped
    except (OSError, ValueError, KeyError) as exc:
        raise CodeIndexError(
            f"cannot measure {location} ({exc}); it may have been written by another engine version"
        ) from exc
    return ShardUse(
        indexed_items=max(indexed, 0),
        index_bytes=sum(stat.st_size for path, stat in files if path.parent.name == index),
        navigation_bytes=sum(stat.st_size for path, stat in files if _is_navigation(path)),
        text_bytes=sum(stat.st_blocks * 512 for path, stat in files if path.parent.name.endswith("-text")),
        total_bytes=sum(stat.st_blocks * 512 for _, stat in files),
    )


def _is_navigation(path: Path) -> bool:
    if path.parent.name == f"vector_index-{NAVIGATION_NAME}":
        return True
    return path.parent.name == f"vector_storage-{NAVIGATION_NAME}" and path.name.startswith("quantized")


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            yield path, path.stat()
