"""A small comparison with baselines: running, resuming, timing, tables and plots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant import CompresSAE
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import ConfigError, ModelFileError
from compressae_qdrant.evaluation.baselines import baselines, dense, faiss_index
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.evaluation.comparison import Row, run
from compressae_qdrant.evaluation.methods import BuiltIndex, ComparedMethod, SearchConfig, codes
from compressae_qdrant.evaluation.plots import Panel, figure
from compressae_qdrant.evaluation.tables import table, write_report


@pytest.fixture(scope="module")
def bench(embeddings: FloatArray) -> Bench:
    return Bench.of(
        "six hundred items", embeddings, {"group": [str(n % 3) for n in range(600)], "none": [None] * 600}, 40
    )


class Exact:
    """A method that finds the true neighbours and counts how often it is built."""

    def __init__(self, name: str, wrong: int = 0) -> None:
        self.name, self.wrong, self.builds = name, wrong, 0

    @property
    def method(self) -> ComparedMethod:
        return ComparedMethod((self.name,), self._build)

    @contextmanager
    def _build(self, vectors: FloatArray) -> Iterator[BuiltIndex]:
        self.builds += 1

        def search_batch(queries: FloatArray, limit: int) -> list[list[int]]:
            rows: list[list[int]] = np.argsort(-(queries @ vectors.T), axis=1)[:, :limit].tolist()
            return [[*each[: limit - self.wrong], *[-1] * self.wrong] for each in rows]

        config = SearchConfig(
            self.name, "dense", lambda query, limit: search_batch(query[None], limit)[0], search_batch
        )
        yield BuiltIndex([config], 96.0, None, 1.5)


def test_rows_are_measured_once_and_times_apart(tmp_path: Path, bench: Bench) -> None:
    first, second = Exact("first"), Exact("second", wrong=50)
    (row,) = run(bench, [first.method], tmp_path)
    assert (row.recall10, row.recall100, row.interval, row.timing) == (1, 1, (1, 1), None)
    assert set(row.quality) == {"group"}
    rows = run(bench, [second.method, first.method], tmp_path)
    assert [each.name for each in rows] == ["second", "first"]
    assert rows[0].recall100 == pytest.approx(0.51, abs=0.011)
    assert (first.builds, second.builds) == (1, 1)
    third = Exact("third")
    timed = run(bench, [first.method, third.method], tmp_path, measure="times")
    assert (first.builds, third.builds) == (2, 0)
    assert timed[0].timing is not None
    assert timed[0].timing.build_seconds == 1.5
    assert replace(timed[0], timing=None) == row
    assert run(bench, [first.method], tmp_path, measure="both")[0] == timed[0]
    said: list[str] = []
    run(bench, [first.method], tmp_path, measure="both", remeasure=["first"], log=said.append)
    assert (first.builds, len(said)) == (3, 1)


def test_two_runs_fill_one_directory(tmp_path: Path, bench: Bench) -> None:
    one, other = Exact("one"), Exact("other", wrong=50)

    @contextmanager
    def meanwhile(vectors: FloatArray) -> Iterator[BuiltIndex]:
        run(bench, [other.method], tmp_path)
        with one.method.build(vectors) as built:
            yield built

    rows = run(bench, [ComparedMethod(("one",), meanwhile)], tmp_path)
    assert [row.name for row in rows] == ["one", "other"]
    again = Exact("other")
    rows = run(bench, [one.method, again.method], tmp_path, remeasure=["one", "other"])
    assert [row.recall100 for row in rows] == [1, 1]


def test_rows_of_another_bench_are_refused(tmp_path: Path, bench: Bench, embeddings: FloatArray) -> None:
    run(bench, [Exact("one").method], tmp_path)
    other = Bench.of("other", embeddings, {}, 30)
    with pytest.raises(ConfigError, match="another catalog or other queries"):
        run(other, [], tmp_path)
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(ModelFileError, match="does not hold rows of this version"):
        run(bench, [], tmp_path)


def test_codes_and_engine_baselines_side_by_side(tmp_path: Path, bench: Bench, model: CompresSAE) -> None:
    configs = {"two stages": ("ours, two stages", {}), "exhaustive": ("ours, exhaustive", {"exact": True})}
    ours = codes("codes k=6", configs, lambda: model)  # type: ignore[arg-type]  # literal dictionaries
    others = [each for each in baselines(24, quick=True) if each.names[0] in ("dense float32 + HNSW", "scalar int8")]
    assert len(others) == 2
    rows = {row.name: row for row in run(bench, [ours, *others], tmp_path, measure="both")}
    assert list(rows) == [
        "codes k=6, two stages", "codes k=6, exhaustive", "dense float32 + HNSW", "scalar int8",
        "scalar int8 + originals",
    ]  # fmt: skip
    exhaustive, full, int8 = (rows[name] for name in ("codes k=6, exhaustive", "dense float32 + HNSW", "scalar int8"))
    assert 0.4 < exhaustive.recall100 < full.recall100 > 0.95
    assert rows["scalar int8 + originals"].recall100 >= int8.recall100 > 0.9
    assert full.resident > 96
    assert exhaustive.disk is not None
    assert exhaustive.disk > exhaustive.resident
    assert exhaustive.timing is not None
    assert exhaustive.timing.encode_seconds is not None
    files = write_report(tmp_path, bench.name, list(rows.values()), 96)
    assert [file.name for file in files] == [
        "table.md", "recall_bytes.png", "recall_latency.png", "recall_compression.png",
    ]  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[1:])


def test_a_reduction_keeps_what_varies_most(embeddings: FloatArray) -> None:
    spread = embeddings * np.linspace(0.1, 2, 24, dtype=np.float32)  # truncation keeps the worst dimensions
    bench = Bench.of("spread", spread, {}, 30)
    found = {}
    for name, kind in (("PCA 6", "pca"), ("truncation 6", "truncate")):
        method = dense(name, "PCA", dim=6, reduction=kind)  # type: ignore[arg-type]  # both are known
        with method.build(bench.vectors) as built:
            rows = bench.without_own(built.configs[0].search_batch(bench.queries, 101))
        found[name] = np.mean([len(set(rows[i]) & set(bench.truth[i])) / 100 for i in range(30)])
    assert found["PCA 6"] > found["truncation 6"] + 0.2


def test_faiss_indexes_are_kept(tmp_path: Path, bench: Bench) -> None:
    method = faiss_index("Faiss SQ8", "SQ8", "Faiss PQ", tmp_path)
    with method.build(bench.vectors) as built:
        found = built.configs[0].search(bench.queries[0], 10)
        assert built.build_seconds is not None
    with method.build(bench.vectors) as built:
        assert built.build_seconds is None
        assert built.configs[0].search(bench.queries[0], 10) == found
        assert 24 <= built.resident < 30


def test_the_table() -> None:
    row = Row("a", "dense", 1234.5, None, 0.5, 0.25, (0.2, 0.3), {"tags": 0.125})
    assert table([row]).splitlines()[2] == "| a | 1,234 |  | 0.500 | 0.2500 (0.200..0.300) | 0.125 |"


def test_labels_are_near_their_points_and_cover_none() -> None:
    rows = [
        Row(f"codes k={k}, {way}", f"ours, {way}", size, None, found, found - lost, (0, 1), {})
        for k, size, found in ((8, 43, 0.79), (16, 63, 0.875), (20, 72, 0.892), (32, 100, 0.923), (48, 136, 0.944))
        for way, lost in (("two stages", 0.015), ("exhaustive", 0.0))
    ]
    rows += [
        Row(f"Faiss PQ{n}", "Faiss PQ", n, None, r, r, (0, 1), {}) for n, r in ((48, 0.73), (96, 0.86), (97, 0.861))
    ]
    rows.append(Row("new", "a family of its own", 64, None, 0.8, 0.5, (0, 1), {}))
    panels = [Panel("one", [(row, row.resident) for row in rows]), Panel("other", [(rows[0], 3.0)], front=False)]
    drawing = figure("title", panels, "bytes")
    (first, second), renderer = drawing.axes, drawing.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg's
    names = [text.get_text() for text in first.texts]
    assert {"k=8", "k=16", "k=20", "k=32", "k=48", "PQ48", "PQ96", "new"} <= set(names)
    assert [text.get_text() for text in second.texts] == ["k=8"]
    boxes = [text.get_window_extent(renderer) for text in first.texts]
    points = first.transData.transform([(row.resident, row.recall100) for row in rows])
    frame = first.get_window_extent(renderer)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for x, y in points)
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        mine = [point for point, row in zip(points, rows, strict=True) if names[i] in row.name]
        assert min(np.hypot(x - (box.x0 + box.x1) / 2, y - (box.y0 + box.y1) / 2) for x, y in mine) < 60
    front = next(line for line in first.lines if line.get_color() == "0.82")
    assert np.asarray(front.get_xdata())[:2].tolist() == [43, 63]
