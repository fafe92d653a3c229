"""Baseline: quality of a model on held-out items, stored with the model so that later batches can be compared with it.

It stores each held-out item's latents, loss and recall instead of averages, so that resampling can estimate the random
variation of any measure for a batch of any size. It does not store embeddings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..codes import FloatArray
from ..errors import ModelFileError
from ..files import atomic_path

__all__ = ["BASELINE_FILE", "Baseline"]

BASELINE_FILE: Final = "baseline.safetensors"
"""Name of the file in a model's directory."""

_FORMAT: Final = 1


@dataclass(frozen=True, eq=False)
class Baseline:
    """Measurements on n held-out items."""

    fingerprint: str
    """Fingerprint of the model."""
    latents: int
    """h, the number of latents of the model."""
    supports: npt.NDArray[np.int32]
    """(n, k) latents that each item's code uses; -1 where it uses fewer than k."""
    losses: FloatArray
    """(n,) `1 - cos(x, x_hat)` of each item."""
    pools: tuple[int, ...]
    """Sizes of the random pools of items that were searched, ascending."""
    recalls: FloatArray
    """(pools, n) recall@10 of each item as a query in its pool; NaN for items that were not queries."""
    source: str
    """Description of the items, for reports."""
    segment_field: str | None = None
    """Payload field that divides the items into segments, if one was given."""
    segments: tuple[str, ...] = ()
    """Values of the segment field."""
    labels: npt.NDArray[np.int32] | None = None
    """(n,) position of each item's segment in `segments`; -1 for an item without a value."""

    def __len__(self) -> int:
        return len(self.losses)

    def of_segment(self, name: str) -> Baseline | None:
        """Return the baseline of the items of one segment, or None if there are none."""
        if self.labels is None or name not in self.segments:
            return None
        rows = np.flatnonzero(self.labels == self.segments.index(name))
        if not len(rows):
            return None
        source = f"{self.source}, {self.segment_field} {name}"
        return Baseline(
            self.fingerprint, self.latents, self.supports[rows], self.losses[rows], self.pools, self.recalls[:, rows],
            source,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the baseline to a safetensors file."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "supports": self.supports, "losses": self.losses, "recalls": self.recalls.astype(np.float16),
        }  # fmt: skip
        if self.labels is not None:
            tensors["labels"] = self.labels
        fields = {
            "format": _FORMAT, "fingerprint": self.fingerprint, "latents": self.latents, "pools": self.pools,
            "source": self.source, "segment_field": self.segment_field, "segments": self.segments,
        }  # fmt: skip
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"baseline": json.dumps(fields)})

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a baseline written by `save`.

        Raises:
            ModelFileError: the file is missing or damaged, is not a baseline, or has a newer format.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                fields = json.loads((file.metadata() or {})["baseline"])
                if fields["format"] != _FORMAT:
                    raise ModelFileError(
                        f"{path} is a baseline of format {fields['format']!r}, this version reads {_FORMAT}; upgrade "
                        "compressae-qdrant, or delete it and run `compressae monitor --make-baseline`"
                    )
                supports, losses = file.get_tensor("supports"), file.get_tensor("losses")
                recalls = file.get_tensor("recalls").astype(np.float32)
                labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118 (not a mapping)
            pools, latents = tuple(map(int, fields["pools"])), int(fields["latents"])
            rows = len(losses)
            consistent = (
                supports.ndim == 2
                and len(supports) == rows > 0
                and recalls.shape == (len(pools), rows)
                and -1 <= supports.min() <= supports.max() < latents
                and (labels is None or (labels.shape == (rows,) and labels.max() < len(fields["segments"])))
            )
            baseline = cls(
                str(fields["fingerprint"]), latents, supports, losses, pools, recalls, str(fields["source"]),
                fields["segment_field"], tuple(fields["segments"]), labels,
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise ModelFileError(
                f"{path} is not a readable baseline ({exc}); delete it and run `compressae monitor --make-baseline`"
            ) from exc
        if not consistent:
            raise ModelFileError(
                f"{path} is damaged: the shapes of its arrays do not match; delete it and run `compressae monitor "
                "--make-baseline`"
            )
        return baseline
