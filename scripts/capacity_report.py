"""The results of bench_capacity.py as Markdown: measurements, and the estimates of the fitted formulas."""

from __future__ import annotations

import statistics
from typing import Any

from compressae_qdrant.capacity import Constants, Workload
from compressae_qdrant.capacity.planner import search_ms
from compressae_qdrant.capacity.sizes import (
    graph_disk_bytes,
    index_bytes,
    item_bytes,
    link_bytes,
    pages_read,
    vector_bytes,
)
from compressae_qdrant.search.costs import graph_ms
from compressae_qdrant.search.defaults import GraphSizes

__all__ = ["report", "worst_bytes"]


def report(measured: dict[str, Any], constants: Constants) -> str:
    """Return the constants, the errors and three tables, for BENCHMARKS.md."""
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items())
    return "\n".join(
        [
            machine,
            *_fitted(measured, constants),
            *_bytes(measured, constants),
            *_times(measured, constants),
            *_dense(measured),
            *_graph(measured, constants),
        ]
    )


def worst_bytes(measured: dict[str, Any], constants: Constants) -> float:
    """Return the largest relative error of the formulas for the bytes of an index, in memory and on disk."""
    codes = [error for _, *errors in _byte_errors(measured, constants) for error in errors]
    graphs = [
        abs(formula / real - 1)
        for row in measured["graph_builds"]
        if not row["synthetic"]
        for formula, real in _graph_bytes(row, constants)
    ]
    return max(codes + graphs)


def _byte_errors(measured: dict[str, Any], constants: Constants) -> list[tuple[dict[str, Any], float, float]]:
    found = []
    for row in measured["builds"]:
        run, workload = row["run"], workload_of(row["run"])
        index = index_bytes(workload, constants, run["segments"])
        disk = index + item_bytes(workload, constants) * run["items"]
        found.append((run, abs(index / row["index_bytes"] - 1), abs(disk / row["disk_bytes"] - 1)))
    return found


def _fitted(measured: dict[str, Any], constants: Constants) -> list[str]:
    """Return the cost of a posting, an item and a candidate, and the errors of the formulas."""
    size, times = constants.bytes, constants.times
    packed = ", ".join(f"{kind} {value:.2f}" for kind, value in size.packed.items())
    lines = [
        f"\nA packed posting takes log2(h / k) / 8 bytes, plus for its value: {packed}. A posting that is not packed "
        f"takes {size.loose:.1f} bytes. An item takes another {size.item:.0f} bytes. A search takes "
        f"{1e6 * times.posting:.2f} ns per posting, {1e6 * times.item:.2f} ns per item, "
        f"{1e3 * times.candidate:.2f} us per candidate, and {times.fixed + 4096 * times.latent:.2f} ms at h=4,096.\n",
    ]
    for items in sorted({row["run"]["items"] for row in measured["builds"]}):
        errors = [each[1:] for each in _byte_errors(measured, constants) if each[0]["items"] == items]
        index, disk = (max(column) for column in zip(*errors, strict=True))
        ratios = [
            abs(search_ms(
                workload_of(row["run"], first_stage_latents=row["first_stage_latents"], prefetch=row["prefetch"]),
                constants, 1, row["run"]["segments"],
            ) / row["cpu_ms"] - 1)
            for row in measured["searches"]
            if row["run"]["items"] == items and row["run"]["segments"] == 1
        ]  # fmt: skip
        times_off = f"; of times {statistics.median(ratios):.1%} in the median" if ratios else ""
        lines.append(
            f"- {items:,} items: bytes of the index are at most {index:.1%} off, on disk {disk:.1%}{times_off}"
        )
    return lines


