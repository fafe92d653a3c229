"""Deploy a new model without downtime: build a collection beside the live one, verify it, and switch an alias.

The alias `items` points to the live collection `items-<fingerprint>`. After a switch, `items-previous` points to the
collection that was live before, so a rollback needs no other state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from ..codes import FloatArray
from ..errors import ConfigError, IncompleteIndexError, IndexNotFoundError, VerificationError
from ..index import IndexSettings, QdrantIndex
from ..index.ids import id_digests, spelling_of
from ..index.points import points_of
from ..index.qdrant.calls import run_call
from ..index.qdrant.collections import delete_call, exists_call, target_call
from ..index.qdrant.errors import client_errors
from ..index.results import ItemId
from ..index.retry import RetryPolicy
from ..ingestion.ingest import ingest
from ..ingestion.prepared import MAX_REQUEST_BYTES
from ..metrics import recall
from ..model.compressae import CompresSAE
from ..search.retriever import Retriever
from ..sources import Batch, Source
from ..vectors import exact_neighbours

__all__ = ["DeployReport", "collection_of", "deploy", "drop_previous", "rollback"]

_VERIFIED_ROWS: Final = 10_000
"""Rows that verification searches; exact dense search of a large catalog would take longer than loading it."""


@dataclass(frozen=True)
class DeployReport:
    """Result of a deployment."""

    collection: str
    previous: str | None
    """Collection that the alias pointed to before; None if there was none."""
    items: int
    recall: float
    """Recall@10 of the new collection on a sample, relative to exact dense search."""
    live_recall: float | None
    """Recall@10 of the live collection, if its model was given."""


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
    min_recall: float = 0.8,
    tolerance: float = 0.01,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
    on_batch: Callable[[Batch], None] | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    patience: float | None = None,
) -> DeployReport:
    """Load a source into a new collection for `model`, verify it, and switch the alias to it.

    After an interruption, the same call resumes with the same collection. The live collection is not changed.

    Args:
        source: the catalog.
        model: the new model.
        client: client of the server.
        alias: alias that queries use. It must be an alias or an unused name, not a collection.
        live_model: model of the live collection. If given, the new recall may be lower than the live recall by at most
            `tolerance`.
        settings: settings of the new collection.
        journal: file that records the progress of the load.
        queries: number of items of the source used as verification queries.
        min_recall: minimum recall@10 for the switch.
        tolerance: accepted decrease of recall@10 relative to the live collection.
        retry: how to retry when the server fails.
        on_batch: called after each batch is written.
        max_request_bytes: approximate size of the largest request; see `ingestion.writer.Writer`.
        patience: seconds that the optimisers may show no progress; see `QdrantIndex.optimize`.

    Raises:
        ConfigError: the alias is the name of a collection, or the live collection already has codes of this model.
        VerificationError: items are missing, or recall is too low. The alias is not changed.
        IngestError: the load failed.
    """
    name = f"{alias}-{model.fingerprint}"
    previous = collection_of(client, alias)
    if previous is None and run_call(client, alias, exists_call(alias)):
        raise ConfigError(f"{alias!r} is the name of a collection; choose another name for the alias")
    if previous == name:
        raise ConfigError(f"collection {name!r} of this model is already live; use sync to update its items")
    try:
        index = QdrantIndex.open(client, name, model)
    except (IndexNotFoundError, IncompleteIndexError):
        index = QdrantIndex.create(client, name, model, settings)
    # Items that the journal confirms and that are gone are missing in the verification.
    ingest(
        source, model, index, journal=journal, trust_journal=True, retry=retry, on_batch=on_batch,
        max_request_bytes=max_request_bytes, patience=patience,
    )  # fmt: skip
    report = _verify(source, model, index, client, previous, live_model, queries)
    lowest = min_recall if report.live_recall is None else max(min_recall, report.live_recall - tolerance)
    if collection_of(client, alias) != previous:
        raise VerificationError(
            f"alias {alias!r} was switched from {previous!r} to {collection_of(client, alias)!r} while collection "
            f"{name!r} was built, perhaps by another deployment; it was not switched again; deploy again to switch it"
        )
    if report.recall < lowest:
        raise VerificationError(
            f"collection {name!r} has recall@10 {report.recall:.3f}, but at least {lowest:.3f} is required; alias "
            f"{alias!r} still points to {previous!r}; train the model longer, or lower the required recall"
        )
    _point(client, {alias: name, f"{alias}-previous": previous})
    return report


def rollback(client: QdrantClient, alias: str) -> tuple[str, str]:
    """Switch the alias back to the previous collection, in one step. A second rollback undoes the first.

    Returns:
        The collection that is live now, and the one that was live before.

    Raises:
        IndexNotFoundError: there is no previous collection.
    """
    live, before = collection_of(client, alias), collection_of(client, f"{alias}-previous")
    if live is None or before is None:
        raise IndexNotFoundError(
            f"alias {alias!r} has no previous collection to switch back to; deploy a new one first"
        )
    _point(client, {alias: before, f"{alias}-previous": live})
    return before, live


def drop_previous(client: QdrantClient, alias: str) -> str:
    """Delete the collection that was live before the last switch.

    Returns:
        Its name.

    Raises:
        IndexNotFoundError: there is no previous collection.
    """
    before = collection_of(client, f"{alias}-previous")
    if before is None:
        raise IndexNotFoundError(f"alias {alias!r} has no previous collection to drop")
    _point(client, {f"{alias}-previous": None})
    run_call(client, before, delete_call(before))
    return before


def collection_of(client: QdrantClient, alias: str) -> str | None:
    """The collection that an alias points to, or None if the alias does not exist."""
    return run_call(client, alias, target_call(alias))


def _point(client: QdrantClient, targets: Mapping[str, str | None]) -> None:
    """Point aliases to collections, or delete those with None, in one step."""
    with client_errors("read the aliases of", next(iter(targets)), client.init_options):
        existing = {each.alias_name for each in client.get_aliases().aliases}
    changes: list[Any] = []
    for alias, collection in targets.items():
        if alias in existing:
            changes.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if collection is not None:
            create = models.CreateAlias(collection_name=collection, alias_name=alias)
            changes.append(models.CreateAliasOperation(create_alias=create))
    if changes:
        with client_errors("switch", next(iter(targets)), client.init_options):
            client.update_collection_aliases(changes)


def _verify(
    source: Source, model: CompresSAE, index: QdrantIndex, client: QdrantClient, previous: str | None,
    live_model: CompresSAE | None, queries: int,
) -> DeployReport:  # fmt: skip
    """Check the item count of the new collection, and measure recall of both on the first rows of the source."""
    ids: list[ItemId] = []
    parts: list[FloatArray] = []
    digests: list[npt.NDArray[np.uint64]] = []
    for batch in source.batches(2048):
        if len(ids) < _VERIFIED_ROWS:
            ids += batch.ids
            parts.append(batch.embeddings)
        digests.append(id_digests(batch.ids))
    expected = len(np.unique(np.concatenate(digests))) if digests else 0
    items = index.count()
    if items != expected or not ids:
        raise VerificationError(
            f"collection {index.collection!r} has {items:,} items but the source has {expected:,}; the alias was not "
            "switched; delete that collection and its journal, and deploy again"
        )
    vectors = np.concatenate(parts)
    query_rows = np.random.default_rng(0).choice(len(vectors), min(queries, len(vectors)), replace=False)
    depth = min(10, len(vectors) - 1)
    truth = [
        [ids[row] for row in near]
        for near in exact_neighbours(vectors[query_rows], vectors, depth, query_rows).tolist()
    ]
    points: list[Any] = list(dict.fromkeys(points_of(ids)))
    spelled = spelling_of(ids)
    verified = None if len(points) == items else models.Filter(must=[models.HasIdCondition(has_id=points)])

    def measure_recall(retriever: Retriever) -> float:
        retrieved = []
        for row in query_rows.tolist():
            hits = retriever.search(vectors[row], depth + 1, filter=verified, exact=True, with_payload=False)
            found = [spelled(hit.id) for hit in hits]
            retrieved.append([id for id in found if id != ids[row]][:depth])
        return float(recall(retrieved, truth, depth).mean())

    live = None
    if live_model is not None and previous is not None:
        live = measure_recall(Retriever(live_model, QdrantIndex.open(client, previous, live_model)))
    return DeployReport(index.collection, previous, items, measure_recall(Retriever(model, index)), live)
