"""The capacity planner: its formulas against the measurements, its units, and monotonicity."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import capacity
from compressae_qdrant.capacity import (
    GIB,
    Constants,
    Estimate,
    Node,
    Prices,
    Workload,
    load_constants,
    plan,
)
from compressae_qdrant.capacity.chart import draw_plan
from compressae_qdrant.capacity.fit import fit_constants
from compressae_qdrant.capacity.planner import item_ms, search_ms, shard_ms
from compressae_qdrant.capacity.sizes import (
    graph_disk_bytes,
    index_bytes,
    item_bytes,
    link_bytes,
    pages_read,
    vector_bytes,
)
from compressae_qdrant.errors import ConfigError
from compressae_qdrant.search import costs as search_costs
from compressae_qdrant.search.costs import shipped_costs
from compressae_qdrant.search.defaults import GraphSizes

MEASURED: dict[str, Any] = json.loads(files(capacity).joinpath("measured.json").read_text(encoding="utf-8"))
CONSTANTS = load_constants()
SHOP = Workload(
    k=32,
    items=10_000_000,
    dim=768,
    payload_bytes=300,
    replicas=2,
    queries_per_second=40,
    first_stage_latents=512,
    prefetch=200,
)


def workload_of(run: dict[str, Any], **query: Any) -> Workload:
    names = ("items", "dim", "latents", "k", "datatype", "payload_bytes")
    return Workload(**{name: run[name] for name in names}, **query)


def codes(workload: Workload, node: Node = Node(), prices: Prices | None = None) -> Estimate:  # noqa: B008 (frozen)
    return plan(dataclasses.replace(workload, first_stage="codes"), CONSTANTS, node, prices)[0]


def graph(workload: Workload, node: Node = Node(), prices: Prices | None = None) -> Estimate:  # noqa: B008 (frozen)
    return plan(dataclasses.replace(workload, first_stage="graph"), CONSTANTS, node, prices)[0]


def graph_workload_of(run: dict[str, Any], **query: Any) -> Workload:
    names = ("items", "dim", "latents", "k", "keep_dense", "navigation_dim")
    return Workload(**{name: run[name] for name in names}, navigation_bits=run["bits"], navigation_m=run["m"], **query)


def dataclass_numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in dataclass_numbers(each)]
    if isinstance(value, list | tuple):
        return [number for each in value for number in dataclass_numbers(each)]
    return [value] if isinstance(value, int | float) else []


def test_the_shipped_constants_are_those_of_the_shipped_measurements() -> None:
    fitted = fit_constants(MEASURED).to_json()
    np.testing.assert_allclose(dataclass_numbers(CONSTANTS.to_json()), dataclass_numbers(fitted), rtol=1e-6)
    assert Constants.from_json(json.loads(json.dumps(fitted))) == fit_constants(MEASURED)


@pytest.mark.parametrize("row", MEASURED["builds"], ids=lambda row: json.dumps(row["run"]))
def test_bytes_are_within_a_tenth_of_what_was_measured(row: dict[str, Any]) -> None:
    run = row["run"]
    workload = workload_of(run)
    index = index_bytes(workload, CONSTANTS, run["segments"])
    assert index == pytest.approx(row["index_bytes"], rel=0.1)
    assert index + item_bytes(workload, CONSTANTS) * run["items"] == pytest.approx(row["disk_bytes"], rel=0.1)


def test_the_whole_catalog_and_a_million_are_among_what_was_measured() -> None:
    kinds = {row["run"]["datatype"] for row in MEASURED["builds"] if row["run"]["items"] == 63_666}
    assert kinds == {"uint8", "float16", "float32"}
    assert 1_000_000 in {row["run"]["items"] for row in MEASURED["builds"]}


def test_a_plan_has_the_bytes_that_were_measured_whatever_the_node() -> None:
    for row in MEASURED["builds"]:
        if row["run"]["segments"] == 1:
            estimate = codes(workload_of(row["run"]))
            assert (estimate.shards, estimate.segments, estimate.nodes) == (1, 1, 1)
            assert estimate.index_bytes == pytest.approx(row["index_bytes"], rel=0.1)
            assert estimate.disk_bytes == pytest.approx(row["disk_bytes"], rel=0.1)


def test_times_are_near_those_measured() -> None:
    """For single plans on single indexes, whose measurements vary more than those of all of them together."""
    errors = [
        search_ms(
            workload_of(row["run"], first_stage_latents=row["first_stage_latents"], prefetch=row["prefetch"]),
            CONSTANTS, 1, row["run"]["segments"],
        ) / row["cpu_ms"]
        for row in MEASURED["searches"] if row["run"]["segments"] == 1
    ]  # fmt: skip
    assert np.median(np.abs(np.log(errors))) < 0.25


def test_dense_bytes_are_near_those_measured() -> None:
    for row in MEASURED["dense_builds"]:
        run = row["run"]
        found = {each.name: each for each in plan(Workload(run["items"], run["dim"]), CONSTANTS)}
        assert found[run["method"]].index_bytes == pytest.approx(row["index_bytes"], rel=0.1)
        assert found[run["method"]].disk_bytes == pytest.approx(row["disk_bytes"], rel=0.1)


@pytest.mark.parametrize(
    "row", [row for row in MEASURED["graph_builds"] if not row["synthetic"]], ids=lambda row: json.dumps(row["run"])
)
def test_bytes_of_graphs_are_within_a_tenth_of_what_was_measured(row: dict[str, Any]) -> None:
    n, workload = row["run"]["items"], graph_workload_of(row["run"])
    vectors, links = vector_bytes(workload, CONSTANTS), link_bytes(workload, CONSTANTS, n)
    assert vectors + links == pytest.approx((row["vector_bytes"] + row["link_bytes"]) / n, rel=0.1)
    disk = index_bytes(workload, CONSTANTS, 1) / n + item_bytes(workload, CONSTANTS)
    assert disk + graph_disk_bytes(workload, CONSTANTS, n) == pytest.approx(row["disk_bytes"] / n, rel=0.1)
    estimate = graph(workload)
    assert estimate.index_bytes == pytest.approx(row["vector_bytes"] + row["link_bytes"], rel=0.1)
    assert estimate.disk_bytes == pytest.approx(row["disk_bytes"], rel=0.1)


def test_times_of_graphs_are_near_those_measured() -> None:
    errors = [
        search_costs.graph_ms(
            CONSTANTS.search,
            row["run"]["items"],
            row["run"]["latents"],
            GraphSizes(row["prefetch"], row["ef"], row.get("compared", 0)),
            row["run"]["navigation_dim"],
            by_embeddings=row["run"]["keep_dense"],
        )
        / row["p50_ms"]
        for row in MEASURED["graph_searches"]
    ]
    assert np.median(np.abs(np.log(errors))) < 0.25


def test_pages_read_from_a_cold_disk_are_near_those_measured() -> None:
    """The formula holds for items in random order: an upper bound for a catalog that has similar ones together."""
    for row in MEASURED["graph_cold"]:
        if not row["run"]["keep_dense"]:
            expected = pages_read(graph_workload_of(row["run"]), CONSTANTS, row["prefetch"], 0, row["compared"])
            assert 0.25 * expected < row["pages"] < 1.2 * expected, row


def test_the_costs_that_a_search_compares_are_those_of_the_plan() -> None:
    assert shipped_costs() == CONSTANTS.search


def test_both_first_stages_are_estimated_unless_one_is_named() -> None:
    both = plan(SHOP, CONSTANTS)
    assert [each.name for each in both[:2]] == ["codes k=32, h=4096, graph", "codes k=32, h=4096, uint8"]
    assert both[:2] == [graph(SHOP), codes(SHOP)]
    assert both[2:] == plan(dataclasses.replace(SHOP, first_stage="graph"), CONSTANTS)[1:]


def test_the_graph_takes_less_memory_and_time_of_a_large_catalog() -> None:
    large = Workload(items=10**8, dim=768)
    assert graph(large).resident_bytes < codes(large).resident_bytes * 1.5
    assert graph(large).cpu_ms < codes(large).cpu_ms / 20
    assert graph(large).disk_bytes > codes(large).disk_bytes  # the inverted index and the vectors are there too
    base = graph(large)
    for change in ({"navigation_dim": 192}, {"navigation_m": 6}):
        assert graph(dataclasses.replace(large, **change)).resident_bytes < base.resident_bytes  # type: ignore[arg-type]
    assert graph(dataclasses.replace(large, navigation_bits=2)).resident_bytes > base.resident_bytes
    smaller = graph(dataclasses.replace(large, navigation_datatype="turbo4"))
    assert base.disk_bytes - smaller.disk_bytes == pytest.approx(1.5 * 256 * 10**8, rel=0.02)  # as measured: 380
    assert smaller.resident_bytes == base.resident_bytes
    for change in ({"prefetch": 400}, {"navigation_ef": 600}, {"items": 10**9}):
        assert graph(dataclasses.replace(large, **change)).cpu_ms > base.cpu_ms  # type: ignore[arg-type]


def test_cold_queries_read_the_codes_of_their_candidates() -> None:
    large = Workload(items=10**8, dim=768)
    found = graph(large)
    candidates, _, compared = large.graph_plan
    pages = 2 * candidates + compared  # one of codes and one of places for each, and one of navigation vectors
    assert found.read_bytes == pytest.approx(4096 * pages, rel=0.01)
    assert found.cold_ms == pytest.approx(found.p50_ms + pages * CONSTANTS.disk.page_ms, rel=0.01)
    kept = graph(dataclasses.replace(large, keep_dense=True))
    candidates, _, compared = dataclasses.replace(large, keep_dense=True).graph_plan
    # Embeddings rank the candidates instead.
    assert kept.read_bytes == pytest.approx(candidates * (4096 + 2 * 768) + compared * 4096, rel=0.01)
    assert graph(Workload(items=100, dim=768)).read_bytes <= 4096 * 20  # all items lie in a few pages
    rescored, plain = (
        next(each for each in plan(large, CONSTANTS) if each.name == name)
        for name in ("scalar int8 + originals", "scalar int8")
    )
    assert rescored.read_bytes > 0 == plain.read_bytes
    assert plain.cold_ms == plain.p50_ms


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"navigation_dim": 900}, "navigation_dim is 900; it must be at most 256"),
        ({"navigation_dim": 100, "dim": 64}, "it must be at most 64"),
        ({"navigation_bits": 3}, "navigation bits are 3"), ({"navigation_m": 1}, "navigation m is 1"),
        ({"navigation_datatype": "float64"}, "datatype is 'float64'"),
        ({"first_stage": "both"}, "first_stage is 'both'; it must be one of graph, codes"),
        ({"navigation_ef": 0}, "navigation_ef is 0"),
    ],
)  # fmt: skip
def test_navigation_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        dataclasses.replace(SHOP, **change)


def test_kept_embeddings_take_the_bytes_of_their_datatype() -> None:
    """Compared with indexes of 16,000 random embeddings of 384 dimensions."""
    few = dataclasses.replace(SHOP, dim=384)
    plain = codes(few).disk_bytes
    for datatype, measured in (("float16", 773.6), ("turbo8", 393.2), ("turbo4", 201.2)):
        kept = dataclasses.replace(few, keep_dense=True, dense_datatype=datatype)  # type: ignore[arg-type]
        bytes_each = (codes(kept).disk_bytes - plain) / few.items
        assert bytes_each == pytest.approx(measured, rel=0.05)
    with pytest.raises(ConfigError, match="dense_datatype is 'int8'; it must be one of float16, turbo8, turbo4"):
        dataclasses.replace(SHOP, dense_datatype="int8")  # type: ignore[arg-type]


def test_larger_workloads_never_take_less() -> None:
    base = codes(SHOP)
    for change in (
        {"items": 20_000_000}, {"k": 48}, {"datatype": "float32"}, {"payload_bytes": 900.0}, {"replicas": 3},
        {"keep_dense": True}, {"keep_dense": True, "dense_datatype": "turbo4"}, {"text_words": 50.0},
    ):  # fmt: skip
        more = codes(dataclasses.replace(SHOP, **change))
        assert more.replicas * more.resident_bytes >= base.replicas * base.resident_bytes
        assert more.replicas * more.disk_bytes > base.replicas * base.disk_bytes
        assert more.nodes >= base.nodes
    for change in ({"queries_per_second": 4000.0}, {"items": 1_000_000_000}):
        assert codes(dataclasses.replace(SHOP, **change)).nodes > base.nodes
    for change in ({"prefetch": 1000}, {"first_stage_latents": 4096}, {"items": 20_000_000}):
        assert item_ms(dataclasses.replace(SHOP, **change), CONSTANTS) >= item_ms(SHOP, CONSTANTS)  # type: ignore[arg-type]
        assert codes(dataclasses.replace(SHOP, **change)).cpu_ms > base.cpu_ms  # type: ignore[arg-type]


def test_recall_is_shown_only_for_the_settings_it_was_measured_with() -> None:
    known = Workload(items=1_000_000, dim=384, k=32)
    for same in (known, dataclasses.replace(known, first_stage_latents=1280)):
        assert codes(same).recall100 == CONSTANTS.codes_recall100["32,384"]
    for change in (
        {"latents": 16_384},
        {"first_stage_latents": 128},
        {"keep_dense": True},
        {"k": 31},
        {"prefetch": 50},
    ):
        assert codes(dataclasses.replace(known, **change)).recall100 is None


@pytest.mark.parametrize("items", [1, 1000, 63_666, 10**6, 10**8, 10**9])
@pytest.mark.parametrize("rate", [0.0, 1.0, 300.0, 100_000.0])
def test_planned_nodes_carry_the_load_and_hold_the_data(items: int, rate: float) -> None:
    node = Node(ram_gib=64, vcpus=16, headroom=0.25)
    workload = Workload(items=items, dim=384, queries_per_second=rate, replicas=2)
    for estimate in plan(workload, CONSTANTS, node):
        assert estimate.nodes == estimate.shards * estimate.replicas
        assert estimate.replicas >= 2
        assert estimate.utilisation <= 0.75 * (1 + 1e-9)
        assert estimate.resident_bytes / estimate.shards <= 0.75 * 64 * GIB * 1.02
        assert 1 <= estimate.segments <= 16
        assert 0 < estimate.p50_ms < 60_000
        assert estimate.queries_per_core == pytest.approx(1000 / estimate.cpu_ms)


def test_a_billion_items_are_spread_until_a_query_is_quick() -> None:
    few = codes(Workload(items=10**9, dim=768, latents=16_384, queries_per_second=1))
    many = codes(Workload(items=10**9, dim=768, latents=16_384, queries_per_second=200))
    assert few.shards > 1
    assert many.shards > few.shards
    assert many.p50_ms < few.p50_ms
    per_segment = 10**9 / (many.shards * many.segments)
    alone = search_ms(Workload(int(per_segment), 768, latents=16_384), CONSTANTS, 1, 1)
    assert many.p50_ms > 0.5 * alone  # a query waits for the slowest of all shards


def test_the_slowest_of_many_shards_counts() -> None:
    workload = Workload(items=16_000_000, dim=384)
    one, many = (capacity.planner.spread(CONSTANTS, parts) for parts in (1, 100))
    assert one == pytest.approx(1)
    assert many > 1
    random = np.random.default_rng(0)
    u = random.random((4000, 100))
    slowest = np.median(((u / (1 - u)) ** CONSTANTS.times.spread).max(axis=1))
    assert many == pytest.approx(slowest, rel=0.05)
    assert search_ms(workload, CONSTANTS, 4, 2) < search_ms(workload, CONSTANTS, 1, 1)
    assert shard_ms(workload, CONSTANTS) < search_ms(workload, CONSTANTS, 1, 1)


def test_costs_are_amounts_times_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text("ram_gib = 3.0\ndisk_gib = 0.25\nvcpu = 20\n")
    prices = Prices.read(file)
    node = Node(ram_gib=32, vcpus=8)
    for estimate in plan(SHOP, CONSTANTS, node, prices):
        memory = estimate.replicas * estimate.resident_bytes / GIB
        disk = estimate.replicas * estimate.disk_bytes / GIB
        busy = 40 * estimate.cpu_ms / 1000
        assert estimate.usd == pytest.approx(3 * memory + 0.25 * disk + 20 * busy)
        assert estimate.usd_nodes == pytest.approx(estimate.nodes * (32 * 3 + 8 * 20) + 0.25 * disk)
    assert all(estimate.usd is estimate.usd_nodes is None for estimate in plan(SHOP, CONSTANTS, node))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ram_gib = 3.0\n", "it must have disk_gib, ram_gib, vcpu"),
        ("ram_gib = 3.0\ndisk_gib = 0.2\nvcpu = -1\n", "price vcpu is -1"),
        ("ram_gib = 3.0\ndisk_gib = 0.2\nvcpu = true\n", "price vcpu is True"),
        ("ram_gib = nan\ndisk_gib = 0.2\nvcpu = 1\n", "price ram_gib is nan"),
        ("ram_gib: 3\n", "is not a TOML file of prices"),
    ],
)
def test_invalid_prices_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        Prices.read(file)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"items": 0}, "items is 0"), ({"k": 5000}, "k is 5000 but there are 4096"), ({"datatype": "int4"}, "int4"),
        ({"limit": 300}, "prefetch is 200 but limit is 300"),
        ({"queries_per_second": float("nan")}, "queries_per_second is nan"), ({"payload_bytes": -1.0}, "payload_bytes"),
    ],
)  # fmt: skip
def test_invalid_workloads_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        dataclasses.replace(SHOP, **change)
    with pytest.raises(ConfigError, match="headroom"):
        Node(headroom=1)


def test_constants_of_another_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "constants.json"
    with pytest.raises(ConfigError, match="is not a file of capacity measurements"):
        load_constants(file)
    file.write_text(json.dumps({"format": 2}))
    with pytest.raises(ConfigError, match="not in format 1"):
        load_constants(file)
    file.write_text(json.dumps({"format": 1, "constants": {}}))
    with pytest.raises(ConfigError, match="measure them again"):
        load_constants(file)


def test_a_plan_is_drawn(tmp_path: Path) -> None:
    draw_plan(tmp_path / "plan.png", plan(SHOP, CONSTANTS, prices=Prices(1, 1, 1)), "a shop")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
