"""A/B tests: assignment, confidence sequences by simulation, sample ratio, events.

COMPRESSAE_SIMULATIONS=full runs 2,000 A/A and 500 A/B experiments; a run of all tests does a part.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant.abtest import UserTotals, assign, compare, read_events, required_users, sample_ratio_p
from compressae_qdrant.abtest.statistics import Moments
from compressae_qdrant.errors import InvalidInputError, SourceError

from .test_cli import Shell

FULL = os.environ.get("COMPRESSAE_SIMULATIONS") == "full"
CTR = 0.1


def _experiment(random: np.random.Generator, users: int, looks: int, lift: float) -> list[tuple[Moments, Moments]]:
    """Sums of both variants after each batch. Users differ in how much they see and how gladly they click."""
    after, sums = [], [Moments(), Moments()]
    for _ in range(looks):
        for variant, factor in enumerate((1.0, 1.0 + lift)):
            exposures = 1 + random.poisson(3, users // looks // 2)
            taste = random.beta(2, 18, len(exposures))
            sums[variant] += Moments.of(exposures, random.binomial(exposures, taste * factor))
        after.append((sums[0], sums[1]))
    return after


def test_a_watched_aa_test_is_hardly_ever_significant_and_a_z_test_often_is() -> None:
    experiments, users = (2000, 20_000) if FULL else (300, 10_000)
    random = np.random.default_rng(0)
    ours = naive = 0
    for _ in range(experiments):
        looks = _experiment(random, users, 50, 0.0)
        ours += any(compare(a, b, planned=users).significant for a, b in looks)
        naive += any(
            abs(b.rate - a.rate) > 2.576 * math.sqrt(a.variance / a.users + b.variance / b.users) for a, b in looks
        )
    assert ours / experiments <= 0.015
    assert naive / experiments > 0.05


def test_a_true_lift_is_covered_and_found() -> None:
    experiments = 500 if FULL else 40
    random = np.random.default_rng(1)
    pilot = Moments.of(*_users(random, 200_000))
    planned = required_users(CTR, 0.015, variance=pilot.variance)
    covered = found = 0
    for _ in range(experiments):
        looks = [compare(a, b, planned=planned) for a, b in _sums(random, planned, 25, 0.015, pilot)]
        covered += all(
            look.interval[0] <= 0.015 * CTR <= look.interval[1]
            and look.relative_interval[0] <= 0.015 <= look.relative_interval[1]
            for look in looks
        )
        found += any(look.significant for look in looks)
    assert covered / experiments >= 0.99 - (0 if FULL else 0.03)
    assert found / experiments >= 0.8


def _users(random: np.random.Generator, users: int, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    exposures = 1 + random.poisson(3, users)
    return exposures, random.binomial(exposures, random.beta(2, 18, users) * factor)


def _sums(
    random: np.random.Generator, users: int, looks: int, lift: float, pilot: Moments
) -> list[tuple[Moments, Moments]]:
    """As `_experiment` for millions of users: clicks of a batch by their normal limit, squares from the pilot."""
    after, sums = [], [Moments(), Moments()]
    batch = users // looks // 2
    per_user = [value / pilot.users for value in list(vars(pilot).values())[1:]]
    spread = math.sqrt(batch * pilot.variance) * per_user[0]
    for _ in range(looks):
        for variant, factor in enumerate((1.0, 1.0 + lift)):
            exposures, _, exposures2, clicks2, both = (batch * value for value in per_user)
            clicks = exposures * CTR * factor + spread * random.normal()
            sums[variant] += Moments(batch, exposures, clicks, exposures2, clicks2, both)
        after.append((sums[0], sums[1]))
    return after


def test_few_users_say_nothing() -> None:
    few = Moments.of(np.ones(50), np.ones(50))
    assert compare(few, few).interval == (-math.inf, math.inf)
    assert not compare(few, few).significant


def test_sums_add_up() -> None:
    e, c = np.array([1, 4, 2, 9.0]), np.array([0, 2, 2, 1.0])
    both = Moments.of(e[:2], c[:2]) + Moments.of(e[2:], c[2:])
    assert both == Moments.of(e, c)
    terms = (c - both.rate * e) / e.mean()
    assert both.variance == pytest.approx(float(np.var(terms, ddof=1)))


def test_assignment_is_fixed_even_and_independent() -> None:
    weights = {"control": 0.5, "codes": 0.5}
    # Computed once with another implementation: anyone's must give the same.
    assert [assign(f"u{n}", "exp-1", weights) for n in range(6)] == [
        "codes" if _place(f"u{n}", "exp-1") >= 0.5 else "control" for n in range(6)
    ]
    first = [assign(str(n), "a", weights) for n in range(20_000)]
    second = [assign(str(n), "b", weights) for n in range(20_000)]
    assert abs(first.count("codes") / 20_000 - 0.5) < 0.02
    assert abs(sum(x == y for x, y in zip(first, second, strict=True)) / 20_000 - 0.5) < 0.02
    uneven = [assign(str(n), "a", {"x": 9, "y": 1}) for n in range(20_000)]
    assert sample_ratio_p({v: uneven.count(v) for v in "xy"}, {"x": 9, "y": 1}) > 0.001
    assert sample_ratio_p({v: uneven.count(v) for v in "xy"}, {"x": 1, "y": 1}) < 1e-9
    for wrong in ({}, {"x": -1.0, "y": 2.0}, {"x": 0.0}):
        with pytest.raises(InvalidInputError, match="share"):
            assign("u", "e", wrong)


def _place(user: str, experiment: str) -> float:
    import hashlib

    return int(hashlib.sha256(f"{experiment}:{user}".encode()).hexdigest()[:16], 16) / 16**16


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_events_of_any_kind(kind: str, tmp_path: Path) -> None:
    rows = [("u1", "a", "exposure"), ("u1", "a", "click"), ("u2", "b", "exposure"), ("u3", "a", "exposure"),
            ("u3", "b", "exposure"), ("u4", "b", "click")]  # fmt: skip
    table = [dict(zip(("user", "variant", "event"), row, strict=True)) for row in rows]
    path = tmp_path / f"events.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif kind == "csv":
        path.write_text("\n".join(["user,variant,event", *map(",".join, rows)]))
    else:
        path.write_text("\n".join(map(json.dumps, table)))
    totals = UserTotals()
    for event in read_events(path):
        totals.add(*event)
    assert totals.crossed == {"u3"}
    moments = totals.moments()
    assert (moments["a"].users, moments["a"].clicks, moments["b"].users) == (1, 1, 1)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(monkeypatch, capsys)
    weights = {"control": 1.0, "codes": 1.0}
    random = np.random.default_rng(5)
    rows = []
    for n in range(4000):
        variant = assign(f"u{n}", "exp", weights)
        rows.append({"user": f"u{n}", "variant": variant, "event": "exposure"})
        if random.random() < (0.5 if variant == "codes" else 0.1):
            rows.append({"user": f"u{n}", "variant": variant, "event": "click"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    assert shell.json("ab assign u7 --experiment exp")["variant"] == assign("u7", "exp", weights)
    assert shell.json("ab size --rate 0.08 --lift 0.015")["users"] == required_users(0.08, 0.015)
    line = f"ab analyse {tmp_path}/events.parquet --planned 4000 --looks 500 --plot {tmp_path}/effect.png"
    report = shell.json(line)
    assert report["variants"]["codes"]["significant"]
    assert 3 < report["variants"]["codes"]["relative_lift"] < 5
    assert report["sample_ratio"] == "ok"
    assert (tmp_path / "effect.png").read_bytes().startswith(b"\x89PNG")
    assert shell.json(f"{line} --weights control=1,codes=3")["sample_ratio"].startswith("MISMATCH")
    code, _, err = shell(f"{line} --weights control=1")
    assert code == 2
    assert "at least one other variant" in err


def test_events_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither 'exposure' nor 'click'"):
        UserTotals().add("u", "a", "purchase")
    (tmp_path / "e.csv").write_text("user,event\nu,click\n")
    with pytest.raises(SourceError, match=r"row 0 .*variant"):
        list(read_events(tmp_path / "e.csv"))
    with pytest.raises(SourceError, match="no events"):
        list(read_events(tmp_path / "none.csv"))
