"""Baseline: how a model did on items it was not trained on, kept with the model so that later batches can be compared.

It holds the held-out items row by row (the latents of their codes, their losses, their recall) and not just averages,
so that the chance spread of any measure in a batch of any size can be had by resampling. The embeddings themselves are
not kept.
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
"""Its name in the directory of a model."""

_FORMAT: Final = 1


@dataclass(frozen=True, eq=False)
class Baseline:
    """What was measured on n held-out items."""

    fingerprint: str
    """Of the model."""
    latents: int
    """h of the model."""
    supports: npt.NDArray[np.int32]
    """(n, k) latents that each item's code uses; -1 where it uses fewer than k."""
    losses: FloatArray
    """(n,) `1 - cos(x, x_hat)` of each item."""
    pools: tuple[int, ...]
    """Sizes of the random pools that items were searched for in, ascending."""
    recalls: FloatArray
    """(pools, n) recall@10 of each item as a query among its pool; NaN for items that were not asked for."""
    source: str
    """What the items are, for people."""
    segment_field: str | None = None
    """Payload field that tells items apart, if one was given."""
    segments: tuple[str, ...] = ()
    """Values of that field."""
    labels: npt.NDArray[np.int32] | None = None
    """(n,) which of the segments each item is of; -1 for an item without a value."""

    def __len__(self) -> int:
        return len(self.losses)

    def of_segment(self, name: str) -> Baseline | None:
        """The items of one segment alone; None where it holds none."""
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
        """Write the baseline as one safetensors file."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "supports": self.supports, "losses": self.losses, "recalls": self.recalls.astype(np.float16),
        }  # fmt: skip
        if self.labels is not None:
            tensors["labels"] = self.labels
        facts = {
            "format": _FORMAT, "fingerprint": self.fingerprint, "latents": self.latents, "pools": self.pools,
            "source": self.source, "segment_field": self.segment_field, "segments": self.segments,
        }  # fmt: skip
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"baseline": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read what `save` wrote.

        Raises:
            ModelFileError: it is missing, damaged, something else, or in a newer format.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["baseline"])
                if facts["format"] != _FORMAT:
                    raise ModelFileError(
                        f"{path} is a baseline of format {facts['format']!r}, this version reads {_FORMAT}; upgrade "
                        "compressae-qdrant, or delete it and make one by compressae monitor --make-baseline"
                    )
                supports, losses = file.get_tensor("supports"), file.get_tensor("losses")
                recalls = file.get_tensor("recalls").astype(np.float32)
                labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118 (not a mapping)
            pools, latents = tuple(map(int, facts["pools"])), int(facts["latents"])
            rows = len(losses)
            fits = (
                supports.ndim == 2
                and len(supports) == rows > 0
                and recalls.shape == (len(pools), rows)
                and -1 <= supports.min() <= supports.max() < latents
                and (labels is None or (labels.shape == (rows,) and labels.max() < len(facts["segments"])))
            )
            baseline = cls(
                str(facts["fingerprint"]), latents, supports, losses, pools, recalls, str(facts["source"]),
                facts["segment_field"], tuple(facts["segments"]), labels,
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise ModelFileError(
                f"{path} is not a readable baseline ({exc}); delete it, and make one by compressae monitor "
                "--make-baseline"
            ) from exc
        if not fits:
            raise ModelFileError(f"{path} is damaged (its arrays don't fit each other); delete it, and make one anew")
        return baseline
