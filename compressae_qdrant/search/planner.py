"""Query planning: an embedding becomes a query vector over latents, and a plan of the two stages of its search."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from .. import scoring as similarity
from ..codes import FloatArray, SparseCodes
from ..errors import ConfigError, ModelMismatchError
from ..index.filters import filter_fields
from ..index.plan import QueryPlan
from ..model.calibration import PlannedStage
from ..model.compressae import CompresSAE
from ..model.projection import Projection
from ..scoring import EmbeddingQuery, QueryVector, Scoring, truncate
from ..vectors import check_embeddings, unit_rows
from .costs import graph_is_cheaper, is_scanned, shipped_costs
from .defaults import (
    FINE_SHARE,
    FIRST_STAGE,
    RESCORED_HERE,
    candidates_of,
    default_plan,
    dense_candidates_of,
    fused_candidates_of,
    graph_sizes,
)  # fmt: skip
from .settings import FirstStage, SearchSettings, ranks_of
from .steering import concept_vector, steering

__all__ = ["QueryPlanner"]

_EXACT_FACTOR: Final = 2
_WITHIN: Final = 10_000
_WITHIN_EXACT: Final = 1_000_000
_REACHED: Final = 0.1
"""Share of items that match a filter from which the graph leads to all of them, whatever the filter tests; see
EXPERIMENTS.md."""
_MIN_STRENGTH: Final = float(np.finfo(np.float32).tiny)
"""The lowest value above 0."""


@dataclass(frozen=True)
class _Stages:
    """What the stages of a search look at."""

    first: FirstStage
    """What finds the candidates."""
    latents: int | None
    """Latents of the first stage by codes; None for all."""
    prefetch: int
    """Candidates."""
    dense: int
    """Candidates that kept embeddings rank; 0 for none."""
    ef: int | None
    """Nodes that the search of the graph keeps."""
    compared: int = 0
    """Nodes that their stored navigation vectors order."""
    rescored_here: bool = False
    """Whether candidates are fetched with their codes and ranked in this process."""

    @property
    def reads_codes(self) -> bool:
        """Whether a stage compares codes; otherwise the graph finds the candidates and embeddings rank all of them."""
        return self.first != "graph" or self.dense < self.prefetch


class QueryPlanner:
    """Plans the queries of one model.

    The first stage scores all items by some latents of the query vector; the second scores its candidates by all of
    them. The first stage's latents are those with the largest expected contribution: `|vector_j|` times the mean
    magnitude of latent j's stored values.

    Args:
        model: the model that encoded the items.
        keep_dense: whether the index keeps embeddings, which then rescore the best candidates by default.
        navigation_dim: dimensions of the index's navigation vectors; None if it has none.
        projection: fingerprint of the projection that made them.
        linked_fields: payload fields whose values have links of their own in the graph.
    """

    def __init__(
        self,
        model: CompresSAE,
        keep_dense: bool = False,
        navigation_dim: int | None = None,
        projection: str | None = None,
        linked_fields: Collection[str] = (),
    ) -> None:
        self._model = model
        self._linked_fields = frozenset(linked_fields)
        self._keep_dense = keep_dense
        self._navigation_dim = navigation_dim
        self._index_projection = projection
        self._atoms: FloatArray = model.atoms.detach().cpu().numpy()
        self._magnitude: FloatArray = model.latent_magnitude.cpu().numpy()
        self._fingerprint = model.fingerprint

    def plans(self, queries: npt.ArrayLike, settings: SearchSettings, items: int = 0) -> list[QueryPlan]:
        """Plan one search for each embedding.

        Args:
            queries: (q, d) or (d,) embeddings of any norm.
            settings: options of the search.
            items: approximate number of items in the index, which the default plan depends on; 0 for a small index.

        Raises:
            DimensionError: the queries have another number of dimensions than the model.
            InvalidInputError: a query is zero, NaN or infinite, or no plan reaches the target recall.
            ConfigError: there is a target recall but the model is not calibrated.
        """
        x = unit_rows(check_embeddings(queries, self._model.dim, f"model {self._fingerprint!r}"))
        return self._plans(x, None, settings, items)

    def plans_for_codes(self, codes: SparseCodes, settings: SearchSettings, items: int = 0) -> list[QueryPlan]:
        """Plan one search for each stored code, whose reconstruction is the query. See `plans`."""
        x = self._model.decode(codes)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return self._plans(x, codes, settings, items)

    def query_vector(self, x: FloatArray) -> QueryVector:
        """The query vector that scores codes by their cosine with a (d,) embedding of unit norm."""
        return truncate(similarity.asymmetric(self._atoms, x[None])[0])

    def _vectors(self, x: FloatArray, codes: SparseCodes | None, scoring: Scoring) -> FloatArray:
        """(q, h) query vectors of a scoring."""
        if scoring == "asymmetric":
            return similarity.asymmetric(self._atoms, x)
        assert codes is not None
        return similarity.sparse(codes) if scoring == "sparse" else similarity.reconstructed(self._atoms, codes)

    def _plans(self, x: FloatArray, codes: SparseCodes | None, settings: SearchSettings, items: int) -> list[QueryPlan]:
        """Plan searches for unit-norm embeddings; `codes` are the queries' codes, if they are known."""
        settings = self._calibrated(settings)
        steered = self._steering(settings)
        stages = self._stages(settings, items, can_keep=not len(steered))
        navigation = self._navigation(x, stages.first)
        first, full = self._query_vectors(x, codes, settings, stages, steered)
        plans = [
            QueryPlan(
                first_stage=first[row] if first else None,
                rescoring=full[row] if full else None,
                limit=settings["limit"],
                prefetch=stages.prefetch,
                filter=settings["filter"],
                with_payload=settings["with_payload"],
                rescore_in_engine=not stages.rescored_here,
                dense=query if stages.dense else None,
                dense_candidates=stages.dense,
                navigation=None if navigation is None else navigation[row],
                navigation_ef=stages.ef,
                navigation_candidates=stages.compared,
                offset=settings["offset"],
                min_score=settings["score_threshold"],
                with_codes=settings["with_codes"],
                with_dense=settings["with_dense"],
            )
            for row, query in enumerate(x)
        ]
        return plans if settings["within"] is None else self._within(plans, settings, settings["within"])

    def _query_vectors(
        self, x: FloatArray, codes: SparseCodes | None, settings: SearchSettings, stages: _Stages, steered: QueryVector
    ) -> tuple[list[QueryVector], Sequence[QueryVector | EmbeddingQuery]]:
        """The query vectors of the first stage and of rescoring; an empty list for a stage without codes."""
        if not stages.reads_codes:
            return [], []
        if stages.rescored_here and stages.first == "graph" and settings["scoring"] == "asymmetric" and len(x) == 1:
            return [], [EmbeddingQuery(x[0], self._atoms)]  # many queries share one reading of the atoms
        by_code = settings["first_stage_latents"] == 0 and not settings["exact"]
        if codes is None and (settings["scoring"] != "asymmetric" or by_code):
            codes = self._model.encode(x, settings["query_method"])
        vectors = _steered(self._vectors(x, codes, settings["scoring"]), steered)
        full = [truncate(vector) for vector in vectors]
        if stages.first == "graph":
            return [], full
        if by_code:
            assert codes is not None
            vectors = _steered(similarity.sparse(codes), steered)
        return [truncate(vector, stages.latents, self._magnitude, steered.indices) for vector in vectors], full

    def _stages(self, settings: SearchSettings, items: int, *, can_keep: bool) -> _Stages:
        """What each stage looks at; `can_keep` is whether kept embeddings may rank the hits."""
        dense = self._dense_candidates(settings) if can_keep else 0
        given = settings["dense_candidates"]
        # Embeddings of all candidates are read in the time that rescoring a few by their codes takes.
        all_dense = dense > 0 and (given is None or given == settings["prefetch"])
        first = self._first_stage(settings, items, keep_dense=all_dense)
        latents, prefetch = self._sizes(settings, items, keep_dense=dense > 0)
        if first == "codes":
            here = settings["rescore_in_engine"] is False
            return _Stages(first, latents, max(prefetch, dense), dense, None, rescored_here=here)
        is_fused = settings["text"] is not None and settings["code_weight"] != 0
        needed = fused_candidates_of(ranks_of(settings)) if is_fused else 0
        sizes = graph_sizes(
            ranks_of(settings), items=items, fine=self._is_fine and first == "graph", keep_dense=all_dense,
            prefetch=settings["prefetch"], ef=settings["navigation_ef"], compared=settings["navigation_candidates"],
            at_least=needed if all_dense and given is None else max(needed, dense),
        )  # fmt: skip
        dense = sizes.candidates if all_dense else dense
        here = not settings["rescore_in_engine"] and not dense and settings["text"] is None and first == "graph"
        if settings["rescore_in_engine"] is None:
            here = here and sizes.candidates <= RESCORED_HERE
        return _Stages(first, latents, sizes.candidates, dense, sizes.ef, sizes.compared, here)

    def _first_stage(self, settings: SearchSettings, items: int, *, keep_dense: bool) -> FirstStage:
        """What finds the candidates, once "auto" is decided."""
        stage = settings["first_stage"]
        if stage == "codes":
            return stage
        if stage != "auto":
            self._check_navigation()
            return stage
        needs_codes = (
            settings["exact"]
            or settings["scoring"] == "sparse"
            or settings["first_stage_latents"] is not None
            or settings["within"] is not None
            or any((settings["concepts"] or {}).values())
        )
        if needs_codes or not self._has_graph() or self._may_miss(settings["filter"], items):
            return "codes"
        cheaper = graph_is_cheaper(
            shipped_costs(), items, self._model.latents, self._model.k, self._navigation_dim or 1,
            ranks_of(settings), settings["prefetch"], fine=self._is_fine, keep_dense=keep_dense,
        )  # fmt: skip
        return "graph" if cheaper else "codes"

    def _may_miss(self, filter: models.Filter | None, items: int) -> bool:
        """Whether a filter may match so small a share of a large index that the graph does not lead to the matching
        items: where it is walked although less than a tenth matches, by fields whose values have no links."""
        if not isinstance(filter, models.Filter) or is_scanned(items * _REACHED, self._navigation_dim or 1):
            return False
        return not filter_fields(filter) <= self._linked_fields

    def _has_graph(self) -> bool:
        """Whether the index has navigation vectors of the model's projection."""
        return self._navigation_dim is not None and self._index_projection == self._model_projection.fingerprint

    @cached_property
    def _model_projection(self) -> Projection:
        """The model's projection. Asking the model for it looks at all weights, which takes longer than using it."""
        return self._model.projection

    @cached_property
    def _is_fine(self) -> bool:
        """Whether navigation vectors hold so much of an item that few candidates are needed."""
        return self._navigation_dim is not None and self._model.navigation_share(self._navigation_dim) >= FINE_SHARE

    def _check_navigation(self) -> None:
        if self._navigation_dim is None:
            raise ConfigError(
                "the index has no navigation vectors, so its graph cannot be searched; search by first_stage='codes', "
                "or build the index again with IndexSettings(navigation=NavigationSettings())"
            )
        if self._index_projection != self._model_projection.fingerprint:
            raise ModelMismatchError(
                f"the index has navigation vectors of projection {self._index_projection!r} but the model has "
                f"{self._model_projection.fingerprint!r}; load the model with which the index was created, or search "
                "by first_stage='codes'"
            )

    def _navigation(self, x: FloatArray, stage: FirstStage) -> FloatArray | None:
        """(q, dim) navigation vectors of queries, if the graph is searched."""
        if stage == "codes" or self._navigation_dim is None:
            return None
        return self._model_projection.queries(x, self._navigation_dim)

    def _sizes(self, settings: SearchSettings, items: int, *, keep_dense: bool) -> tuple[int | None, int]:
        """Latents of the first stage (None for the whole vector), and candidates."""
        limit, latents = ranks_of(settings), settings["first_stage_latents"]
        prefetch = settings["prefetch"] or candidates_of(limit, self._model.k, keep_dense=keep_dense)
        if settings["exact"]:
            return None, max(prefetch, _EXACT_FACTOR * limit)
        if latents is None and settings["prefetch"] is None:
            return default_plan(items, limit, self._model.k, keep_dense=keep_dense)
        return FIRST_STAGE if latents is None else latents or None, prefetch

    def _calibrated(self, settings: SearchSettings) -> SearchSettings:
        """The settings with the plan that reaches their target recall."""
        target = settings["target_recall"]
        if target is None:
            return settings
        calibration = self._model.calibration
        if calibration is None:
            raise ConfigError(
                f"model {self._fingerprint!r} is not calibrated, so no plan is known for target_recall={target:g}; "
                "run `compressae calibrate CATALOG --model DIRECTORY`"
            )
        dense, stage = self._dense_candidates(settings) > 0, settings["first_stage"]
        if stage == "graph":
            self._check_navigation()
        stages: set[PlannedStage] = {"graph", "codes"} if self._has_graph() else {"codes"}
        if stage in ("graph", "codes"):
            stages = {stage}
        plan = calibration.choose(target, ranks_of(settings), keep_dense=dense, first_stages=stages)
        settings = {**settings, "target_recall": None, "first_stage": plan.first_stage, "prefetch": plan.prefetch}
        if plan.first_stage == "graph":
            ranks, ef = ranks_of(settings), plan.navigation_ef
            sizes = graph_sizes(
                ranks, fine=self._is_fine, keep_dense=calibration.keep_dense, prefetch=plan.prefetch, ef=ef
            )
            return {**settings, "navigation_ef": ef, "navigation_candidates": sizes.compared}
        return {**settings, "first_stage_latents": plan.first_stage_latents}

    def _steering(self, settings: SearchSettings) -> QueryVector:
        if not settings["concepts"]:
            return QueryVector(np.empty(0, np.int32), np.empty(0, np.float32))
        return steering(settings["concepts"], self._model.concepts, self._model.latents)

    def _within(self, plans: list[QueryPlan], settings: SearchSettings, name: str) -> list[QueryPlan]:
        """The plans with the items that have a concept as their candidates."""
        concept = concept_vector(name, self._model.concepts, self._model.latents)
        candidates = _WITHIN_EXACT if settings["exact"] else settings["prefetch"] or _WITHIN
        threshold = max(settings["within_strength"], _MIN_STRENGTH)
        return [
            replace(plan, first_stage=concept, prefetch=max(plan.prefetch, candidates), score_threshold=threshold)
            for plan in plans
        ]

    def _dense_candidates(self, settings: SearchSettings) -> int:
        """Candidates that stored embeddings rescore."""
        if settings["dense_candidates"] is not None:
            return settings["dense_candidates"]
        applies = (
            self._keep_dense and settings["scoring"] == "asymmetric" and settings["rescore_in_engine"] is not False
        )
        if not applies:
            return 0
        ranks = ranks_of(settings)
        return dense_candidates_of(ranks) if settings["text"] is None else fused_candidates_of(ranks)


def _steered(vectors: FloatArray, addition: QueryVector) -> FloatArray:
    """(q, h) query vectors with the same addition to each."""
    if not len(addition):
        return vectors
    vectors = vectors.copy()
    vectors[:, addition.indices] += addition.values
    return vectors
