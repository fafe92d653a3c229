"""Retriever: a model and an index together; texts or vectors in, hits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy.typing as npt

from ..embedders import Embedder
from ..index.protocol import CodeIndex
from ..index.results import Hit, ItemId
from ..model.compressae import CompresSAE
from ..scoring import Explanation
from .explanations import explain_hits, ids_of
from .groups import Group, follow_searches, group_steps, groups_options, hits_for_groups
from .queries import ItemCount, Queries, Query, counted, others, page_of, timed
from .settings import SearchOptions

__all__ = ["Retriever"]


class Retriever:
    """Searches one index with the model that encoded its items.

    Args:
        model: the model.
        index: an index of its codes.
        embedder: needed for text queries only: any callable from texts to vectors, or a `TwoSidedEmbedder`.
        tenant: the one tenant whose items are visible. Every query carries its condition, whatever else it filters by;
            `similar_to` does not find an item of another tenant.

    Raises:
        ModelMismatchError: the index holds another model's codes.
        ConfigError: there is a tenant but the index has no tenant field.
    """

    def __init__(
        self, model: CompresSAE, index: CodeIndex, embedder: Embedder | None = None, *, tenant: str | None = None
    ) -> None:
        self.model = model
        self.index = index
        self._queries = Queries(model, index, embedder, tenant, index)
        self._count = ItemCount()

    def search(self, query: Query, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """Find the items closest to a query, best first.

        Args:
            query: a (d,) embedding of any norm, or a text if there is an embedder.
            limit: hits to return.
            **options: see `SearchOptions`.

        Returns:
            At most `limit` hits. By default a score estimates the cosine of query and item; see `scoring`.

        Raises:
            DimensionError: the query has another number of dimensions than the model.
            InvalidInputError: the query is zero, NaN or infinite, or an option is out of range.
        """
        with timed("search"):
            (plan,) = self._queries.plans([query], limit, options, self._items())
            return counted(self.index.search(plan))

    def search_batch(
        self, queries: Sequence[str] | npt.ArrayLike, limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Search for many queries in one call of the engine; hits are in the order of the queries. See `search`."""
        with timed("search_batch"):
            plans = self._queries.plans(queries, limit, options, self._items())
            results = self.index.search_batch(plans) if plans else []
            return [counted(hits) for hits in results]

    def search_groups(
        self, query: Query, group_by: str, limit: int = 10, group_size: int = 3, **options: Unpack[SearchOptions]
    ) -> list[Group]:
        """Find the groups of items closest to a query, such as documents by their chunks. See `search`.

        The engine is called once, and again where groups or hits of a group are missing. The groups are those of the
        complete ranking, as far as the searches find it; with `exact=True`, every item is scored.

        Args:
            query: see `search`.
            group_by: payload field with one string or whole number for an item; `author.id` is a field of an object.
                Items without it are left out. Index it (`IndexSettings.payload_fields`) for speed.
            limit: groups to return.
            group_size: hits of a group.
            **options: see `SearchOptions`; `offset` is refused.

        Returns:
            At most `limit` groups, in the order of their best hits, with at most `group_size` hits each, best first.

        Raises:
            InvalidInputError: a number is below 1, there is an offset, or an item has a list in the field.
        """
        with timed("search_groups"):
            size = hits_for_groups(limit, group_size)
            (plan,) = self._queries.plans([query], size, groups_options(options), self._items())
            payload = options.get("with_payload", True)
            steps = group_steps(plan, group_by, limit, group_size, with_payload=payload)
            return follow_searches(steps, self.index.search_batch)

    def similar_to(self, id: ItemId, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """Find the items closest to an item of the index, itself left out. The query is the item's stored code, or its
        embedding where the index keeps it.

        Raises:
            IndexNotFoundError: the item is not in the index.
        """
        with timed("similar_to"):
            plan = self._queries.plan_similar(id, self.index.retrieve([id]), limit, options, self._items())
            return counted(page_of(others(id, self.index.search(plan)), limit, options))

    def explain(self, hits: Sequence[Hit]) -> list[Explanation]:
        """Explain many hits as `Hit.explain` does, in one call of the index.

        Raises:
            InvalidInputError: a hit was not found by a retriever.
            IndexNotFoundError: an item is no longer in the index.
        """
        return explain_hits(hits, self.index.retrieve(ids_of(hits)))

    def _items(self) -> int:
        """About how many items the index holds."""
        if self._count.is_due():
            self._count.update(self.index.count(exact=False))
        return self._count.items
