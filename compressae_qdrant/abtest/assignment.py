"""Which variant a user sees: decided by a hash, so that every service decides alike and nothing is stored.

In any language: the first 8 bytes of SHA-256 of the UTF-8 text `experiment + ":" + user`, read as a big-endian integer,
divided by 2^64, is a number in [0, 1). Variants in the order given share that range by their weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from ..errors import InvalidInputError

__all__ = ["assign"]


def assign(user: str, experiment: str, weights: Mapping[str, float]) -> str:
    """The variant of a user, always the same.

    Args:
        user: id of the user.
        experiment: name of the experiment, the salt: another experiment splits users independently.
        weights: share of each variant, in a fixed order; they are divided by their sum.

    Raises:
        InvalidInputError: there is no variant, or a weight is negative or not finite, or all are zero.
    """
    total = math.fsum(weights.values()) if weights else 0.0
    if not total > 0 or not math.isfinite(total) or min(weights.values()) < 0:
        raise InvalidInputError(f"weights are {dict(weights)}; give each variant a share of at least 0, not all 0")
    digest = hashlib.sha256(f"{experiment}:{user}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64 * total
    reached = 0.0
    for variant, weight in weights.items():
        reached += weight
        if place < reached:
            return variant
    return [variant for variant, weight in weights.items() if weight > 0][-1]  # rounding at the very end
