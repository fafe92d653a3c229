"""compressae ab: assign users, plan the size and analyse the events of an online A/B test."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..lazy import needs_extra
from .command import SETTINGS, add_command
from .options import JsonOption
from .output import show

if TYPE_CHECKING:
    from ..abtest import Comparison, Event, UserTotals

__all__ = ["ab"]

WeightsOption = Annotated[
    str, typer.Option("--weights", help="Variants with their weights as NAME=WEIGHT,NAME=WEIGHT; the control first.")
]
AlphaOption = Annotated[
    float,
    typer.Option("--alpha", help="Probability of any false result, over all looks and variants together, from 0 to 1."),
]


def assign(
    user: Annotated[str, typer.Argument(metavar="USER", help="User id.")],
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Name of the experiment. It salts the hash.")],
    weights: WeightsOption = "control=1,codes=1",
    json_output: JsonOption = False,
) -> None:
    """Print the variant of a user.

    The variant is computed from the SHA-256 of "experiment:user", so every service and language gives the same.

    Example:
        compressae ab assign user-42 --experiment codes-2026
    """
    from ..abtest import assign as assign_variant

    show({"user": user, "variant": assign_variant(user, experiment, _weights(weights))}, json_output)


def size(
    rate: Annotated[float, typer.Option(help="Current click rate of the control, in clicks per exposure.")],
    lift: Annotated[float, typer.Option(help="Relative lift to detect: 0.015 for +1.5%.")],
    variance: Annotated[
        float | None,
        typer.Option(
            help="Variance of a user's click rate, as `compressae ab analyse --json` reports it.",
            show_default="that of one exposure per user",
        ),
    ] = None,
    alpha: AlphaOption = 0.01,
    power: Annotated[float, typer.Option(help="Probability of detecting the lift, from 0 to 1.")] = 0.8,
    json_output: JsonOption = False,
) -> None:
    """Estimate how many users, of both variants together, are needed to detect a lift.

    Example:
        compressae ab size --rate 0.08 --lift 0.015
    """
    from ..abtest import required_users

    users = required_users(rate, lift, variance=variance, alpha=alpha, power=power)
    show({"users": users, "rate": rate, "relative_lift": lift, "alpha": alpha, "power": power}, json_output)


def analyse(
    events: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS",
            help="File of events (.parquet, .csv or .jsonl) with the columns user, variant and event, sorted by time.",
        ),
    ],
    weights: WeightsOption = "control=1,codes=1",
    planned: Annotated[
        int, typer.Option(help="Number of users at which the test is planned to end. Fix it before the test starts.")
    ] = 100_000,
    alpha: AlphaOption = 0.01,
    time: Annotated[
        str | None, typer.Option(help="Column of times (ISO 8601 or seconds since 1970) for the time axis of the plot.")
    ] = None,
    looks: Annotated[int, typer.Option(help="Number of events between two points of the plot.")] = 20_000,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG file to write a plot of the lift over time to.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Analyse events: click rates, lifts with confidence sequences valid at every look, and the sample ratio check.

    Example:
        compressae ab analyse events.parquet --planned 2000000 --plot effect.png
    """
    from ..abtest import UserTotals, read_events, sample_ratio_p

    shares = _weights(weights)
    if looks < 1:
        raise ConfigError(f"--looks is {looks}; it must be at least 1")
    control, *others = shares
    level = alpha / len(others)
    totals, path = UserTotals(), []
    event: Event | None = None
    for number, event in enumerate(read_events(events, time), 1):
        totals.add(event)
        if number % looks == 0:
            path.append(_Look(event.time, _compared(totals, control, others, level, planned)))
    path.append(_Look(event.time if event else None, _compared(totals, control, others, level, planned)))
    moments = totals.moments()
    counts = {name: moments[name].users if name in moments else 0 for name in shares}
    p = sample_ratio_p(counts, shares)
    facts: dict[str, Any] = {
        "users": counts,
        "rate": {name: moments[name].rate for name in shares if name in moments},
        "users_in_several_variants": len(totals.crossed),
        "sample_ratio_p": p,
        "sample_ratio": "ok" if p >= 0.001 else "MISMATCH: assignment or logging is faulty; do not trust the lifts",
        "variance": {name: moments[name].variance for name in moments},
        "confidence": 1 - alpha,
    }
    if plot is not None:
        _draw(plot, path, others, alpha)
        facts["plot"] = str(plot)
    if json_output:
        compared = path[-1].compared
        show(facts | {"variants": {name: _facts(name, compared[name], path) for name in compared}}, True)
        return
    show(facts, False)
    table = Table("variant", "lift", "relative lift", f"{1 - alpha:.0%} interval at all looks", "", box=None)
    for name, last in path[-1].compared.items():
        low, high = (f"{edge:+.2%}" for edge in last.relative_interval)
        verdict = "significant" if last.significant else "not significant"
        table.add_row(name, f"{last.lift:+.4%}", f"{last.relative_lift:+.2%}", f"{low} .. {high}", verdict)
    Console().print(table)


