"""Concepts in a query: named weights become an addition to the query vector, and a name becomes a query vector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from ..checks import check_number, check_text
from ..codes import FloatArray
from ..errors import InvalidInputError
from ..model.concepts import Concepts
from ..scoring import QueryVector

__all__ = ["concept_vector", "steering"]

_KEY: Final = re.compile(r"([+-])(\d+)")


def steering(weights: Mapping[str, float], concepts: Concepts | None, latents: int) -> QueryVector:
    """Turn weights of concepts into an addition to a query vector: weight times sign at each concept's latents.

    Args:
        weights: weight by the name of a concept, or by a latent with a sign ("+17"). Weight 0 adds nothing.
        concepts: the concepts of the model, if it has some.
        latents: h of the model.

    Raises:
        InvalidInputError: a name is unknown, or a weight is not a finite number.
    """
    added = np.zeros(latents, np.float32)
    for name, weight in weights.items():
        weight = check_number(f"the weight of concept {name!r}", weight)
        if abs(weight) > float(np.finfo(np.float32).max):
            raise InvalidInputError(f"the weight of concept {name!r} is {weight:g}, which is too large")
        added += np.float32(weight) * _signs(check_text("the name of a concept", name), concepts, latents)
    kept = np.flatnonzero(added)
    return QueryVector(kept.astype(np.int32), added[kept])


def concept_vector(name: str, concepts: Concepts | None, latents: int) -> QueryVector:
    """Turn a concept into a query vector, whose product with a code is the strength of the concept in the item.

    Raises:
        InvalidInputError: the name is unknown.
    """
    signs = _signs(name, concepts, latents)
    kept = np.flatnonzero(signs)
    return QueryVector(kept.astype(np.int32), signs[kept])


def _signs(name: str, concepts: Concepts | None, latents: int) -> FloatArray:
    """The sign of the concept at each of its latents, 0 elsewhere, (h,) float32."""
    signs = np.zeros(latents, np.float32)
    key = _KEY.fullmatch(name)
    if key is not None:
        sign, latent = 1 if key[1] == "+" else -1, int(key[2])
        if latent >= latents:
            raise InvalidInputError(
                f"concept {name!r} names latent {latent} but the model has {latents}; the last is {latents - 1}"
            )
        signs[latent] = sign
        return signs
    if concepts is None:
        raise InvalidInputError(
            f"there is no concept {name!r}: the model has none yet; find concepts with `compressae concepts`, or "
            "name a latent with its sign, such as '+17'"
        )
    for concept in concepts.named(name):
        signs[concept.latent] = concept.sign
    return signs
