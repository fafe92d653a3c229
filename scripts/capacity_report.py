"""The results of bench_capacity.py as Markdown: what was measured, beside what the fitted formulas say."""

from __future__ import annotations

from typing import Any

from compressae_qdrant.capacity import Constants, Workload
from compressae_qdrant.capacity.planner import index_bytes, item_bytes, search_ms

__all__ = ["report"]


def report(measured: dict[str, Any], constants: Constants) -> str:
    """Three tables for BENCHMARKS.md."""
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items())
    return "\n".join([machine, *_bytes(measured, constants), *_times(measured, constants), *_dense(measured)])


def _bytes(measured: dict[str, Any], constants: Constants) -> list[str]:
    lines = [
        "\n| items | h | k | index | segments | payload | posting mass | index B an item | formula | disk B an item "
        "| formula | opened B an item |",
        "|" + "---|" * 12,
    ]
    for row in measured["builds"]:
        run, n = row["run"], row["run"]["items"]
        asked = workload_of(run)
        index = index_bytes(asked, constants, run["segments"]) / n
        cells = [
            f"{n:,}", f"{run['latents']:,}", run["k"], run["datatype"], run["segments"], run["payload_bytes"],
            f"{row['posting_mass']:.3f}", f"{row['index_bytes'] / n:.1f}", f"{index:.1f}",
            f"{row['disk_bytes'] / n:.1f}", f"{index + item_bytes(asked, constants):.1f}",
            f"{row['opened_bytes'] / n:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _times(measured: dict[str, Any], constants: Constants) -> list[str]:
    lines = [
        "\n| items | h | k | segments | first stage | candidates | postings walked | p50 ms | CPU ms | formula |",
        "|" + "---|" * 10,
    ]
    for row in measured["searches"]:
        run = row["run"]
        first = "all: one stage" if row["first_stage"] == run["latents"] else str(row["first_stage"])
        asked = workload_of(run, first_stage=row["first_stage"], prefetch=row["prefetch"])
        lines.append(
            f"| {run['items']:,} | {run['latents']:,} | {run['k']} | {run['segments']} | {first} | {row['prefetch']:,} "
            f"| {row['postings']:,.0f} | {row['p50_ms']:.2f} | {row['cpu_ms']:.2f} "
            f"| {search_ms(asked, constants, 1, run['segments']):.2f} |"
        )
    return lines


def _dense(measured: dict[str, Any]) -> list[str]:
    lines = ["\n| dense vectors | items | d | B an item in memory | on disk | p50 ms | CPU ms |", "|" + "---|" * 7]
    for row in measured["dense_searches"]:
        run = row["run"]
        (built,) = (each for each in measured["dense_builds"] if each["run"] == run)
        name = f"{run['method']} + originals" if row["rescored"] else run["method"]
        lines.append(
            f"| {name} | {run['items']:,} | {run['dim']} | {built['index_bytes'] / run['items']:.0f} "
            f"| {built['disk_bytes'] / run['items']:.0f} | {row['p50_ms']:.2f} | {row['cpu_ms']:.2f} |"
        )
    return lines


def workload_of(run: dict[str, Any], **query: Any) -> Workload:
    """What a run serves, for the planner's formulas."""
    names = ("items", "dim", "latents", "k", "datatype", "payload_bytes")
    return Workload(**{name: run[name] for name in names}, **query)
