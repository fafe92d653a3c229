"""From an embedding to a query plan: the query-side vector of a scoring, and how much of it searches for candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from .. import scoring as similarity
from ..codes import FloatArray, SparseCodes
from ..errors import ConfigError, InvalidInputError
from ..index.plan import QueryPlan
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..scoring import QueryVector, Scoring, truncate
from ..vectors import check_embeddings, unit_rows
from .defaults import FIRST_STAGE, candidates_of, default_plan, dense_candidates_of
from .steering import concept_vector, steering

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["QueryPlanner", "SearchOptions", "SearchSettings"]

_EXACT_FACTOR: Final = 2
_WITHIN: Final = 10_000
_WITHIN_EXACT: Final = 1_000_000
_ANY_STRENGTH: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class SearchSettings:
    """How one search is to be done."""

    limit: int = 10
    """Hits to return."""
    filter: models.Filter | None = None
    """Restricts the search to items whose payload matches."""
    scoring: Scoring = "asymmetric"
    """Similarity by which hits are ranked."""
    prefetch: int | None = None
    """Candidates of the first stage; None takes 100, or three times the limit if that is more; it is four times where
    embeddings rescore, and once more for every 16 non-zeros of a code above 32. A candidate costs about 6 microseconds,
    whatever the number of items. Where `first_stage_latents` isn't given either, a catalog of more than 65,536 items is
    searched by fewer latents for more candidates, as `default_plan` has it: 320 latents and 400 candidates for 10 of a
    million items."""
    first_stage_latents: int | None = None
    """Latents of the query-side vector that search for candidates; None takes 1,280. 0 uses the query's own code. A
    latent costs about 20 nanoseconds for every 1,000 items: 1.5 ms for 1,280 latents and 63,666 items."""
    target_recall: float | None = None
    """Instead of `prefetch` and `first_stage_latents`: recall@limit against exact dense search that the search shall
    reach, by the cheapest plan that surely does as the model's calibration has it (`compressae calibrate`)."""
    exact: bool = False
    """Score every item that shares a latent with the query-side vector, and rescore the best exactly."""
    dense_candidates: int | None = None
    """How many of the rescored candidates are scored once more by the embeddings that the index keeps (`keep_dense`),
    with asymmetric scoring. None takes three times the limit where there are embeddings; 0 leaves it out."""
    query_method: Method = "pursuit"
    """How the query's own code is found, where scoring or `first_stage_latents=0` needs one. Items that the encoder
    coded are found by sparse scoring only if it codes the query too."""
    with_payload: bool = True
    """Whether hits carry their payload."""
    rescore_in_engine: bool = True
    """False fetches the candidates' codes and rescores them in this process."""
    concepts: Mapping[str, float] | None = None
    """Steers the search: the weight of each named concept is added to the query-side vector at its latent, so an item
    gains the weight times its own value there. With asymmetric scoring 0.3 is as much as if the query's cosine with
    the latent's atom were 0.3 higher. A latent with its sign ("+17") is a name too. The embeddings that an index may
    keep know nothing of this, so they don't rescore a steered search."""
    within: str | None = None
    """Only items that have this concept: the candidates are the items strongest in it, 10,000 unless `prefetch` says
    otherwise, or a million with `exact`."""
    within_strength: float = 0.0
    """Least value of the concept in an item's code, above 0 in any case."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InvalidInputError(f"limit is {self.limit}; ask for at least 1 hit")
        if self.prefetch is not None and self.prefetch < self.limit:
            raise InvalidInputError(
                f"prefetch is {self.prefetch} but limit is {self.limit}; rescoring needs at least as many candidates"
            )
        if self.first_stage_latents is not None and self.first_stage_latents < 0:
            raise InvalidInputError(
                f"first_stage_latents is {self.first_stage_latents}; it must be at least 0 (the query's own code)"
            )
        if self.dense_candidates and (self.scoring != "asymmetric" or not self.rescore_in_engine):
            raise InvalidInputError(
                f"dense_candidates={self.dense_candidates} needs asymmetric scoring and rescoring in the engine; "
                "set it to 0"
            )
        if self.dense_candidates and self.dense_candidates < self.limit:
            raise InvalidInputError(
                f"dense_candidates is {self.dense_candidates} but limit is {self.limit}; it needs at least as many"
            )
        if self.dense_candidates and any((self.concepts or {}).values()):
            raise InvalidInputError(
                f"dense_candidates is {self.dense_candidates} but concepts steer the search, which embeddings would "
                "undo; leave one of them out"
            )
        if self.within_strength and (self.within is None or not 0 <= self.within_strength < np.inf):
            raise InvalidInputError(
                f"within_strength is {self.within_strength} and within {self.within!r}; it is the least value, at "
                "least 0, of the concept that within names"
            )
        if self.target_recall is not None:
            self._check_target(self.target_recall)
        if self.query_method not in get_args(Method):
            raise InvalidInputError(
                f"query_method is {self.query_method!r}; it must be one of {', '.join(get_args(Method))}"
            )
        if self.scoring not in get_args(Scoring):
            raise InvalidInputError(f"scoring is {self.scoring!r}; it must be one of {', '.join(get_args(Scoring))}")

    def _check_target(self, target: float) -> None:
        if not 0 < target <= 1:
            raise InvalidInputError(f"target_recall is {target}; it must be above 0 and at most 1")
        given = {
            "prefetch": self.prefetch is not None, "first_stage_latents": self.first_stage_latents is not None,
            "exact": self.exact,
            "dense_candidates": bool(self.dense_candidates), "within": self.within is not None,
            "concepts": any((self.concepts or {}).values()), "scoring": self.scoring != "asymmetric",
        }  # fmt: skip
        others = [name for name, is_given in given.items() if is_given]
        if others:
            raise InvalidInputError(
                f"target_recall is {target} and {', '.join(others)} given too; it chooses the plan of a plain search "
                "by asymmetric scoring, so leave one of them out"
            )


class SearchOptions(TypedDict, total=False):
    """The fields of `SearchSettings` besides the limit, as the keywords of `Retriever`'s methods."""

    filter: models.Filter | None
    scoring: Scoring
    prefetch: int | None
    first_stage_latents: int | None
    target_recall: float | None
    exact: bool
    dense_candidates: int | None
    query_method: Method
    with_payload: bool
    rescore_in_engine: bool
    concepts: Mapping[str, float] | None
    within: str | None
    within_strength: float


