"""Recall against bytes and time: the rows of a benchmark, or what was measured here beside what a plan says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..capacity import Constants, Node, Workload, plan
from ..capacity.planner import BLOCK, GIB, SEGMENT_ITEMS, VISIT_ITEMS
from ..evaluation.comparison import Row
from ..index.results import IndexInfo
from ..metrics import bootstrap
from ..model.compressae import CompresSAE
from .measurement import Searches
from .sample import Sample

__all__ = ["benchmark_front", "calculator_data", "planned_front", "workload_of"]

_ELSEWHERE: Final = "elsewhere"
"""Families whose recall is of another catalog."""
_PAYLOADS: Final = 1000
"""Payloads whose mean size is taken for that of all."""


def benchmark_front(results: Sequence[Row]) -> dict[str, Any]:
    """Rows of a benchmark, with their families in order of appearance."""
    rows = [
        _row(row.name, row.family, row.resident, row.recall10, row.recall100, row.interval,
             None if row.timing is None else row.timing.p50_ms)
        for row in results
    ]  # fmt: skip
    return _front(rows, here=False)


def planned_front(
    workload: Workload, constants: Constants, measured: Sequence[tuple[str, Workload, float | None, Searches]]
) -> dict[str, Any]:
    """What was measured on this catalog, beside what the planner knows of other ways.

    Args:
        workload: the catalog.
        constants: of the planner.
        measured: name, its workload, bytes an item in memory if they were measured, and searches.
    """
    rows = []
    for name, asked, size, searches in measured:
        bytes_item = plan(asked, constants)[0].index_bytes / asked.items if size is None else size
        deep = bootstrap(searches.deep_recall)
        p50 = float(np.median(searches.milliseconds))
        rows.append(
            _row(name, "ours", bytes_item, float(searches.recall.mean()), deep.mean, (deep.low, deep.high), p50)
        )
    for k in sorted({int(key.split(",")[0]) for key in constants.codes_recall100}):
        asked = dataclasses.replace(workload, latents=4096, k=k)
        rows += _known(plan(asked, constants)[:1], asked.items, f"ours, {_ELSEWHERE}")
    for each, costs in zip(plan(workload, constants)[1:], constants.dense, strict=True):
        maker = "dense" if costs.name.startswith("dense") else "Qdrant"
        kept = ", originals on disk" if costs.originals else ""
        rows += _known([each], workload.items, f"{maker}, {_ELSEWHERE}{kept}")
    return _front(rows, here=True)


def workload_of(model: CompresSAE, info: IndexInfo, sample: Sample) -> Workload:
    """This catalog, as the planner takes it."""
    sizes = [len(json.dumps(payload, default=str, ensure_ascii=False)) for payload in sample.payloads[:_PAYLOADS]]
    held = any(sample.payloads)
    return Workload(
        items=sample.catalog_items, dim=model.dim, k=model.k, latents=model.latents, datatype=info.settings.datatype,
        payload_bytes=round(float(np.mean(sizes))) if held else 0, keep_dense=info.settings.keep_dense,
    )  # fmt: skip


def calculator_data(workload: Workload, constants: Constants) -> dict[str, Any]:
    """What the page's calculator multiplies: constants, and the settings that it starts from."""
    machine = constants.machine
    engine = {"block": BLOCK, "gib": GIB, "segment_items": SEGMENT_ITEMS, "visit_items": VISIT_ITEMS}
    said = (f"Constants measured {machine['date']} on {machine['cpu']}, qdrant-edge-py {machine['qdrant-edge-py']}. "
            f"{machine.get('note', '')}")  # fmt: skip
    return {
        "constants": constants.to_json() | {"engine": engine},
        "workload": dataclasses.asdict(workload),
        "node": dataclasses.asdict(Node()),
        "machine": said.strip(),
    }


def _known(estimates: Sequence[Any], items: int, family: str) -> list[dict[str, Any]]:
    """Estimates whose recall was measured on the benchmark's catalog."""
    return [
        _row(each.name, family, each.index_bytes / items, None, each.recall100, None, None)
        for each in estimates
        if each.recall100 is not None
    ]


def _row(
    name: str, family: str, resident: float, recall10: float | None, recall100: float,
    bounds: tuple[float, float] | None, p50_ms: float | None,
) -> dict[str, Any]:  # fmt: skip
    low, high = bounds or (None, None)
    return {"name": name, "family": family, "resident": resident, "recall10": recall10, "recall100": recall100,
            "low": low, "high": high, "p50_ms": p50_ms}  # fmt: skip


def _front(rows: list[dict[str, Any]], *, here: bool) -> dict[str, Any]:
    return {"rows": rows, "families": list(dict.fromkeys(row["family"] for row in rows)), "planned": here}
