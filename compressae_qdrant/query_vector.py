"""QueryVector: what a query is once it is over latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .codes import FloatArray

__all__ = ["QueryVector"]


@dataclass(frozen=True)
class QueryVector:
    """A query-side sparse vector over latents."""

    indices: npt.NDArray[np.int32]
    """(m,) latents, unique, ascending."""
    values: FloatArray
    """(m,) finite values."""

    def __len__(self) -> int:
        return len(self.indices)
