"""The file that keeps the results of a search, so that it can be resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError
from ..files import write_text
from .points import TrialPoint

__all__ = ["Journal", "Trial"]

_FILE: Final = "study.json"
_FORMAT: Final = 2


@dataclass(frozen=True)
class Trial:
    """One training: measured, stopped early, or skipped."""

    latents: int
    k: int
    """Non-zeros that the dictionary is trained for."""
    bytes: float
    """Least bytes per item in memory of its settings, as `capacity.plan` estimates."""
    losses: dict[int, float] = field(default_factory=dict)
    """Validation loss of pursuit codes, by the number of items seen."""
    points: list[TrialPoint] | None = None
    """Measured settings; None if the training was stopped or skipped."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Create a trial from its JSON form."""
        points = None if data["points"] is None else [TrialPoint.from_json(point) for point in data["points"]]
        losses = {int(items): float(loss) for items, loss in data["losses"].items()}
        return cls(int(data["latents"]), int(data["k"]), float(data["bytes"]), losses, points)

    def to_json(self) -> dict[str, Any]:
        """JSON form of the trial."""
        points = None if self.points is None else [point.to_json() for point in self.points]
        return {"latents": self.latents, "k": self.k, "bytes": self.bytes, "losses": self.losses, "points": points}


class Journal:
    """The finished trials of one search, saved after each."""

    def __init__(self, file: Path, identity: str, trials: list[Trial]) -> None:
        self._file, self._identity = file, identity
        self.trials = trials
        """Finished trials, in order."""

    @classmethod
    def open(cls, work: Path, identity: str) -> Self:
        """Read the journal of a directory, or begin one.

        Args:
            work: directory of the search; created if it does not exist.
            identity: hash of the data and settings of the search.

        Raises:
            ConfigError: the journal is damaged, or belongs to a search of other data or settings.
        """
        file = work / _FILE
        work.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            journal = cls(file, identity, [])
            journal._save()
            return journal
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            known = content["identity"] if content["format"] == _FORMAT else None
            trials = [Trial.from_json(trial) for trial in content["trials"]] if known == identity else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(f"{file} is damaged ({exc}); delete it or use another --work directory") from exc
        if known != identity:
            raise ConfigError(
                f"{work} holds the search of other data or settings; continue with the same ones, or use another "
                "--work directory"
            )
        return cls(file, identity, trials)

    def has(self, latents: int, k: int) -> bool:
        """Whether the training of this pair is finished."""
        return any((trial.latents, trial.k) == (latents, k) for trial in self.trials)

    def add(self, trial: Trial) -> None:
        """Add a finished trial and save."""
        self.trials.append(trial)
        self._save()

    def _save(self) -> None:
        trials = [trial.to_json() for trial in self.trials]
        write_text(self._file, json.dumps({"format": _FORMAT, "identity": self._identity, "trials": trials}) + "\n")
