"""Retriever and AsyncRetriever: a model and an index together; vectors or text in, hits out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, Unpack

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from .. import telemetry
from ..codes import SparseCodes
from ..embedders import Embedder
from ..errors import (
    ConfigError,
    IndexNotFoundError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
)
from ..index.plan import QueryPlan
from ..index.protocol import AsyncCodeIndex, CodeIndex
from ..index.results import Hit, ItemId, Record
from ..model.compressae import CompresSAE
from ..scoring import Explanation, QueryVector, explain
from .planner import QueryPlanner, SearchOptions, SearchSettings

__all__ = ["AsyncRetriever", "Retriever"]

_SIZE_SECONDS: Final = 600.0
_EMPTY_SECONDS: Final = 10.0
Query = str | npt.ArrayLike
"""A text, or a (d,) embedding."""


class _Planned:
    """What the sync and the async retriever have in common: everything but the call of the index."""

    def __init__(
        self, model: CompresSAE, index: CodeIndex | AsyncCodeIndex, embedder: Embedder | None, tenant: str | None
    ) -> None:
        if model.fingerprint != index.fingerprint:
            raise ModelMismatchError(
                f"the index holds codes of model {index.fingerprint!r} but model {model.fingerprint!r} was given; load "
                "the index's own model, or encode the catalog again"
            )
        self.model = model
        self._embedder = embedder
        self._planner = QueryPlanner(model, index.settings.keep_dense)
        self._size = _Size()
        self._tenant = None if tenant is None else _tenant_condition(index.settings.tenant_field, tenant)

    def _plans(self, queries: Any, limit: int, settings: SearchOptions, items: int) -> list[QueryPlan]:
        asked = self._settings(limit, settings)
        if _is_empty(queries):
            return []
        vectors = self._embed(queries)
        with telemetry.timed("compressae.search.planning.duration"):
            return self._traced(self._planner.plans(vectors, asked, items))

    def _plan_like(
        self, id: ItemId, records: list[Record], limit: int, settings: SearchOptions, items: int
    ) -> QueryPlan:
        """The plan that finds items like a stored one, itself included."""
        if self._tenant is not None:
            records = [r for r in records if r.payload.get(self._tenant.key) == self._tenant.match.value]  # type: ignore[union-attr]  # as _tenant_condition made it
        if not records:
            raise IndexNotFoundError(f"item {id!r} is not in the index; upsert it first, or check its id and type")
        record = records[0]
        asked = self._settings(limit, settings)
        # One more of everything, as it finds itself.
        prefetch = None if asked.prefetch is None else asked.prefetch + 1
        dense = asked.dense_candidates + 1 if asked.dense_candidates else asked.dense_candidates
        asked = dataclasses.replace(asked, limit=limit + 1, prefetch=prefetch, dense_candidates=dense)
        with telemetry.timed("compressae.search.planning.duration"):
            if record.dense is not None:
                return self._traced(self._planner.plans(record.dense, asked, items))[0]
            code = SparseCodes(record.indices[None], record.values[None], self.model.latents)
            return self._traced(self._planner.plans_for_codes(code, asked, items))[0]

    def _settings(self, limit: int, settings: SearchOptions) -> SearchSettings:
        """The settings of a search, with the filter of the tenant where there is one."""
        known = SearchSettings.__dataclass_fields__
        unknown = set(settings) - set(known)
        if unknown:
            raise InvalidInputError(f"search has no setting {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        asked = SearchSettings(limit=limit, **settings)
        if self._tenant is None:
            return asked
        inner = [] if asked.filter is None else [asked.filter]
        return dataclasses.replace(asked, filter=models.Filter(must=[self._tenant, *inner]))

    def _embed(self, queries: Any) -> npt.ArrayLike:
        listed = [queries] if isinstance(queries, str) else queries
        if _are_texts(listed):
            if self._embedder is None:
                raise MissingExtraError(
                    "the query is text but the retriever has no embedder; pass embedder=load_embedder(name) (extra "
                    "'text'), or a vector"
                )
            with telemetry.timed("compressae.search.embedding.duration"):
                return self._embedder(listed)
        try:
            return np.asarray(listed, dtype=np.float32)
        except (TypeError, ValueError) as exc:
            raise InvalidInputError(
                f"queries are no vectors of equal length ({exc}); pass (d,) or (q, d) numbers"
            ) from exc

    def _traced(self, plans: list[QueryPlan]) -> list[QueryPlan]:
        """The plans with an origin that can explain their hits. Their candidates are counted."""
        for plan in plans:
            telemetry.measure("compressae.search.candidates", plan.prefetch if plan.rescoring is not None else 0)
        index = self._sync_index()
        return [
            dataclasses.replace(plan, origin=_Origin(self.model, plan.rescoring or plan.first_stage, index))
            for plan in plans
        ]

    def _sync_index(self) -> CodeIndex | None:
        """The index, if a hit can read an item's code from it without awaiting."""
        return None


