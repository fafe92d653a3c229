"""Points of every engine: batches of items that are checked, and what is stored of an item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..checks import check_sequence, shown
from ..codes import FloatArray, Scale, SparseCodes
from ..errors import ConfigError, InvalidCodeError, InvalidInputError, ModelMismatchError
from ..vectors import as_array
from .ids import ItemIds, PointId, point_id, stored_payload
from .manifest import Manifest
from .protocol import CodeModel
from .results import ItemId, Payload

if TYPE_CHECKING:
    pass

__all__ = [
    "MAX_PAYLOAD_DEPTH", "CheckedBatch", "CodePoint", "check_batch", "point_ids", "points_of", "rows_of", "to_points",
]  # fmt: skip

MAX_PAYLOAD_DEPTH: Final = 30
"""Nested lists and objects in a payload's field. gRPC carries 32 at most, and a server parses 128 in a JSON request."""


class CheckedBatch(NamedTuple):
    """A batch of items that has been checked and can be written."""

    ids: list[PointId]
    codes: SparseCodes
    payloads: list[dict[str, Any]]
    dense: FloatArray | None
    """(n, d) embeddings of unit norm, if the index keeps them."""
    navigation: FloatArray | None = None
    """(n, dim) navigation vectors, if the index has a graph."""

    def take(self, rows: Sequence[int]) -> CheckedBatch:
        """The items in these rows of the batch."""
        rows = list(rows)
        return CheckedBatch(
            [self.ids[row] for row in rows], self.codes[rows], [self.payloads[row] for row in rows],
            None if self.dense is None else self.dense[rows],
            None if self.navigation is None else self.navigation[rows],
        )  # fmt: skip


class CodePoint(NamedTuple):
    """One item in the form that every engine stores."""

    id: PointId
    indices: list[int]
    """Latents with a non-zero value, ascending."""
    values: list[float]
    payload: dict[str, Any]
    dense: list[float] | None
    """Embedding of the item, if the index keeps it."""
    navigation: list[float] | None
    """Navigation vector of the item, if the index has a graph."""


def check_batch(
    ids: Sequence[ItemId],
    codes: SparseCodes,
    payloads: Sequence[Payload | None] | None,
    dense: npt.NDArray[np.floating] | None,
    manifest: Manifest,
    hashes: Sequence[str] | None = None,
    model: CodeModel | None = None,
) -> CheckedBatch:
    """Check a batch of items, and return it in the form to store.

    Args:
        ids: n different item ids.
        codes: (n, k) codes of the index's model.
        payloads: n JSON-like mappings, or None for no payloads.
        dense: (n, d) embeddings if the index keeps them, else None.
        manifest: manifest of the index.
        hashes: n content hashes to store, or None.
        model: the index's model, which computes navigation vectors; needed by an index that has a graph.

    Raises:
        InvalidInputError: lengths differ, an id is invalid or repeated, a payload is not JSON, or embeddings are
            missing, not kept by the index, of another shape, zero or not finite.
        ModelMismatchError: the codes carry the fingerprint of another model. Codes without one are not checked.
        InvalidCodeError: codes have another number of latents or another scale, or a code is empty or not finite.
    """
    if not isinstance(codes, SparseCodes):
        raise InvalidInputError(f"codes are {shown(codes)}; pass SparseCodes, which a model's encode returns")
    check_sequence("ids", ids)
    for name, values in (("payloads", payloads), ("hashes", hashes)):
        if values is not None:
            check_sequence(name, values)
    if len(ids) != len(codes) or (payloads is not None and len(payloads) != len(codes)):
        counts = f"{len(ids)} ids, {len(codes)} codes" + (f", {len(payloads)} payloads" if payloads is not None else "")
        raise InvalidInputError(f"a batch needs as many ids and payloads as codes, but it has {counts}")
    if hashes is not None and len(hashes) != len(ids):
        raise InvalidInputError(f"there are {len(hashes)} content hashes for {len(ids)} items; give one for each")
    if hashes is not None and not all(isinstance(content, str) for content in hashes):
        raise InvalidInputError(f"the hashes are {shown(list(hashes))}; they must be texts")
    _check_codes(codes, manifest.latents, manifest.settings.scale)
    if codes.fingerprint is not None and codes.fingerprint != manifest.fingerprint:
        raise ModelMismatchError(
            f"the codes were made by model {codes.fingerprint!r} but the index holds codes of model "
            f"{manifest.fingerprint!r}; encode with the index's own model, or create a new index for this one"
        )
    kept = _checked_dense(dense, len(ids), manifest)
    points = point_ids(ids, old=manifest.old_ids)
    stored = [_payload(item, point, None if payloads is None else payloads[i], i, None if hashes is None else hashes[i])
              for i, (item, point) in enumerate(zip(ids, points, strict=True))]  # fmt: skip
    return CheckedBatch(points, codes, stored, kept, _navigation(codes, manifest, model))


