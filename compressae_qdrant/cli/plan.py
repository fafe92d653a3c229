"""compressae plan: estimate the resources of a catalog before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from .options import FirstStageLatentsOption, JsonOption, NavigationEfOption, PrefetchOption
from .output import as_is, print_json

if TYPE_CHECKING:
    from ..capacity import Constants, Estimate, Workload

__all__ = ["plan"]


_Columns: TypeAlias = "dict[str, Callable[[Estimate], str]]"
_SLOW_MS: Final = 50
"""Estimated p50 in ms above which advice on faster settings is printed."""
_WIDE: Final = 160
"""Width in columns of a terminal that shows all figures in one table."""


def plan(
    items: Annotated[int, typer.Option(help="Number of items in the catalog.")],
    dim: Annotated[int, typer.Option("--dim", "-d", help="Dimension of the dense embeddings.")],
    k: Annotated[list[int], typer.Option(help="Non-zeros of a code. Repeat to compare several.")] = [44],  # noqa: B006
    latents: Annotated[list[int], typer.Option(help="Latents of the model (h). Repeat to compare several.")] = [4096],  # noqa: B006
    datatype: Annotated[
        str, typer.Option(metavar="[uint8|float16|float32]", help="Type of the values in the index.")
    ] = "uint8",
    payload_bytes: Annotated[float, typer.Option(help="Average size of an item's payload as JSON, in bytes.")] = 0,
    text_words: Annotated[
        float, typer.Option(help="Average number of words of an item in the fields that are searched for words.")
    ] = 0,
    replicas: Annotated[int, typer.Option(help="Minimum number of replicas of each shard.")] = 1,
    qps: Annotated[float, typer.Option(help="Queries per second at the peak.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Number of hits per query.")] = 10,
    first_stage: Annotated[
        str | None,
        typer.Option(
            metavar="[graph|codes]",
            help="First stage to estimate: the graph, which is in memory with its navigation vectors, or the inverted "
            "index of the codes.",
            show_default="both",
        ),
    ] = None,
    first_stage_latents: FirstStageLatentsOption = None,
    prefetch: PrefetchOption = None,
    navigation_ef: NavigationEfOption = None,
    navigation_dim: Annotated[
        int | None,
        typer.Option(
            help="Dimensions of a navigation vector.", show_default="256, or those of the embeddings if fewer"
        ),
    ] = None,
    navigation_bits: Annotated[
        float, typer.Option(metavar="[1|1.5|2|4]", help="Bits per dimension of a navigation vector.")
    ] = 1,
    navigation_m: Annotated[int, typer.Option(help="Links of the graph per item and layer.")] = 8,
    navigation_datatype: Annotated[
        str,
        typer.Option(
            metavar="[float16|turbo4]",
            help="Type of the navigation vectors on disk: 2 bytes or half a byte per dimension.",
        ),
    ] = "float16",
    keep_dense: Annotated[bool, typer.Option("--keep-dense", help="Also keep the embeddings on disk.")] = False,
    dense_datatype: Annotated[
        str,
        typer.Option(
            metavar="[float16|turbo8|turbo4]",
            help="Type of the embeddings that --keep-dense keeps: 2 bytes, 1 byte or half a byte per dimension.",
        ),
    ] = "float16",
    ram: Annotated[float, typer.Option(help="Memory of a node in GiB.")] = 64,
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs of a node.")] = 16,
    headroom: Annotated[
        float, typer.Option(help="Share of a node's memory and CPU to leave free, from 0 to 1.")
    ] = 0.25,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file with the prices ram_gib, disk_gib and vcpu, each in USD per month and unit."
        ),
    ] = None,
    constants: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measurements of scripts/bench_capacity.py on your hardware.",
            show_default="the measurements shipped with the package",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG file to write a bar chart of the estimates to.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Estimate memory, disk, nodes, latency and cost of a catalog as codes and as vectors.

    The table compares codes that are searched by the graph, codes that are searched by their inverted index, and dense
    and quantised vectors. Repeat --k or --latents to compare sizes of codes.

    Example:
        compressae plan --items 100000000 --dim 768 --qps 50 --replicas 2 --plot plan.png
    """
    from ..capacity import Node, Prices, Workload, load_constants
    from ..capacity import plan as make_plan
    from ..capacity.chart import draw_plan

    node, measured = Node(ram, vcpus, headroom), load_constants(constants)
    unit_prices = None if prices is None else Prices.read(prices)
    workloads = [
        Workload(
            items=items, dim=dim, k=non_zeros, latents=h, datatype=datatype,  # type: ignore[arg-type]  # checked inside
            payload_bytes=payload_bytes, text_words=text_words, replicas=replicas, queries_per_second=qps, limit=limit,
            first_stage=first_stage,  # type: ignore[arg-type]  # checked inside
            first_stage_latents=first_stage_latents, prefetch=prefetch, keep_dense=keep_dense,
            dense_datatype=dense_datatype,  # type: ignore[arg-type]  # checked inside
            navigation_ef=navigation_ef, navigation_dim=navigation_dim, navigation_bits=navigation_bits,
            navigation_m=navigation_m,
            navigation_datatype=navigation_datatype,  # type: ignore[arg-type]  # checked inside
        )
        for h in latents
        for non_zeros in k
    ]  # fmt: skip
    planned = [make_plan(workload, measured, node, unit_prices) for workload in workloads]
    others = len(measured.dense)
    estimates = [each for plans in planned for each in plans[:-others]] + planned[0][-others:]
    if plot is not None:
        draw_plan(plot, estimates, f"{items:,} items, d={dim}, {qps:g} queries/s, {replicas} replicas or more")
    if json_output:
        print_json({
            "workloads": [dataclasses.asdict(workload) for workload in workloads],
            "node": dataclasses.asdict(node),
            "measured_on": measured.machine,
            "estimates": [dataclasses.asdict(each) for each in estimates],
        })  # fmt: skip
        return
    _show(estimates, workloads[0], measured, plot)


