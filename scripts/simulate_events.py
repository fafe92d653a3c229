"""Simulate the event log of an A/B test, as input for `compressae ab analyse`.

The log covers two weeks. A user's first visit is at a random time; the number of further visits is Poisson with a
gamma-distributed mean (3 on average), and the click rate is beta-distributed (8% on average). Variants are assigned by
the package's own function.

    python scripts/simulate_events.py events.parquet --users 200000 --lift 0.03
    compressae ab analyse events.parquet --time time --planned 200000 --plot effect.png
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import write_csv

from compressae_qdrant.abtest import assign

EXPERIMENT = "codes-2026"
FIRST = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp())
SECONDS = 14 * 24 * 3600


def main() -> None:
    """Draw the events, sort them by time and write them to a file."""
    options = _options()
    random = np.random.default_rng(options.seed)
    weights = {"control": 1.0, "codes": 1.0}
    variants = np.array([assign(f"user-{n}", EXPERIMENT, weights) for n in range(options.users)])
    visits = 1 + random.poisson(random.gamma(1.0, 3.0, options.users))
    taste = random.beta(2, 23, options.users) * np.where(variants == "codes", 1 + options.lift, 1.0)
    user = np.repeat(np.arange(options.users), visits)
    first = np.repeat(random.random(options.users), visits)
    own = np.concatenate([[0], np.cumsum(visits)[:-1]])
    share = random.random(len(user))
    share[own] = 0.0
    time = FIRST + SECONDS * (first + share * (1 - first))
    clicked = np.flatnonzero(random.random(len(user)) < taste[user])
    users = np.concatenate([user, user[clicked]])
    times = np.concatenate([time, time[clicked] + random.uniform(2, 60, len(clicked))])
    kinds = np.repeat(["exposure", "click"], [len(user), len(clicked)])
    order = np.argsort(times, kind="stable")
    names = np.char.add("user-", users[order].astype(str))
    stamps = pa.array((times[order] * 1000).astype(np.int64), pa.timestamp("ms", "UTC"))
    table = pa.table({"time": stamps, "user": names, "variant": variants[users[order]], "event": kinds[order]})
    if options.path.suffix == ".parquet":
        pq.write_table(table, options.path)
    elif options.path.suffix == ".csv":
        write_csv(table, options.path)
    else:
        rows = ({**row, "time": row["time"].isoformat()} for row in table.to_pylist())
        options.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(table):,} events of {options.users:,} users, {len(clicked) / len(user):.4f} clicks per exposure")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="file to write: .parquet, .csv, or JSON lines for any other suffix")
    parser.add_argument("--users", type=int, default=200_000, help="number of users (default: 200,000)")
    parser.add_argument("--lift", type=float, default=0.03, help="true relative lift of the click rate (default: 0.03)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
