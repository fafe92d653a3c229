"""Statistics of an A/B test: confidence sequences of the lift, which stay valid however often they are looked at.

The bound is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences" (arXiv 2103.06476), Theorem 2.2: with n independent terms of
variance s^2,

    mean +- sqrt( 2 (n rho^2 + 1) / (n^2 rho^2) * log( sqrt(n rho^2 + 1) / alpha ) ) * s

holds for all n at once. rho determines the n at which it is tightest (by their equation for a planned sample size).
The independent terms are users, not impressions: a click rate is a ratio of sums over users, and is linearised (Deng,
Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from ..errors import InvalidInputError
from .assignment import check_weights

__all__ = ["Comparison", "Moments", "compare", "half_width", "required_users", "sample_ratio_p"]

_MIN_USERS = 100
"""Minimum number of users of each variant for a finite interval, because the bound is asymptotic."""


@dataclass(frozen=True)
class Moments:
    """Sums over the users of one variant. Sums of disjoint sets of users can be added."""

    users: int = 0
    exposures: float = 0.0
    clicks: float = 0.0
    exposures2: float = 0.0
    """Sum of each user's squared number of exposures."""
    clicks2: float = 0.0
    """Sum of each user's squared number of clicks."""
    both: float = 0.0
    """Sum of each user's exposures times clicks."""

    @classmethod
    def of(cls, exposures: npt.ArrayLike, clicks: npt.ArrayLike) -> Moments:
        """Sum (n,) exposures and (n,) clicks of n users."""
        e, c = np.asarray(exposures, np.float64), np.asarray(clicks, np.float64)
        if e.shape != c.shape or e.ndim != 1:
            raise InvalidInputError(f"exposures have shape {e.shape} and clicks {c.shape}; both must be (users,)")
        return cls(len(e), float(e.sum()), float(c.sum()), float(e @ e), float(c @ c), float(e @ c))

    def __add__(self, other: Moments) -> Moments:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Moments(*(a + b for a, b in pairs))

    @property
    def rate(self) -> float:
        """Clicks per exposure."""
        return self.clicks / self.exposures if self.exposures else math.nan

    @property
    def variance(self) -> float:
        """Variance over users of the linearised term (clicks - rate * exposures) / mean(exposures)."""
        if self.users < 2 or not self.exposures:
            return math.nan
        squares = self.clicks2 - 2 * self.rate * self.both + self.rate**2 * self.exposures2
        return max(squares, 0.0) / (self.users - 1) / (self.exposures / self.users) ** 2


