"""Preparation of queries: texts and vectors become plans, which carry the origin that explains their hits.

`Retriever` and `AsyncRetriever` share all of this; they differ only in how they call the index.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeGuard

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from .. import telemetry
from ..codes import SparseCodes
from ..embedders import Embedder, embed_queries
from ..errors import ConfigError, IndexNotFoundError, MissingExtraError, ModelMismatchError
from ..index.ids import canonical_uuid
from ..index.plan import QueryPlan
from ..index.protocol import AsyncCodeIndex, CodeIndex
from ..index.results import Hit, ItemId, Record
from ..model.compressae import CompresSAE
from ..scoring import EmbeddingQuery, QueryVector
from ..vectors import as_array
from .explanations import Origin
from .hybrid import with_words
from .planner import QueryPlanner
from .settings import SearchOptions, SearchSettings, ranks_of, search_settings

__all__ = ["ItemCount", "Queries", "Query", "are_texts", "counted", "others", "page_of", "timed"]

_REFRESH_SECONDS: Final = 600.0
_REFRESH_EMPTY_SECONDS: Final = 10.0
Query = str | npt.ArrayLike
"""A text, or a (d,) embedding."""


class Queries:
    """Prepares the queries of one retriever.

    Args:
        model: the model that encoded the items.
        index: the index that is searched.
        embedder: embeds texts, with its query side if it has one; needed for text queries only.
        tenant: the tenant that every query is restricted to, if any.
        sync_index: the index again, if a hit can read its code from it without awaiting.

    Raises:
        ModelMismatchError: the index holds another model's codes.
        ConfigError: there is a tenant but the index has no tenant field.
    """

    def __init__(
        self,
        model: CompresSAE,
        index: CodeIndex | AsyncCodeIndex,
        embedder: Embedder | None,
        tenant: str | None,
        sync_index: CodeIndex | None = None,
    ) -> None:
        if model.fingerprint != index.fingerprint:
            raise ModelMismatchError(
                f"the index holds codes of model {index.fingerprint!r} but model {model.fingerprint!r} was given; load "
                "the index's own model, or encode the catalog again"
            )
        self.embedder = embedder
        self._model = model
        self._sync_index = sync_index
        navigation = index.settings.navigation
        self._text_fields = index.settings.texts
        self._planner = QueryPlanner(
            model,
            index.settings.keep_dense,
            None if index.projection is None or navigation is None else navigation.dim,
            index.projection,
            index.settings.linked_fields,
        )
        self._tenant = None if tenant is None else _tenant_condition(index.settings.tenant_field, tenant)

    def plans(self, queries: Any, limit: int, options: SearchOptions, items: int) -> list[QueryPlan]:
        """Plan the search of each query.

        Args:
            queries: texts, or (q, d) or (d,) vectors.
            limit: hits of each search.
            options: of the searches.
            items: approximate number of items in the index.
        """
        settings = self._settings(limit, options)
        if _is_empty(queries):
            return []
        vectors = self.embed(queries)
        with telemetry.timed("compressae.search.planning.duration"):
            return self._traced(self._planner.plans(vectors, settings, items), settings)

    def plan_similar(
        self, id: ItemId, records: list[Record], limit: int, options: SearchOptions, items: int
    ) -> QueryPlan:
        """Plan the search for items similar to a stored one, for one hit more than the limit and the offset, as it
        finds itself.

        Args:
            id: the item's id.
            records: what the index holds under that id: one record or none.
            limit: hits besides the item itself.
            options: of the search.
            items: approximate number of items in the index.
        """
        if self._tenant is not None:
            records = [r for r in records if r.payload.get(self._tenant.key) == self._tenant.match.value]  # type: ignore[union-attr]  # as _tenant_condition made it
        if not records:
            raise IndexNotFoundError(f"item {id!r} is not in the index; upsert it first, or check its id and type")
        record = records[0]
        settings = self._settings(limit, options)
        # The item itself may be at any rank, so the offset is applied once it has been left out.
        settings["limit"], settings["offset"] = ranks_of(settings) + 1, 0
        if settings["prefetch"] is not None:
            settings["prefetch"] += 1
        if settings["dense_candidates"]:
            settings["dense_candidates"] += 1
        with telemetry.timed("compressae.search.planning.duration"):
            if record.dense is not None:
                return self._traced(self._planner.plans(record.dense, settings, items), settings)[0]
            code = SparseCodes(record.indices[None], record.values[None], self._model.latents)
            return self._traced(self._planner.plans_for_codes(code, settings, items), settings)[0]

    def embed(self, queries: Any) -> npt.ArrayLike:
        """Turn texts into vectors; vectors are returned as float32.

        Raises:
            MissingExtraError: a query is text but there is no embedder.
            InvalidInputError: the queries are neither texts nor vectors of equal length.
        """
        batch = [queries] if isinstance(queries, str) else queries
        if are_texts(batch):
            if self.embedder is None:
                raise MissingExtraError(
                    "the query is text but the retriever has no embedder; pass embedder=load_embedder(name) (extra "
                    "'text'), or a vector"
                )
            with telemetry.timed("compressae.search.embedding.duration"):
                return embed_queries(self.embedder, batch)
        return as_array(batch, "the queries", np.float32)

    def _traced(self, plans: list[QueryPlan], settings: SearchSettings) -> list[QueryPlan]:
        """The plans with their words, and with an origin that can explain their hits. Their candidates are counted."""
        plans = with_words(plans, settings, self._text_fields)
        for plan in plans:
            telemetry.measure("compressae.search.candidates", plan.prefetch if plan.has_second_stage else 0)
        return [
            replace(plan, origin=Origin(self._model, self._scored_by(plan), self._sync_index, _found_by(plan)))
            for plan in plans
        ]

    def _scored_by(self, plan: QueryPlan) -> Callable[[], QueryVector] | None:
        """What makes the query vector that explains the scores of a plan; None if they are scores of a fusion."""
        if plan.text is not None:
            return None
        if isinstance(plan.rescoring, EmbeddingQuery):
            return plan.rescoring.vector
        if vector := plan.rescoring or plan.first_stage:
            return lambda: vector
        assert plan.dense is not None  # a plan without codes has embeddings that rank
        return partial(self._planner.query_vector, plan.dense)

    def _settings(self, limit: int, options: SearchOptions) -> SearchSettings:
        """Complete settings, with the tenant's condition added to the filter."""
        settings = search_settings(limit, **options)
        if self._tenant is not None:
            conditions = [] if settings["filter"] is None else [settings["filter"]]
            settings["filter"] = models.Filter(must=[self._tenant, *conditions])
        return settings


