from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex
from compressae_qdrant.capacity import Workload, load_constants, plan
from compressae_qdrant.codes import FloatArray, SparseCodes
from compressae_qdrant.errors import InvalidInputError, ModelFileError
from compressae_qdrant.evaluation.bench import Bench
from compressae_qdrant.evaluation.comparison import Row, Timing, read_rows, save_rows
from compressae_qdrant.model.concepts import Concept, Concepts, StrongItem
from compressae_qdrant.report import ReportSettings, build_report
from compressae_qdrant.report.measurement import Searches, Truth
from compressae_qdrant.report.page import render_page
from compressae_qdrant.report.sample import Sample, draw_sample
from compressae_qdrant.report.sections import concept_data, latent_data, query_data, segment_data, segment_field
from compressae_qdrant.sources import Batch


class Rows:
    """A source of numbered rows that counts what is read of it."""

    def __init__(
        self, embeddings: FloatArray, payloads: list[dict[str, Any]], *, counted: bool = True, seekable: bool = True
    ) -> None:
        self._embeddings, self._payloads, self._counted, self._seekable = embeddings, payloads, counted, seekable
        self.read = 0

    @property
    def dim(self) -> int:
        return int(self._embeddings.shape[1])

    @property
    def rows(self) -> int | None:
        return len(self._embeddings) if self._counted else None

    @property
    def seekable(self) -> bool:
        return self._seekable

    @property
    def identity(self) -> str:
        return "rows"

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for low in range(start, len(self._embeddings), size):
            part = slice(low, low + size)
            vectors = self._embeddings[part]
            self.read += len(vectors)
            ids: list[int | str] = list(range(low, low + len(vectors)))
            yield Batch(ids, vectors, self._payloads[part], low, low + len(vectors), 0)

    def matrix(self) -> npt.NDArray[np.floating] | None:
        return None


def _payloads(n: int) -> list[dict[str, Any]]:
    return [{"title": f"item {i}", "group": f"g{i % 3}", "price": i / 7} for i in range(n)]


def test_a_small_catalog_is_its_own_sample(embeddings: FloatArray) -> None:
    sample = draw_sample(Rows(embeddings, _payloads(600)), 1000)
    assert sample.whole
    assert sample.ids == list(range(600))
    np.testing.assert_allclose(sample.embeddings, embeddings, atol=1e-6)


def test_only_the_sample_of_a_large_catalog_is_read(embeddings: FloatArray) -> None:
    source = Rows(np.tile(embeddings, (20, 1)), _payloads(12_000))
    sample = draw_sample(source, 500)
    assert source.read == len(sample) == len(set(sample.ids)) == 500
    assert (sample.catalog_items, sample.whole) == (12_000, False)
    spread = np.histogram(np.array(sample.ids, int), 10, (0, 12_000))[0]
    assert spread.min() >= 30
    for id, payload, vector in zip(sample.ids, sample.payloads, sample.embeddings, strict=True):
        assert payload["title"] == f"item {id}"
        np.testing.assert_allclose(vector, embeddings[int(id) % 600], atol=1e-6)


@pytest.mark.parametrize("limit", [2, 63, 65, *range(190, 201)])
def test_a_catalog_just_above_the_sample_is_sampled(embeddings: FloatArray, limit: int) -> None:
    sample = draw_sample(Rows(embeddings[:201], _payloads(201)), limit)
    assert len(sample) == len(set(sample.ids)) == limit
    assert sample.catalog_items == 201


@pytest.mark.parametrize("known", [{"counted": False}, {"seekable": False}])
def test_a_catalog_without_a_length_or_a_way_to_its_middle_is_sampled_uniformly(
    embeddings: FloatArray, known: dict[str, bool]
) -> None:
    source = Rows(np.tile(embeddings, (5, 1)), _payloads(3000), **known)
    sample = draw_sample(source, 600)
    assert (source.read, len(set(sample.ids)), sample.catalog_items) == (3000, 600, 3000)
    assert np.histogram(np.array(sample.ids, int), 3, (0, 3000))[0].min() >= 160


def test_rows_that_vanish_meanwhile_are_left_out(embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "rows", 1200)
    sample = draw_sample(Rows(embeddings, _payloads(600)), 200)
    assert 90 <= len(sample) == len(set(sample.ids)) <= 110


def test_the_field_that_splits_best_is_found() -> None:
    payloads = [{"t": f"title {i}", "kind": "abc"[i % 3], "shop": "abcd"[i % 4], "n": i % 2} for i in range(100)]
    sample = Sample(list(range(100)), np.ones((100, 2), np.float32), payloads, 100)
    assert segment_field(sample) == "kind"
    assert segment_field(Sample([1, 2], np.ones((2, 2), np.float32), [{"t": "x"}, {"t": "y"}], 2)) is None


