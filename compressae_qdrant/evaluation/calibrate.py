"""Measures a model's query plans on a catalog: what each finds of exact dense search, and what it costs.

Recall is measured in memory, as the engine would rank: by a first stage over all codes, then the candidates by the
whole query-side vector, then perhaps the best of them by the embeddings. A part of the catalog will do: eight times
the items need at most a third more candidates (EXPERIMENTS.md). Costs are for all of it: those of the capacity
constants, or fitted to times of an index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..capacity import Constants, load_constants
from ..codes import FloatArray, SparseCodes
from ..errors import InvalidInputError, ModelMismatchError
from ..index.protocol import CodeIndex
from ..metrics import pareto_front
from ..model.calibration import CalibratedPlan, Calibration, Found
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..search.defaults import dense_candidates_of
from ..search.planner import QueryPlanner, SearchSettings
from ..vectors import exact_neighbours, unit_rows

__all__ = ["LIMITS", "calibrate"]

LIMITS: Final = (1, 10, 20, 50, 100)
"""Hits that recall is measured at."""
_FIRST_STAGE: Final = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
_PREFETCH: Final = (
    1, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 700, 1000, 1500, 2000, 3000,
)  # fmt: skip
_SEED: Final = 17
_ONE_SIDED: Final = 1.645
"""Standard errors below a mean that 95% of all means lie above."""
_BATCH: Final = 64
_TIMED: Final = 50
"""Queries that each timed plan is asked with."""


@dataclass(frozen=True)
class _Cost:
    """Milliseconds of one core: a query, and each posting, latent of the first stage and candidate of it."""

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
    method: Method = "pursuit",
    constants: Constants | None = None,
    progress: Callable[[str, float], None] = lambda _doing, _share: None,
) -> Calibration:
    """Recall and cost of plans, in about a minute for 60,000 embeddings.

    Args:
        model: the model.
        embeddings: (n, d) of the catalog or of a random part of it, n more than the largest limit. Queries are drawn
            from them and left out of what they find.
        index: of the catalog; a few of its plans are timed, and its settings say whether there are embeddings.
        items: of the catalog, if `embeddings` are a part of it and there is no index.
        limits: hits to measure recall at; other limits are judged by their neighbours.
        first_stage_latents: latents to try.
        prefetch: candidates to try.
        queries: to draw.
        seed: of the draw. Don't measure a choice on the queries that it was made by.
        avoid: rows that must not be drawn.
        keep_dense: embeddings rescore the last candidates, as the default of such an index has it.
        method: of coding the items.
        constants: of the costs, if there is no index; the shipped ones if None.
        progress: called with what is being done and the share that is done.

    Returns:
        The plans that none equals at every limit for no more time.

    Raises:
        InvalidInputError: there are too few embeddings, or no queries or limits; or the index has no items.
        ModelMismatchError: the index is of another model.
        DimensionError: the embeddings are not the model's.
    """
    limits = sorted(set(limits))
    if (
        not limits
        or limits[0] < 1
        or queries < 1
        or not first_stage_latents
        or min(*first_stage_latents, *prefetch) < 1
    ):
        raise InvalidInputError("calibrating needs limits, queries, first stages and prefetches of at least 1")
    if len(embeddings) <= limits[-1] + 1:
        raise InvalidInputError(f"there are {len(embeddings)} items; a limit of {limits[-1]} needs more than that")
    if index is not None:
        if index.fingerprint != model.fingerprint:
            raise ModelMismatchError(
                f"the index holds codes of model {index.fingerprint!r} but model {model.fingerprint!r} was given"
            )
        items = index.count()
        if not items:
            raise InvalidInputError("the index is empty; ingest the catalog before its searches are timed")
    served = items or len(embeddings)
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
        postings[width], grid[width] = searches.by(width)
    progress("times", 0.9)
    walked = {width: served / len(x) * count for width, count in postings.items()}
    if index is None:
        cost = _known(constants or load_constants(), model, served)
    else:
        cost = _timed(index, model, x[own[:_TIMED]], walked, counts)
    plans = [
        CalibratedPlan(
            width, count, float(walked[width]), float(cost.of(walked[width], width, count)),
            {limit: _estimate(each) for limit, each in grid[width][count].items()},
        )
        for width in widths
        for count in counts
        if grid[width][count]
    ]  # fmt: skip
    front = pareto_front(
        plans,
        cost=lambda plan: plan.ms,
        gains=lambda plan: [plan.recall[n].low if n in plan.recall else -np.inf for n in limits],
    )
    return Calibration(model.fingerprint, served, len(own), dense, cost.source, tuple(front))


def _drawn(items: int, queries: int, seed: int, avoid: Iterable[int]) -> npt.NDArray[np.int64]:
    free = np.setdiff1d(np.arange(items), np.fromiter(avoid, np.int64))
    if not len(free):
        raise InvalidInputError("there is no item to search for; avoid fewer rows")
    return np.sort(np.random.default_rng(seed).choice(free, min(queries, len(free)), replace=False))


@dataclass(frozen=True)
class _Searches:
    """All searches of one calibration."""

    model: CompresSAE
    codes: SparseCodes
    x: FloatArray
    own: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    limits: Sequence[int]
    counts: Sequence[int]
    dense: bool

    def by(self, width: int) -> tuple[float, dict[int, dict[int, list[float]]]]:
        """Postings a query, and by candidates and limit the recall of each query, with a first stage of some width."""
        items = self.codes.to_csr()
        use = np.bincount(self.codes.indices.reshape(-1), minlength=self.codes.latents)
        walked = 0
        found: dict[int, dict[int, list[float]]] = {
            count: {limit: [] for limit in self.limits if count >= self._least(limit)} for count in self.counts
        }
        for rows in self._batches():
            plans = QueryPlanner(self.model).plans(
                self.x[self.own[rows]], SearchSettings(limit=1, first_stage_latents=width, dense_candidates=0)
            )
            first, full = (
                _columns([stage.indices for stage in stages], [stage.values for stage in stages], self.codes.latents)
                for stages in (
                    [plan.first_stage for plan in plans],
                    [plan.rescoring for plan in plans if plan.rescoring is not None],
                )
            )
            walked += sum(int(use[plan.first_stage.indices].sum()) for plan in plans)
            narrow, wide = np.asarray((items @ first).T), np.asarray((items @ full).T)
            for query, coarse, fine in zip(rows, narrow, wide, strict=True):
                self._count(found, query, coarse, fine)
        return walked / len(self.own), found

    def _batches(self) -> Iterator[range]:
        for start in range(0, len(self.own), _BATCH):
            yield range(start, min(start + _BATCH, len(self.own)))

    def _least(self, limit: int) -> int:
        """Candidates that a search for so many hits has at least."""
        return dense_candidates_of(limit) if self.dense else limit

    def _count(
        self, found: dict[int, dict[int, list[float]]], query: int, coarse: FloatArray, fine: FloatArray
    ) -> None:
        own = self.own[query]
        # The engine returns no item that shares no latent with the query, whose score is 0 here.
        coarse[coarse == 0] = -np.inf
        coarse[own] = -np.inf
        most = self.counts[-1]
        best = np.argpartition(-coarse, most - 1)[:most]
        best = best[np.argsort(-coarse[best], kind="stable")]
        best = best[np.isfinite(coarse[best])]
        scores = fine[best]
        place = {int(row): n for n, row in enumerate(self.truth[query])}
        true = np.array([place.get(int(row), len(place)) for row in best])
        closeness = self.x[best] @ self.x[own] if self.dense else None
        for count, by_limit in found.items():
            order = np.argsort(-scores[:count], kind="stable")
            for limit, each in by_limit.items():
                hits = order[: self._least(limit)]
                if closeness is not None:
                    hits = hits[np.argsort(-closeness[hits], kind="stable")]
                each.append(float((true[hits[:limit]] < limit).sum() / limit))


def _columns(indices: Sequence[npt.NDArray[np.int32]], values: Sequence[FloatArray], latents: int) -> FloatArray:
    """(h, q) query-side vectors."""
    columns = np.zeros((latents, len(indices)), np.float32)
    for n, (where, what) in enumerate(zip(indices, values, strict=True)):
        columns[where, n] = what
    return columns


def _estimate(each: Sequence[float]) -> Found:
    values = np.array(each)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 1.0
    return Found(float(values.mean()), float(max(values.mean() - _ONE_SIDED * error, 0.0)))


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
    """Costs fitted to the median times of plans in a grid over the corners and middles of what is tried."""
    widths = sorted(postings)
    planner = QueryPlanner(model, index.settings.keep_dense)
    rows, seconds = [], []
    for width in dict.fromkeys([widths[0], widths[len(widths) // 2], widths[-1]]):
        for count in dict.fromkeys([counts[0], counts[len(counts) // 2], counts[-1]]):
            settings = SearchSettings(
                limit=1, first_stage_latents=width, prefetch=count, dense_candidates=0, with_payload=False
            )
            taken = []
            for query in [queries[0], *queries]:
                started = time.perf_counter()
                index.search(planner.plans(query, settings)[0])
                taken.append(time.perf_counter() - started)
            rows.append([1.0, postings[width], count])
            seconds.append(float(np.median(taken[1:])))
    scale = np.max(rows, axis=0)
    # Relative errors count: a fast plan matters as much as a slow one.
    weights = 1 / np.array(seconds)
    fitted = nnls((np.array(rows) / scale) * weights[:, None], np.array(seconds) * weights)[0] / scale * 1e3
    return _Cost(fitted[0], fitted[1], 0.0, fitted[2], f"measured on {index.info().location}")
