"""SparseCodes: the k-sparse codes of n items, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import InvalidCodeError, InvalidInputError, ModelFileError
from .files import atomic_path

__all__ = ["BYTES_PER_NONZERO", "FloatArray", "Scale", "SparseCodes"]

FloatArray = npt.NDArray[np.float32]
Scale = Literal["projection", "reconstruction", "code", "raw"]
"""How long a code's values make x_hat.

projection: x_hat is the point nearest to x on its line, so its norm is cos(x, x_hat), and `q . x_hat` estimates
`q . x`. reconstruction: x_hat has unit norm, so `q . x_hat` is a cosine (the paper's kernel trick). code: the code
itself has unit norm. raw: as the encoder or the least squares gave them.
"""

BYTES_PER_NONZERO: Final = 8
"""The paper's accounting: an int32 index and a float32 value for each non-zero."""

_FORMAT: Final = "1"


class SparseCodes:
    """The codes of n items: k signed (latent, value) pairs each.

    Args:
        indices: (n, k) integers in [0, latents), unique in each row. Stored as int32, ascending in each row.
        values: (n, k) finite floats, at least one of them non-zero in each row. Stored as float32. A zero value
            pads a row whose code needs fewer than k atoms.
        latents: h, the number of latents of the model.
        scale: how the values were scaled, when known. An index refuses codes of a known other scale.

    Raises:
        InvalidCodeError: shapes differ, an index is out of range or repeated in a row, a value is not finite, or a
            row is all zero. The message names the first such row.
    """

    __slots__ = ("indices", "latents", "scale", "values")

    indices: npt.NDArray[np.int32]
    values: FloatArray
    latents: int
    scale: Scale | None

    def __init__(self, indices: npt.ArrayLike, values: npt.ArrayLike, latents: int, scale: Scale | None = None) -> None:
        idx, val = np.asarray(indices), np.asarray(values)
        if idx.ndim != 2 or idx.shape != val.shape:
            raise InvalidCodeError(
                f"indices have shape {idx.shape} and values {val.shape}; both must be (items, non-zeros) and equal"
            )
        if not np.issubdtype(idx.dtype, np.integer):
            raise InvalidCodeError(f"indices are {idx.dtype}; latent numbers must be integers")
        if latents < 1 or idx.shape[1] > latents or idx.shape[1] == 0:
            raise InvalidCodeError(f"codes have {idx.shape[1]} non-zeros of {latents} latents; need 1 <= k <= latents")
        val = val.astype(np.float32, copy=False)
        _refuse((idx < 0) | (idx >= latents), f"names a latent outside 0..{latents - 1}")
        _refuse(~np.isfinite(val), "holds NaN or an infinite value")
        _refuse((val == 0).all(axis=1, keepdims=True), "has no non-zero value, so nothing could ever match it")
        idx = idx.astype(np.int32, copy=False)
        if idx.shape[1] > 1 and not (np.diff(idx, axis=1) > 0).all():
            order = np.argsort(idx, axis=1, kind="stable")
            idx, val = np.take_along_axis(idx, order, 1), np.take_along_axis(val, order, 1)
            _refuse(np.diff(idx, axis=1) == 0, "names the same latent twice")
        self._set(idx, val, latents, scale)

    @classmethod
    def _trusted(
        cls, indices: npt.NDArray[np.int32], values: FloatArray, latents: int, scale: Scale | None = None
    ) -> Self:
        """Codes from arrays that are known to satisfy every rule of the constructor; nothing is checked or copied."""
        codes = cls.__new__(cls)
        codes._set(indices, values, latents, scale)
        return codes

    def _set(self, indices: npt.NDArray[np.int32], values: FloatArray, latents: int, scale: Scale | None) -> None:
        self.indices = np.ascontiguousarray(indices)
        self.values = np.ascontiguousarray(values)
        self.latents = latents
        self.scale = scale

    @property
    def k(self) -> int:
        """Non-zeros kept for each item."""
        return int(self.indices.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays: 8 n k (the paper's accounting)."""
        return int(self.indices.nbytes + self.values.nbytes)

    def __len__(self) -> int:
        return int(self.indices.shape[0])

    def __getitem__(self, rows: slice | npt.NDArray[Any] | Sequence[int]) -> SparseCodes:
        """The codes of some rows, by slice, integer array or boolean mask."""
        picked: Any = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(rows, slice) and not picked.size:
            picked = picked.astype(np.intp)  # NumPy takes an empty list for floats
        return SparseCodes._trusted(self.indices[picked], self.values[picked], self.latents, self.scale)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseCodes):
            return NotImplemented
        return (
            self.latents == other.latents
            and self.scale == other.scale
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: equal by value, not hashable

    def __repr__(self) -> str:
        return f"SparseCodes({len(self):,} items, k={self.k}, latents={self.latents}, scale={self.scale!r})"

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Indices and values of one item's non-zeros, padding left out: two (<= k,) arrays."""
        kept = self.values[i] != 0
        return self.indices[i][kept], self.values[i][kept]

    def to_csr(self) -> sp.csr_matrix:
        """The (n, latents) matrix of the codes. It shares the values' memory; don't write into it."""
        n, k = self.indices.shape
        indptr = np.arange(0, n * k + 1, k, dtype=np.int32 if n * k < 2**31 else np.int64)
        return sp.csr_matrix((self.values.ravel(), self.indices.ravel(), indptr), (n, self.latents), copy=False)

    @staticmethod
    def concatenate(parts: Sequence[SparseCodes]) -> SparseCodes:
        """One value from several of equal k, latents and scale.

        Raises:
            InvalidInputError: there are no parts, or they differ.
        """
        kinds = {(part.k, part.latents, part.scale) for part in parts}
        if len(kinds) != 1:
            raise InvalidInputError(f"can't concatenate codes of {len(kinds)} kinds (k, latents, scale): {kinds}")
        _, latents, scale = kinds.pop()
        return SparseCodes._trusted(
            np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts]),
            latents, scale,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the codes as one safetensors file."""
        meta = {"format": _FORMAT, "latents": str(self.latents), "scale": self.scale or ""}
        with atomic_path(Path(path)) as temporary:
            save_file({"indices": self.indices, "values": self.values}, temporary, metadata=meta)

    @classmethod
    def load(cls, path: str | Path) -> SparseCodes:
        """Read codes written by `save`.

        Raises:
            ModelFileError: the file is missing, damaged, not a code file, or in a newer format.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                meta = file.metadata() or {}
                if meta.get("format") != _FORMAT:
                    raise ModelFileError(
                        f"{path} has code format {meta.get('format')!r}, this version reads {_FORMAT!r}; "
                        "upgrade compressae-qdrant or encode again"
                    )
                scale: Any = meta["scale"] or None
                return cls(file.get_tensor("indices"), file.get_tensor("values"), int(meta["latents"]), scale)
        except (OSError, SafetensorError, KeyError, ValueError) as exc:
            raise ModelFileError(f"{path} is not a readable code file ({exc}); encode the catalog again") from exc


def _refuse(bad: npt.NDArray[np.bool_], complaint: str) -> None:
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size:
        raise InvalidCodeError(f"code in row {rows[0]} {complaint} ({rows.size} such rows); encode those items again")
