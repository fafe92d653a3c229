"""compressae plan: what a catalog takes before anything is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..capacity import GIB, Constants, Estimate, Node, Prices, Workload, load_constants
from ..capacity import plan as make_plan
from ..capacity.chart import draw_plan
from .commands import example
from .options import JsonOption
from .output import as_is, print_json

__all__ = ["plan"]


@example("compressae plan --items 100000000 --dim 768 --qps 50 --replicas 2 --plot plan.png")
def plan(
    items: Annotated[int, typer.Option(help="Of the catalog.")],
    dim: Annotated[int, typer.Option("--dim", "-d", help="Dimensions of the dense embeddings.")],
    k: Annotated[list[int], typer.Option(help="Non-zeros of a code; several to compare them.")] = [32],  # noqa: B006
    latents: Annotated[list[int], typer.Option(help="h; several to compare them.")] = [4096],  # noqa: B006
    datatype: Annotated[str, typer.Option(help="Of index values: uint8, float16 or float32.")] = "uint8",
    payload_bytes: Annotated[float, typer.Option(help="Of an item's payload as JSON, on average.")] = 0,
    replicas: Annotated[int, typer.Option(help="Copies of everything, at least.")] = 1,
    qps: Annotated[float, typer.Option(help="Queries/s at the peak.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Hits of a query.")] = 10,
    first_stage: Annotated[int, typer.Option(help="Latents that search for candidates.")] = 1024,
    prefetch: Annotated[int, typer.Option(help="Candidates to rescore.")] = 100,
    keep_dense: Annotated[bool, typer.Option("--keep-dense", help="Embeddings on disk beside the codes.")] = False,
    ram: Annotated[float, typer.Option(help="Memory of a node, GiB.")] = 64,
    vcpus: Annotated[int, typer.Option(help="Of a node.")] = 16,
    headroom: Annotated[float, typer.Option(help="Share of a node to leave free.")] = 0.25,
    prices: Annotated[
        Path | None, typer.Option(help="TOML of ram_gib, disk_gib and vcpu: USD a month for one of each.")
    ] = None,
    constants: Annotated[
        Path | None, typer.Option(help="Measurements of scripts/bench_capacity.py on your own hardware.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of bars.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Memory, disk, nodes, latency and cost of a catalog as codes, beside dense and quantised vectors."""
    node, known = Node(ram, vcpus, headroom), load_constants(constants)
    paid = None if prices is None else Prices.read(prices)
    workloads = [
        Workload(
            items=items, dim=dim, k=non_zeros, latents=h, datatype=datatype,  # type: ignore[arg-type]  # checked inside
            payload_bytes=payload_bytes, replicas=replicas, queries_per_second=qps, limit=limit,
            first_stage=first_stage, prefetch=prefetch, keep_dense=keep_dense,
        )
        for h in latents
        for non_zeros in k
    ]  # fmt: skip
    codes = [make_plan(workload, known, node, paid)[0] for workload in workloads]
    estimates = codes + make_plan(workloads[0], known, node, paid)[1:]
    if plot is not None:
        draw_plan(plot, estimates, f"{items:,} items, d={dim}, {qps:g} queries/s, {replicas} replicas or more")
    if json_output:
        print_json({
            "workloads": [dataclasses.asdict(workload) for workload in workloads],
            "node": dataclasses.asdict(node),
            "measured_on": known.machine,
            "estimates": [dataclasses.asdict(each) for each in estimates],
        })  # fmt: skip
        return
    _show(estimates, workloads[0], known, plot)


def _show(estimates: list[Estimate], workload: Workload, constants: Constants, plot: Path | None) -> None:
    costs = [] if estimates[0].usd is None else ["USD a month", "by whole nodes"]
    table = Table(
        "", "memory GiB", "B an item", "disk GiB", "shards x replicas", "segments", "busy", "p50 ms",
        "queries/s a core", "recall@100", *costs, box=None,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for each in estimates:
        cells = [
            f"{each.replicas * each.resident_bytes / GIB:,.3g}",
            f"{each.resident_bytes / workload.items:,.0f}",
            f"{each.replicas * each.disk_bytes / GIB:,.3g}",
            f"{each.shards:,} x {each.replicas:,}",
            f"{each.segments}",
            f"{each.utilisation:.0%}",
            f"{each.p50_ms:,.3g}",
            f"{each.queries_per_core:,.3g}",
            "" if each.recall100 is None else f"{each.recall100:.3f}",
        ]
        if each.usd is not None and each.usd_nodes is not None:
            cells += [f"{each.usd:,.0f}", f"{each.usd_nodes:,.0f}"]
        table.add_row(as_is(each.name), *cells)
    console = Console(highlight=False)
    console.print(table)
    machine = constants.machine
    console.print(as_is(
        f"Memory and disk of all replicas, one shard on a node; p50 of an idle cluster with a warm cache, without the "
        f"network. Recall is of the benchmark's 63,666 items. Constants measured {machine['date']} on "
        f"{machine['cpu']}, qdrant-edge-py {machine['qdrant-edge-py']}. {machine.get('note', '')}".strip()
    ))  # fmt: skip
    if plot is not None:
        console.print(as_is(f"plot: {plot}"))
