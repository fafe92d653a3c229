"""Fit the capacity constants to measurements: non-negative least squares of relative errors over several sizes.

`scripts/bench_capacity.py` writes the measurements; its functions document their fields.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..index.settings import Datatype
from ..search.costs import VISIT_ITEMS, CodeTimes, GraphTimes, is_scanned, rescoring_ms
from .constants import CodeBytes, Constants, DenseCosts, DiskReads, GraphBytes
from .sizes import loose_postings

__all__ = ["fit_constants"]

Row = dict[str, Any]
Vector = npt.NDArray[np.float64]

_CELL: Final = 128
"""Bytes of an allocation cell of the engine for stored codes and payloads."""
_POINTER: Final = 16
"""Bytes per item of the engine's table of where codes are stored."""
_HALF: Final = 2
"""Bytes per dimension of the navigation vectors on disk, float16."""
_EXPONENTS: Final = np.arange(0.2, 1.01, 0.02)
"""Values of `GraphBytes.link_exponent` to try."""
_SHARPNESS: Final = np.arange(1, 8.01, 0.25)
"""Values of `CodeBytes.loose_sharpness` to try."""


def fit_constants(measured: Row) -> Constants:
    """Fit all constants to the measurements of a file."""
    size, times = _bytes(measured), _times(measured)
    machine = measured["machine"]
    if "note" in measured["graph_machine"]:
        machine = machine | {"note": f"Searches by the graph: {measured['graph_machine']['note']}"}
    real = [row for row in measured["graph_builds"] if not row["synthetic"]]
    return Constants(
        bytes=size,
        times=times,
        graph_bytes=_graph_bytes(real, size),
        graph_times=_graph_times(measured["graph_searches"], times),
        disk=_disk(measured["graph_cold"]),
        dense=tuple(_dense(measured)),
        codes_recall100=measured["recall"]["codes"],
        graph_recall100=measured["recall"].get("graph", {}),
        machine=machine,
    )


def _fit(columns: Sequence[Iterable[float]], targets: Iterable[float], known: Iterable[float] | None = None) -> Vector:
    """Non-negative weights of columns such that the weighted sum plus the known part fits the targets.

    Minimises the sum of squared relative errors.
    """
    target = np.array(list(targets), float)
    rest = target if known is None else target - np.array(list(known), float)
    matrix = np.array([list(column) for column in columns], float).T / target[:, None]
    size = np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(float).tiny)
    weights, _ = nnls(matrix / size, rest / target, maxiter=10_000)
    return np.asarray(weights / size, float)


def _bytes(measured: Row) -> CodeBytes:
    plain = [row for row in measured["builds"] if not row["run"]["payload_bytes"]]
    sharpness, weights, kinds = _index(plain)
    code, nonzero, bit = _stored_code(measured["stored_codes"])
    rest = [
        (row["disk_bytes"] - row["index_bytes"]) / row["run"]["items"] - _stored(row["run"], code, nonzero, bit)
        for row in plain
    ]
    ones, items = [1.0] * len(plain), [row["run"]["items"] for row in plain]
    opened = _fit([ones, items], [row["opened_bytes"] - row["index_bytes"] for row in plain])
    payload_item, payload = _payload(measured["builds"])
    return CodeBytes(
        list=float(weights[0]),
        loose=float(weights[1]),
        packed={kind: float(weight) for kind, weight in zip(kinds, weights[2:], strict=True)},
        loose_sharpness=sharpness,
        item=float(opened[1]),
        disk_item=float(np.median(rest)),
        code=code,
        code_nonzero=nonzero,
        code_nonzero_bit=bit,
        cell=_CELL,
        payload=payload,
        payload_item=payload_item,
        dense_dimension=measured["dense_dimension"],
    )


def _index(builds: Sequence[Row]) -> tuple[float, Vector, list[Datatype]]:
    """Sharpness, weights of lists, loose postings and packed postings of each datatype, and the datatypes."""
    kinds = sorted({row["run"]["datatype"] for row in builds})
    sizes = [row["index_bytes"] for row in builds]
    fits = []
    for sharpness in _SHARPNESS:
        rows, known = [], []
        for run in (row["run"] for row in builds):
            lists = run["segments"] * run["latents"]
            length = run["items"] * run["k"] / lists
            loose = lists * loose_postings(length, sharpness)
            packed = lists * length - loose
            rows.append([lists, loose, *(packed * (kind == run["datatype"]) for kind in kinds)])
            known.append(packed * math.log2(run["latents"] / run["k"]) / 8)
        weights = _fit(list(zip(*rows, strict=True)), sizes, known)
        error = float(np.square((np.array(rows) @ weights + known) / sizes - 1).sum())
        fits.append((error, float(sharpness), weights))
    _, sharpness, weights = min(fits, key=lambda fit: fit[0])
    return sharpness, weights, kinds


