"""compressae plan: what a catalog takes before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from .options import FirstStageOption, JsonOption, PrefetchOption
from .output import as_is, print_json

if TYPE_CHECKING:
    from ..capacity import Constants, Estimate, Workload

__all__ = ["plan"]


_Columns: TypeAlias = "dict[str, Callable[[Estimate], str]]"
_SLOW_MS: Final = 50
_WIDE: Final = 120
"""Columns of a terminal that one table fits in."""


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
    first_stage_latents: FirstStageOption = None,
    prefetch: PrefetchOption = None,
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
    """Estimate memory, disk, nodes, latency and cost of a catalog as codes and as vectors.

    The table compares codes with dense and quantised vectors. Repeat --k or --latents to compare sizes of codes.

    Example:
        compressae plan --items 100000000 --dim 768 --qps 50 --replicas 2 --plot plan.png
    """
    from ..capacity import Node, Prices, Workload, load_constants
    from ..capacity import plan as make_plan
    from ..capacity.chart import draw_plan

    node, known = Node(ram, vcpus, headroom), load_constants(constants)
    paid = None if prices is None else Prices.read(prices)
    workloads = [
        Workload(
            items=items, dim=dim, k=non_zeros, latents=h, datatype=datatype,  # type: ignore[arg-type]  # checked inside
            payload_bytes=payload_bytes, replicas=replicas, queries_per_second=qps, limit=limit,
            first_stage_latents=first_stage_latents, prefetch=prefetch, keep_dense=keep_dense,
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
    from ..capacity import GIB

    sizes: _Columns = {
        "memory\nGiB": lambda each: _figure(each.replicas * each.resident_bytes / GIB),
        "B an\nitem": lambda each: f"{each.resident_bytes / workload.items:,.0f}",
        "disk\nGiB": lambda each: _figure(each.replicas * each.disk_bytes / GIB),
        "recall\n@100": lambda each: "" if each.recall100 is None else f"{each.recall100:.3f}",
    }
    if estimates[0].usd is not None:
        sizes["USD a\nmonth"] = lambda each: f"{each.usd:,.0f}"
        sizes["by whole\nnodes"] = lambda each: f"{each.usd_nodes:,.0f}"
    service: _Columns = {
        "shards x\nreplicas": lambda each: f"{each.shards:,} x {each.replicas:,}",
        "segments": lambda each: f"{each.segments}",
        "busy": lambda each: f"{each.utilisation:.0%}",
        "p50\nms": lambda each: _figure(each.p50_ms),
        "queries/s\nof a core": lambda each: _figure(each.queries_per_core),
    }
    console = Console(highlight=False)
    for columns in [sizes | service] if console.width >= _WIDE else [sizes, service]:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for each in estimates:
            table.add_row(as_is(each.name), *(cell(each) for cell in columns.values()))
        console.print(table)
        console.print()
    machine = constants.machine
    console.print(as_is(
        f"Memory and disk of all replicas, one shard on a node; p50 of an idle cluster with a warm cache, without the "
        f"network. Recall is of the benchmark's 63,666 items. Constants measured {machine['date']} on "
        f"{machine['cpu']}, qdrant-edge-py {machine['qdrant-edge-py']}. {machine.get('note', '')}".strip()
    ))  # fmt: skip
    mine, others = estimates[0], [each for each in estimates if not each.name.startswith("codes ")]
    if mine.p50_ms > _SLOW_MS or mine.nodes > max(each.nodes for each in others):
        console.print(as_is(
            "Codes spend a query's time on walking postings, which grow with the items. More --latents or a smaller "
            "--first-stage-latents make it shorter; what either does to recall, `compressae tune` measures on a sample."
        ))  # fmt: skip
    if plot is not None:
        console.print(as_is(f"plot: {plot}"))


def _figure(value: float) -> str:
    """Three digits that count, never in powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
