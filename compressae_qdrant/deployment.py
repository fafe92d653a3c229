"""A new model without downtime: build beside the live collection, verify, switch an alias in one step, or switch back.

An alias names what is live: `items` points to `items-<fingerprint>`. After a switch, `items-previous` points to what
was live before, so a rollback needs no memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from .codes import FloatArray
from .errors import ConfigError, IndexNotFoundError, VerificationError
from .index import IndexSettings, QdrantIndex
from .index.ids import id_digests
from .index.points import point_ids
from .index.qdrant.calls import run_call
from .index.qdrant.collections import delete_call, exists_call, target_call
from .index.qdrant.errors import client_errors
from .index.results import ItemId
from .ingestion.ingest import ingest
from .metrics import recall
from .model.compressae import CompresSAE
from .retry import RetryPolicy
from .search.retriever import Retriever
from .sources import Batch, Source
from .vectors import exact_neighbours

__all__ = ["DeployReport", "collection_of", "deploy", "drop_previous", "rollback"]

_VERIFIED: Final = 10_000
"""Rows that verification searches among: exact dense search of a whole large catalog would outlast its load."""


@dataclass(frozen=True)
class DeployReport:
    """What was built and switched to."""

    collection: str
    previous: str | None
    """What the alias pointed to before."""
    items: int
    recall: float
    """Recall@10 of the new collection against exact dense search, on a sample."""
    live_recall: float | None
    """The same of the live one, where its model was given."""


def deploy(
    source: Source,
    model: CompresSAE,
    client: QdrantClient,
    alias: str,
    *,
    live_model: CompresSAE | None = None,
    settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
    journal: str | Path | None = None,
    queries: int = 100,
    least_recall: float = 0.8,
    tolerance: float = 0.01,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
) -> DeployReport:
    """Load a source into a new collection for `model`, verify it, and point the alias there.

    Interrupted, the same call goes on with the same collection. Nothing that serves is touched before the switch.

    Args:
        source: the catalog.
        model: the new model.
        client: to the server.
        alias: what queries go to. It must be an alias or a free name, not a collection.
        live_model: the model of what is live; with it the new recall may not be lower by more than `tolerance`.
        settings: of the new collection.
        journal: file that notes the progress of the load.
        queries: items of the source that verification searches for.
        least_recall: recall@10 below which there is no switch.
        tolerance: how much lower than the live recall is still accepted.
        retry: what to do while a server fails.
        on_batch: called for each batch that is in.

    Raises:
        ConfigError: the alias is the name of a collection, or what is live is of this model: loading would change it.
        VerificationError: items are missing, or recall is too low. The alias is as it was.
        IngestError: the load stopped.
    """
    name = f"{alias}-{model.fingerprint}"
    previous = collection_of(client, alias)
    if previous is None and run_call(client, alias, exists_call(alias)):
        raise ConfigError(f"{alias!r} is a collection; an alias needs a name of its own, choose another")
    if previous == name:
        raise ConfigError(f"codes of this model are live already ({name!r}); bring a changed catalog in by sync")
    try:
        index = QdrantIndex.open(client, name, model)
    except IndexNotFoundError:
        index = QdrantIndex.create(client, name, model, settings)
    ingest(source, model, index, journal=journal, retry=retry, on_batch=on_batch)
    report = _verify(source, model, index, client, previous, live_model, queries)
    lowest = least_recall if report.live_recall is None else max(least_recall, report.live_recall - tolerance)
    if report.recall < lowest:
        raise VerificationError(
            f"collection {name!r} has recall@10 {report.recall:.3f}, at least {lowest:.3f} is wanted; alias {alias!r} "
            f"still points to {previous!r}; train longer, or accept less"
        )
    _point(client, {alias: name, f"{alias}-previous": previous})
    return report


def rollback(client: QdrantClient, alias: str) -> tuple[str, str]:
    """Point the alias back to what was live before, in one step. Doing it again undoes it.

    Returns:
        What is live now, and what was.

    Raises:
        IndexNotFoundError: there is nothing to go back to.
    """
    live, before = collection_of(client, alias), collection_of(client, f"{alias}-previous")
    if live is None or before is None:
        raise IndexNotFoundError(f"alias {alias!r} has no previous collection to go back to; deploy one first")
    _point(client, {alias: before, f"{alias}-previous": live})
    return before, live


def drop_previous(client: QdrantClient, alias: str) -> str:
    """Delete what was live before the last switch, and give its name.

    Raises:
        IndexNotFoundError: there is none.
    """
    before = collection_of(client, f"{alias}-previous")
    if before is None:
        raise IndexNotFoundError(f"alias {alias!r} has no previous collection to drop")
    _point(client, {f"{alias}-previous": None})
    run_call(client, before, delete_call(before))
    return before


def collection_of(client: QdrantClient, alias: str) -> str | None:
    """The collection that an alias points to; None if there is no such alias."""
    return run_call(client, alias, target_call(alias))


def _point(client: QdrantClient, targets: Mapping[str, str | None]) -> None:
    """Point aliases to collections, or delete them, all in one step."""
    with client_errors("read the aliases of", next(iter(targets))):
        existing = {each.alias_name for each in client.get_aliases().aliases}
    changes: list[Any] = []
    for alias, collection in targets.items():
        if alias in existing:
            changes.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if collection is not None:
            create = models.CreateAlias(collection_name=collection, alias_name=alias)
            changes.append(models.CreateAliasOperation(create_alias=create))
    if changes:
        with client_errors("switch", next(iter(targets))):
            client.update_collection_aliases(changes)


def _verify(
    source: Source, model: CompresSAE, index: QdrantIndex, client: QdrantClient, previous: str | None,
    live_model: CompresSAE | None, queries: int,
) -> DeployReport:  # fmt: skip
    """Count the new collection, and compare both with exact dense search on the first rows of the source."""
    ids: list[ItemId] = []
    parts: list[FloatArray] = []
    seen: list[npt.NDArray[np.uint64]] = []
    for batch in source.batches(2048):
        if len(ids) < _VERIFIED:
            ids += batch.ids
            parts.append(batch.embeddings)
        seen.append(id_digests(batch.ids))
    wanted = len(np.unique(np.concatenate(seen))) if seen else 0
    items = index.count()
    if items != wanted or not ids:
        raise VerificationError(
            f"collection {index.collection!r} has {items:,} items, the source {wanted:,}; nothing was "
            "switched; run it again with restart, or delete that collection"
        )
    vectors = np.concatenate(parts)
    asked = np.random.default_rng(0).choice(len(vectors), min(queries, len(vectors)), replace=False)
    depth = min(10, len(vectors) - 1)
    truth = [[ids[row] for row in near] for near in exact_neighbours(vectors[asked], vectors, depth, asked).tolist()]
    points: list[Any] = list(point_ids(ids, repeats=True))
    among = None if len(points) == items else models.Filter(must=[models.HasIdCondition(has_id=points)])

    def measured(retriever: Retriever) -> float:
        found = []
        for row in asked.tolist():
            hits = retriever.search(vectors[row], depth + 1, filter=among, exact=True, with_payload=False)
            found.append([hit.id for hit in hits if hit.id != ids[row]][:depth])
        return float(recall(found, truth, depth).mean())

    live = None
    if live_model is not None and previous is not None:
        live = measured(Retriever(live_model, QdrantIndex.open(client, previous, live_model)))
    return DeployReport(index.collection, previous, items, measured(Retriever(model, index)), live)
