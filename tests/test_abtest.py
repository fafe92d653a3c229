"""A/B tests: assignment, confidence sequences by simulation, sample ratio, events.

COMPRESSAE_SIMULATIONS=full runs 2,000 A/A and 500 A/B experiments; by default, fewer are run.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressae_qdrant.abtest import (
    Event,
    UserTotals,
    assign,
    assignment,
    compare,
    read_events,
    required_users,
    sample_ratio_p,
)
from compressae_qdrant.abtest.statistics import Moments
from compressae_qdrant.errors import InvalidInputError, SourceError

from .support.shell import Shell

FULL = os.environ.get("COMPRESSAE_SIMULATIONS") == "full"
CTR = 0.1


def _experiment(random: np.random.Generator, users: int, looks: int, lift: float) -> list[tuple[Moments, Moments]]:
    """Sums of both variants after each batch. Users differ in their numbers of exposures and their click rates."""
    after, sums = [], [Moments(), Moments()]
    for _ in range(looks):
        for variant, factor in enumerate((1.0, 1.0 + lift)):
            exposures = 1 + random.poisson(3, users // looks // 2)
            taste = random.beta(2, 18, len(exposures))
            sums[variant] += Moments.of(exposures, random.binomial(exposures, taste * factor))
        after.append((sums[0], sums[1]))
    return after


def test_repeated_looks_give_few_false_positives_unlike_a_z_test() -> None:
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


def test_a_true_lift_is_covered_and_detected() -> None:
    experiments = 500 if FULL else 40
    random = np.random.default_rng(1)
    pilot = Moments.of(*_users(random, 200_000))
    planned = required_users(CTR, 0.015, variance=pilot.variance)
    covered = detected = 0
    for _ in range(experiments):
        looks = [compare(a, b, planned=planned) for a, b in _sums(random, planned, 25, 0.015, pilot)]
        covered += all(
            look.interval[0] <= 0.015 * CTR <= look.interval[1]
            and look.relative_interval[0] <= 0.015 <= look.relative_interval[1]
            for look in looks
        )
        detected += any(look.significant for look in looks)
    assert covered / experiments >= 0.99 - (0 if FULL else 0.03)
    assert detected / experiments >= 0.8


def _users(random: np.random.Generator, users: int, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    exposures = 1 + random.poisson(3, users)
    return exposures, random.binomial(exposures, random.beta(2, 18, users) * factor)


def _sums(
    random: np.random.Generator, users: int, looks: int, lift: float, pilot: Moments
) -> list[tuple[Moments, Moments]]:
    """Like `_experiment` for millions of users: clicks from their normal limit, squares from the pilot."""
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


def test_returning_users_give_no_false_positives() -> None:
    """All users are present from the first look and go on clicking. This is harder than the terms of the theory, which
    arrive one by one and do not change."""
    experiments, users, count = (1000, 1500, 50) if FULL else (60, 400, 25)
    random = np.random.default_rng(2)
    ours = 0
    for _ in range(experiments):
        often, taste = random.gamma(1.0, 10.0, (2, users)), random.beta(2, 18, (2, users))
        exposures, clicks = np.zeros((2, 2, users), np.int64)
        significant = False
        for _ in range(count):
            new = random.poisson(often / count)
            exposures, clicks = exposures + new, clicks + random.binomial(new, taste)
            a, b = (Moments.of(e[e > 0], c[e > 0]) for e, c in zip(exposures, clicks, strict=True))
            significant |= compare(a, b, planned=2 * users).significant
        ours += significant
    assert ours / experiments <= 0.015 + (0 if FULL else 0.02)


def test_the_sample_ratio_check_holds_at_repeated_looks() -> None:
    chi_squared = 6.635  # its 99% quantile at one degree of freedom
    random = np.random.default_rng(4)
    ours = naive = 0
    for _ in range(300):
        counts = np.cumsum(random.random(5000) < 0.3)[99::100]
        looks = [{"a": int(a), "b": 100 * n - int(a)} for n, a in enumerate(counts, 1)]
        ours += any(sample_ratio_p(look, {"a": 3, "b": 7}) < 0.01 for look in looks)
        naive += any((look["a"] - 30 * n) ** 2 / (21 * n) > chi_squared for n, look in enumerate(looks, 1))
    assert ours <= 3
    assert naive > 15
    assert sample_ratio_p({"a": 50_500, "b": 49_500}, {"a": 1, "b": 1}) > 0.001
    assert sample_ratio_p({"a": 51_000, "b": 49_000}, {"a": 1, "b": 1}) < 1e-4
    assert sample_ratio_p({"a": 10, "b": 1}, {"a": 1, "b": 0}) == 0.0
    assert sample_ratio_p({"a": 10, "b": 0}, {"a": 1, "b": 0}) == 1.0
    with pytest.raises(InvalidInputError, match="give the same variants"):
        sample_ratio_p({"a": 1}, {"a": 1, "b": 1})


def test_few_users_give_an_unbounded_interval() -> None:
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
    first = [assign(str(n), "a", weights) for n in range(20_000)]
    second = [assign(str(n), "b", weights) for n in range(20_000)]
    assert abs(first.count("codes") / 20_000 - 0.5) < 0.02
    assert abs(sum(x == y for x, y in zip(first, second, strict=True)) / 20_000 - 0.5) < 0.02
    uneven = [assign(str(n), "a", {"x": 9, "y": 1}) for n in range(20_000)]
    assert sample_ratio_p({v: uneven.count(v) for v in "xy"}, {"x": 9, "y": 1}) > 0.001
    assert sample_ratio_p({v: uneven.count(v) for v in "xy"}, {"x": 1, "y": 1}) < 1e-9
    for wrong in ({}, {"x": -1.0, "y": 2.0}, {"x": 0.0}):
        with pytest.raises(InvalidInputError, match="give each variant a weight"):
            assign("u", "e", wrong)
        with pytest.raises(InvalidInputError, match="give each variant a weight"):
            sample_ratio_p(dict.fromkeys(wrong, 0), wrong)


def test_the_documented_test_vectors() -> None:
    """The hashes in the documented table come from sha256sum, and its variants from an implementation in JavaScript."""
    rows = re.findall(
        r"^\| `(\S+)`\s*\| `(\S+)`\s*\| `(\w{16})` \| ([\d.]+) \| (\w+)\s*\| (\w+)", assignment.__doc__ or "", re.M
    )
    assert len(rows) == 5
    for experiment, user, digest, position, even, uneven in rows:
        assert int(digest, 16) / 2**64 == pytest.approx(float(position), abs=1e-6)
        assert assign(user, experiment, {"control": 1, "codes": 1}) == even
        assert assign(user, experiment, {"a": 5, "b": 3, "c": 2}) == uneven


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_gives_the_same_assignment() -> None:
    program = """
        const {createHash} = require('crypto'), weights = {a: 0.1, b: 0.2, c: 0.7};
        for (let n = 0; n < 2000; n++) {
            const bits = createHash('sha256').update('exp:ü' + n, 'utf8').digest().readBigUInt64BE(0);
            const place = Number(bits) / 2 ** 64 * (0.1 + 0.2 + 0.7);
            let reached = 0;
            console.log(Object.entries(weights).find(([, weight]) => place < (reached += weight))[0]);
        }"""
    answer = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [assign(f"ü{n}", "exp", {"a": 0.1, "b": 0.2, "c": 0.7}) for n in range(2000)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_events_of_any_format(kind: str, tmp_path: Path) -> None:
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
        totals.add(event)
    assert totals.crossed == {"u3"}
    moments = totals.moments()
    assert (moments["a"].users, moments["a"].clicks, moments["b"].users) == (1, 1, 1)


def test_sums_are_updated_with_every_event() -> None:
    """After any sequence of events, the sums equal those computed from all users."""
    random = np.random.default_rng(3)
    totals = UserTotals()
    for _ in range(3000):
        user = int(random.integers(200))
        variant = "ab"[user % 2] if random.random() < 0.99 else "b"
        totals.add(Event(f"u{user}", variant, "click" if random.random() < 0.4 else "exposure"))
    assert totals.crossed
    for variant in "ab":
        exposed = [(e, c) for v, e, c in totals.users.values() if v == variant and e]
        assert totals.moments()[variant] == Moments.of(*zip(*exposed, strict=True))


def test_times_of_events(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for times in (["2026-01-01T12:00:00", "2026-01-01T13:00:00+00:00"], [first.timestamp(), first.timestamp() + 3600]):
        path.write_text(
            "".join(f"{json.dumps({'user': 'u', 'variant': 'a', 'event': 'click', 'at': at})}\n" for at in times)
        )
        assert [event.time for event in read_events(path, "at")] == [first, first + timedelta(hours=1)]
    table = pa.table({"user": ["u"], "variant": ["a"], "event": ["click"], "at": [first.replace(tzinfo=None)]})
    pq.write_table(table, tmp_path / "e.parquet")
    assert next(read_events(tmp_path / "e.parquet", "at")).time == first
    table = table.set_column(3, "at", pa.array([first.date()]))
    pq.write_table(table, tmp_path / "e.parquet")
    assert next(read_events(tmp_path / "e.parquet", "at")).time == first.replace(hour=0)
    path.write_text("".join(f'{{"user": "u", "variant": "a", "event": "click", "at": {at}}}\n' for at in (9, 8)))
    with pytest.raises(SourceError, match=r"row 1 .* sort the events"):
        list(read_events(path, "at"))
    with pytest.raises(SourceError, match=r"row 0 .*lacks when"):
        list(read_events(path, "when"))
    path.write_text('{"user": "u", "variant": "a", "event": "click", "at": "yesterday"}')
    with pytest.raises(SourceError, match=r"row 0 .*no readable time"):
        list(read_events(path, "at"))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("1700000000.5", datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)),
        ("-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("20260131", datetime(2026, 1, 31, tzinfo=UTC)),
        ("20260131T12", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_times_of_a_csv_are_texts(tmp_path: Path, text: str, time: datetime) -> None:
    (tmp_path / "e.csv").write_text(f"user,variant,event,at\nu,a,click,{text}\n")
    assert [event.time for event in read_events(tmp_path / "e.csv", "at")] == [time]


@pytest.mark.parametrize("text", ["20261331", "", "1700000000 s", "9" * 30, "1_7"])
def test_a_text_that_is_not_a_time_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.csv").write_text(f"user,variant,event,at\nu,a,click,{text}\n")
    with pytest.raises(SourceError, match=r"row 0 .*no readable time"):
        list(read_events(tmp_path / "e.csv", "at"))


def test_the_commands(shell: Shell, tmp_path: Path) -> None:
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
    assert 200 <= report["variants"]["codes"]["first_significant_users"] < 4000
    code, out, _ = shell(line)
    assert code == 0
    assert re.search(r"codes .*% +significant", out)
    pq.write_table(pa.Table.from_pylist(rows[:60]), tmp_path / "few.parquet")
    few = shell.json(f"ab analyse {tmp_path}/few.parquet --plot {tmp_path}/few.png")["variants"]["codes"]
    assert (few["interval"], few["significant"]) == ([None, None], False)
    assert shell.json(f"{line} --weights control=1,codes=3")["sample_ratio"].startswith("MISMATCH")
    code, _, err = shell(f"{line} --weights control=1")
    assert code == 2
    assert "at least one more variant" in err
    code, _, err = shell(f"{line} --weights control=0,codes=0")
    assert (code, "at least one above 0" in err) == (2, True)


def test_unreadable_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither 'exposure' nor 'click'"):
        UserTotals().add(Event("u", "a", "purchase"))
    (tmp_path / "e.csv").write_text("user,event\nu,click\n")
    with pytest.raises(SourceError, match=r"row 0 .*variant"):
        list(read_events(tmp_path / "e.csv"))
    for row in (",a,click", "u,,click", "u,a,"):
        (tmp_path / "e.csv").write_text(f"user,variant,event\n{row}\n")
        with pytest.raises(SourceError, match=r"row 0 .*lacks a user, variant or event"):
            list(read_events(tmp_path / "e.csv"))
    with pytest.raises(SourceError, match="no file of events"):
        list(read_events(tmp_path / "none.csv"))


def test_required_users_refuses_arguments_out_of_range() -> None:
    bad: list[tuple[float, float | None, str]] = [
        (1e-9, None, "takes more than 1e15 users to detect"),
        (math.nan, None, "finite and not 0"),
        (0.1, 0.0, "variance is 0"),
    ]
    for lift, variance, complaint in bad:
        with pytest.raises(InvalidInputError, match=complaint):
            required_users(0.08, lift, variance=variance)
    assert required_users(0.5, 50.0) == 2
