"""The command plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compressae_qdrant.capacity import Node, Workload, load_constants, plan

from .support.shell import Shell


def test_json_is_what_the_library_plans(shell: Shell) -> None:
    facts = shell.json("plan --items 3000000 --dim 384 --k 16 --k 32 --qps 25 --ram 16 --vcpus 4 --replicas 2")
    workload = Workload(3_000_000, 384, k=16, replicas=2, queries_per_second=25)
    expected = plan(workload, load_constants(), Node(16, 4))
    assert {**facts["workloads"][0]} == dataclasses.asdict(workload)  # the options have the defaults of the library
    by_graph, by_codes, longer_graph, longer, *others = facts["estimates"]
    assert by_graph["index_bytes"] == expected[0].index_bytes
    assert by_codes["index_bytes"] == expected[1].index_bytes
    assert longer_graph["name"] == "codes k=32, h=4096, graph"
    assert longer["name"] == "codes k=32, h=4096, uint8"
    assert [each["name"] for each in others] == [each.name for each in expected[2:]]
    assert {each["usd"] for each in facts["estimates"]} == {None}
    assert facts["node"] == {"ram_gib": 16, "vcpus": 4, "headroom": 0.25}
    assert "date" in facts["measured_on"]


def test_the_first_stage_and_navigation_are_chosen(shell: Shell) -> None:
    facts = shell.json(
        "plan --items 100000000 --dim 768 --first-stage graph --navigation-dim 96 --navigation-bits 1.5 "
        "--navigation-m 6 --navigation-ef 150 --navigation-datatype turbo4"
    )
    workload = Workload(
        100_000_000, 768, first_stage="graph", navigation_dim=96, navigation_bits=1.5, navigation_m=6,
        navigation_ef=150, navigation_datatype="turbo4",
    )  # fmt: skip
    expected = plan(workload, load_constants())
    assert [each["name"] for each in facts["estimates"]] == [each.name for each in expected]
    for name in ("resident_bytes", "read_bytes", "disk_bytes", "cold_ms"):
        assert facts["estimates"][0][name] == getattr(expected[0], name)
    code, _, err = shell("plan --items 1000 --dim 64 --first-stage trees")
    assert (code, err) == (
        2,
        "compressae: first_stage is 'trees'; it must be one of graph, codes, or None to estimate both\n",
    )


def test_costs_are_shown_only_where_there_are_prices(shell: Shell, tmp_path: Path) -> None:
    asked = "plan --items 100000000 --dim 768 --qps 50"
    code, out, _ = shell(asked)
    assert code == 0
    assert "USD" not in out
    (tmp_path / "prices.toml").write_text("ram_gib = 4\ndisk_gib = 0.1\nvcpu = 25\n")
    code, out, _ = shell(f"{asked} --prices prices.toml --plot plan.png")
    assert code == 0
    assert "USD per" in out
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = shell(f"{asked} --prices none.toml")
    assert code == 2
    assert "none.toml is not a TOML file of prices" in err


def test_a_narrow_terminal_cuts_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("ram_gib = 4\ndisk_gib = 0.1\nvcpu = 25\n")
    asked = "plan --items 1000000000 --dim 768 --qps 20 --latents 16384 --prices prices.toml"
    _, wide, _ = shell(asked)
    monkeypatch.setenv("COLUMNS", "80")
    code, narrow, _ = shell(asked)
    assert code == 0
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert {*wide.split()} == {*narrow.split()}


def test_long_postings_and_what_to_do_about_them(shell: Shell) -> None:
    advice = "fewer --first-stage-latents make the inverted index faster"
    assert advice in " ".join(shell("plan --items 1000000000 --dim 384")[1].split())
    assert advice not in " ".join(shell("plan --items 1000000 --dim 384")[1].split())
    assert advice not in " ".join(shell("plan --items 1000000000 --dim 384 --first-stage graph")[1].split())


def test_invalid_settings_are_reported_in_one_line(shell: Shell) -> None:
    code, _, err = shell("plan --items 0 --dim 384")
    assert (code, err) == (2, "compressae: items is 0; it must be at least 1\n")