class _Size:
    """About how many items the index has: asked with the first search, and again now and then, as the default plan is
    another for a large catalog."""

    def __init__(self) -> None:
        self.items = 0
        self._asked = -math.inf

    def due(self) -> bool:
        """Whether to ask now."""
        return time.monotonic() - self._asked > (_SIZE_SECONDS if self.items else _EMPTY_SECONDS)

    def note(self, items: int) -> None:
        """Take an answer."""
        self.items, self._asked = items, time.monotonic()


@dataclass(frozen=True, eq=False)
class _Origin:
    """The search that found a hit."""

    model: CompresSAE
    query: QueryVector
    index: CodeIndex | None
    """None where only an async one is at hand."""

    def explain(self, hit: Hit) -> Explanation:
        if self.index is None:
            raise InvalidInputError(f"hit {hit.id!r} is of an async retriever; use `await retriever.explain([hit])`")
        return _explained([hit], self.index.retrieve([hit.id]))[0]

    def of_code(self, hit: Hit, record: Record) -> Explanation:
        concepts = self.model.concepts

        def concept_of(latent: int) -> tuple[str, int] | None:
            concept = None if concepts is None else concepts.of_latent(latent)
            return None if concept is None else (concept.name, concept.sign)

        return explain(self.query, record.indices, record.values, hit.score, concept_of)


