"""The recalls that `compressae plan` shows, taken from the rows of bench_retrieval.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from compressae_qdrant.evaluation.comparison import Row

__all__ = ["recalls"]


def recalls(known: dict[str, Any], dim: int, rows: Sequence[Row]) -> dict[str, Any]:
    """Replace the recall@100 values for `dim` dimensions by those of a benchmark; returns the updated table.

    Codes are keyed by "k,dimensions" and measured in two stages with the default plan; baselines are keyed by the
    names of `bench_capacity.py`. Values are rounded to four digits.
    """
    codes = {key: value for key, value in known["codes"].items() if key.split(",")[1] != str(dim)}
    graph = {key: value for key, value in known.get("graph", {}).items() if key.split(",")[1] != str(dim)}
    dense = {name: {of: value for of, value in by.items() if of != str(dim)} for name, by in known["dense"].items()}
    for row in rows:
        recall = round(row.recall100, 4)
        if found := re.fullmatch(r"codes k=(\d+), two stages", row.name):
            codes[f"{found[1]},{dim}"] = recall
        elif found := re.fullmatch(r"codes k=(\d+), graph", row.name):
            graph[f"{found[1]},{dim}"] = recall
        elif not row.family.startswith("ours"):
            dense.setdefault(row.name.removesuffix(", no originals"), {})[str(dim)] = recall
    return {
        "codes": dict(sorted(codes.items())),
        "graph": dict(sorted(graph.items())),
        "dense": {name: by for name, by in dense.items() if by},
    }
