"""The data of each section of a report, in the form that the scripts of the page expect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..codes import FloatArray, SparseCodes
from ..index.results import IndexInfo
from ..metrics import bootstrap
from ..model.compressae import CompresSAE
from ..model.concepts import Concepts
from ..model.history import TrainingHistory
from ..scoring import QueryVector, asymmetric, explain
from .measurement import LIMIT, Searches, Truth
from .sample import Sample

__all__ = [
    "concept_data", "latency_data", "latent_data", "query_data", "saved_data", "segment_data",
    "segment_field", "training_data",
]  # fmt: skip

_QUANTILES: Final = (0, *(n / 100 for n in range(2, 95, 3)), 0.95, 0.96, 0.97, 0.98, 0.99, 1)
_SHOWN_QUERIES: Final = 15
_SHOWN_SHARES: Final = 3
_QUERY_CONCEPTS: Final = 5
_SHOWN_SEGMENTS: Final = 30
_MIN_QUERIES: Final = 5
"""Queries that a segment needs for a meaningful recall."""
_RANKS: Final = 120
"""Ranks of latents that are drawn."""


def saved_data(info: IndexInfo, dim: int, items: int) -> dict[str, Any] | None:
    """Bytes per item, dense and as codes. None if the size of the index is unknown: on a server, or before an embedded
    index is optimised."""
    if not info.resident_bytes:
        return None
    rows = [
        {"name": "dense float32, vectors only", "bytes": 4 * dim, "kind": "grey"},
        {"name": _in_memory(info), "bytes": info.resident_bytes / info.items, "kind": "ours"},
    ]
    if info.total_bytes is not None:
        total = info.total_bytes / info.items
        rows.append({"name": "codes, payloads and logs on disk", "bytes": total, "kind": "orange"})
    return {"items": items, "rows": rows}


def _in_memory(info: IndexInfo) -> str:
    """What of an index must stay in memory."""
    if info.settings.memory == "cold":
        return "graph and navigation vectors in memory"
    codes = f"codes in memory, {info.settings.datatype}"
    return f"{codes}, with graph" if info.navigation_bytes else codes


def latency_data(searches: Sequence[Searches]) -> list[dict[str, Any]]:
    """Quantiles of the latency of a query, for each search configuration."""
    return [
        {
            "name": one.name,
            "queries": len(one.milliseconds),
            "limit": LIMIT,
            "recall": float(one.recall.mean()),
            "quantiles": [
                [share, float(ms)]
                for share, ms in zip(_QUANTILES, np.quantile(one.milliseconds, _QUANTILES), strict=True)
            ],
        }
        for one in searches
    ]


def segment_field(sample: Sample) -> str | None:
    """The text field with the fewest values, from 2 to a tenth of the items. None if there is none."""
    best: tuple[int, str] | None = None
    for name in {name for payload in sample.payloads for name in payload}:
        values = [payload.get(name) for payload in sample.payloads]
        if all(isinstance(value, str) for value in values if value is not None):
            count = len(set(values) - {None})
            if 2 <= count <= min(200, len(sample) // 10) and (best is None or (count, name) < best):
                best = count, name
    return None if best is None else best[1]


def segment_data(sample: Sample, truth: Truth, searched: Searches, field: str) -> dict[str, Any] | None:
    """Mean recall for each value of a payload field, lowest first. None if no value has enough queries."""
    groups: dict[str, list[int]] = {}
    for query, row in enumerate(truth.own.tolist()):
        value = sample.payloads[row].get(field)
        if value is not None:
            groups.setdefault(str(value), []).append(query)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:_SHOWN_SEGMENTS]
    measured = [
        (bootstrap(searched.recall[queries]), name, len(queries))
        for name, queries in largest
        if len(queries) >= _MIN_QUERIES
    ]
    rows = [
        {"name": name, "queries": queries, "recall": each.mean, "low": each.low, "high": each.high}
        for each, name, queries in sorted(measured, key=lambda one: (one[0].mean, one[0].low, one[0].high, one[1]))
    ]
    overall = float(searched.recall.mean())
    return {"field": field, "depth": LIMIT, "overall": overall, "rows": rows} if rows else None


def query_data(
    sample: Sample, truth: Truth, searched: Searches, model: CompresSAE, codes: SparseCodes
) -> list[dict[str, Any]]:
    """Hits of dense search and of the codes for some queries, ordered from least to most agreement. If concepts have
    names, each hit lists the concepts it shares with the query, each with its share of the score."""
    row_of_id = {id: row for row, id in enumerate(sample.ids)}
    order = np.argsort(searched.recall, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _SHOWN_QUERIES).astype(int))]
    shown = []
    for query in chosen.tolist():
        own = int(truth.own[query])
        near = truth.rows[query][:LIMIT]
        cosines = sample.embeddings[near] @ sample.embeddings[own]
        hits = [(row_of_id[id], score) for id, score in searched.found[query]]
        shared = _SharedConcepts(model, codes, sample.embeddings[own])
        shown.append(
            {
                "title": sample.title(own),
                "shared": len(set(near.tolist()) & {row for row, _ in hits}),
                "concepts": [name for name, _ in shared.shares(own, _QUERY_CONCEPTS)],
                "dense": [_hit(sample, row, score) for row, score in zip(near.tolist(), cosines.tolist(), strict=True)],
                "codes": [_hit(sample, row, score) | {"why": shared.shares(row)} for row, score in hits],
            }
        )
    return shown


class _SharedConcepts:
    """The named concepts that a query shares with its hits."""

    def __init__(self, model: CompresSAE, codes: SparseCodes, query: FloatArray) -> None:
        self._concepts, self._codes = model.concepts, codes
        atoms: FloatArray = model.atoms.detach().cpu().numpy()
        self._query = QueryVector(np.arange(model.latents, dtype=np.int32), asymmetric(atoms, query[None])[0])

    def shares(self, row: int, limit: int = _SHOWN_SHARES) -> list[tuple[str, float]]:
        """Names of concepts and their shares of the score of an item, largest first. Latents without a name in words
        are left out."""
        if self._concepts is None:
            return []
        explained = explain(self._query, self._codes.indices[row], self._codes.values[row], 0.0, self._named)
        total = sum(share.share for share in explained.shares)
        named = [(share.name, share.share / total) for share in explained.shares if share.name and share.share > 0]
        return named[:limit] if total > 0 else []

    def _named(self, latent: int) -> tuple[str, int] | None:
        concept = None if self._concepts is None else self._concepts.of_latent(latent)
        return (concept.name, concept.sign) if concept is not None and (concept.terms or concept.edited) else None


def _hit(sample: Sample, row: int, score: float) -> dict[str, Any]:
    return {"id": str(sample.ids[row]), "title": sample.title(row), "score": float(score)}


def training_data(history: TrainingHistory | None) -> dict[str, Any] | None:
    """Records of a training, and the items seen at the start and end of each phase. None if there are less than 2."""
    if history is None or len(history.records) < 2:
        return None
    names = ("phase", "items", "train_loss", "encoder_loss", "pursuit_loss", "posting_mass", "dead_latents")
    records = [{name: getattr(record, name) for name in names} for record in history.records]
    phases: list[dict[str, Any]] = []
    start = 0
    for record in history.records:
        if not phases or phases[-1]["name"] != record.phase:
            phases.append({"name": record.phase, "from": start, "shaded": len(phases) % 2 == 1})
        phases[-1]["to"] = start = record.items
    return {"records": records, "phases": phases}


def latent_data(model: CompresSAE, codes: SparseCodes) -> dict[str, Any]:
    """Share of items that use each latent, by rank, in training and in the codes of the sample."""
    shares = np.bincount(codes.indices.ravel(), minlength=model.latents) / len(codes)
    trained = model.latent_use.cpu().numpy()
    return {
        "latents": model.latents,
        "even": model.k / model.latents,
        "sample": _ranked(shares),
        "trained": _ranked(trained) if trained.any() else [],
        "posting_mass": float(np.square(shares).sum()),
        "unused": int((shares == 0).sum()),
    }


def _ranked(shares: Any) -> list[list[float]]:
    ordered = np.sort(shares)[::-1]
    ranks = np.unique(np.geomspace(1, len(ordered), _RANKS).round().astype(int))
    return [[int(rank), float(ordered[rank - 1])] for rank in ranks]


def concept_data(
    sample: Sample, codes: SparseCodes, concepts: Concepts | None, limit: int, items: int = 6
) -> list[dict[str, Any]]:
    """The most used latents with their strongest items: those of `concepts` if the model has named concepts, otherwise
    those of the sample."""
    if concepts is not None:
        return [
            {
                "latent": concept.latent,
                "name": concept.name,
                "use": concept.items / concepts.items,
                "main": concept.main / concepts.items,
                "terms": list(concept.terms),
                "items": [(item.title, item.cosine) for item in concept.strongest[:items]],
            }
            for concept in concepts.most_used(limit)
        ]
    use = Counter(codes.indices.ravel().tolist())
    by_latent = codes.to_csr().tocsc()
    shown = []
    for latent, count in use.most_common(limit):
        part = slice(by_latent.indptr[latent], by_latent.indptr[latent + 1])
        rows, values = by_latent.indices[part], by_latent.data[part]
        side = 1 if np.square(values[values > 0]).sum() >= np.square(values[values < 0]).sum() else -1
        best = np.argsort(-side * values, kind="stable")[:items]
        strongest = [(sample.title(int(rows[i])), float(side * values[i])) for i in best if side * values[i] > 0]
        shown.append(
            {
                "latent": latent,
                "name": f"Latent {latent}",
                "use": count / len(sample),
                "main": 0.0,
                "terms": [],
                "items": strongest,
            }
        )
    return shown
