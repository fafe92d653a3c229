"""compressae ab: assignment, size and analysis of an online A/B test."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from ..abtest import Comparison, UserTotals, compare, read_events, required_users, sample_ratio_p
from ..abtest import assign as assign_variant
from ..errors import ConfigError
from .commands import app
from .options import JsonOption
from .output import show

__all__: list[str] = []

_ab = typer.Typer(help="Online A/B tests: who sees what, how many users it takes, what may be concluded.",
                  no_args_is_help=True)  # fmt: skip
app.add_typer(_ab, name="ab")

WeightsOption = Annotated[str, typer.Option("--weights", help="Variants and shares, the control first.")]


@_ab.command(epilog="Example: compressae ab assign user-42 --experiment codes-2026")
def assign(
    user: Annotated[str, typer.Argument(help="Id of a user.")],
    experiment: Annotated[str, typer.Option("--experiment", "-e", help="Name of the experiment: the salt.")],
    weights: WeightsOption = "control=1,codes=1",
    json_output: JsonOption = False,
) -> None:
    """The variant of a user: SHA-256 of "experiment:user", the same in every service and language."""
    show({"user": user, "variant": assign_variant(user, experiment, _weights(weights))}, json_output)


@_ab.command(epilog="Example: compressae ab size --rate 0.08 --lift 0.015")
def size(
    rate: Annotated[float, typer.Option(help="Clicks per exposure today.")],
    lift: Annotated[float, typer.Option(help="Relative lift to find, 0.015 for +1.5%.")],
    variance: Annotated[
        float | None, typer.Option(help="Of a user's rate, as `analyse --json` reports it; else one exposure a user.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of ever being wrong.")] = 0.01,
    power: Annotated[float, typer.Option(help="Chance to find it.")] = 0.8,
    json_output: JsonOption = False,
) -> None:
    """Users of both variants together that a lift takes."""
    users = required_users(rate, lift, variance=variance, alpha=alpha, power=power)
    show({"users": users, "rate": rate, "relative_lift": lift, "alpha": alpha, "power": power}, json_output)


@_ab.command(epilog="Example: compressae ab analyse events.parquet --planned 2000000 --plot effect.png")
def analyse(
    events: Annotated[Path, typer.Argument(help=".parquet, .csv or .jsonl with user, variant, event, in time order.")],
    weights: WeightsOption = "control=1,codes=1",
    planned: Annotated[int, typer.Option(help="Users at which the test is planned to end; fix it before.")] = 100_000,
    alpha: Annotated[float, typer.Option(help="Chance of ever being wrong, over all looks.")] = 0.01,
    looks: Annotated[int, typer.Option(help="Events between two points of the plot.")] = 20_000,
    plot: Annotated[Path | None, typer.Option(help="PNG of the effect over time with its band.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Click rates, lifts with confidence sequences that hold at every look, and the sample ratio check."""
    shares = _weights(weights)
    control, *others = shares
    totals, path = UserTotals(), []
    for number, event in enumerate(read_events(events), 1):
        totals.add(*event)
        if number % looks == 0:
            path.append(_compared(totals, control, others, alpha, planned))
    path.append(_compared(totals, control, others, alpha, planned))
    moments = totals.moments()
    counts = {name: moments[name].users if name in moments else 0 for name in shares}
    p = sample_ratio_p(counts, shares)
    facts: dict[str, Any] = {
        "users": counts,
        "users_in_several_variants": len(totals.crossed),
        "sample_ratio_p": p,
        "sample_ratio": "ok" if p >= 0.001 else "MISMATCH: assignment or logging is broken, don't trust the lifts",
        "variance": {name: moments[name].variance for name in moments},
        "confidence": 1 - alpha,
        "variants": {
            name: dataclasses.asdict(last) | {"significant": last.significant} for name, last in path[-1].items()
        },
    }
    if plot is not None:
        _draw(plot, path, others, alpha)
        facts["plot"] = str(plot)
    show(facts, json_output)


def _compared(totals: UserTotals, control: str, others: list[str], alpha: float, planned: int) -> dict[str, Comparison]:
    moments = totals.moments()
    unknown = set(moments) - {control, *others}
    if unknown:
        raise ConfigError(f"events are of variants that --weights doesn't name: {', '.join(sorted(unknown))}")
    return {
        name: compare(moments[control], moments[name], alpha=alpha, planned=planned)
        for name in others
        if name in moments and control in moments
    }


def _draw(file: Path, path: list[dict[str, Comparison]], others: list[str], alpha: float) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in others:
        points = [look[name] for look in path if name in look and look[name].relative_interval[1] < float("inf")]
        users = [point.users for point in points]
        (line,) = axes.plot(users, [100 * point.relative_lift for point in points], label=name)
        low, high = ([100 * point.relative_interval[side] for point in points] for side in (0, 1))
        axes.fill_between(users, low, high, color=line.get_color(), alpha=0.2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("users")
    axes.set_ylabel("relative lift of the click rate, %")
    axes.set_title(f"Effect with its {100 * (1 - alpha):g}% confidence sequence, valid at every look")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def _weights(text: str) -> dict[str, float]:
    try:
        weights = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError as exc:
        raise ConfigError(f"--weights is {text!r}; write it as control=1,codes=1") from exc
    if len(weights) < 2:
        raise ConfigError(f"--weights is {text!r}; a test has a control and at least one other variant")
    return weights
