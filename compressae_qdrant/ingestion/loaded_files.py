"""The files that a Ray job has loaded, with their journal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import IngestError
from ..index.protocol import CodeIndex
from ..index.retry import RetryPolicy
from .confirmed import Confirmed
from .journal import FileJournal

__all__ = ["LoadedFiles"]

_LOG = logging.getLogger(__name__)


class LoadedFiles:
    """The files that are in the index, recorded in a journal if `file` is given.

    Args:
        file: the journal, or None to record nothing.
        fingerprint: fingerprint of the model.
        index: the index.
        retry: how to retry when a server fails.

    Raises:
        ConfigError: the journal belongs to another model or index.
        IngestError: the index lacks items that the journal says are in it.
    """

    def __init__(
        self,
        file: Path | None,
        fingerprint: str,
        index: CodeIndex,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    ) -> None:
        self._file, self._index, self._retry = file, index, retry
        self._journal = FileJournal(
            fingerprint, "" if file is None else index.info().location, confirmed=Confirmed(index.identity or "")
        )
        earlier = None if file is None else FileJournal.load(file)
        if file is not None and earlier is not None:
            earlier.check(self._journal, file)
            if earlier.files:
                self._resume(file, earlier)

    def _resume(self, file: Path, earlier: FileJournal) -> None:
        """Continue an earlier job, unless the index is empty.

        Raises:
            IngestError: the index is not as the earlier job left it.
        """
        says = f"journal {file} says that {len(earlier.files)} files are in the index, but"
        count = self._retry.run(self._index.count)
        if not count:
            _LOG.warning("%s the index is empty; every file is loaded again", says)
            return
        lost = earlier.confirmed.lost(self._index, count, self._retry)
        if lost:
            raise IngestError(
                f"{says} {lost}. It was recreated, emptied or restored from an older snapshot, or items were deleted. "
                "Delete the journal to load every file again; items are replaced by id"
            )
        earlier.confirmed.identity = self._journal.confirmed.identity
        self._journal = earlier

    def note(self, ids: Sequence[Any]) -> None:
        """Note some of the items that were written."""
        self._journal.confirmed.add(ids)

    def summary(self) -> str:
        """How many files are loaded, and how to continue."""
        again = "loads all files again" if self._file is None else "skips these files"
        return f"{len(self._journal.files)} files are loaded; resolve this and run the job again, which {again}"

    def contains(self, path: str) -> bool:
        """Whether the file is loaded and has not changed since."""
        return self._journal.contains(path)

    def add(self, path: str) -> None:
        """Record that all items of the file are durable.

        Raises:
            IndexReplacedError: the index was deleted or recreated.
        """
        self._retry.run(self._index.verify)
        self._journal.add(path)
        self._save()

    def finish(self) -> None:
        """Record the number of items at the end of the job.

        Raises:
            IndexReplacedError: the index was deleted or recreated.
        """
        self._retry.run(self._index.verify)
        if self._file is not None and self._journal.files:
            self._journal.confirmed.items = self._retry.run(self._index.count)
            self._save()

    def _save(self) -> None:
        if self._file is not None:
            self._journal.save(self._file)