class QueryPlanner:
    """Plans the queries of one model.

    The first stage scores all items by a few latents of the query-side vector; the second scores the candidates by all
    of them. Which few: those whose items gain most, `|vector_j|` times the mean magnitude of latent j's stored values.
    """

    def __init__(self, model: CompresSAE, keep_dense: bool = False) -> None:
        self._model = model
        self._keep_dense = keep_dense
        self._atoms: FloatArray = model.atoms.detach().cpu().numpy()
        self._magnitude: FloatArray = model.latent_magnitude.cpu().numpy()
        self._fingerprint = model.fingerprint

    def plans(self, queries: npt.ArrayLike, settings: SearchSettings, items: int = 0) -> list[QueryPlan]:
        """One plan for each row of (q, d) or (d,) embeddings, which are L2-normalised here.

        Args:
            queries: the embeddings.
            settings: of the search.
            items: about how many the index has, by which the default plan is chosen; 0 for a small one.

        Raises:
            DimensionError: the queries have another number of dimensions than the model.
            InvalidInputError: a query is zero, NaN or infinite, or no plan reaches the target recall.
            ConfigError: there is a target recall but the model is not calibrated.
        """
        x = unit_rows(check_embeddings(queries, self._model.dim, f"model {self._fingerprint!r}"))
        needs_codes = settings.scoring != "asymmetric" or settings.first_stage_latents == 0
        codes = self._model.encode(x, settings.query_method) if needs_codes else None
        return self._plans(x, self._vectors(x, codes, settings.scoring), codes, settings, items)

    def plans_for_codes(self, codes: SparseCodes, settings: SearchSettings, items: int = 0) -> list[QueryPlan]:
        """One plan for each of some stored codes: their reconstructions are the queries. See `plans`."""
        x = self._model.decode(codes)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return self._plans(x, self._vectors(x, codes, settings.scoring), codes, settings, items)

    def _vectors(self, x: FloatArray, codes: SparseCodes | None, scoring: Scoring) -> FloatArray:
        if scoring == "asymmetric":
            return similarity.asymmetric(self._atoms, x)
        assert codes is not None
        return similarity.sparse(codes) if scoring == "sparse" else similarity.reconstructed(self._atoms, codes)

    def _plans(
        self, x: FloatArray, vectors: FloatArray, codes: SparseCodes | None, settings: SearchSettings, items: int
    ) -> list[QueryPlan]:
        settings = self._calibrated(settings)
        steered = self._steering(settings)
        vectors = _added(vectors, steered)
        dense = 0 if len(steered) else self._dense_candidates(settings)
        size, prefetch = self._sizes(settings, items, keep_dense=dense > 0)
        prefetch = max(prefetch, dense)
        narrow = vectors
        if settings.first_stage_latents == 0 and not settings.exact:
            assert codes is not None
            narrow = _added(similarity.sparse(codes), steered)
        plans = [
            QueryPlan(
                first_stage=truncate(first, size, self._magnitude, steered.indices),
                rescoring=truncate(full),
                limit=settings.limit,
                prefetch=prefetch,
                filter=settings.filter,
                with_payload=settings.with_payload,
                rescore_in_engine=settings.rescore_in_engine,
                dense=query if dense else None,
                dense_candidates=dense,
            )
            for query, first, full in zip(x, narrow, vectors, strict=True)
        ]
        return plans if settings.within is None else self._within(plans, settings)

    def _sizes(self, settings: SearchSettings, items: int, *, keep_dense: bool) -> tuple[int | None, int]:
        """Latents of the first stage, None for all of the vector, and candidates."""
        prefetch = settings.prefetch or candidates_of(settings.limit, self._model.k, keep_dense=keep_dense)
        if settings.exact:
            return None, max(prefetch, _EXACT_FACTOR * settings.limit)
        if settings.first_stage_latents is None and settings.prefetch is None:
            return default_plan(items, settings.limit, self._model.k, keep_dense=keep_dense)
        return FIRST_STAGE if settings.first_stage_latents is None else settings.first_stage_latents or None, prefetch

    def _calibrated(self, settings: SearchSettings) -> SearchSettings:
        """The settings with the plan that reaches their target recall."""
        if settings.target_recall is None:
            return settings
        calibration = self._model.calibration
        if calibration is None:
            raise ConfigError(
                f"model {self._fingerprint!r} is not calibrated, so no plan is known for target_recall="
                f"{settings.target_recall:g}; run `compressae calibrate CATALOG --model DIRECTORY`"
            )
        dense = self._dense_candidates(settings) > 0
        first_stage_latents, prefetch = calibration.choose(settings.target_recall, settings.limit, keep_dense=dense)
        return replace(settings, target_recall=None, first_stage_latents=first_stage_latents, prefetch=prefetch)

    def _steering(self, settings: SearchSettings) -> QueryVector:
        if not settings.concepts:
            return QueryVector(np.empty(0, np.int32), np.empty(0, np.float32))
        return steering(settings.concepts, self._model.concepts, self._model.latents)

    def _within(self, plans: list[QueryPlan], settings: SearchSettings) -> list[QueryPlan]:
        """The plans with the items of one concept as their candidates."""
        assert settings.within is not None
        concept = concept_vector(settings.within, self._model.concepts, self._model.latents)
        most = _WITHIN_EXACT if settings.exact else settings.prefetch or _WITHIN
        threshold = max(settings.within_strength, _ANY_STRENGTH)
        return [
            replace(plan, first_stage=concept, prefetch=max(plan.prefetch, most), score_threshold=threshold)
            for plan in plans
        ]

    def _dense_candidates(self, settings: SearchSettings) -> int:
        if settings.dense_candidates is not None:
            return settings.dense_candidates
        wanted = self._keep_dense and settings.scoring == "asymmetric" and settings.rescore_in_engine
        return dense_candidates_of(settings.limit) if wanted else 0


def _added(vectors: FloatArray, steered: QueryVector) -> FloatArray:
    """(q, h) query-side vectors with the same added to each."""
    if not len(steered):
        return vectors
    vectors = vectors.copy()
    vectors[:, steered.indices] += steered.values
    return vectors
