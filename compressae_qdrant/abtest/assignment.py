"""Which variant a user sees: decided by a hash, so that every service decides alike and nothing is stored.

In any language: the first 8 bytes of SHA-256 of the UTF-8 text `experiment + ":" + user`, read as a big-endian unsigned
integer, made a double (rounded to the nearest) and divided by 2^64, is a place in [0, 1]. Times the sum of the weights,
it falls to the first variant, in the order given, of which the running sum of weights is greater; to the last of weight
above 0 if to none. Whoever implements it should get:

| experiment   | user        | first 8 bytes      | place    | control=1, codes=1 | a=5, b=3, c=2 |
|--------------|-------------|--------------------|----------|--------------------|---------------|
| `codes-2026` | `user-42`   | `3adf7dc4e9da29fb` | 0.229973 | control            | a             |
| `codes-2026` | `user-43`   | `edb1eb5f1472666c` | 0.928496 | codes              | c             |
| `exp-1`      | `0`         | `37143f337b74f025` | 0.215153 | control            | a             |
| `exp-1`      | `žluťoučký` | `ec25edb49f8961dd` | 0.922454 | codes              | c             |
| `a:b`        | `c`         | `b0ee04f880c4ff42` | 0.691132 | codes              | b             |
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping

from ..errors import InvalidInputError

__all__ = ["assign", "check_weights"]


def assign(user: str, experiment: str, weights: Mapping[str, float]) -> str:
    """The variant of a user, always the same.

    Args:
        user: id of the user.
        experiment: name of the experiment, the salt: another experiment splits users independently.
        weights: share of each variant, in a fixed order; they are divided by their sum.

    Raises:
        InvalidInputError: there is no variant, or a weight is negative or not finite, or all are zero.
    """
    check_weights(weights)
    edges = list(itertools.accumulate(weights.values()))  # added one by one, as any language does
    digest = hashlib.sha256(f"{experiment}:{user}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64 * edges[-1]
    for variant, edge in zip(weights, edges, strict=True):
        if place < edge:
            return variant
    return [variant for variant, weight in weights.items() if weight > 0][-1]  # rounding at the very end


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that split nothing.

    Raises:
        InvalidInputError: there is no variant, or a weight is negative or not finite, or all are zero.
    """
    total = sum(weights.values())
    if not total > 0 or not math.isfinite(total) or min(weights.values()) < 0:
        raise InvalidInputError(f"weights are {dict(weights)}; give each variant a share of at least 0, not all 0")
