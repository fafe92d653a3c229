"""What an A/B test may conclude at any time: confidence sequences of a lift that stay valid however often one looks.

The bound is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences" (arXiv 2103.06476), Theorem 2.2: with n independent terms of
variance s^2,

    mean +- sqrt( 2 (n rho^2 + 1) / (n^2 rho^2) * log( sqrt(n rho^2 + 1) / alpha ) ) * s

holds for all n at once. rho sets where it is tightest (their equation for a chosen sample size). Users, not
impressions, are the independent terms: a click rate is a ratio of sums over users, linearised (Deng, Knoblich & Lu,
"Applying the Delta Method in Metric Analytics", KDD 2018).
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

_LEAST_USERS = 100
"""Of each variant, before anything is said: the bound is asymptotic."""


@dataclass(frozen=True)
class Moments:
    """Sums over the users of one variant; they add up, so a stream needs nothing else."""

    users: int = 0
    exposures: float = 0.0
    clicks: float = 0.0
    exposures2: float = 0.0
    """Sum of squared exposures of a user."""
    clicks2: float = 0.0
    both: float = 0.0
    """Sum of exposures times clicks."""

    @classmethod
    def of(cls, exposures: npt.ArrayLike, clicks: npt.ArrayLike) -> Moments:
        """From (n,) exposures and (n,) clicks of n users."""
        e, c = np.asarray(exposures, np.float64), np.asarray(clicks, np.float64)
        if e.shape != c.shape or e.ndim != 1:
            raise InvalidInputError(f"exposures have shape {e.shape} and clicks {c.shape}; both must be (users,)")
        return cls(len(e), float(e.sum()), float(c.sum()), float(e @ e), float(c @ c), float(e @ c))

    def __add__(self, other: Moments) -> Moments:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Moments(*(mine + theirs for mine, theirs in pairs))

    @property
    def rate(self) -> float:
        """Clicks per exposure."""
        return self.clicks / self.exposures if self.exposures else math.nan

    @property
    def variance(self) -> float:
        """Of one user's linearised term (c - rate e) / mean(e)."""
        if self.users < 2 or not self.exposures:
            return math.nan
        squares = self.clicks2 - 2 * self.rate * self.both + self.rate**2 * self.exposures2
        return max(squares, 0.0) / (self.users - 1) / (self.exposures / self.users) ** 2


@dataclass(frozen=True)
class Comparison:
    """One variant against the control."""

    control_rate: float
    rate: float
    lift: float
    """rate - control_rate."""
    interval: tuple[float, float]
    """Of the lift, valid at all times at once; infinite while there are too few users."""
    relative_lift: float
    relative_interval: tuple[float, float]
    users: int
    """Of both."""

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval[0] > 0 or self.interval[1] < 0


def half_width(users: int, alpha: float, planned: int) -> float:
    """Half width of the sequence after so many terms of variance 1, tightest at about `planned` of them."""
    log = -2 * math.log(alpha)
    rho2 = (log + math.log(log + 1)) / planned
    scaled = users * rho2 + 1
    return math.sqrt(2 * scaled / (users**2 * rho2) * math.log(math.sqrt(scaled) / alpha))


def compare(control: Moments, variant: Moments, *, alpha: float = 0.01, planned: int = 100_000) -> Comparison:
    """The lift of a variant with its confidence sequence.

    Args:
        control: sums of the control.
        variant: sums of the variant.
        alpha: chance that the sequence ever leaves the truth out, over all looks together.
        planned: users of both together at which it is tightest. Fix it before the test.
    """
    _check(alpha, planned)
    users = control.users + variant.users
    lift = variant.rate - control.rate
    relative = lift / control.rate if control.rate else math.nan
    if min(control.users, variant.users) < _LEAST_USERS or not control.clicks or not variant.clicks:
        wide = (-math.inf, math.inf)
        return Comparison(control.rate, variant.rate, lift, wide, relative, wide, users)
    # A user is a term of one variant: with share p, its term is worth 1 / p, and variances add as s^2 / p.
    width = half_width(users, alpha, planned)

    def spread(of_control: float) -> float:
        return math.sqrt(users * (variant.variance / variant.users + of_control**2 * control.variance / control.users))

    reach = width * spread(1.0)
    # Of a ratio: r is in the set while variant - (1 + r) control may be zero (Fieller), at the same level.
    edges = [_edge(control, variant, width, spread, sign) for sign in (-1, 1)]
    return Comparison(
        control.rate, variant.rate, lift, (lift - reach, lift + reach), relative, (edges[0], edges[1]), users
    )


def _edge(control: Moments, variant: Moments, width: float, spread: Callable[[float], float], sign: int) -> float:

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
    """p-value that users were assigned by these weights, valid however often one looks. Below 0.001, mistrust the test.

    The inverse of a Bayes factor: users by these weights, against users by any weights, all equally likely (Lindon &
    Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022, arXiv 2011.03567). A chi-squared test
    looked at every day cries wolf sooner or later.

    Raises:
        InvalidInputError: users and weights name other variants, or a weight is negative or not finite, or all are
            zero.
    """
    check_weights(weights)
    if set(users) != set(weights):
        raise InvalidInputError(f"users are of variants {sorted(users)}, weights of {sorted(weights)}; give the same")
    whole = math.fsum(weights.values())
    shares = {name: weight / whole for name, weight in weights.items() if weight > 0}
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
    """Users of both variants together, split evenly, after which a lift is found with this power.

    Args:
        rate: clicks per exposure of the control.
        relative_lift: to be found, 0.015 for +1.5%.
        variance: of one user's linearised term (`Moments.variance`); None takes one exposure a user.
        alpha: of the sequence.
        power: chance to have found it by then.
    """
    _check(alpha, 1)
    if not (0 < rate < 1 and 0 < abs(relative_lift) < math.inf and 0 < power < 1):
        raise InvalidInputError(
            f"rate={rate}, relative_lift={relative_lift}, power={power}; a rate and a power are in (0, 1), a lift not 0"
        )
    if variance is not None and not 0 < variance < math.inf:
        raise InvalidInputError(f"variance is {variance}; that of a user's term is above 0")
    spread = 2 * math.sqrt(rate * (1 - rate) if variance is None else variance)
    effect = abs(rate * relative_lift)
    z = float(stats.norm.ppf(power))

    def lacking(log_users: float) -> float:
        users = math.exp(log_users)
        return spread * (half_width(max(1, round(users)), alpha, max(1, round(users))) + z / math.sqrt(users)) - effect

    least, most = math.log(2), math.log(1e15)
    if lacking(most) > 0:
        raise InvalidInputError(f"a lift of {relative_lift:g} takes more than 1e15 users; look for a larger one")
    return 2 if lacking(least) <= 0 else math.ceil(math.exp(optimize.brentq(lacking, least, most)))


def _check(alpha: float, planned: int) -> None:
    if not 0 < alpha < 1 or planned < 1:
        raise InvalidInputError(f"alpha={alpha}, planned={planned}; alpha is in (0, 1), planned at least 1")