@dataclass(frozen=True)
class Comparison:
    """Comparison of one variant with the control."""

    control_rate: float
    rate: float
    lift: float
    """Absolute lift, rate - control_rate."""
    interval: tuple[float, float]
    """Confidence interval of the lift, valid at all times at once.

    It is infinite until each variant has 100 users and a click.
    """
    relative_lift: float
    """lift / control_rate."""
    relative_interval: tuple[float, float]
    """Confidence interval of the relative lift."""
    users: int
    """Users of both variants together."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval[0] > 0 or self.interval[1] < 0


def half_width(users: int, alpha: float, planned: int) -> float:
    """Half width of the sequence after `users` terms of variance 1, if it is tightest at about `planned` terms."""
    log = -2 * math.log(alpha)
    rho2 = (log + math.log(log + 1)) / planned
    scaled = users * rho2 + 1
    return math.sqrt(2 * scaled / (users**2 * rho2) * math.log(math.sqrt(scaled) / alpha))


def compare(control: Moments, variant: Moments, *, alpha: float = 0.01, planned: int = 100_000) -> Comparison:
    """Compute the lift of a variant with its confidence sequence.

    Args:
        control: sums of the control.
        variant: sums of the variant.
        alpha: probability that the interval ever excludes the true lift, over all looks together.
        planned: users of both variants together at which the interval is tightest. Fix it before the test.

    Raises:
        InvalidInputError: alpha is not in (0, 1), or planned is below 1.
    """
    _check(alpha, planned)
    users = control.users + variant.users
    lift = variant.rate - control.rate
    relative = lift / control.rate if control.rate else math.nan
    if min(control.users, variant.users) < _MIN_USERS or not control.clicks or not variant.clicks:
        unbounded = (-math.inf, math.inf)
        return Comparison(control.rate, variant.rate, lift, unbounded, relative, unbounded, users)
    # Each user is a term of one variant. With share p of the users, it is weighted by 1 / p; variances add as s^2 / p.
    width = half_width(users, alpha, planned)

    def spread(factor: float) -> float:
        return math.sqrt(users * (variant.variance / variant.users + factor**2 * control.variance / control.users))

    reach = width * spread(1.0)
    # The set for the ratio has every r for which variant - (1 + r) control may be zero (Fieller), at the same level.
    edges = [_edge(control, variant, width, spread, sign) for sign in (-1, 1)]
    return Comparison(
        control.rate, variant.rate, lift, (lift - reach, lift + reach), relative, (edges[0], edges[1]), users
    )


def _edge(control: Moments, variant: Moments, width: float, spread: Callable[[float], float], sign: int) -> float:
    """The lower (sign -1) or upper (sign 1) end of the interval of the relative lift."""

    def gap(ratio: float) -> float:
        return sign * (ratio * control.rate - variant.rate) - width * spread(ratio)

    middle = variant.rate / control.rate
    far = 0.0 if sign < 0 else middle + 1.0
    for _ in range(60):
        if gap(far) > 0:
            return float(optimize.brentq(gap, middle, far)) - 1
        if sign < 0:
            return -1.0
        far *= 2
    return math.inf


def sample_ratio_p(users: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """p-value of the hypothesis that users were assigned with these weights, valid however often it is looked at.

    Do not trust a test with a value below 0.001. The p-value is the inverse of a Bayes factor that compares these
    weights with all weights, taken as equally likely (Lindon & Malek, "Anytime-Valid Inference for Multinomial Count
    Data", NeurIPS 2022, arXiv 2011.03567). A chi-squared test that is repeated every day gives a false alarm sooner or
    later.

    Raises:
        InvalidInputError: users and weights name different variants, or a weight is negative or not finite, or all
            are zero.
    """
    check_weights(weights)
    if set(users) != set(weights):
        raise InvalidInputError(
            f"users have variants {sorted(users)} but weights have {sorted(weights)}; give the same variants in both"
        )
    total = math.fsum(weights.values())
    shares = {name: weight / total for name, weight in weights.items() if weight > 0}
    if any(users[name] for name in users if name not in shares):
        return 0.0
    counts = [users[name] for name in shares]
    log_factor = math.lgamma(len(counts)) - math.lgamma(len(counts) + sum(counts))
    for count, share in zip(counts, shares.values(), strict=True):
        log_factor += math.lgamma(1 + count) - count * math.log(share)
    return math.exp(min(0.0, -log_factor))


def required_users(
    rate: float, relative_lift: float, *, variance: float | None = None, alpha: float = 0.01, power: float = 0.8
) -> int:
    """Number of users, of both variants together and split evenly, at which a lift is detected with the given power.

    Args:
        rate: clicks per exposure of the control.
        relative_lift: relative lift to detect; 0.015 for +1.5%.
        variance: variance of a user's linearised term (`Moments.variance`). None assumes one exposure per user.
        alpha: probability of a false result over all looks.
        power: probability that the lift is detected by then.

    Raises:
        InvalidInputError: an argument is out of its range, or the lift needs more than 1e15 users.
    """
    _check(alpha, 1)
    if not (0 < rate < 1 and 0 < abs(relative_lift) < math.inf and 0 < power < 1):
        raise InvalidInputError(
            f"rate={rate}, relative_lift={relative_lift}, power={power}; rate and power must be in (0, 1), and "
            "the lift finite and not 0"
        )
    if variance is not None and not 0 < variance < math.inf:
        raise InvalidInputError(f"variance is {variance}; it must be finite and above 0")
    spread = 2 * math.sqrt(rate * (1 - rate) if variance is None else variance)
    effect = abs(rate * relative_lift)
    z = float(stats.norm.ppf(power))

    def excess_width(log_users: float) -> float:
        users = math.exp(log_users)
        return spread * (half_width(max(1, round(users)), alpha, max(1, round(users))) + z / math.sqrt(users)) - effect

    lowest, highest = math.log(2), math.log(1e15)
    if excess_width(highest) > 0:
        raise InvalidInputError(
            f"a lift of {relative_lift:g} takes more than 1e15 users to detect; choose a larger lift"
        )
    return 2 if excess_width(lowest) <= 0 else math.ceil(math.exp(optimize.brentq(excess_width, lowest, highest)))


def _check(alpha: float, planned: int) -> None:
    if not 0 < alpha < 1 or planned < 1:
        raise InvalidInputError(f"alpha={alpha}, planned={planned}; alpha must be in (0, 1) and planned at least 1")
