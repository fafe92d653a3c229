"""The data, the recalls and the report of the capacity benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant.capacity import Constants, load_constants
from compressae_qdrant.codes import FloatArray, SparseCodes
from compressae_qdrant.evaluation.comparison import Row

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("capacity_data", "capacity_recall", "capacity_report"):
        sys.modules.pop(name, None)


def test_jittered_codes_use_latents_as_the_catalog_does(
    codes: SparseCodes, embeddings: FloatArray, tmp_path: Path
) -> None:
    from capacity_data import jitter, nearest

    near = nearest(embeddings, tmp_path / "near.npy")
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -1)
    assert {*near[7].tolist()} == {*np.argsort(-scores[7])[:8].tolist()}
    grown = jitter(codes, near, 12_000)
    assert len(grown) == 12_000
    np.testing.assert_array_equal(grown[:600].indices, codes.indices)
    assert (np.diff(grown.indices, axis=1) > 0).all()
    assert len(np.unique(grown.indices, axis=0)) > 5 * len(np.unique(codes.indices, axis=0))
    use, before = (np.bincount(c.indices.ravel(), minlength=96) / len(c) for c in (grown, codes))
    assert np.corrcoef(use, before)[0, 1] > 0.95
    assert np.square(use).sum() == pytest.approx(np.square(before).sum(), rel=0.05)
    np.testing.assert_array_equal(jitter(codes, near, 100).indices, codes.indices[:100])
    np.testing.assert_array_equal(jitter(codes, near, 700).values, jitter(codes, near, 700).values)


def test_recalls_come_from_the_rows_of_a_benchmark() -> None:
    from capacity_recall import recalls

    def row(name: str, family: str, recall: float) -> Row:
        return Row(name, family, 100.0, None, 0.9, recall, (0.1, 0.9), {})

    rows = [
        row("codes k=32, two stages", "ours, two stages", 0.912345),
        row("codes k=32, graph", "ours, graph", 0.91),
        row("codes k=32, exhaustive", "ours, exhaustive", 0.93),
        row("scalar int8 + originals", "Qdrant, originals on disk", 0.99),
        row("turbo4 stored, no originals", "Qdrant, no originals", 0.95),
    ]
    known = {"codes": {"16,384": 0.8, "32,768": 0.7}, "dense": {"scalar int8": {"384": 0.5, "768": 0.6}}}
    assert recalls(known, 384, rows) == {
        "codes": {"32,384": 0.9123, "32,768": 0.7},
        "graph": {"32,384": 0.91},
        "dense": {
            "scalar int8": {"768": 0.6},
            "scalar int8 + originals": {"384": 0.99},
            "turbo4 stored": {"384": 0.95},
        },
    }


def _graph_build(constants: Constants, factor: float) -> dict[str, Any]:
    """Return the measurements of a graph that takes the memory of the formula divided by a factor."""
    from compressae_qdrant.capacity import Workload, plan

    run = {"items": 20_000, "latents": 4096, "k": 32, "dim": 384, "navigation_dim": 128, "bits": 2, "m": 8,
           "keep_dense": False}  # fmt: skip
    planned = plan(Workload(20_000, 384, navigation_dim=128, navigation_bits=2), constants)[0]
    memory = planned.index_bytes / factor
    return {"run": run, "synthetic": False, "vector_bytes": memory / 2, "link_bytes": memory / 2,
            "disk_bytes": planned.disk_bytes, "optimise_seconds": 1.0}  # fmt: skip


def test_the_report_says_how_far_formulas_are_off() -> None:
    from capacity_report import report, worst_bytes

    constants = load_constants()
    run: dict[str, Any] = {"items": 20_000, "latents": 4096, "k": 32, "datatype": "uint8", "segments": 1,
                           "payload_bytes": 0, "dim": 384}  # fmt: skip
    from compressae_qdrant.capacity import Workload
    from compressae_qdrant.capacity.sizes import index_bytes, item_bytes

    asked = Workload(20_000, 384, k=32)
    index = index_bytes(asked, constants, 1)
    disk = index + item_bytes(asked, constants) * 20_000
    build = {"run": run, "index_bytes": index / 1.2, "disk_bytes": disk, "opened_bytes": index, "posting_mass": 0.3}
    measured = {"builds": [build], "searches": [], "dense_builds": [], "dense_searches": [],
                "graph_builds": [_graph_build(constants, 1.3)], "graph_searches": [], "graph_cold": [],
                "machine": {"cpu": "x"}}  # fmt: skip
    assert worst_bytes(measured, constants) == pytest.approx(0.3)
    measured["graph_builds"] = [_graph_build(constants, 1), _graph_build(constants, 9) | {"synthetic": True}]
    assert worst_bytes(measured, constants) == pytest.approx(0.2)
    said = report(measured, constants)
    assert "- 20,000 items: bytes of the index are at most 20.0% off, on disk 0.0%" in said
    assert f"{1e6 * constants.times.posting:.2f} ns per posting" in said
