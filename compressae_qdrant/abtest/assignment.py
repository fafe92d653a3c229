"""Assign users to variants by a hash, so that every service computes the same variant and nothing is stored.

To implement it in any language:

1. Take the first 8 bytes of the SHA-256 of the UTF-8 text `experiment + ":" + user` as a big-endian unsigned integer.
2. Convert it to a double (round to nearest) and divide by 2^64. The result is a position in [0, 1].
3. Multiply the position by the sum of the weights.
4. Choose the first variant, in the given order, whose running sum of weights is greater than the product. If there is
   none, choose the last variant with a weight above 0.

Test vectors:

| experiment   | user        | first 8 bytes      | position | control=1, codes=1 | a=5, b=3, c=2 |
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
    """Return the variant of a user. The same arguments always give the same variant.

    Args:
        user: id of the user, spelled the same in every service: another spelling of a UUID is another text.
        experiment: name of the experiment. It salts the hash, so experiments split users independently.
        weights: weight of each variant, in a fixed order. Its share is the weight divided by the sum.

    Raises:
        InvalidInputError: there is no variant, or a weight is negative or not finite, or all are zero.
    """
    check_weights(weights)
    edges = list(itertools.accumulate(weights.values()))  # plain sums, which every language rounds alike
    digest = hashlib.sha256(f"{experiment}:{user}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64 * edges[-1]
    for variant, edge in zip(weights, edges, strict=True):
        if position < edge:
            return variant
    return [variant for variant, weight in weights.items() if weight > 0][-1]  # the position was rounded up to 1


def check_weights(weights: Mapping[str, float]) -> None:
    """Check that weights describe a split.

    Raises:
        InvalidInputError: there is no variant, or a weight is negative or not finite, or all are zero.
    """
    total = sum(weights.values())
    if not total > 0 or not math.isfinite(total) or min(weights.values()) < 0:
        raise InvalidInputError(
            f"weights are {dict(weights)}; give each variant a weight of at least 0, and at least one above 0"
        )
