"""Journals: files that record how far an ingestion has come, so that an interrupted one can be resumed.

`Journal` records the rows of one source. `FileJournal` records the files that a Ray job has loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError
from ..files import write_text
from ..sources.identity import file_identity
from .confirmed import Confirmed

__all__ = ["FileJournal", "Journal"]

_FORMAT: Final = 1
_COMPARED: Final = {"model": "model", "source": "source", "method": "encoding method", "index": "index"}
"""Fields that must be equal for a journal to be resumed, and what error messages call them."""


@dataclass
class Journal:
    """The progress of ingesting one source into one index with one model."""

    source: str
    """Hash of the source's identity."""
    model: str
    """Fingerprint of the model."""
    method: str
    """Coding method and atoms per step, as `pursuit/4`."""
    index: str
    """Location of the index; empty if the journal is stored inside the index and moves with it."""
    empty: bool = False
    """Whether the index was empty when the first row was read."""
    next_row: int = 0
    """First row that is not confirmed."""
    skipped: int = 0
    """Malformed rows skipped before `next_row`."""
    complete: bool = False
    """Whether every row is in the index and the index is optimised."""
    confirmed: Confirmed = field(default_factory=Confirmed)
    """What is known of the items in the index; nothing in journals of version 0.1."""

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """Read a journal; None if the file does not exist.

        Raises:
            ConfigError: the file is not a journal, or has another format.
        """
        if not file.exists():
            return None
        try:
            data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            written = data.pop("format")
            confirmed = Confirmed.of(data.pop("confirmed")) if "confirmed" in data else Confirmed()
            journal = cls(**data, confirmed=confirmed)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(
                f"{file} is not an ingestion journal ({exc}); delete it to start from the first row"
            ) from exc
        if written != _FORMAT:
            raise ConfigError(
                f"{file} has journal format {written!r}, but this version reads format {_FORMAT}; "
                "use --restart to start from the first row"
            )
        return journal

    def check(self, current: Journal, file: Path) -> None:
        """Check that this journal, read from `file`, belongs to the current ingestion.

        Raises:
            ConfigError: it belongs to another source, model, method or index.
        """
        for name, label in _COMPARED.items():
            own, now = getattr(self, name), getattr(current, name)
            if own != now:
                raise ConfigError(
                    f"journal {file} belongs to an ingestion with another {label} ({own}, now {now}); use restart=True "
                    "(--restart) to start from the first row and replace items by id"
                )

    def save(self, file: Path) -> None:
        """Write the journal durably, in one step."""
        write_text(file, json.dumps({"format": _FORMAT, **asdict(self)}, default=int) + "\n")


@dataclass
class FileJournal:
    """The files that Ray jobs have loaded into one index with one model."""

    model: str
    """Fingerprint of the model."""
    index: str
    """Location of the index."""
    files: dict[str, str] = field(default_factory=dict)
    """Path and identity of each file at the time it was loaded."""
    confirmed: Confirmed = field(default_factory=Confirmed)
    """What is known of the items in the index; nothing in journals of version 0.1."""

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """Read a journal; None if the file does not exist.

        Raises:
            ConfigError: the file is not a journal of a Ray job, or has another format.
        """
        if not file.exists():
            return None
        try:
            data: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            written, journal = data["format"], cls(data["model"], data["index"], dict(data["files"]))
            if "confirmed" in data:
                journal.confirmed = Confirmed.of(data["confirmed"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{file} is not the journal of a Ray job ({exc}); delete it to load every file") from exc
        if written != _FORMAT:
            raise ConfigError(
                f"{file} has journal format {written!r}, but this version reads format {_FORMAT}; "
                "delete it to load every file"
            )
        return journal

    def check(self, current: FileJournal, file: Path) -> None:
        """Check that this journal, read from `file`, belongs to the current model and index.

        Raises:
            ConfigError: it does not.
        """
        for name in ("model", "index"):
            own, now = getattr(self, name), getattr(current, name)
            if own != now:
                raise ConfigError(
                    f"journal {file} belongs to {name} {own!r}, but this job uses {now!r}; delete it to load every file"
                )

    def save(self, file: Path) -> None:
        """Write the journal durably, in one step."""
        write_text(file, json.dumps({"format": _FORMAT, **asdict(self)}, default=int) + "\n")

    def contains(self, path: str) -> bool:
        """Whether the file was loaded and has not changed since."""
        return path in self.files and self.files[path] == file_identity(Path(path))

    def add(self, path: str) -> None:
        """Record that the file is loaded."""
        self.files[path] = file_identity(Path(path))