def test_a_loss_in_one_segment_comes_first() -> None:
    payloads: list[dict[str, Any]] = [{"kind": "good"}] * 40 + [{"kind": "bad"}] * 20 + [{"kind": "rare"}] * 3 + [{}]
    sample = Sample(list(range(64)), np.ones((64, 2), np.float32), payloads, 64)
    recall = np.array([0.9] * 40 + [0.2] * 20 + [0.0] * 4, np.float32)
    searched = Searches("plan", [], np.ones(64, np.float32), recall, recall)
    data = segment_data(sample, Truth(np.arange(64), np.zeros((64, 10), np.int64)), searched, "kind")
    assert data is not None
    assert [(row["name"], row["queries"], round(row["recall"], 6)) for row in data["rows"]] == [
        ("bad", 20, 0.2), ("good", 40, 0.9),
    ]  # fmt: skip
    assert segment_data(sample, Truth(np.arange(64), np.zeros((64, 10), np.int64)), searched, "none") is None


def test_concepts_are_the_most_used_latents_and_their_strongest_items() -> None:
    codes = SparseCodes(
        np.array([[0, 2], [0, 1], [0, 3]], np.int32), np.array([[-0.5, 1], [-2, 1], [0.1, 1]], np.float32), 5
    )
    sample = Sample(["a", "b", "c"], np.ones((3, 2), np.float32), [{"title": t} for t in "ABC"], 3)
    first = concept_data(sample, codes, None, 2)[0]
    assert (first["latent"], first["use"], first["items"]) == (0, 1.0, [("B", 2.0), ("A", 0.5)])
    strong = tuple(StrongItem(n, title, 0.5, 0.9 - n / 10) for n, title in enumerate("XYZ"))
    named = Concept(7, 1, "games", "game", ("game", "play"), 30, 2, 0.4, strong, 12)
    found = Concepts("m-1", 120, (replace(named, latent=3, items=9), named))
    assert concept_data(sample, codes, found, 1, items=2) == [
        {"latent": 7, "name": "games", "use": 0.25, "main": 0.1, "terms": ["game", "play"],
         "items": [("X", 0.9), ("Y", 0.8)]}
    ]  # fmt: skip


def test_latents_are_ranked_by_use(model: CompresSAE, codes: SparseCodes) -> None:
    data = latent_data(model, codes)
    shares = np.sort(np.bincount(codes.indices.ravel(), minlength=model.latents) / len(codes))[::-1]
    assert data["sample"][0] == [1, shares[0]]
    assert data["sample"][-1] == [model.latents, shares[-1]]
    assert data["posting_mass"] == pytest.approx(float(np.square(shares).sum()))


def test_queries_go_from_worst_to_best(embeddings: FloatArray, model: CompresSAE) -> None:
    sample = Sample(list(range(600)), embeddings, _payloads(600), 600)
    near = np.argsort(-(embeddings[:40] @ embeddings.T), axis=1)[:, 1:11]
    truth = Truth(np.arange(40), near)
    found: list[list[tuple[int | str, float]]] = [
        [(int(id), 0.5) for id in rows[: query % 11]] for query, rows in enumerate(near)
    ]
    recall = np.array([(query % 11) / 10 for query in range(40)], np.float32)
    codes = model.encode(embeddings)
    shown = query_data(sample, truth, Searches("plan", found, np.ones(40, np.float32), recall, recall), model, codes)
    shared = [query["shared"] for query in shown]
    assert shared == sorted(shared)
    assert (shared[0], shared[-1]) == (0, 10)
    assert all(query["shared"] == len(query["codes"]) for query in shown)
    assert all(hit["why"] == [] for query in shown for hit in query["codes"])
    assert shown[0]["dense"][0]["score"] == pytest.approx(float(np.sort(embeddings[0] @ embeddings.T)[-2]), abs=1e-5)


