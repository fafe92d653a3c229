"""Adding navigation vectors to the items of a collection, as steps; see `steps`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qdrant_client import models

from ...errors import CodeIndexError, IndexUnavailableError
from ..manifest import NAVIGATION_NAME, Manifest
from ..protocol import CodeModel
from ..results import Record, stacked_codes
from .collections import add_navigation_call, configure_navigation_call, store_manifest_call
from .contents import Contents, contents_call
from .creation import check_version
from .requests import Requests
from .steps import Steps, scroll_steps

__all__ = ["navigation_steps"]


def navigation_steps(
    collection: str,
    manifest: Manifest,
    model: CodeModel,
    parts: list[Requests],
    size: int,
    on_items: Callable[[int], None] | None,
) -> Steps[int]:
    """Give navigation vectors to the items that have none, and return how many there were. Repeating it is safe.

    The manifest is stored last, so that nobody searches an unfinished graph.

    Args:
        collection: name of the collection.
        manifest: its manifest once it has navigation vectors.
        model: model of the codes.
        parts: requests of each shard key, or those of the whole collection.
        size: items that are read and written at a time.
        on_items: called with the number of items after each batch.

    Raises:
        CodeIndexError: the server cannot add vectors to a collection (before Qdrant 1.18), or refused otherwise.
    """
    contents: Contents = yield contents_call("inspect", collection)
    if NAVIGATION_NAME not in (contents.dense or ()):
        yield from check_version(collection, manifest)
        try:
            yield add_navigation_call(collection, manifest)
        except IndexUnavailableError:
            raise
        except CodeIndexError as exc:
            raise CodeIndexError(
                f"{exc}. Adding navigation vectors to an index needs Qdrant 1.18 or newer; on an older server, build a "
                "new index on a newer one"
            ) from exc
    yield configure_navigation_call(collection, manifest)
    lacking = models.Filter(must_not=[models.HasVectorCondition(has_vector=NAVIGATION_NAME)])
    dim, added = manifest.navigation_dim, 0
    assert dim is not None
    for requests in parts:
        offset: Any = None
        while True:
            records: list[Record]
            records, offset = yield from scroll_steps(
                requests, size, offset, {"filter": lacking, "with_payload": False, "with_codes": True}
            )
            coded = [record for record in records if record.indices.size]
            if coded:
                vectors = model.navigation_vectors(stacked_codes(coded, model), dim)
                # The engine stores half precision or less.
                yield requests.set_navigation(
                    [record.id for record in coded], vectors.astype(np.float16).astype(np.float32)
                )
                added += len(coded)
                if on_items is not None:
                    on_items(len(coded))
            if offset is None:
                break
    yield store_manifest_call(collection, manifest)
    return added
