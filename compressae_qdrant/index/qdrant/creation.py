"""Creation, adoption and opening of a collection, as steps; see `steps`.

Creation takes several calls, and a process, a connection or a server can fail between any two of them. So creating a
collection again completes what an earlier attempt left undone, and opening compares a collection with the promises of
its manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...errors import (
    CodeIndexError,
    IncompleteIndexError,
    IndexExistsError,
    IndexNotFoundError,
    IndexUnavailableError,
)
from ..manifest import METADATA_KEY, VECTOR_NAME, Manifest
from ..protocol import CodeModel
from ..settings import DenseDatatype, ShardKey
from .calls import Call
from .collections import (
    add_vector_call,
    configure_vector_call,
    create_call,
    delete_call,
    exists_call,
    field_call,
    field_schemas,
    scoring_call,
    shard_key_call,
    store_manifest_call,
    target_call,
    version_call,
)
from .contents import Contents, contents_call, shard_keys_call
from .steps import Steps

__all__ = ["adopt_steps", "check_version", "create_steps", "open_steps"]

_LOG = logging.getLogger(__name__)
_SINCE: Final[Mapping[DenseDatatype, tuple[int, ...]]] = {"turbo4": (1, 19), "turbo8": (1, 20)}
"""First version of Qdrant that stores embeddings of a datatype."""
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 0.5
"""Wait before a call of creation is repeated, or before its effect is looked for again. It doubles each time."""


@dataclass(frozen=True)
class _Missing:
    """Promises of a manifest that a collection does not keep."""

    vectors: Sequence[str] = ()
    keys: Sequence[ShardKey] = ()
    fields: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.vectors or self.keys or self.fields)

    def __str__(self) -> str:
        parts = (("vector", self.vectors), ("shard key", self.keys), ("index of payload field", sorted(self.fields)))
        return ", ".join(f"the {kind} {name!r}" for kind, names in parts for name in names)


def open_steps(name: str, model: CodeModel | None, *, local: bool = False) -> Steps[tuple[str, Manifest]]:
    """The name of a collection, given by its name or an alias, and its manifest.

    An alias is resolved once. Later calls go to the collection itself, so that a switch of the alias never runs the
    queries of one model against the codes of another.

    Args:
        name: name of a collection or an alias.
        model: model whose codes it must hold, or None for any.
        local: whether the client is in local mode, which indexes no payload fields.

    Raises:
        IndexNotFoundError: there is none, or it was not created by this package.
        ModelMismatchError: it holds the codes of another model.
        IncompleteIndexError: it lacks vectors, shard keys or payload indexes that its manifest promises.
    """
    collection = (yield target_call(name)) or name
    contents: Contents = yield contents_call("open", collection)
    manifest = contents.manifest
    if manifest is None:
        raise IndexNotFoundError(
            f"collection {collection!r} exists but was not created by this package (its metadata has no "
            f"{METADATA_KEY!r}); create the index under another name"
        )
    manifest.check_model(model, f"collection {collection!r}")
    missing = yield from _missing(collection, contents, manifest, local)
    if missing:
        problem = f"the creation of collection {collection!r} was not completed: it lacks {missing}"
        again = (
            "adopt it again (compressae migrate --in-place)"
            if manifest.adopted
            else "create it again (compressae ingest)"
        )
        if manifest.identity is None and not missing.vectors:  # version 0.1 opened it
            _LOG.warning("%s; filters by it are slow or refused; %s to complete it", problem, again)
        else:
            raise IncompleteIndexError(f"{problem}; {again} with the same model and settings, which completes it")
    return collection, manifest


def create_steps(collection: str, manifest: Manifest, *, local: bool = False) -> Steps[Manifest]:
    """Create an empty collection, or complete one whose creation was not completed; its manifest.

    If the server refuses, no collection is left behind. If it does not answer, the next attempt completes the creation.

    Raises:
        IndexExistsError: there is a complete collection of this name, or one of another model or other settings.
        IndexUnavailableError: the server cannot be reached; the collection may be incomplete.
        CodeIndexError: the server is too old for the settings.
    """
    if (yield exists_call(collection)):
        return (yield from _complete(collection, manifest, local))
    if not local:
        yield from check_version(collection, manifest)
    yield from _create(collection, manifest)
    settings = manifest.settings
    everything = _Missing(keys=settings.shard_keys, fields=tuple(field_schemas(settings)))
    try:
        yield from _set_up(collection, manifest, everything)
    except IndexUnavailableError:
        raise
    except CodeIndexError as exc:
        try:
            yield delete_call(collection)
        except CodeIndexError as failure:
            exc.add_note(f"collection {collection!r} is left behind ({failure}); delete it")
        raise
    return manifest


def adopt_steps(name: str, manifest: Manifest, *, local: bool = False) -> Steps[tuple[str, Manifest]]:
    """Add an empty vector for codes to an existing collection, given by its name or an alias, and index the payload
    fields of the settings; the collection and its manifest. Repeating it changes nothing.

    The manifest is stored before the vector is added, so a vector of this name without a manifest is the user's own.

    Raises:
        IndexNotFoundError: there is no such collection.
        ModelMismatchError: it has the codes of another model.
        ConfigError: it has codes at another scale.
        IncompleteIndexError: the server did not index a payload field as it was asked to.
        CodeIndexError: the server cannot add vectors (before 1.18), the collection is an index of this package, it has
            another vector of that name, or an index of another type on a payload field.
    """
    collection = (yield target_call(name)) or name
    contents: Contents = yield contents_call("inspect", collection)
    stored, has_vector = contents.manifest, VECTOR_NAME in contents.vectors
    if stored is not None:
        stored.check_model(manifest, f"collection {collection!r}")
        if not stored.adopted:
            raise CodeIndexError(f"collection {collection!r} is already an index of codes; ingest into it instead")
        manifest = stored.adopted_again(manifest)
    elif has_vector:
        raise CodeIndexError(
            f"collection {collection!r} has a sparse vector {VECTOR_NAME!r} that this package did not create; migrate "
            "to another collection (--index)"
        )
    for field, kind in contents.other_fields(manifest.settings).items():
        raise CodeIndexError(
            f"payload field {field!r} of collection {collection!r} has an index of type {kind}, but the settings ask "
            "for another type; delete that index, or change the settings"
        )
    yield store_manifest_call(collection, manifest)
    if not has_vector:
        yield add_vector_call(collection, manifest)
    yield configure_vector_call(collection, manifest)
    fields = contents.missing_fields(manifest.settings)
    if fields:
        yield from _set_up(collection, manifest, _Missing(fields=fields))
        left = yield from _missing(collection, (yield contents_call("inspect", collection)), manifest, local)
        if left:
            raise IncompleteIndexError(f"collection {collection!r} still lacks {left}; check the server's log")
    return collection, manifest


def _missing(collection: str, contents: Contents, manifest: Manifest, local: bool) -> Steps[_Missing]:
    """The promises of a manifest that a collection does not keep."""
    keys: list[ShardKey] = []
    if manifest.settings.shard_keys:
        existing = yield shard_keys_call(collection)
        keys = [key for key in manifest.settings.shard_keys if key not in existing]
    fields = [] if local else contents.missing_fields(manifest.settings)
    return _Missing(contents.missing_vectors(manifest), keys, fields)


def check_version(collection: str, manifest: Manifest) -> Steps[None]:
    """Check that a server can store the dense vectors of an index. An older one fails with an internal error.

    Raises:
        CodeIndexError: it is too old for the datatype of the kept embeddings or of the navigation vectors.
    """
    settings = manifest.settings
    chosen: dict[str, DenseDatatype] = {}
    if settings.keep_dense:
        chosen["dense_datatype"] = settings.dense_datatype
    if settings.navigation is not None and manifest.navigation_dim is not None:
        chosen["datatype of navigation"] = settings.navigation.datatype
    newer = {name: datatype for name, datatype in chosen.items() if datatype in _SINCE}
    if not newer:
        return
    version: tuple[int, ...] = yield version_call()
    for name, datatype in newer.items():
        if version and version < _SINCE[datatype]:
            raise CodeIndexError(
                f"the server of collection {collection!r} is Qdrant {'.'.join(map(str, version))}, and {name}="
                f"{datatype!r} needs {'.'.join(map(str, _SINCE[datatype]))} or newer; upgrade the server, or use "
                "'float16'"
            )


def _create(collection: str, manifest: Manifest) -> Steps[None]:
    """Create a collection with its vectors. A lost answer is no failure if the collection is there."""
    try:
        yield create_call(collection, manifest)
    except (IndexUnavailableError, IndexExistsError):
        if not (yield from _is_ours(collection, manifest)):
            raise
    except CodeIndexError as exc:
        if manifest.projection is None:
            raise
        raise CodeIndexError(
            f"{exc}. Navigation vectors need Qdrant 1.18 or newer; for an older server, create the index with "
            "IndexSettings(navigation=None) (--no-navigation)"
        ) from exc


def _is_ours(collection: str, manifest: Manifest) -> Steps[bool]:
    """Whether the server has created the collection of this manifest, though its answer was lost."""
    for attempt in range(_ATTEMPTS):
        try:
            contents: Contents = yield contents_call("look up", collection)
        except IndexNotFoundError:  # it may be at work on it still
            yield _PAUSE_SECONDS * 2**attempt
        except CodeIndexError:
            return False
        else:
            return contents.manifest is not None and contents.manifest.identity == manifest.identity
    return False


def _complete(collection: str, manifest: Manifest, local: bool) -> Steps[Manifest]:
    """Complete the creation of a collection that an earlier attempt left incomplete."""
    exists = f"collection {collection!r} already exists"
    if (yield target_call(collection)) is not None:
        raise IndexExistsError(f"{collection!r} is an alias; open it, or choose another name")
    contents: Contents = yield contents_call("inspect", collection)
    stored = contents.manifest
    if stored is None or stored.adopted or stored.fingerprint != manifest.fingerprint:
        raise IndexExistsError(f"{exists}; open it, or choose another name")
    missing = yield from _missing(collection, contents, stored, local)
    if not missing:
        raise IndexExistsError(f"{exists}; open it, or choose another name")
    if missing.vectors or (stored.settings, stored.projection) != (manifest.settings, manifest.projection):
        raise IndexExistsError(
            f"{exists}, but its creation was not completed: it lacks {missing}. It cannot be completed with these "
            "settings; create it with the settings it was begun with, or delete it"
        )
    yield from _set_up(collection, stored, missing)
    return stored


def _set_up(collection: str, manifest: Manifest, missing: _Missing) -> Steps[None]:
    """Create missing shard keys, and index missing payload fields."""
    schemas = field_schemas(manifest.settings)
    try:
        for key in missing.keys:
            yield from _create_key(collection, key)
        for name in missing.fields:
            yield from _repeated(field_call(collection, name, schemas[name]))
        if set(missing.fields) & set(manifest.settings.texts):
            yield scoring_call(collection, manifest.settings)
    except IndexUnavailableError as exc:
        raise IndexUnavailableError(
            f"{exc}. The creation of collection {collection!r} is not completed; repeat it with the same model and "
            "settings when the server is available, which completes it", exc.retry_after,
        ) from exc  # fmt: skip


def _create_key(collection: str, key: ShardKey) -> Steps[None]:
    """Create a shard key. That it exists already, from an attempt whose answer was lost, is no failure."""
    try:
        yield from _repeated(shard_key_call(collection, key))
    except CodeIndexError:
        try:
            existing = yield shard_keys_call(collection)
        except CodeIndexError:
            existing = ()
        if key not in existing:
            raise


def _repeated(call: Call[Any]) -> Steps[None]:
    """Make a call that may be repeated, a few times while the server is unavailable."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            yield call
        except IndexUnavailableError:
            yield _PAUSE_SECONDS * 2**attempt
        else:
            return
    yield call
