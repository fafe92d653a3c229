"""History of a training: validation records over time, stored as JSON and drawn as a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import ModelFileError
from ..files import atomic_path, write_text
from ..lazy import needs_extra

__all__ = ["Phase", "Record", "TrainingHistory"]

Phase = Literal["autoencoder", "dictionary", "encoder"]
"""Phase of a training: training of the autoencoder, refinement of the dictionary, refit of the encoder."""


@dataclass(frozen=True)
class Record:
    """One validation of the model during training."""

    phase: Phase
    step: int
    """Optimiser steps of the phase so far; in the dictionary phase, rounds."""
    items: int
    """Items seen in all phases so far, including repetitions."""
    train_loss: float
    """Mean `1 - cos(x, x_hat)` of the training batches since the previous record."""
    encoder_loss: float
    """Mean `1 - cos(x, x_hat)` of the held-out items, encoded by the encoder."""
    pursuit_loss: float
    """Mean `1 - cos(x, x_hat)` of the held-out items, encoded by pursuit."""
    dead_latents: int
    """Latents that no recent training item uses."""
    posting_mass: float
    """`sum_j p_j^2` over the pursuit codes of the held-out items; even use gives k^2/h."""


@dataclass
class TrainingHistory:
    """Records of one training, in order, and its settings."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Automatic choices, with their reasons."""
    records: list[Record] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the history to a JSON file."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Parse a history written by `save`.

        Args:
            text: content of the file.
            where: name of the file, for the error message.

        Raises:
            ModelFileError: the text is not a training history.
        """
        try:
            data = json.loads(text)
            return cls(data["settings"], data["notes"], [Record(**record) for record in data["records"]])
        except (ValueError, KeyError, TypeError) as exc:
            raise ModelFileError(
                f"{where} is not a training history ({exc}); delete the file to load the model"
            ) from exc

    def plot(self, path: str | Path) -> None:
        """Draw losses and posting mass over the items seen, as a PNG file.

        Raises:
            MissingExtraError: Matplotlib is not installed (extra `plots`).
        """
        with needs_extra("plots", "a plot of the training history"):
            from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 6), layout="constrained")
        losses, masses = figure.subplots(2, 1, sharex=True)
        seen = [record.items for record in self.records]
        for name, label in (
            ("train_loss", "training batches"),
            ("encoder_loss", "held out, encoder"),
            ("pursuit_loss", "held out, pursuit"),
        ):
            losses.plot(seen, [getattr(record, name) for record in self.records], marker=".", label=label)
        losses.set_ylabel("1 − cos(x, x̂)")
        losses.set_yscale("log")
        losses.legend()
        masses.plot(seen, [record.posting_mass for record in self.records], marker=".", color="tab:red")
        masses.set_ylabel("posting mass")
        masses.set_xlabel("items seen")
        _shade_phases(self.records, (losses, masses))
        figure.suptitle("Training: autoencoder, dictionary refinement, encoder refit")
        with atomic_path(Path(path)) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _shade_phases(records: Sequence[Record], axes: Sequence[Any]) -> None:
    for phase, colour in (("autoencoder", "0.95"), ("dictionary", "0.88"), ("encoder", "0.95")):
        inside = [i for i, record in enumerate(records) if record.phase == phase]
        if inside:
            start = records[inside[0] - 1].items if inside[0] else 0
            for axis in axes:
                axis.axvspan(start, records[inside[-1]].items, color=colour, zorder=0)
            axes[0].text(start, 1.01, f" {phase}", transform=axes[0].get_xaxis_transform(), fontsize=8)