def _show(estimates: list[Estimate], workload: Workload, constants: Constants, plot: Path | None) -> None:
    from ..capacity import GIB

    sizes: _Columns = {
        "memory B\nper item": lambda each: f"{each.resident_bytes / workload.items:,.0f}",
        "read KiB\nper query": lambda each: _figure(each.read_bytes / 1024),
        "disk B\nper item": lambda each: f"{each.disk_bytes / workload.items:,.0f}",
        "recall\n@100": lambda each: "" if each.recall100 is None else f"{each.recall100:.3f}",
    }
    totals: _Columns = {
        "memory\nGiB": lambda each: _figure(each.replicas * each.resident_bytes / GIB),
        "disk\nGiB": lambda each: _figure(each.replicas * each.disk_bytes / GIB),
    }
    if estimates[0].usd is not None:
        totals["USD per\nmonth"] = lambda each: f"{each.usd:,.0f}"
        totals["in whole\nnodes"] = lambda each: f"{each.usd_nodes:,.0f}"
    service: _Columns = {
        "shards x\nreplicas": lambda each: f"{each.shards:,} x {each.replicas:,}",
        "segments": lambda each: f"{each.segments}",
        "CPU\nuse": lambda each: f"{each.utilisation:.0%}",
        "p50\nms": lambda each: _figure(each.p50_ms),
        "p50 cold\nms": lambda each: _figure(each.cold_ms),
        "queries/s\nper core": lambda each: _figure(each.queries_per_core),
    }
    console = Console(highlight=False)
    for columns in [sizes | totals | service] if console.width >= _WIDE else [sizes, totals, service]:
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
        f"Memory and disk are totals of all replicas, with one shard on a node. Memory per item holds the engine's "
        f"tables of items, {constants.bytes.item:.0f} bytes. p50 is for an idle cluster with a warm cache, without the "
        f"network; a cold query finds nothing in the page cache and reads so many KiB from the disk of each shard. "
        f"Recall was measured on the benchmark's 63,666 items. Constants were measured on "
        f"{machine['date']} with {machine['cpu']}, qdrant-edge-py {machine['qdrant-edge-py']}. "
        f"{machine.get('note', '')}".strip()
    ))  # fmt: skip
    walked = [each for each in estimates if each.name.startswith("codes ") and not each.name.endswith("graph")]
    others = [each for each in estimates if not each.name.startswith("codes ")]
    if any(each.p50_ms > _SLOW_MS or each.nodes > max(one.nodes for one in others) for each in walked[:1]):
        console.print(as_is(
            "A search by the inverted index spends its time on reading postings, whose length grows with the number of "
            "items. The time of the graph grows far less; more --latents or fewer --first-stage-latents make the "
            "inverted index faster. Measure the recall of such settings on a sample with `compressae tune`."
        ))  # fmt: skip
    if plot is not None:
        console.print(as_is(f"plot: {plot}"))


def _figure(value: float) -> str:
    """Format with three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