@dataclass(frozen=True)
class _Look:
    time: datetime | None
    compared: dict[str, Comparison]


def _facts(name: str, last: Comparison, path: list[_Look]) -> dict[str, Any]:
    """Facts of a comparison for JSON. Infinite and undefined numbers become null."""
    facts: dict[str, Any] = dataclasses.asdict(last)
    for key, value in facts.items():
        if isinstance(value, tuple):
            facts[key] = [edge if math.isfinite(edge) else None for edge in value]
        elif isinstance(value, float) and not math.isfinite(value):
            facts[key] = None
    first = next((look.compared[name].users for look in path if name in look.compared
                  and look.compared[name].significant), None)  # fmt: skip
    return facts | {"significant": last.significant, "first_significant_users": first}


def _compared(totals: UserTotals, control: str, others: list[str], alpha: float, planned: int) -> dict[str, Comparison]:
    from ..abtest import compare

    moments = totals.moments()
    unknown = set(moments) - {control, *others}
    if unknown:
        raise ConfigError(
            f"events have variants that --weights does not name: {', '.join(sorted(unknown))}; add them to --weights"
        )
    return {
        name: compare(moments[control], moments[name], alpha=alpha, planned=planned)
        for name in others
        if name in moments and control in moments
    }


def _draw(file: Path, path: list[_Look], others: list[str], alpha: float) -> None:
    with needs_extra("plots", "a plot"):
        from matplotlib.figure import Figure

    from ..files import atomic_path

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    timed = all(look.time is not None for look in path)
    limit = 0.0
    for name in others:
        looks = [look for look in path if name in look.compared]
        points = [(look, look.compared[name]) for look in looks]
        points = [(look, point) for look, point in points if math.isfinite(point.relative_interval[1])]
        x: list[Any] = [look.time if timed else point.users for look, point in points]
        (line,) = axes.plot(x, [100 * point.relative_lift for _, point in points], label=name)
        low, high = ([100 * point.relative_interval[side] for _, point in points] for side in (0, 1))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
        tail = points[len(points) // 10 :]  # the band of the first looks is much wider than the rest
        limit = max([limit, *(100 * abs(edge) for _, point in tail for edge in point.relative_interval)])
    if limit:
        axes.set_ylim(-1.05 * limit, 1.05 * limit)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("time of the last event" if timed else "users")
    axes.set_ylabel("relative lift of the click rate (%)")
    axes.set_title(f"Relative lift with {100 * (1 - alpha):g}% confidence sequence, valid at every look")
    if timed:
        figure.autofmt_xdate()
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _weights(text: str) -> dict[str, float]:
    from ..abtest.assignment import check_weights

    try:
        weights = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError as exc:
        raise ConfigError(f"--weights is {text!r}; write it as control=1,codes=1") from exc
    if len(weights) < 2:
        raise ConfigError(f"--weights is {text!r}; name the control and at least one more variant")
    check_weights(weights)
    return weights


ab = typer.Typer(
    help="Run online A/B tests: assign users, plan the size, analyse the events.", no_args_is_help=True,
    **SETTINGS,
)  # fmt: skip
for _function in (assign, size, analyse):
    add_command(ab, _function.__name__, _function)