def to_points(batch: CheckedBatch) -> list[CodePoint]:
    """The items of a batch, as Python numbers."""
    rows, values = rows_of(batch.codes, batch.codes.values)
    none = [None] * len(rows)
    dense: Sequence[list[float] | None] = none if batch.dense is None else batch.dense.tolist()
    navigation: Sequence[list[float] | None] = none if batch.navigation is None else batch.navigation.tolist()
    items = zip(batch.ids, rows, values, batch.payloads, dense, navigation, strict=True)
    return [CodePoint(*item) for item in items]


def rows_of(codes: SparseCodes, values: npt.NDArray[np.floating]) -> tuple[list[list[int]], list[list[float]]]:
    """Indices and (n, k) `values` of each item as lists, without the zeros that pad a code."""
    # Converting all rows at once and padded rows again takes half the time of converting row by row.
    indices, numbers = codes.indices.tolist(), values.tolist()
    for row in np.flatnonzero((codes.values == 0).any(axis=1)).tolist():
        kept = codes.values[row] != 0
        indices[row], numbers[row] = codes.indices[row][kept].tolist(), values[row][kept].tolist()
    return indices, numbers


def points_of(ids: Sequence[ItemId], *, old: bool = False) -> list[PointId]:
    """The point id of each of some item ids, which may be repeated; `old` as in `ids.point_id`.

    Raises:
        InvalidInputError: an id is unusable, or `ids` is a single string, whose characters would be taken for ids.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) == 0:
        raise InvalidInputError(f"ids are one {type(ids).__name__}, {shown(ids)}; pass a sequence of ids, [id]")
    if isinstance(ids, ItemIds) and not old:
        return list(ids.points)
    return [point_id(item, old=old) for item in ids]


def point_ids(ids: Sequence[ItemId], *, old: bool = False) -> list[PointId]:
    """Point ids of a batch of different items; `old` as in `ids.point_id`.

    Raises:
        InvalidInputError: an id is unusable, or there twice; the message names it. Or `ids` is a single string.
    """
    points = points_of(ids, old=old)
    if len(set(points)) != len(points):
        seen: dict[PointId, int] = {}
        for row, point in enumerate(points):
            if point in seen:
                other = "" if ids[row] == ids[seen[point]] else f", there as {ids[seen[point]]!r}"
                raise InvalidInputError(
                    f"item id {ids[row]!r} is in the batch twice, in rows {seen[point]} and {row}{other}; "
                    "an item can be written once in a batch"
                )
            seen[point] = row
    return points


def _check_codes(codes: SparseCodes, latents: int, scale: Scale) -> None:
    if codes.latents != latents:
        raise InvalidCodeError(
            f"codes are over {codes.latents} latents but the index holds codes over {latents}; "
            "encode with the model that the index was built by"
        )
    if codes.scale is not None and codes.scale != scale:
        raise InvalidCodeError(
            f"codes have scale {codes.scale!r} but the index holds {scale!r}; encode with scale={scale!r}"
        )
    # The constructor of SparseCodes checks this too, but its trusted path does not, and the engine accepts NaN.
    for bad, complaint in (
        (~np.isfinite(codes.values).all(axis=1), "holds NaN or an infinite value"),
        ((codes.values == 0).all(axis=1), "has no non-zero value"),
        (((codes.indices < 0) | (codes.indices >= latents)).any(axis=1), f"names a latent outside 0..{latents - 1}"),
        ((np.diff(codes.indices, axis=1) <= 0).any(axis=1), "has latents that are repeated or not ascending"),
    ):
        rows = np.flatnonzero(bad)
        if rows.size:
            raise InvalidCodeError(
                f"code in row {rows[0]} {complaint} ({rows.size} such rows); encode those items again"
            )


def _checked_dense(dense: npt.NDArray[np.floating] | None, items: int, manifest: Manifest) -> FloatArray | None:
    if not manifest.settings.keep_dense:
        if dense is not None:
            raise InvalidInputError(
                "the index keeps no embeddings; leave `dense` out, or create it with keep_dense=True"
            )
        return None
    dense = None if dense is None else as_array(dense, "the embeddings")
    if dense is None or dense.shape != (items, manifest.dim) or dense.dtype.kind not in "fiu":
        kind = "" if dense is None or dense.dtype.kind in "fiu" else f" and dtype {dense.dtype}"
        got = None if dense is None else f"shape {dense.shape}{kind}"
        raise InvalidInputError(
            f"the index keeps embeddings (keep_dense) but `dense` is {got}; pass them as ({items}, {manifest.dim})"
        )
    norms = np.linalg.norm(dense.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        raise InvalidInputError(
            f"embedding in row {bad[0]} is zero, NaN or infinite ({bad.size} such rows); embed those items again"
        )
    return np.asarray(dense / norms, np.float32)


def _navigation(codes: SparseCodes, manifest: Manifest, model: CodeModel | None) -> FloatArray | None:
    dim = manifest.navigation_dim
    if dim is None or not len(codes):
        return None
    if model is None:
        raise ConfigError(
            "the index has navigation vectors, which its model computes from the codes; open the index with its model "
            "to write to it"
        )
    if model.projection_fingerprint != manifest.projection:
        raise ModelMismatchError(
            f"the index has navigation vectors of projection {manifest.projection!r} but the model has "
            f"{model.projection_fingerprint!r}; load the model with which the index was created, or build a new index"
        )
    # The engine stores half precision or less.
    return model.navigation_vectors(codes, dim).astype(np.float16).astype(np.float32)


def _payload(item: ItemId, point: PointId, payload: Payload | None, row: int, content: str | None) -> dict[str, Any]:
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidInputError(
            f"payload of item {item!r} (row {row}) is a {type(payload).__name__}; payloads are mappings or None"
        )
    stored = stored_payload(item, point, payload, content)
    _check_json(stored, f"payload of item {item!r} (row {row})")
    return stored


def _check_json(value: object, where: str, depth: int = 0) -> None:
    """Refuse values that JSON cannot represent: engines drop or change them, or fail after part of a batch."""
    if depth > MAX_PAYLOAD_DEPTH and isinstance(value, (dict, list, tuple)):
        raise InvalidInputError(f"{where} is nested deeper than {MAX_PAYLOAD_DEPTH} levels; flatten it or leave it out")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, where)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidInputError(f"{where} holds {value}, which does not fit into 64 bits; store it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"{where} holds {value}, which JSON cannot represent; store None instead")
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InvalidInputError(f"{where} has a field named {name!r}; names are strings")
            _check_unicode(name, where)
            _check_json(inner, where if depth else f"{where}, field {name!r},", depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_json(inner, where, depth + 1)
    else:
        raise InvalidInputError(
            f"{where} holds a {type(value).__name__}, {value!r}; payloads are JSON: None, bool, int, float, str, "
            "list and dict (dates as ISO 8601 strings)"
        )


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"{where} holds text that is not valid Unicode ({exc}); clean it") from exc