def _bytes(measured: dict[str, Any], constants: Constants) -> list[str]:
    lines = [
        "\n| items | h | k | index | segments | payload | posting mass | index, bytes per item | formula "
        "| disk, bytes per item | formula | opened, bytes per item |",
        "|" + "---|" * 12,
    ]
    for row in measured["builds"]:
        run, n = row["run"], row["run"]["items"]
        workload = workload_of(run)
        index = index_bytes(workload, constants, run["segments"]) / n
        cells = [
            f"{n:,}", f"{run['latents']:,}", run["k"], run["datatype"], run["segments"], run["payload_bytes"],
            f"{row['posting_mass']:.3f}", f"{row['index_bytes'] / n:.1f}", f"{index:.1f}",
            f"{row['disk_bytes'] / n:.1f}", f"{index + item_bytes(workload, constants):.1f}",
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
        first = "all, one stage" if row["first_stage_latents"] == run["latents"] else str(row["first_stage_latents"])
        workload = workload_of(run, first_stage_latents=row["first_stage_latents"], prefetch=row["prefetch"])
        lines.append(
            f"| {run['items']:,} | {run['latents']:,} | {run['k']} | {run['segments']} | {first} | {row['prefetch']:,} "
            f"| {row['postings']:,.0f} | {row['p50_ms']:.2f} | {row['cpu_ms']:.2f} "
            f"| {search_ms(workload, constants, 1, run['segments']):.2f} |"
        )
    return lines


def _dense(measured: dict[str, Any]) -> list[str]:
    lines = ["\n| dense vectors | items | d | bytes per item in memory | on disk | p50 ms | CPU ms |", "|" + "---|" * 7]
    for row in measured["dense_searches"]:
        run = row["run"]
        (built,) = (each for each in measured["dense_builds"] if each["run"] == run)
        name = f"{run['method']} + originals" if row["rescored"] else run["method"]
        lines.append(
            f"| {name} | {run['items']:,} | {run['dim']} | {built['index_bytes'] / run['items']:.0f} "
            f"| {built['disk_bytes'] / run['items']:.0f} | {row['p50_ms']:.2f} | {row['cpu_ms']:.2f} |"
        )
    return lines


def _graph_bytes(row: dict[str, Any], constants: Constants) -> list[tuple[float, float]]:
    """Return bytes per item of a graph by the formulas and as measured: in memory, and on disk."""
    run, n = row["run"], row["run"]["items"]
    workload = graph_workload_of(run)
    memory = vector_bytes(workload, constants) + link_bytes(workload, constants, n)
    disk = index_bytes(workload, constants, 1) / n + item_bytes(workload, constants)
    disk += graph_disk_bytes(workload, constants, n)
    return [(memory, (row["vector_bytes"] + row["link_bytes"]) / n), (disk, row["disk_bytes"] / n)]


def _graph(measured: dict[str, Any], constants: Constants) -> list[str]:
    lines = [
        "\nIndexes of more items than the catalog hold jittered codes, whose links take fewer bytes than real ones; "
        "the formula of links is fitted to real ones.\n",
        "| graph | items | navigation | embeddings kept | memory B an item | formula | disk B an item | formula "
        "| optimised in s |",
        "|" + "---|" * 9,
    ]
    for row in measured["graph_builds"]:
        (memory, real_memory), (disk, real_disk) = _graph_bytes(row, constants)
        lines.append(
            f"| {_graph_name(row['run'])} | {real_memory:.1f} | {memory:.1f} | {real_disk:.1f} | {disk:.1f} "
            f"| {row['optimise_seconds']:.0f} |"
        )
    lines += [
        "\n| graph | items | navigation | embeddings kept | candidates | ef | compared | p50 ms | formula |",
        "|" + "---|" * 9,
    ]
    for row in measured["graph_searches"]:
        run, sizes = row["run"], GraphSizes(row["prefetch"], row["ef"], row.get("compared", 0))
        formula = graph_ms(
            constants.search,
            run["items"],
            run["latents"],
            sizes,
            run["navigation_dim"],
            by_embeddings=run["keep_dense"],
        )
        lines.append(
            f"| {_graph_name(run)} | {sizes.candidates} | {sizes.ef} | {sizes.compared} | {row['p50_ms']:.2f} "
            f"| {formula:.2f} |"
        )
    lines += [
        "\n| cold | items | navigation | embeddings kept | candidates | compared | pages read | formula | cold ms "
        "| warm ms |",
        "|" + "---|" * 10,
    ]
    for row in measured["graph_cold"]:
        workload = graph_workload_of(row["run"], prefetch=row["prefetch"])
        codes, embeddings = (0, row["prefetch"]) if workload.keep_dense else (row["prefetch"], 0)
        expected = pages_read(workload, constants, codes, embeddings, row["compared"])
        lines.append(
            f"| {_graph_name(row['run'])} | {row['prefetch']} | {row['compared']} | {row['pages']:.0f} "
            f"| {expected:.0f} | {row['cold_ms']:.2f} | {row['warm_ms']:.2f} |"
        )
    return lines


def _graph_name(run: dict[str, Any]) -> str:
    navigation = f"{run['navigation_dim']} x {run['bits']:g} bit, m={run['m']}"
    return f"graph | {run['items']:,} | {navigation} | {'yes' if run['keep_dense'] else 'no'}"


def graph_workload_of(run: dict[str, Any], **query: Any) -> Workload:
    """Return the workload of a run with a graph, for the planner's formulas."""
    names = ("items", "dim", "latents", "k", "keep_dense", "navigation_dim")
    return Workload(**{name: run[name] for name in names}, navigation_bits=run["bits"], navigation_m=run["m"], **query)


def workload_of(run: dict[str, Any], **query: Any) -> Workload:
    """Return the workload of a run, for the planner's formulas."""
    names = ("items", "dim", "latents", "k", "datatype", "payload_bytes")
    return Workload(**{name: run[name] for name in names}, **query)
