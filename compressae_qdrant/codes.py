"""SparseCodes: the k-sparse codes of n items as one value type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .checks import check_whole, shown
from .errors import InvalidCodeError, InvalidInputError, ModelFileError
from .files import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BYTES_PER_NONZERO", "FloatArray", "Scale", "SparseCodes"]

FloatArray = npt.NDArray[np.float32]
Scale = Literal["projection", "reconstruction", "code", "raw"]
"""Scale of the values of a code.

projection: x_hat is the projection of x on its direction, so its norm is cos(x, x_hat), and `q . x_hat` estimates
`q . x`. reconstruction: x_hat has unit norm, so `q . x_hat` is a cosine (the paper's kernel trick). code: the code
itself has unit norm. raw: values as the encoder or the least-squares fit returned them.
"""

BYTES_PER_NONZERO: Final = 8
"""Size of a non-zero as the paper counts it: an int32 index and a float32 value."""

_FORMAT: Final = "1"
_ARROW_FORMAT: Final = {"format": "compressae-codes-1"}


class SparseCodes:
    """The codes of n items: k signed (latent, value) pairs each.

    Args:
        indices: (n, k) integers in [0, latents), unique in each row. Stored as int32, ascending in each row.
        values: (n, k) finite floats, at least one of them non-zero in each row. Stored as float32. A zero value
            pads a row whose code needs fewer than k atoms.
        latents: h, the number of latents of the model.
        scale: scale of the values, or None if it is not known. An index refuses codes whose known scale differs from
            its own.
        fingerprint: fingerprint of the model that made the codes, or None for codes made by hand. `CompresSAE.encode`
            sets it. An index refuses codes of another model; it cannot check codes without a fingerprint.

    Raises:
        InvalidCodeError: shapes differ, an index is out of range or repeated in a row, a value is not finite, or a
            row has only zeros. The message names the first such row.
    """

    __slots__ = ("fingerprint", "indices", "latents", "scale", "values")

    indices: npt.NDArray[np.int32]
    values: FloatArray
    latents: int
    scale: Scale | None
    fingerprint: str | None

    def __init__(
        self,
        indices: npt.ArrayLike,
        values: npt.ArrayLike,
        latents: int,
        scale: Scale | None = None,
        fingerprint: str | None = None,
    ) -> None:
        latents = check_whole("latents", latents, error=InvalidCodeError)
        try:
            idx, val = np.asarray(indices), np.asarray(values)
        except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
            raise InvalidCodeError(f"indices and values cannot be read as arrays: {exc}; pass (n, k) arrays") from exc
        if idx.ndim != 2 or idx.shape != val.shape:
            raise InvalidCodeError(
                f"indices have shape {idx.shape} and values {val.shape}; both must have the shape (items, non-zeros)"
            )
        if not np.issubdtype(idx.dtype, np.integer):
            raise InvalidCodeError(f"indices have dtype {idx.dtype}; they must be integers")
        if latents < 1 or idx.shape[1] > latents or idx.shape[1] == 0:
            raise InvalidCodeError(
                f"codes have {idx.shape[1]} non-zeros and {latents} latents; 1 <= k <= latents is required"
            )
        if val.dtype.kind not in "fiu":
            raise InvalidCodeError(f"values have dtype {val.dtype}; they must be real numbers")
        with np.errstate(over="ignore"):  # reported below as infinite
            val = val.astype(np.float32, copy=False)
        _raise_if_any((idx < 0) | (idx >= latents), f"names a latent outside 0..{latents - 1}")
        _raise_if_any(~np.isfinite(val), "holds NaN or an infinite value")
        _raise_if_any((val == 0).all(axis=1, keepdims=True), "has no non-zero value, so no query would find it")
        idx = idx.astype(np.int32, copy=False)
        if idx.shape[1] > 1 and not (np.diff(idx, axis=1) > 0).all():
            order = np.argsort(idx, axis=1, kind="stable")
            idx, val = np.take_along_axis(idx, order, 1), np.take_along_axis(val, order, 1)
            _raise_if_any(np.diff(idx, axis=1) == 0, "names the same latent twice")
        self._set(idx, val, latents, scale, fingerprint)

    @classmethod
    def _trusted(
        cls,
        indices: npt.NDArray[np.int32],
        values: FloatArray,
        latents: int,
        scale: Scale | None = None,
        fingerprint: str | None = None,
    ) -> Self:
        """Create codes from arrays that meet the rules of the constructor, without checks or copies."""
        codes = cls.__new__(cls)
        codes._set(indices, values, latents, scale, fingerprint)
        return codes

    def _set(
        self,
        indices: npt.NDArray[np.int32],
        values: FloatArray,
        latents: int,
        scale: Scale | None,
        fingerprint: str | None,
    ) -> None:
        self.indices = np.ascontiguousarray(indices)
        self.values = np.ascontiguousarray(values)
        self.latents = latents
        self.scale = scale
        self.fingerprint = fingerprint

    @property
    def k(self) -> int:
        """Non-zeros of a code."""
        return int(self.indices.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays, 8 n k."""
        return int(self.indices.nbytes + self.values.nbytes)

    def __len__(self) -> int:
        return int(self.indices.shape[0])

    def __getitem__(self, rows: slice | npt.NDArray[Any] | Sequence[int]) -> SparseCodes:
        """Select rows by a slice, an integer array or a boolean mask.

        Raises:
            InvalidInputError: they are selected by a single number or by an array of another shape.
        """
        selection: Any = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(rows, slice) and selection.ndim != 1:
            raise InvalidInputError(
                f"codes are selected by {shown(rows)}; use a slice or a list of rows: codes[i : i + 1] is one code, "
                "codes.row(i) its indices and values"
            )
        if not isinstance(rows, slice) and not selection.size:
            selection = selection.astype(np.intp)  # NumPy reads an empty list as floats
        return SparseCodes._trusted(
            self.indices[selection], self.values[selection], self.latents, self.scale, self.fingerprint
        )

    def __eq__(self, other: object) -> bool:
        """Whether the values are equal. The fingerprint, which says where they come from, is not compared."""
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
        return (
            f"SparseCodes({len(self):,} items, k={self.k}, latents={self.latents}, scale={self.scale!r}, "
            f"fingerprint={self.fingerprint!r})"
        )

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Return the indices and values of the non-zeros of one code, without padding: two (<= k,) arrays."""
        kept = self.values[i] != 0
        return self.indices[i][kept], self.values[i][kept]

    def to_csr(self) -> sp.csr_matrix:
        """Return the (n, latents) sparse matrix of the codes. It shares the memory of the values. Do not modify it."""
        n, k = self.indices.shape
        indptr = np.arange(0, n * k + 1, k, dtype=np.int32 if n * k < 2**31 else np.int64)
        return sp.csr_matrix((self.values.ravel(), self.indices.ravel(), indptr), (n, self.latents), copy=False)

    @staticmethod
    def concatenate(parts: Sequence[SparseCodes]) -> SparseCodes:
        """Join codes of equal k, latents, scale and fingerprint.

        Raises:
            InvalidInputError: there are no parts, or their k, latents, scales or fingerprints differ.
        """
        kinds = {(part.k, part.latents, part.scale, part.fingerprint) for part in parts}
        if len(kinds) != 1:
            raise InvalidInputError(
                f"can't concatenate codes of {len(kinds)} kinds (k, latents, scale, fingerprint): {kinds}; give at "
                "least one part, all encoded by the same model at the same scale"
            )
        _, latents, scale, fingerprint = kinds.pop()
        return SparseCodes._trusted(
            np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts]),
            latents, scale, fingerprint,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the codes to a safetensors file."""
        meta = {"format": _FORMAT, **self._metadata()}
        with atomic_path(Path(path)) as temporary:
            save_file({"indices": self.indices, "values": self.values}, temporary, metadata=meta)

    def _metadata(self) -> dict[str, str]:
        """What a file or a table records of the codes as a whole; empty texts stand for None."""
        return {"latents": str(self.latents), "scale": self.scale or "", "fingerprint": self.fingerprint or ""}

    def to_arrow(self, ids: Sequence[int | str] | None = None) -> pa.Table:
        """The codes as an Arrow table, which polars, DuckDB, pandas and others read through `__arrow_c_stream__`.

        Args:
            ids: ids of the n items; None leaves the column out.

        Returns:
            Columns `id`, `indices` (fixed-size list of k uint16, or uint32 above 65,536 latents) and `values`
            (fixed-size list of k float32). The metadata of the schema hold the number of latents, the scale and the
            fingerprint.

        Raises:
            InvalidInputError: there are not n ids, or they are of mixed types.
        """
        import pyarrow as pa

        kind = np.dtype(np.uint16 if self.latents <= 1 << 16 else np.uint32)
        columns = {
            "indices": pa.FixedSizeListArray.from_arrays(self.indices.astype(kind).ravel(), self.k),
            "values": pa.FixedSizeListArray.from_arrays(self.values.ravel(), self.k),
        }
        if ids is not None:
            if len(ids) != len(self):
                raise InvalidInputError(f"there are {len(ids)} ids for {len(self)} codes; give one for each")
            try:
                columns = {"id": pa.array(ids), **columns}
            except pa.ArrowException as exc:
                raise InvalidInputError(f"the ids are not all integers or all strings: {exc}") from exc
        table = pa.table(columns)
        return table.replace_schema_metadata({**_ARROW_FORMAT, **self._metadata()})

    @classmethod
    def from_arrow(
        cls, data: Any, latents: int | None = None, scale: Scale | None = None, fingerprint: str | None = None
    ) -> SparseCodes:
        """The codes of a table as `to_arrow` makes it, after any filter, join or sort of its rows.

        Args:
            data: anything with `__arrow_c_stream__` and the columns `indices` and `values`.
            latents: number of latents, where the table has lost its metadata.
            scale: scale of the values, where the table has lost its metadata.
            fingerprint: fingerprint of the model, where the table has lost its metadata.

        Raises:
            InvalidInputError: a column is missing or holds no lists of equal length, or `latents` is unknown.
            InvalidCodeError: a code is invalid.
        """
        import pyarrow as pa

        table = pa.RecordBatchReader.from_stream(data).read_all()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if metadata.get("format") == _ARROW_FORMAT["format"]:
            latents = int(metadata["latents"]) if latents is None else latents
            known: Any = metadata["scale"] or None
            scale = known if scale is None else scale
            fingerprint = fingerprint or metadata.get("fingerprint") or None
        if latents is None:
            raise InvalidInputError("the table does not say how many latents its codes are over; pass latents=")
        try:
            indices, values = (np.array(table[name].to_pylist()) for name in ("indices", "values"))
        except (KeyError, ValueError) as exc:
            raise InvalidInputError(
                f"the table has no usable columns 'indices' and 'values', lists of k numbers ({exc}); it has "
                f"{', '.join(map(repr, table.column_names))}"
            ) from exc
        return cls(indices, values, latents, scale, fingerprint)

    @classmethod
    def load(cls, path: str | Path) -> SparseCodes:
        """Read codes written by `save`.

        Raises:
            ModelFileError: the file is missing or damaged, is not a code file, or has a newer format.
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
                return cls(
                    file.get_tensor("indices"), file.get_tensor("values"), int(meta["latents"]), scale,
                    meta.get("fingerprint") or None,  # files of version 0.1 have none
                )  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError) as exc:
            raise ModelFileError(f"{path} is not a readable code file ({exc}); encode the catalog again") from exc


def _raise_if_any(invalid: npt.NDArray[np.bool_], complaint: str) -> None:
    rows = np.flatnonzero(invalid.any(axis=1))
    if rows.size:
        raise InvalidCodeError(f"code in row {rows[0]} {complaint} ({rows.size} such rows); encode those items again")
