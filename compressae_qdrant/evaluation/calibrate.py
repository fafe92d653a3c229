"""Measure the query plans of a model on a catalog: recall against exact dense search, and cost.

Recall of plans by codes is measured in memory with the ranking of the engine: a first stage over all codes, rescoring
of the candidates with the full query-side vector, and optionally rescoring of the best ones with the embeddings. Recall
of plans by the graph is measured on an index of the same items (`calibrate_graph`). A part of the catalog is enough:
with eight times the items, a plan by codes needs at most a third more candidates (EXPERIMENTS.md), and one by the graph
gets more nodes, as the default does. Costs are for the whole
catalog, calculated from the capacity constants or fitted to searches that were timed on an index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..capacity import Constants, load_constants
from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError, ModelMismatchError
from ..index.protocol import CodeIndex
from ..index.settings import NavigationSettings
from ..metrics import pareto_front
from ..model.calibration import CalibratedPlan, Calibration, PlannedStage, PlanRecall
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..search.defaults import dense_candidates_of
from ..search.planner import QueryPlanner
from ..search.settings import search_settings
from ..vectors import exact_neighbours, unit_rows
from .calibrate_graph import graph_plans

__all__ = ["LIMITS", "calibrate"]

LIMITS: Final = (1, 10, 20, 50, 100)
"""Numbers of hits to measure recall at."""
_FIRST_STAGE: Final = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
_PREFETCH: Final = (
    1, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 700, 1000, 1500, 2000, 3000,
)  # fmt: skip
_SEED: Final = 17
_ONE_SIDED: Final = 1.645
"""Standard errors of a mean in a one-sided 95% confidence bound."""
_BATCH: Final = 64
"""Queries that are scored at once."""
_TIMED: Final = 50
"""Queries that time each plan."""


@dataclass(frozen=True)
class _Cost:
    """Milliseconds of one core for a query, and for each of its postings, first-stage latents and candidates."""

    query: float
    posting: float
    latent: float
    candidate: float
    source: str

    def of(self, postings: float, first_stage_latents: int, prefetch: int) -> float:
        return self.query + self.posting * postings + self.latent * first_stage_latents + self.candidate * prefetch


def calibrate(
    model: CompresSAE,
    embeddings: npt.NDArray[np.floating],
    index: CodeIndex | None = None,
    *,
    items: int | None = None,
    limits: Sequence[int] = LIMITS,
    first_stage_latents: Sequence[int] = _FIRST_STAGE,
    prefetch: Sequence[int] = _PREFETCH,
    queries: int = 500,
    seed: int = _SEED,
    avoid: Iterable[int] = (),
    keep_dense: bool = False,
    navigation: NavigationSettings | None = NavigationSettings(),  # noqa: B008 (frozen)
    method: Method = "pursuit",
    constants: Constants | None = None,
    progress: Callable[[str, float], None] = lambda _step, _share: None,
) -> Calibration:
    """Measure recall and cost of query plans; takes about a minute for 60,000 embeddings.

    Args:
        model: the model.
        embeddings: (n, d) embeddings of the catalog or of a random part of it, with n greater than the largest limit.
            Queries are drawn from them, and a query item is not counted among its own hits.
        index: the index of the catalog. Some plans are timed on it, and its settings decide about `keep_dense`.
        items: number of items of the catalog, if `embeddings` are a part of it and there is no index.
        limits: numbers of hits to measure recall at; other limits are interpolated from their neighbours.
        first_stage_latents: numbers of first-stage latents to try.
        prefetch: numbers of candidates to try.
        queries: number of queries to draw.
        seed: random seed for drawing the queries. Evaluate a calibrated plan with queries of another seed.
        avoid: rows never to draw.
        keep_dense: whether embeddings rescore the last candidates, as in an index with `keep_dense`.
        navigation: navigation settings of the index, if none is given: plans by the graph are measured beside plans by
            codes. None leaves them out, as an index without navigation vectors does.
        method: encoding method of the items.
        constants: capacity constants for the costs, if there is no index; None takes the shipped ones.
        progress: called with a description of the current step and the share that is done.

    Returns:
        The plans of each first stage that no cheaper one of the same first stage matches at every limit.

    Raises:
        InvalidInputError: there are too few embeddings, no queries or limits, or the index is empty.
        ModelMismatchError: the index was built by another model.
        DimensionError: the embeddings do not have the model's dimensions.
    """
    limits = sorted(set(limits))
    if (
        not limits
        or limits[0] < 1
        or queries < 1
        or not first_stage_latents
        or min(*first_stage_latents, *prefetch) < 1
    ):
        raise InvalidInputError("limits, queries, first_stage_latents and prefetch must be given, and at least 1")
    if len(embeddings) <= limits[-1] + 1:
        raise InvalidInputError(
            f"there are {len(embeddings)} items; a limit of {limits[-1]} needs at least {limits[-1] + 2}"
        )
    if index is not None:
        if index.fingerprint != model.fingerprint:
            raise ModelMismatchError(
                f"the index was built by model {index.fingerprint!r}, but model {model.fingerprint!r} was given"
            )
        items = index.count()
        if not items:
            raise InvalidInputError("the index is empty; ingest the catalog before calibrating")
    catalog_items = items or len(embeddings)
    dense = keep_dense if index is None else index.settings.keep_dense
    x = unit_rows(embeddings)
    own = _drawn(len(x), queries, seed, avoid)
    progress("encoding", 0.0)
    codes = model.encode(x, method, scale="projection" if index is None else index.settings.scale)
    progress("exact dense search", 0.4)
    truth = exact_neighbours(x[own], x, limits[-1], own)
    widths = sorted({min(size, model.latents) for size in first_stage_latents})
    counts = sorted({min(count, len(x) - 1) for count in prefetch})
    searches = _Searches(model, codes, x, own, truth, limits, counts, dense)
    postings, grid = {}, {}
    for n, width in enumerate(widths):
        progress(f"{width} latents", 0.5 + 0.4 * n / len(widths))
        postings[width], grid[width] = searches.recalls(width)
    progress("times", 0.9)
    walked = {width: catalog_items / len(x) * count for width, count in postings.items()}
    if index is None:
        cost = _known(constants or load_constants(), model, catalog_items)
    else:
        cost = _timed(index, model, x[own[:_TIMED]], walked, counts)
    known = constants or load_constants()
    plans = [
        CalibratedPlan(
            width, count, float(walked[width]), float(cost.of(walked[width], width, count)),
            {limit: _estimate(each) for limit, each in grid[width][count].items()},
        )
        for width in widths
        for count in counts
        if grid[width][count]
    ]  # fmt: skip
    graph = navigation if index is None else index.settings.navigation
    if graph is not None:
        progress("graph", 0.92)
        plans += graph_plans(
            model, codes, x, own, truth, limits, counts, graph, keep_dense=dense, index=index, items=catalog_items,
            constants=known,
        )  # fmt: skip
    # Of each first stage, as an index may have codes alone and a search may name its first stage.
    fronts = [_front([plan for plan in plans if plan.first_stage == stage], limits) for stage in get_args(PlannedStage)]
    best = sorted((plan for front in fronts for plan in front), key=lambda plan: plan.ms)
    return Calibration(model.fingerprint, catalog_items, len(own), dense, cost.source, tuple(best))


def _front(plans: Sequence[CalibratedPlan], limits: Sequence[int]) -> list[CalibratedPlan]:
    """The plans that no cheaper one matches at every limit."""
    return pareto_front(
        plans,
        cost=lambda plan: plan.ms,
        gains=lambda plan: [plan.recall[n].low if n in plan.recall else -np.inf for n in limits],
    )


def _drawn(items: int, queries: int, seed: int, avoid: Iterable[int]) -> npt.NDArray[np.int64]:
    free = np.setdiff1d(np.arange(items), np.fromiter(avoid, np.int64))
    if not len(free):
        raise InvalidInputError("every row is to be avoided; at least one must be left to draw queries from")
    return np.sort(np.random.default_rng(seed).choice(free, min(queries, len(free)), replace=False))


@dataclass(frozen=True)
class _Searches:
    """The searches of one calibration."""

    model: CompresSAE
    codes: SparseCodes
    x: FloatArray
    own: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    limits: Sequence[int]
    counts: Sequence[int]
    dense: bool

    def recalls(self, width: int) -> tuple[float, dict[int, dict[int, list[float]]]]:
        """Search with `width` first-stage latents. Returns the mean postings per query, and the recall of each query by
        number of candidates and limit."""
        items = self.codes.to_csr()
        use = np.bincount(self.codes.indices.reshape(-1), minlength=self.codes.latents)
        postings = 0
        found: dict[int, dict[int, list[float]]] = {
            count: {limit: [] for limit in self.limits if count >= self._min_candidates(limit)} for count in self.counts
        }
        for rows in self._batches():
            plans = QueryPlanner(self.model).plans(
                self.x[self.own[rows]], search_settings(limit=1, first_stage_latents=width, dense_candidates=0)
            )
            first, full = (
                _columns([stage.indices for stage in stages], [stage.values for stage in stages], self.codes.latents)
                for stages in (
                    [plan.first_stage for plan in plans if plan.first_stage is not None],
                    [plan.engine_rescoring for plan in plans],
                )
            )
            postings += sum(int(use[plan.first_stage.indices].sum()) for plan in plans if plan.first_stage is not None)
            narrow, wide = np.asarray((items @ first).T), np.asarray((items @ full).T)
            for query, coarse, fine in zip(rows, narrow, wide, strict=True):
                self._count(found, query, coarse, fine)
        return postings / len(self.own), found

    def _batches(self) -> Iterator[range]:
        for start in range(0, len(self.own), _BATCH):
            yield range(start, min(start + _BATCH, len(self.own)))

    def _min_candidates(self, limit: int) -> int:
        """Minimum candidates of a search for `limit` hits."""
        return dense_candidates_of(limit) if self.dense else limit

    def _count(
        self, found: dict[int, dict[int, list[float]]], query: int, coarse: FloatArray, fine: FloatArray
    ) -> None:
        own = self.own[query]
        # The engine does not return items that share no latent with the query; their score is 0 here.
        coarse[coarse == 0] = -np.inf
        coarse[own] = -np.inf
        max_candidates = self.counts[-1]
        best = np.argpartition(-coarse, max_candidates - 1)[:max_candidates]
        best = best[np.argsort(-coarse[best], kind="stable")]
        best = best[np.isfinite(coarse[best])]
        scores = fine[best]
        place = {int(row): n for n, row in enumerate(self.truth[query])}
        true = np.array([place.get(int(row), len(place)) for row in best])
        closeness = self.x[best] @ self.x[own] if self.dense else None
        for count, by_limit in found.items():
            order = np.argsort(-scores[:count], kind="stable")
            for limit, each in by_limit.items():
                hits = order[: self._min_candidates(limit)]
                if closeness is not None:
                    hits = hits[np.argsort(-closeness[hits], kind="stable")]
                each.append(float((true[hits[:limit]] < limit).sum() / limit))


def _columns(indices: Sequence[npt.NDArray[np.int32]], values: Sequence[FloatArray], latents: int) -> FloatArray:
    """Query-side vectors as the (h, q) columns of a matrix."""
    columns = np.zeros((latents, len(indices)), np.float32)
    for n, (latent, value) in enumerate(zip(indices, values, strict=True)):
        columns[latent, n] = value
    return columns


def _estimate(each: Sequence[float]) -> PlanRecall:
    values = np.array(each)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 1.0
    return PlanRecall(float(values.mean()), float(max(values.mean() - _ONE_SIDED * error, 0.0)))


def _known(constants: Constants, model: CompresSAE, items: int) -> _Cost:
    times, latents = constants.times, model.latents
    planning = times.planning + (times.planning_latent + times.planning_product * model.dim) * latents
    query = planning + times.fixed + times.latent * latents + times.item * items
    machine = f"{constants.machine.get('cpu', 'unknown')}, {constants.machine.get('date', 'no date')}"
    return _Cost(
        query, times.posting, times.visit * items / 10_000, times.candidate + times.candidate_latent * latents,
        f"capacity constants ({machine})",
    )  # fmt: skip


def _timed(
    index: CodeIndex, model: CompresSAE, queries: FloatArray, postings: dict[int, float], counts: Sequence[int]
) -> _Cost:
    """Costs fitted to the median times of plans, with the smallest, middle and largest latents and candidates."""
    widths = sorted(postings)
    planner = QueryPlanner(model, index.settings.keep_dense)
    rows, seconds = [], []
    for width in dict.fromkeys([widths[0], widths[len(widths) // 2], widths[-1]]):
        for count in dict.fromkeys([counts[0], counts[len(counts) // 2], counts[-1]]):
            settings = search_settings(
                limit=1, first_stage_latents=width, prefetch=count, dense_candidates=0, with_payload=False
            )
            elapsed = []
            for query in [queries[0], *queries]:
                started = time.perf_counter()
                index.search(planner.plans(query, settings)[0])
                elapsed.append(time.perf_counter() - started)
            rows.append([1.0, postings[width], count])
            seconds.append(float(np.median(elapsed[1:])))
    scale = np.max(rows, axis=0)
    # Weights minimise relative errors, so that a fast plan matters as much as a slow one.
    weights = 1 / np.array(seconds)
    fitted = nnls((np.array(rows) / scale) * weights[:, None], np.array(seconds) * weights)[0] / scale * 1e3
    return _Cost(fitted[0], fitted[1], 0.0, fitted[2], f"measured on {index.info().location}")
