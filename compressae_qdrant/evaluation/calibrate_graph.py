"""Measure the plans of the graph for a calibration: recall on an index of the sample, and cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..capacity import Constants
from ..codes import FloatArray, SparseCodes
from ..index import IndexSettings
from ..index.protocol import CodeIndex
from ..index.settings import NavigationSettings
from ..metrics import recall
from ..model.calibration import CalibratedPlan, PlanRecall
from ..model.compressae import CompresSAE
from ..search.costs import graph_ms
from ..search.defaults import FINE_SHARE, RESCORED_HERE, graph_sizes, nodes_growth
from ..search.retriever import Retriever
from .temporary_index import temporary_index

__all__ = ["graph_plans"]

_EF_FACTORS: Final = (0.5, 1, 2, 4)
"""Multiples of the default ef to try. Where navigation vectors are fine, a higher recall takes more nodes, and no more
candidates."""
_MAX_FACTOR: Final = 4
"""Most candidates to try, in multiples of the default; more are not worth their time."""
_TIMED: Final = 25
"""Queries that time each plan."""
_ONE_SIDED: Final = 1.645


def graph_plans(
    model: CompresSAE,
    codes: SparseCodes,
    x: FloatArray,
    own: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    limits: Sequence[int],
    counts: Sequence[int],
    navigation: NavigationSettings,
    *,
    keep_dense: bool,
    index: CodeIndex | None,
    items: int,
    constants: Constants,
) -> list[CalibratedPlan]:
    """Measure plans of the graph on the embedded engine.

    Args:
        model: the model.
        codes: codes of the sample.
        x: (n, d) embeddings of the sample, of unit norm.
        own: (q,) rows of the queries.
        truth: (q, depth) rows of their true neighbours, without themselves.
        limits: numbers of hits to measure recall at.
        counts: numbers of candidates to try, besides the default of each limit.
        navigation: settings of the navigation vectors.
        keep_dense: whether kept embeddings rank the candidates.
        index: index of the catalog, on which plans are timed; None takes the constants.
        items: items of the catalog.
        constants: constants of the costs.
    """
    settings = IndexSettings(scale=codes.scale or "projection", keep_dense=keep_dense, navigation=navigation)
    found: dict[tuple[int, int], dict[int, PlanRecall]] = {}
    true = truth.tolist()
    with temporary_index(model, codes, settings, dense=x if keep_dense else None) as sample:
        retriever = Retriever(model, sample)
        stored = sample.settings.navigation
        assert stored is not None
        dim = stored.dim or model.max_navigation_dim
        fine = model.navigation_share(dim) >= FINE_SHARE
        sizes_for = partial(graph_sizes, fine=fine, keep_dense=keep_dense)
        defaults = [min(sizes_for(limit).candidates, len(x) - 1) for limit in limits]
        for count in sorted({*defaults, *(count for count in counts if count <= _MAX_FACTOR * max(defaults))}):
            usable = [limit for limit in limits if limit <= count]
            if not usable:
                continue
            default = sizes_for(1, prefetch=count).ef
            for ef in sorted({max(round(default * factor), count) for factor in _EF_FACTORS}):
                # One candidate more, as the query itself is among them and does not count.
                hits = retriever.search_batch(
                    x[own], usable[-1] + 1, first_stage="graph", prefetch=count + 1, navigation_ef=max(ef, count + 1),
                    dense_candidates=count + 1 if keep_dense else None, with_payload=False,
                )  # fmt: skip
                rows = [[int(hit.id) for hit in each if hit.id != mine] for each, mine in zip(hits, own, strict=True)]
                # The whole catalog takes more nodes than the sample for the same recall.
                nodes = max(round(ef * nodes_growth(items) / nodes_growth(len(x))), count)
                found[count, nodes] = {limit: _estimate(recall(rows, true, limit)) for limit in usable}
    if index is None:
        cost = {
            (count, ef): graph_ms(
                constants.search, items, model.latents, sizes_for(1, prefetch=count, ef=ef), dim,
                by_embeddings=keep_dense,
            ) + _planning(constants, model, makes_vector=not keep_dense and count > RESCORED_HERE)
            for count, ef in found
        }  # fmt: skip
    else:
        cost = {}
        for here in (True, False):  # which takes another time for each candidate
            plans = [plan for plan in found if (plan[0] <= RESCORED_HERE) == here]
            cost |= _timed(index, model, x[own[:_TIMED]], plans)
    return [CalibratedPlan(0, count, 0.0, cost[count, ef], each, "graph", ef) for (count, ef), each in found.items()]


def _estimate(values: FloatArray | npt.NDArray[np.float64]) -> PlanRecall:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 1.0
    return PlanRecall(float(values.mean()), float(max(values.mean() - _ONE_SIDED * error, 0.0)))


def _planning(constants: Constants, model: CompresSAE, *, makes_vector: bool) -> float:
    times = constants.times
    if not makes_vector:
        return times.planning
    return times.planning + (times.planning_latent + times.planning_product * model.dim) * model.latents


def _timed(
    index: CodeIndex, model: CompresSAE, queries: FloatArray, plans: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """Costs of plans, fitted to the median times of the one with the fewest candidates and nodes, a middle one, and the
    two with the most."""
    if not plans:
        return {}
    retriever = Retriever(model, index)
    ordered = sorted(plans)
    chosen = dict.fromkeys([ordered[0], ordered[len(ordered) // 2], *ordered[-2:]])
    rows, seconds = [], []
    for count, ef in chosen:
        elapsed = []
        for query in [queries[0], *queries]:
            started = time.perf_counter()
            retriever.search(query, 1, first_stage="graph", prefetch=count, navigation_ef=ef, with_payload=False)
            elapsed.append(time.perf_counter() - started)
        rows.append([1.0, ef, count])
        seconds.append(float(np.median(elapsed[1:])))
    scale = np.max(rows, axis=0)
    weights = 1 / np.array(seconds)
    fitted = nnls((np.array(rows) / scale) * weights[:, None], np.array(seconds) * weights)[0] / scale * 1e3
    return {(count, ef): float(fitted @ [1.0, ef, count]) for count, ef in plans}