class Retriever(_Planned):
    """Searches one index with the model that made its codes.

    Args:
        model: the model.
        index: an index of its codes.
        embedder: needed for text queries only.
        tenant: the one tenant whose items are seen. Every query carries its condition, whatever else it filters by;
            `similar_to` doesn't find an item of another tenant.

    Raises:
        ModelMismatchError: the index holds another model's codes.
        ConfigError: there is a tenant but the index has no tenant field.
    """

    def __init__(
        self, model: CompresSAE, index: CodeIndex, embedder: Embedder | None = None, *, tenant: str | None = None
    ) -> None:
        super().__init__(model, index, embedder, tenant)
        self.index = index

    def search(self, query: Query, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """The items closest to a query, best first.

        Args:
            query: a (d,) embedding of any scale, or a text if there is an embedder.
            limit: hits to return.
            **settings: filter, scoring, prefetch, first_stage_latents, target_recall, exact, dense_candidates,
                query_method, with_payload, rescore_in_engine, concepts, within, within_strength; see `SearchSettings`.

        Returns:
            At most `limit` hits. By default a score estimates the cosine of query and item; see `similarity`.

        Raises:
            DimensionError: the query has another number of dimensions than the model.
            InvalidInputError: the query is zero, NaN or infinite, or a setting is out of range.
        """
        with _timed("search"):
            (plan,) = self._plans([query], limit, settings, self._items())
            return _counted(self.index.search(plan))

    def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **settings: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """The hits of many queries, in order, in one engine call. Arguments are those of `search`."""
        with _timed("search_batch"):
            plans = self._plans(queries, limit, settings, self._items())
            found = self.index.search_batch(plans) if plans else []
            return [_counted(hits) for hits in found]

    def similar_to(self, id: ItemId, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """The items closest to an item of the index, itself left out. The query is its stored code, or its embedding
        where the index keeps it.

        Raises:
            IndexNotFoundError: the item is not in the index.
        """
        with _timed("similar_to"):
            plan = self._plan_like(id, self.index.retrieve([id]), limit, settings, self._items())
            return _counted([hit for hit in self.index.search(plan) if hit.id != id][:limit])

    def explain(self, hits: Sequence[Hit]) -> list[Explanation]:
        """What `Hit.explain` gives, for many hits of this retriever in one call of the index.

        Raises:
            InvalidInputError: a hit was not found by a retriever.
            IndexNotFoundError: an item is no longer in the index.
        """
        return _explained(hits, self.index.retrieve(_ids(hits)))

    def _sync_index(self) -> CodeIndex:
        return self.index

    def _items(self) -> int:
        if self._size.due():
            self._size.note(self.index.count(exact=False))
        return self._size.items


class AsyncRetriever(_Planned):
    """`Retriever` for an `AsyncQdrantIndex`: the same methods, awaited. At most `in_flight` calls wait for the server
    at once; more queue up here, so that a burst doesn't become the server's problem. Texts are embedded in a thread."""

    def __init__(
        self,
        model: CompresSAE,
        index: AsyncCodeIndex,
        embedder: Embedder | None = None,
        *,
        tenant: str | None = None,
        in_flight: int = 16,
    ) -> None:
        super().__init__(model, index, embedder, tenant)
        if in_flight < 1:
            raise InvalidInputError(f"in_flight is {in_flight}; it must be at least 1")
        self.index = index
        self._turn = asyncio.Semaphore(in_flight)
        self._asking = asyncio.Lock()
        self._embedding = asyncio.Lock()

    async def search(self, query: Query, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.search`."""
        with _timed("search"):
            (plan,) = self._plans(await self._vectors([query]), limit, settings, await self._items())
            async with self._my_turn():
                return _counted(await self.index.search(plan))

    async def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **settings: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """See `Retriever.search_batch`."""
        with _timed("search_batch"):
            plans = self._plans(await self._vectors(queries), limit, settings, await self._items())
            async with self._my_turn():
                found = await self.index.search_batch(plans) if plans else []
            return [_counted(hits) for hits in found]

    async def similar_to(self, id: ItemId, limit: int = 10, **settings: Unpack[SearchOptions]) -> list[Hit]:
        """See `Retriever.similar_to`."""
        with _timed("similar_to"):
            items = await self._items()
            async with self._my_turn():
                plan = self._plan_like(id, await self.index.retrieve([id]), limit, settings, items)
                hits = await self.index.search(plan)
            return _counted([hit for hit in hits if hit.id != id][:limit])

    async def explain(self, hits: Sequence[Hit]) -> list[Explanation]:
        """See `Retriever.explain`."""
        async with self._my_turn():
            return _explained(hits, await self.index.retrieve(_ids(hits)))

    async def _vectors(self, queries: Any) -> Any:
        """Queries with their texts embedded: in a thread, as that takes long, and one call after the other, as
        embedders needn't bear several at once."""
        if self._embedder is None or not _are_texts([queries] if isinstance(queries, str) else queries):
            return queries
        async with self._embedding:
            return await asyncio.to_thread(self._embed, queries)

    async def _items(self) -> int:
        async with self._asking:  # a burst at the start asks once, and all of it waits for the answer
            if self._size.due():
                self._size.note(await self.index.count(exact=False))
        return self._size.items

    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        with telemetry.timed("compressae.search.queue.duration"):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()


def _timed(kind: str) -> contextlib.AbstractContextManager[None]:
    return telemetry.timed("compressae.search.duration", {"compressae.search.kind": kind})


def _counted(hits: list[Hit]) -> list[Hit]:
    telemetry.measure("compressae.search.hits", len(hits))
    return hits


def _ids(hits: Sequence[Hit]) -> list[ItemId]:
    return list(dict.fromkeys(hit.id for hit in hits))


def _explained(hits: Sequence[Hit], records: Sequence[Record]) -> list[Explanation]:
    codes = {record.id: record for record in records}
    explained = []
    for hit in hits:
        if not isinstance(hit.found_by, _Origin):
            raise InvalidInputError(
                f"hit {hit.id!r} was not found by a retriever, so its query is unknown; search with a Retriever"
            )
        if hit.id not in codes:
            raise IndexNotFoundError(f"item {hit.id!r} is no longer in the index; search again")
        explained.append(hit.found_by.of_code(hit, codes[hit.id]))
    return explained


def _tenant_condition(field: str | None, tenant: str) -> models.FieldCondition:
    if field is None:
        raise ConfigError("the index has no tenant field; create it with IndexSettings(tenant_field=...)")
    return models.FieldCondition(key=field, match=models.MatchValue(value=tenant))


def _is_empty(queries: Any) -> bool:
    """Whether a batch is empty: a list without queries, or a (0, d) matrix."""
    if isinstance(queries, Sequence):
        return not isinstance(queries, str) and len(queries) == 0
    return np.ndim(queries) == 2 and len(queries) == 0


def _are_texts(queries: Any) -> TypeGuard[Sequence[str]]:
    return isinstance(queries, Sequence) and len(queries) > 0 and all(isinstance(query, str) for query in queries)
