"""Recalls beside a plan, from the rows that bench_retrieval.py wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from compressae_qdrant.evaluation.comparison import Row

__all__ = ["recalls"]


def recalls(known: dict[str, Any], dim: int, rows: Sequence[Row]) -> dict[str, Any]:
    """What is known, with recall@100 of a benchmark at `dim` dimensions in place of what was there for them.

    Codes are those in two stages at the default plan, by "k,dimensions"; baselines go by the names that they have in
    `bench_capacity.py`. Digits beyond the fourth say nothing.
    """
    codes = {key: value for key, value in known["codes"].items() if key.split(",")[1] != str(dim)}
    dense = {name: {of: value for of, value in by.items() if of != str(dim)} for name, by in known["dense"].items()}
    for row in rows:
        recall = round(row.recall100, 4)
        if found := re.fullmatch(r"codes k=(\d+), two stages", row.name):
            codes[f"{found[1]},{dim}"] = recall
        elif not row.family.startswith("ours"):
            dense.setdefault(row.name.removesuffix(", no originals"), {})[str(dim)] = recall
    return {"codes": dict(sorted(codes.items())), "dense": {name: by for name, by in dense.items() if by}}