class ItemCount:
    """The approximate number of items in the index, which the default plan depends on.

    A retriever asks for it with its first search, then every 10 minutes; every 10 seconds while the index is empty.
    """

    def __init__(self) -> None:
        self.items = 0
        self._updated = -math.inf

    def is_due(self) -> bool:
        """Whether the index should be asked now."""
        return time.monotonic() - self._updated > (_REFRESH_SECONDS if self.items else _REFRESH_EMPTY_SECONDS)

    def update(self, items: int) -> None:
        """Keep the answer of the index."""
        self.items, self._updated = items, time.monotonic()


def timed(kind: str) -> contextlib.AbstractContextManager[None]:
    """Measure a whole search of some kind (search, search_batch, similar_to)."""
    return telemetry.timed("compressae.search.duration", {"compressae.search.kind": kind})


def page_of(hits: list[Hit], limit: int, options: SearchOptions) -> list[Hit]:
    """The hits of a search without an offset, from the offset of its options on."""
    offset = int(options.get("offset", 0))
    return hits[offset : offset + limit]


def counted(hits: list[Hit]) -> list[Hit]:
    """The hits of one query, whose number is measured."""
    telemetry.measure("compressae.search.hits", len(hits))
    return hits


def others(id: ItemId, hits: list[Hit]) -> list[Hit]:
    """The hits without the item itself, whose id may be a UUID in another spelling."""
    if isinstance(id, int) or (uuid := canonical_uuid(str(id))) is None:
        return [hit for hit in hits if hit.id != id]
    return [hit for hit in hits if isinstance(hit.id, int) or canonical_uuid(hit.id) != uuid]


def are_texts(queries: Any) -> TypeGuard[Sequence[str]]:
    """Whether the queries are a batch of texts."""
    return isinstance(queries, Sequence) and len(queries) > 0 and all(isinstance(query, str) for query in queries)


def _found_by(plan: QueryPlan) -> str:
    """What finds the candidates of a plan."""
    if plan.navigation is None:
        return "codes"
    return "graph" if plan.first_stage is None else "both"


def _is_empty(queries: Any) -> bool:
    """Whether a batch is empty: a list without queries, or a (0, d) matrix."""
    if isinstance(queries, Sequence):
        return not isinstance(queries, str) and len(queries) == 0
    return np.ndim(queries) == 2 and np.shape(queries)[0] == 0


def _tenant_condition(field: str | None, tenant: str) -> models.FieldCondition:
    if field is None:
        raise ConfigError("the index has no tenant field; create it with IndexSettings(tenant_field=...)")
    return models.FieldCondition(key=field, match=models.MatchValue(value=tenant))
