"""What a training went through: one record for each measured point, as JSON, as arrays and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import MissingExtraError, ModelFileError
from ..files import atomic_path, write_text

__all__ = ["Phase", "Record", "TrainingHistory"]

Phase = Literal["autoencoder", "dictionary", "encoder"]


@dataclass(frozen=True)
class Record:
    """One validation of the model while it was trained."""

    phase: Phase
    step: int
    """Optimiser steps of the phase so far; rounds of the dictionary phase."""
    items: int
    """Items seen in all phases so far, repeats counted."""
    train_loss: float
    """Mean `1 - cos(x, x_hat)` of the batches since the previous record."""
    encoder_loss: float
    """Mean `1 - cos(x, x_hat)` of the held-out items, coded by the encoder."""
    pursuit_loss: float
    """The same, coded by pursuit."""
    dead_latents: int
    """Latents that no recent training item used."""
    posting_mass: float
    """`sum_j p_j^2` over the pursuit codes of the held-out items; even use gives k^2/h."""


@dataclass
class TrainingHistory:
    """The records of one training, in order, and the settings it ran with."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Choices made automatically, with their reasons."""
    records: list[Record] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the history as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Read what `save` wrote.

        Raises:
            ModelFileError: it is something else.
        """
        try:
            data = json.loads(text)
            return cls(data["settings"], data["notes"], [Record(**record) for record in data["records"]])
        except (ValueError, KeyError, TypeError) as exc:
            raise ModelFileError(f"{where} is not a training history ({exc}); delete it to load the model") from exc

    def plot(self, path: str | Path) -> None:
        """Draw losses and posting mass against items seen, as a PNG.

        Raises:
            MissingExtraError: Matplotlib is not installed (extra `plots`).
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as exc:
            raise MissingExtraError(
                "drawing the training history needs Matplotlib; pip install 'compressae-qdrant[plots]'"
            ) from exc

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