def _data(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


HOSTILE = "</script><script>alert(1)</script>\u2028\u2029 <!-- \"><img src=x onerror=alert(1)> ' &"


def test_text_of_payloads_can_not_leave_the_page_s_data(embeddings: FloatArray, model: CompresSAE) -> None:
    payloads = [{"title": f"{HOSTILE} {i}", "group": HOSTILE} for i in range(600)]
    page, _ = build_report(Rows(embeddings, payloads), model, ReportSettings(HOSTILE, queries=30))
    assert _data(page)["queries"][0]["dense"][0]["title"].startswith("</script><script>alert(1)</script>")
    page.encode()
    assert page.count("<script") == page.count("</script>") == 3
    assert "<img" not in page
    assert "<!-- " not in page
    assert "\u2028" not in page[page.index('id="data"') :]


def test_a_whole_catalog_is_measured_through_its_own_index(
    embeddings: FloatArray, model: CompresSAE, index: EdgeIndex
) -> None:
    page, omitted = build_report(
        Rows(embeddings, _payloads(600)), model, ReportSettings("Things", queries=60), index=index
    )
    assert "<h1>Things</h1>" in page
    assert "the whole catalog" in page
    assert "in a sample of" not in page
    assert omitted == []
    data = _data(page)
    info = index.info()
    assert info.resident_bytes is not None
    assert data["saved"]["rows"][1]["bytes"] == pytest.approx(info.resident_bytes / 600)
    plans = data["plans"]
    assert 0.3 < plans[0]["recall"] <= plans[1]["recall"] + 0.05
    assert [share for share, _ in plans[0]["quantiles"]] == sorted(share for share, _ in plans[0]["quantiles"])
    assert data["segments"]["field"] == "group"


def test_a_part_of_a_catalog_is_measured_through_an_index_of_the_part(
    embeddings: FloatArray, model: CompresSAE
) -> None:
    source = Rows(np.tile(embeddings, (4, 1)), _payloads(2400))
    page, omitted = build_report(source, model, ReportSettings("Things", sample=300, queries=20, segment="nothing"))
    assert [text.split(":")[0] for text in omitted] == ["Recall by segment"]
    assert "Recall by segment: no value of &#39;nothing&#39; has enough queries" in page
    assert re.search(r"a sample of\s+300 items", page)
    assert "2,400 items of 24 dimensions" in page
    assert "exact dense search finds, in a sample of 300." in page
    assert "against exact dense search, in a sample of 300" in page


def test_an_index_of_as_many_other_items_is_not_searched(
    embeddings: FloatArray, model: CompresSAE, tmp_path: Path
) -> None:
    with EdgeIndex.create(tmp_path / "other", model) as index:
        index.upsert(list(range(1, 601)), model.encode(embeddings))
        index.optimize()
        page, _ = build_report(
            Rows(embeddings, _payloads(600)), model, ReportSettings("Things", queries=20, other_k=()), index=index
        )
    hits = [hit["id"] for query in _data(page)["queries"] for hit in query["codes"]]
    assert "600" not in hits
    assert "through an index of the sample" in page


def test_an_index_that_is_not_optimised_reports_no_bytes(
    embeddings: FloatArray, model: CompresSAE, tmp_path: Path
) -> None:
    with EdgeIndex.create(tmp_path / "new", model) as index:
        index.upsert(list(range(600)), model.encode(embeddings))
        settings = ReportSettings("Things", queries=20, other_k=())
        _, omitted = build_report(Rows(embeddings, _payloads(600)), model, settings, index=index)
    assert [text.split(":")[0] for text in omitted] == ["Bytes saved"]


def _rows() -> list[Row]:
    times = Timing(2.0, 3.0, 100.0, None, None)
    return [
        Row("codes k=6", "ours, two stages", 100.0, 300.0, 0.9, 0.8, (0.7, 0.9), {}, times),
        Row("Faiss PQ8", "Faiss PQ", 90.0, None, 0.7, 0.6, (0.5, 0.7), {}),
    ]


def test_results_of_a_benchmark_are_read_as_it_writes_them(
    embeddings: FloatArray, model: CompresSAE, tmp_path: Path
) -> None:
    bench = Bench.of("things", embeddings, {}, 30)
    save_rows(tmp_path, bench, _rows())
    rows = read_rows(tmp_path / "rows.json")
    page, omitted = build_report(Rows(embeddings, _payloads(600)), model, ReportSettings("T", queries=30), results=rows)
    assert omitted == []
    front = _data(page)["front"]
    assert front["families"] == ["ours, two stages", "Faiss PQ"]
    assert [(row["low"], row["p50_ms"]) for row in front["rows"]] == [(0.7, 2.0), (0.5, None)]
    (tmp_path / "rows.json").write_text("[1]")
    with pytest.raises(ModelFileError, match="does not hold rows of this version"):
        read_rows(tmp_path / "rows.json")
    with pytest.raises(ModelFileError, match=r"nothing\.json does not exist"):
        read_rows(tmp_path / "nothing.json")


def test_without_a_benchmark_measured_codes_are_shown_with_planned_baselines(
    embeddings: FloatArray, model: CompresSAE, index: EdgeIndex
) -> None:
    source, settings = Rows(embeddings, _payloads(600)), ReportSettings("Things", queries=40, other_k=(3, 12))
    page, omitted = build_report(source, model, settings, index=index)
    assert omitted == []
    data = _data(page)
    rows = {row["name"]: row for row in data["front"]["rows"]}
    info = index.info()
    assert info.resident_bytes is not None
    assert rows["codes k=6, default plan"]["resident"] == pytest.approx(info.resident_bytes / 600)
    asked = Workload(**data["planner"]["workload"])
    assert (asked.items, asked.dim, asked.k, asked.latents, asked.datatype) == (600, 24, 6, 96, "float32")
    sizes = [len(json.dumps(payload)) for payload in _payloads(600)]
    assert asked.payload_bytes == pytest.approx(np.mean(sizes), abs=0.5)
    long = plan(replace(asked, k=12), load_constants())[0]
    assert rows["codes k=12, default plan"]["resident"] == pytest.approx(long.index_bytes / 600)
    recalls = [rows[f"codes k={k}, default plan"]["recall100"] for k in (3, 6, 12)]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[2]
    for row in rows.values():
        assert ("elsewhere" in row["family"]) == (row["p50_ms"] is None)
    dense = next(costs for costs in load_constants().dense if costs.name == "scalar int8")
    assert rows["scalar int8"]["recall100"] == dense.recall100["384"]
    assert rows["scalar int8"]["resident"] == pytest.approx(dense.resident_item + 24 * dense.resident_dimension)


def test_concepts_that_make_query_and_hit_meet_have_shares_of_the_score(
    embeddings: FloatArray, model: CompresSAE, codes: SparseCodes
) -> None:
    strong = (StrongItem(1, "X", 0.5, 0.9),)
    every = [
        Concept(n, 1, f"c{n}" if n % 2 else f"latent {n}", f"c{n}" if n % 2 else f"latent {n}",
                (f"c{n}",) if n % 2 else (), 9, 1, 0.4, strong)
        for n in range(model.latents)
    ]  # fmt: skip
    named = CompresSAE(model.config)
    named.load_state_dict(model.state_dict())
    named.concepts = Concepts(model.fingerprint, 600, tuple(every))
    sample = Sample(list(range(600)), embeddings, _payloads(600), 600)
    near = np.argsort(-(embeddings[:20] @ embeddings.T), axis=1)[:, 1:11]
    found: list[list[tuple[int | str, float]]] = [[(int(id), 0.5) for id in rows] for rows in near]
    one = np.ones(20, np.float32)
    shown = query_data(sample, Truth(np.arange(20), near), Searches("p", found, one, one, one), named, codes)[0]
    hit = shown["codes"][0]
    row = int(hit["id"])
    terms = (model.atoms.detach().numpy()[codes.indices[row]] @ embeddings[0]) * codes.values[row]
    wanted = {f"c{n}": term / terms.sum() for n, term in zip(codes.indices[row], terms, strict=True) if n % 2}
    assert hit["why"]
    for name, share in hit["why"]:
        assert share == pytest.approx(wanted[name], rel=1e-4)
    assert [share for _, share in hit["why"]] == sorted((share for _, share in hit["why"]), reverse=True)
    assert all(name in {f"c{n}" for n in codes.indices[0]} for name in shown["concepts"])


def _rendered(mass: float = 1.0) -> str:
    data: dict[str, Any] = {"queries": [], "latents": {"posting_mass": mass, "unused": 0}}
    numbers = dict.fromkeys(("dim", "latents", "k", "queries", "dead"), 1)
    texts = dict.fromkeys(("title", "date", "standfirst", "version"), "text")
    sample = Sample([1, 2], np.ones((2, 2), np.float32), [{}, {}], 2)
    data["front"] = {"planned": False, "rows": []}
    return render_page(
        **numbers,
        **texts,
        own_index=True,
        named=False,
        million=None,
        sample=sample,
        headline=[],
        omitted=[],
        method=[],
        data=data,
    )


def test_the_policy_allows_what_the_page_carries_and_nothing_else() -> None:
    page = _rendered()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    allowed = set(re.findall(r"'sha256-([^']*)'", policy))
    carried = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", page, re.DOTALL)
    assert len(carried) == 3
    assert allowed == {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in carried}
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_data_without_numbers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be written as JSON"):
        _rendered(float("nan"))


def test_scripts_never_set_html() -> None:
    assets = Path(render_page.__code__.co_filename).parent / "assets"
    code = "".join(file.read_text() for file in assets.glob("*.js"))
    assert "replaceChildren" in code
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", code)
