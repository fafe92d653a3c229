"""Rebuilding of an embedded index with other settings: its items are copied, and nothing is encoded again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import CodeIndexError
from ...files import write_text
from ..protocol import CodeModel
from ..results import stacked_codes
from ..settings import NavigationSettings
from .index import MANIFEST, EdgeIndex

__all__ = ["rebuild_with_navigation"]


def rebuild_with_navigation(
    path: Path,
    model: CodeModel,
    navigation: NavigationSettings,
    size: int,
    on_items: Callable[[int], None] | None = None,
) -> int:
    """Replace an index by one of the same items that has navigation vectors; returns the number of items copied.

    The new index is built beside the old one, which takes its place only at the end and stays as it is if anything
    fails before. Its identity stays the same, so journals remain valid.

    Raises:
        ConfigError, ModelMismatchError: see `Manifest.with_navigation`.
        CodeIndexError: the index cannot be opened or copied.
    """
    path = path.absolute()
    building, replaced = path.with_name(f".{path.name}.navigation"), path.with_name(f".{path.name}.replaced")
    with EdgeIndex.open(path, model) as old:
        manifest = old._manifest.with_navigation(model, navigation)
        if manifest == old._manifest:
            return 0
        shutil.rmtree(building, ignore_errors=True)  # of an interrupted run
        with EdgeIndex.create(building, model, manifest.settings) as new:
            copied = 0
            for records in old.scan_records(size, with_codes=True, with_dense=old.settings.keep_dense):
                ids = [record.id for record in records]
                hashes = [content or "" for content in old.hashes(ids)]
                new.upsert(
                    ids,
                    stacked_codes(records, old),
                    [record.payload for record in records],
                    np.stack([record.dense for record in records if record.dense is not None])
                    if old.settings.keep_dense
                    else None,
                    hashes if any(hashes) else None,
                )
                copied += len(records)
                if on_items is not None:
                    on_items(len(records))
            new.optimize()
        identity = dataclasses.replace(manifest, old_ids=False)
        write_text(building / MANIFEST, json.dumps(identity.to_json(), indent=2) + "\n")
        try:
            if old.journal.exists():
                shutil.copy2(old.journal, building / old.journal.name)
        except OSError as exc:
            raise CodeIndexError(f"cannot copy the journal of {path}: {exc}") from exc
    try:
        path.rename(replaced)
        building.rename(path)
    except OSError as exc:
        raise CodeIndexError(f"cannot replace {path} by {building}: {exc}; move it there by hand") from exc
    shutil.rmtree(replaced, ignore_errors=True)
    return copied
