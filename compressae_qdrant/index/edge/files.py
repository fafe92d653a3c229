"""An embedded shard's directory: one process at a time, and the bytes that it takes.

Two facts are read from the engine's own files, because its API doesn't tell them; checked on qdrant-edge-py 0.9
(pinned to that minor version):

- A compressed segment has `vector_index-<name>/inverted_index_config.json` with its `vector_count`. The API's
  `indexed_vectors_count` counts plain segments too.
- `id_tracker.deleted` of such a segment is a bare bit for each point, set once it is deleted or replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import CodeIndexError, IndexUnavailableError
from ..manifest import VECTOR_NAME

__all__ = ["DirectoryLock", "ShardUse", "shard_use"]


class DirectoryLock:
    """An exclusive lock on an index directory, held until released or until the process ends, however it ends.

    Raises:
        IndexUnavailableError: it is held already, by this process or another.
        CodeIndexError: the directory can't be written to, or its file system has no locks.
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
                f"{location} is open in process {holder}; an embedded index serves one process at a time: close it "
                "there, or use a Qdrant server"
            ) from exc
        except OSError as exc:
            self.release()
            raise CodeIndexError(
                f"can't lock {location}: {exc}; an embedded index needs a directory that it can write to"
            ) from exc
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others in. Releasing twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ShardUse(NamedTuple):
    """What a shard holds on disk."""

    indexed_items: int
    """Live items in compressed segments."""
    index_bytes: int
    """Length of the inverted index files: what a pinned index takes of memory."""
    total_bytes: int
    """Allocated blocks of every file. The engine maps sparse files of 32 MB, so their length says nothing."""


def shard_use(root: Path, location: str) -> ShardUse:
    """Measure the index directory `root`, everything flushed.

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
            gone = int(np.unpackbits(np.fromfile(deleted, np.uint8)).sum()) if deleted.exists() else 0
            indexed += int(counts["vector_count"]) - gone
    except (OSError, ValueError, KeyError) as exc:
        raise CodeIndexError(f"can't measure {location} ({exc}); was it written by another engine version?") from exc
    return ShardUse(
        indexed_items=max(indexed, 0),
        index_bytes=sum(stat.st_size for path, stat in files if path.parent.name == index),
        total_bytes=sum(stat.st_blocks * 512 for _, stat in files),
    )


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            yield path, path.stat()
