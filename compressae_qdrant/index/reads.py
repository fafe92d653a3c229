"""Checks of what is read from an index of any engine: the plan of a query and the settings of a scroll."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..checks import shown
from ..errors import InvalidInputError
from ..scoring import EmbeddingQuery
from .ids import ITEM_FIELDS
from .manifest import DENSE_NAME, VECTOR_NAME, Manifest
from .plan import QueryPlan
from .protocol import ScrollOptions

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["ScrollSettings", "check_plan", "scroll_settings", "vectors_to_read"]


def check_plan(plan: QueryPlan, manifest: Manifest) -> QueryPlan:
    """Check that a plan fits the index of a manifest, and return the plan.

    Raises:
        InvalidInputError: a vector has unequal lengths, values that are not finite, or latents that are repeated or
            outside the index's; or the plan rescores by embeddings that the index does not keep.
    """
    if not isinstance(plan, QueryPlan):
        raise InvalidInputError(f"a query plan is {shown(plan)}; search with a Retriever, which plans queries")
    if plan.with_dense:
        _check_kept(manifest)
    if plan.text is not None:
        known = manifest.settings.texts
        if unknown := [name for name in plan.text.fields if name not in known]:
            raise InvalidInputError(
                f"the index has no text field {unknown[0]!r}; it has {', '.join(map(repr, known)) or 'none'}. Create "
                "it with IndexSettings(text_fields=[...])"
            )
    if plan.dense is not None:
        if not manifest.settings.keep_dense:
            raise InvalidInputError("the index keeps no embeddings to rescore by; create it with keep_dense=True")
        if plan.dense.shape != (manifest.dim,) or not np.isfinite(plan.dense).all():
            raise InvalidInputError(
                f"the plan's dense query has shape {plan.dense.shape}; it must be ({manifest.dim},) and finite"
            )
    if plan.navigation is not None:
        if manifest.navigation_dim is None:
            raise InvalidInputError("the index has no navigation vectors; search it with first_stage='codes'")
        if plan.navigation.shape != (manifest.navigation_dim,) or not np.isfinite(plan.navigation).all():
            raise InvalidInputError(
                f"the plan's navigation vector has shape {plan.navigation.shape}; it must be "
                f"({manifest.navigation_dim},) and finite"
            )
    latents = manifest.latents
    for name, vector in (("first_stage", plan.first_stage), ("rescoring", plan.rescoring)):
        if vector is None:
            continue
        if isinstance(vector, EmbeddingQuery):
            _check_embedding_query(vector, manifest)
            continue
        indices, values = np.asarray(vector.indices), np.asarray(vector.values)
        if indices.ndim != 1 or indices.shape != values.shape or not indices.size:
            raise InvalidInputError(
                f"{name} has indices of shape {indices.shape} and values of shape {values.shape}; "
                "both must be (m,) with m at least 1"
            )
        if vector.is_whole and len(vector) <= latents:  # by construction its latents ascend from 0
            indices = indices[-1:]
        if indices.min() < 0 or indices.max() >= latents:
            raise InvalidInputError(
                f"{name} names latents {indices.min()}..{indices.max()} but the index has {latents}; make "
                "the query with the model that the index was built by"
            )
        if not np.isfinite(values).all():
            raise InvalidInputError(f"{name} holds NaN or an infinite value; check the query's embedding")
        # The planner's latents ascend; checking that takes a tenth of the time of a search for repeats.
        if not (np.diff(indices) > 0).all() and np.unique(indices).size != indices.size:
            raise InvalidInputError(f"{name} names a latent twice; add such values up")
    return plan


def _check_embedding_query(query: EmbeddingQuery, manifest: Manifest) -> None:
    """Check that a query by its embedding fits an index.

    Raises:
        InvalidInputError: atoms or embedding have another shape than the index's model, or the embedding is not finite.
    """
    if query.atoms.shape != (manifest.latents, manifest.dim) or query.embedding.shape != (manifest.dim,):
        raise InvalidInputError(
            f"rescoring has atoms of shape {query.atoms.shape} and an embedding of shape {query.embedding.shape}; the "
            f"index needs ({manifest.latents}, {manifest.dim}) and ({manifest.dim},): make the query with the model "
            "that the index was built by"
        )
    if not np.isfinite(query.embedding).all() or not query.embedding.any():
        raise InvalidInputError("rescoring is all zero, NaN or infinite; check the query's embedding")


def _check_kept(manifest: Manifest) -> None:
    """Check that an index keeps embeddings, which are asked for by `with_dense`.

    Raises:
        InvalidInputError: it does not.
    """
    if not manifest.settings.keep_dense:
        raise InvalidInputError(
            "with_dense asks for embeddings, but the index keeps none; create it with keep_dense=True, or decode the "
            "codes (with_codes=True, model.decode)"
        )


class ScrollSettings(NamedTuple):
    """One page of a scroll, checked."""

    size: int
    filter: models.Filter | None
    payload: bool | list[str]
    """Whether to read payloads, or the payload fields to read."""
    vectors: list[str]
    """Names of the vectors to read."""


def scroll_settings(size: int, options: ScrollOptions, manifest: Manifest) -> ScrollSettings:
    """Check the arguments of a scroll.

    Raises:
        InvalidInputError: the size is below 1, an option is unknown, or embeddings are asked for and the index keeps
            none.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise InvalidInputError(f"size is {size!r}; a page has at least 1 item")
    known = ScrollOptions.__annotations__
    if unknown := sorted(set(options) - set(known)):
        raise InvalidInputError(f"scroll has no option {', '.join(unknown)}; it has {', '.join(known)}")
    codes, dense = options.get("with_codes", False), options.get("with_dense", False)
    if dense:
        _check_kept(manifest)
    payload = True if options.get("with_payload", True) else list(ITEM_FIELDS)
    return ScrollSettings(int(size), options.get("filter"), payload, [VECTOR_NAME] * codes + [DENSE_NAME] * dense)


def vectors_to_read(plan: QueryPlan) -> list[str]:
    """Names of the vectors that the answer to a plan must hold."""
    codes = plan.with_codes or plan.is_rescored_here
    return [VECTOR_NAME] * codes + [DENSE_NAME] * plan.with_dense