def _stored_code(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Bytes per code, per non-zero, and per non-zero and bit of h that best explain the cells of stored codes."""
    grids = np.meshgrid(np.arange(0, 33), np.arange(3, 6.01, 0.05), np.arange(0, 0.41, 0.02), indexing="ij")
    code, nonzero, bit = (grid.ravel() for grid in grids)
    error = np.zeros(len(code))
    for row in rows:
        size = code + (nonzero + bit * math.log2(row["latents"])) * row["k"]
        error += np.square(np.ceil(size / _CELL) - row["cells"])
    best = np.flatnonzero(error <= error.min() * (1 + 1e-9))
    middle = best[len(best) // 2]  # many combinations fit equally well
    return float(code[middle]), float(nonzero[middle]), float(bit[middle])


def _stored(run: Row, code: float, nonzero: float, bit: float) -> int:
    """Bytes of a stored code, in whole cells."""
    size: float = code + (nonzero + bit * math.log2(run["latents"])) * run["k"]
    return _CELL * math.ceil(size / _CELL)


def _payload(builds: Sequence[Row]) -> tuple[float, float]:
    """Bytes on disk per item with a payload, and per byte of payload."""
    rows = [row for row in builds if row["run"]["payload_bytes"]]
    runs = [row["run"] for row in rows]
    without = {
        tuple(sorted((row["run"] | {"timed": False}).items())): row["disk_bytes"]
        for row in builds
        if not row["run"]["payload_bytes"]
    }
    extra = [
        (row["disk_bytes"] - without[tuple(sorted((row["run"] | {"payload_bytes": 0, "timed": False}).items()))])
        / row["run"]["items"]
        for row in rows
    ]
    item, byte = _fit([[1.0] * len(rows), [run["payload_bytes"] for run in runs]], extra)
    return float(item), float(byte)


def _times(measured: Row) -> CodeTimes:
    rows = measured["searches"]
    columns: list[list[float]] = []
    for row in rows:
        run = row["run"]
        columns.append([
            1.0, run["latents"], run["items"], row["postings"], row["first_stage_latents"] * run["items"] / VISIT_ITEMS,
            row["prefetch"], row["prefetch"] * run["latents"], run["segments"] - 1.0,
        ])  # fmt: skip
    cost = _fit(list(zip(*columns, strict=True)), [row["cpu_ms"] for row in rows])
    plannings = measured["planning"]
    planning = _fit(
        [
            [1.0] * len(plannings),
            [row["latents"] for row in plannings],
            [row["latents"] * row["dim"] for row in plannings],
        ],
        [row["cpu_ms"] for row in plannings],
    )
    part = [row for row in rows if row["first_stage_latents"] < row["run"]["latents"]]
    of_latents = np.log([row["first_stage_latents"] / row["run"]["latents"] for row in part])
    of_postings = np.log([row["postings"] / (row["run"]["items"] * row["run"]["k"]) for row in part])
    ratio = float(np.median([row["p95_over_p50"] for row in rows]))
    fixed, latent, item, posting, visit, candidate, candidate_latent, segment = map(float, cost)
    return CodeTimes(
        fixed=fixed,
        latent=latent,
        item=item,
        posting=posting,
        visit=visit,
        candidate=candidate,
        candidate_latent=candidate_latent,
        segment=segment,
        planning=float(planning[0]),
        planning_latent=float(planning[1]),
        planning_product=float(planning[2]),
        share_exponent=float(of_latents @ of_postings / (of_latents @ of_latents)),
        spread=math.log(ratio) / math.log(19),
    )


def _graph_bytes(builds: Sequence[Row], size: CodeBytes) -> GraphBytes:
    """Fitted to real catalogs: jittered items are closer to each other, so that a graph keeps fewer links."""
    runs = [row["run"] for row in builds]
    quantised = [run["navigation_dim"] * run["bits"] / 8 for run in runs]
    vectors = [row["vector_bytes"] / run["items"] for row, run in zip(builds, runs, strict=True)]
    links = [row["link_bytes"] / run["items"] for row, run in zip(builds, runs, strict=True)]
    fits = []
    for exponent in _EXPONENTS:
        units = [run["m"] ** exponent * math.log2(run["items"]) for run in runs]
        weights = _fit([[1.0] * len(runs), units], links)
        off = (weights[0] + weights[1] * np.array(units)) / links - 1
        fits.append((float(np.square(off).sum()), float(exponent), weights))
    _, exponent, weights = min(fits, key=lambda fit: fit[0])
    rest = [
        (row["disk_bytes"] - row["index_bytes"]) / run["items"]
        - (vector + link + _HALF * run["navigation_dim"] + size.disk_item)
        - _stored(run, size.code, size.code_nonzero, size.code_nonzero_bit)
        - (size.dense_dimension * run["dim"] if run["keep_dense"] else 0)
        for row, run, vector, link in zip(builds, runs, vectors, links, strict=True)
    ]
    return GraphBytes(
        vector=float(np.median(np.array(vectors) - quantised)),
        item=float(weights[0]),
        link=float(weights[1]),
        link_exponent=exponent,
        disk_dimension=_HALF,
        disk_item=max(float(np.median(rest)), 0.0),
    )


def _graph_times(searches: Sequence[Row], times: CodeTimes) -> GraphTimes:
    """Fitted to all searches at once.

    One segment is searched in one thread, so the time of a search is that of a core. The processor time of the whole
    process also holds threads of the linear algebra that wait in a busy loop.
    """
    columns = [_graph_columns(row, times) for row in searches]
    cost = _fit(list(zip(*columns, strict=True)), [row["p50_ms"] for row in searches])
    step, scan, comparison, fixed, rescoring, fixed_fetched, fetched, fixed_embedding, embedding = map(float, cost)
    return GraphTimes(
        fixed=fixed, step=step, scan=scan, rescoring=rescoring, fixed_fetched=fixed_fetched, fetched=fetched,
        fixed_embedding=fixed_embedding, embedding=embedding, comparison=comparison,
        smallest=min(row["run"]["items"] for row in searches),
    )  # fmt: skip


def _graph_columns(row: Row, times: CodeTimes) -> list[float]:
    """What a search looks at: in the graph, then in the stage that ranks its candidates, of three."""
    run, candidates = row["run"], float(row["prefetch"])
    items = float(run["items"])
    scanned = is_scanned(items, run["navigation_dim"])
    walk = [0.0, items] if scanned else [row["ef"] * math.log(items), 0.0]
    by_engine = [1.0, candidates * rescoring_ms(times, run["latents"])]
    ranked = [by_engine, [1.0, candidates], [1.0, candidates]]
    stage = 2 if run["keep_dense"] else 1 if row["fetched"] else 0
    unused = [0.0, 0.0]
    return [*walk, float(row["compared"]), *itertools.chain(*(
        pair if number == stage else unused for number, pair in enumerate(ranked)
    ))]  # fmt: skip


def _disk(rows: Sequence[Row]) -> DiskReads:
    each = [(row["cold_ms"] - row["warm_ms"]) / row["pages"] for row in rows if row["pages"] >= 1]
    return DiskReads(_POINTER, max(float(np.median(each)), 0.0))


def _dense(measured: Row) -> list[DenseCosts]:
    """Costs of the methods for dense vectors, least memory first."""
    costs = []
    for method in dict.fromkeys(row["run"]["method"] for row in measured["dense_builds"]):
        builds = [row for row in measured["dense_builds"] if row["run"]["method"] == method]
        ones, dims = [1.0] * len(builds), [row["run"]["dim"] for row in builds]
        index, disk = (
            _fit([ones, dims], [row[field] / row["run"]["items"] for row in builds])
            for field in ("index_bytes", "disk_bytes")
        )
        searches = [row for row in measured["dense_searches"] if row["run"]["method"] == method]
        for rescored in sorted({row["rescored"] for row in searches}):
            rows = [row for row in searches if row["rescored"] == rescored]
            depth = [math.log(row["run"]["items"]) for row in rows]
            wide = [each * row["run"]["dim"] for each, row in zip(depth, rows, strict=True)]
            fixed, log_item, log_item_dimension = map(
                float, _fit([[1.0] * len(rows), depth, wide], [row["cpu_ms"] for row in rows])
            )
            name = f"{method} + originals" if rescored else method
            costs.append(
                DenseCosts(
                    name=name,
                    resident_dimension=float(index[1]),
                    resident_item=float(index[0]),
                    disk_dimension=float(disk[1]),
                    disk_item=float(disk[0]),
                    fixed=fixed,
                    log_item=log_item,
                    log_item_dimension=log_item_dimension,
                    originals=measured["oversampling"] if rescored else 0,
                    recall100=measured["recall"]["dense"].get(name, {}),
                )
            )
    return sorted(costs, key=lambda each: (each.resident_dimension, each.originals))
