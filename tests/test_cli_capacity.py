"""The command plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressae_qdrant.capacity import Node, Workload, load_constants, plan

from .support.shell import Shell


def test_json_is_what_the_library_plans(shell: Shell) -> None:
    facts = shell.json("plan --items 3000000 --dim 384 --k 16 --k 32 --qps 25 --ram 16 --vcpus 4 --replicas 2")
    workload = Workload(3_000_000, 384, k=16, replicas=2, queries_per_second=25)
    expected = plan(workload, load_constants(), Node(16, 4))
    first, second, *others = facts["estimates"]
    assert first["index_bytes"] == expected[0].index_bytes
    assert second["name"].startswith("codes k=32")
    assert [each["name"] for each in others] == [each.name for each in expected[1:]]
    assert {each["usd"] for each in facts["estimates"]} == {None}
    assert facts["node"] == {"ram_gib": 16, "vcpus": 4, "headroom": 0.25}
    assert "date" in facts["measured_on"]


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
    assert "fewer --first-stage-latents make it faster" in shell("plan --items 1000000000 --dim 384")[1]
    assert "fewer --first-stage-latents make it faster" not in shell("plan --items 1000000 --dim 384")[1]


def test_invalid_settings_are_reported_in_one_line(shell: Shell) -> None:
    code, _, err = shell("plan --items 0 --dim 384")
    assert (code, err) == (2, "compressae: items is 0; it must be at least 1\n")
