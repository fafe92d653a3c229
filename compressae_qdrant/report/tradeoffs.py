"""Recall against bytes and latency: rows of a benchmark, or measured codes with estimates of the baselines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..capacity import Constants, Node, PlannedStage, Workload, plan
from ..capacity.planner import GIB, SEGMENT_ITEMS
from ..capacity.sizes import BLOCK, PAGE, STORED_BYTES, TEXT_ITEM_BYTES, TEXT_WORD_BYTES
from ..evaluation.comparison import Row
from ..index.results import IndexInfo
from ..index.settings import NAVIGATION_DIM, NavigationSettings
from ..metrics import bootstrap
from ..model.compressae import CompresSAE
from ..search.costs import SCAN_BYTES, VISIT_ITEMS
from ..search.defaults import (
    BY_CODES,
    BY_CODES_COARSE,
    BY_ORIGINALS,
    BY_ORIGINALS_COARSE,
    FINE_DIM,
    NODES_PER_DOUBLING,
    RESCORED_HERE,
    SMALL_ITEMS,
)
from .measurement import Searches
from .sample import Sample

__all__ = ["benchmark_front", "calculator_data", "first_stage_of", "planned_front", "workload_of"]

_ELSEWHERE: Final = "elsewhere"
"""Marks families whose recall was measured on another catalog."""
_PAYLOADS: Final = 1000
"""Payloads that the mean payload size is estimated from."""


def benchmark_front(results: Sequence[Row]) -> dict[str, Any]:
    """The rows of a benchmark, and their families in order of appearance."""
    rows = [
        _row(row.name, row.family, row.resident, row.recall10, row.recall100, row.interval,
             None if row.timing is None else row.timing.p50_ms)
        for row in results
    ]  # fmt: skip
    return _front(rows, planned=False)


def planned_front(
    workload: Workload,
    constants: Constants,
    measured: Sequence[tuple[str, Workload, float | None, Searches]],
    first_stage: PlannedStage,
) -> dict[str, Any]:
    """Codes measured on this catalog, with the planner's estimates of the baselines.

    Args:
        workload: the catalog.
        constants: constants of the planner.
        measured: name, workload, bytes per item in memory (None if not measured) and searches of each configuration.
        first_stage: what of the index is in memory.
    """
    rows = []
    for name, codes, size, searches in measured:
        planned = plan(dataclasses.replace(codes, first_stage=first_stage), constants)[0]
        bytes_item = planned.index_bytes / codes.items if size is None else size
        recall = bootstrap(searches.deep_recall)
        p50 = float(np.median(searches.milliseconds))
        rows.append(
            _row(name, "ours", bytes_item, float(searches.recall.mean()), recall.mean, (recall.low, recall.high), p50)
        )
    for k in sorted({int(key.split(",")[0]) for key in constants.codes_recall100}):
        codes = dataclasses.replace(workload, latents=4096, k=k)
        rows += _known(plan(codes, constants)[:2], codes.items, f"ours, {_ELSEWHERE}")
    for each, costs in zip(plan(workload, constants)[2:], constants.dense, strict=True):
        maker = "dense" if costs.name.startswith("dense") else "Qdrant"
        originals = ", originals on disk" if costs.originals else ""
        rows += _known([each], workload.items, f"{maker}, {_ELSEWHERE}{originals}")
    return _front(rows, planned=True)


def workload_of(model: CompresSAE, info: IndexInfo, sample: Sample) -> Workload:
    """This catalog as a workload of the planner."""
    navigation = info.settings.navigation or NavigationSettings()
    sizes = [len(json.dumps(payload, default=str, ensure_ascii=False)) for payload in sample.payloads[:_PAYLOADS]]
    has_payloads = any(sample.payloads)
    return Workload(
        items=sample.catalog_items, dim=model.dim, k=model.k, latents=model.latents, datatype=info.settings.datatype,
        payload_bytes=round(float(np.mean(sizes))) if has_payloads else 0, keep_dense=info.settings.keep_dense,
        dense_datatype=info.settings.dense_datatype,
        navigation_dim=navigation.dim, navigation_bits=navigation.bits, navigation_m=navigation.m,
        navigation_datatype=navigation.datatype,
    )  # fmt: skip


def first_stage_of(info: IndexInfo) -> PlannedStage:
    """What of an index is in memory: navigation vectors and graph, or the inverted index."""
    return "graph" if info.settings.memory == "cold" and info.settings.navigation is not None else "codes"


def calculator_data(workload: Workload, constants: Constants) -> dict[str, Any]:
    """Constants of the calculator on the page, and its initial settings."""
    machine = constants.machine
    engine = {
        "block": BLOCK, "gib": GIB, "page": PAGE, "scan_bytes": SCAN_BYTES, "segment_items": SEGMENT_ITEMS,
        "visit_items": VISIT_ITEMS, "rescored_here": RESCORED_HERE, "fine_dim": FINE_DIM,
        "nodes_per_doubling": NODES_PER_DOUBLING, "small_items": SMALL_ITEMS,
        "graph_codes": {"fine": BY_CODES._asdict(), "coarse": BY_CODES_COARSE._asdict()},
        "graph_originals": {"fine": BY_ORIGINALS._asdict(), "coarse": BY_ORIGINALS_COARSE._asdict()},
        "stored_bytes": dict(STORED_BYTES),
        "text_item_bytes": TEXT_ITEM_BYTES,
        "text_word_bytes": TEXT_WORD_BYTES,
        "navigation_dim": NAVIGATION_DIM, "navigation_bits": NavigationSettings.bits,
        "navigation_m": NavigationSettings.m, "navigation_datatype": NavigationSettings.datatype,
    }  # fmt: skip
    source = (f"Constants measured {machine['date']} on {machine['cpu']}, qdrant-edge-py {machine['qdrant-edge-py']}. "
            f"{machine.get('note', '')}")  # fmt: skip
    return {
        "constants": constants.to_json() | {"engine": engine},
        "workload": dataclasses.asdict(workload),
        "node": dataclasses.asdict(Node()),
        "machine": source.strip(),
    }


def _known(estimates: Sequence[Any], items: int, family: str) -> list[dict[str, Any]]:
    """Rows of the estimates whose recall was measured on the benchmark's catalog."""
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


def _front(rows: list[dict[str, Any]], *, planned: bool) -> dict[str, Any]:
    return {"rows": rows, "families": list(dict.fromkeys(row["family"] for row in rows)), "planned": planned}
