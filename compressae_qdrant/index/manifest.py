"""The manifest of an index: a file beside an embedded shard, or metadata of a collection on a server."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import CodeIndexError, ConfigError, ModelMismatchError
from .protocol import CodeModel
from .settings import NAVIGATION_DIM, IndexSettings, NavigationSettings

__all__ = ["DENSE_NAME", "METADATA_KEY", "NAVIGATION_NAME", "VECTOR_NAME", "Described", "Manifest"]

VECTOR_NAME: Final = "code"
"""Name of the sparse vector that holds the codes."""

DENSE_NAME: Final = "dense"
"""Name of the dense vector that holds the embeddings, if the index keeps them."""

NAVIGATION_NAME: Final = "navigation"
"""Name of the vector that the graph is built on, where an index has one."""

METADATA_KEY: Final = "compressae"
"""Key of the manifest in the metadata of a collection."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class Manifest:
    """The model and the settings of one index."""

    fingerprint: str
    """Fingerprint of the model whose codes the index holds."""
    latents: int
    """Number of latents h of that model."""
    dim: int
    """Number of embedding dimensions d of that model."""
    settings: IndexSettings
    adopted: bool = False
    """Whether the codes were added to an existing collection, whose points and payloads belong to the user."""
    projection: str | None = None
    """Fingerprint of the projection that made the navigation vectors; None for an index without them."""
    old_ids: bool = False
    """Whether the spellings of a UUID are different items, as in indexes of version 0.1; see `index.ids`."""
    identity: str | None = None
    """Random id of the index, by which it is told from a later one of the same name; None in indexes of version 0.1."""

    @classmethod
    def of(cls, model: CodeModel, settings: IndexSettings, *, adopted: bool = False) -> Self:
        """The manifest of a new index for `model`.

        Raises:
            ConfigError: navigation vectors cannot have as many dimensions as the settings ask for, or an adopted
                collection cannot have one of the settings.
        """
        projection = None
        if adopted:
            _check_adoptable(settings)
            # Its own vectors may have a graph already.
            settings = dataclasses.replace(settings, navigation=None)
        if settings.navigation is not None:
            projection = model.projection_fingerprint
            settings = dataclasses.replace(settings, navigation=_sized(settings.navigation, model))
        identity = secrets.token_hex(8)
        return cls(model.fingerprint, model.latents, model.dim, settings, adopted, projection, identity=identity)

    def with_navigation(self, model: CodeModel, navigation: NavigationSettings) -> Self:
        """The manifest of the same index once it has navigation vectors; its inverted index is then kept on disk.

        Raises:
            ConfigError: the index was adopted, or has navigation vectors with other settings.
            ModelMismatchError: it holds the codes of another model, or navigation vectors of another projection.
        """
        self.check_model(model, "the index")
        if self.adopted:
            raise ConfigError(
                "the codes were added to a collection of your own vectors, which may have a graph already; only an "
                "index that this package created gets navigation vectors"
            )
        sized = _sized(navigation, model)
        if self.projection is not None and (self.projection, self.settings.navigation) != (
            model.projection_fingerprint, sized,
        ):  # fmt: skip
            raise ConfigError(
                f"the index already has navigation vectors, of projection {self.projection!r} with "
                f"{self.settings.navigation}; build a new index for others"
            )
        settings = dataclasses.replace(self.settings, navigation=sized, memory="cold")
        return dataclasses.replace(self, settings=settings, projection=model.projection_fingerprint)

    def adopted_again(self, wanted: Manifest) -> Self:
        """The manifest of an adopted collection that is adopted again with the settings of `wanted`: it stays the same
        index, and further payload fields are indexed.

        Raises:
            ConfigError: the scale differs from that of the codes already stored.
        """
        own, new = self.settings, wanted.settings
        if own.scale != new.scale:
            raise ConfigError(
                f"the collection has codes at scale {own.scale!r}, but the settings have {new.scale!r}; use the same "
                "settings as before"
            )
        settings = dataclasses.replace(
            new,
            tenant_field=new.tenant_field or own.tenant_field,
            payload_fields={**own.payload_fields, **new.payload_fields},
        )
        return dataclasses.replace(self, settings=settings)

    @property
    def navigation_dim(self) -> int | None:
        """Dimensions of the navigation vectors; None for an index without them."""
        navigation = self.settings.navigation
        return None if self.projection is None or navigation is None else navigation.dim

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON, with the number of its format and the version of this package."""
        return {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "latents": self.latents,
            "dim": self.dim,
            "settings": {
                **dataclasses.asdict(self.settings),
                "payload_fields": dict(self.settings.payload_fields),
                "shard_keys": list(self.settings.shard_keys),
            },
            "adopted": self.adopted,
            "projection": self.projection,
            "uuid_spellings": not self.old_ids,
            "identity": self.identity,
            "written_by": f"compressae-qdrant {_version()}",
        }

    @classmethod
    def from_json(cls, data: object, location: str) -> Self:
        """Read a manifest that `to_json` returned.

        Raises:
            CodeIndexError: `data` is not a manifest, or has another format; the message names `location`.
        """
        if not isinstance(data, Mapping) or "format" not in data:
            raise CodeIndexError(
                f"{location} has no manifest, so it is no index of this package; create one, or use another location"
            )
        if data["format"] != _FORMAT:
            raise CodeIndexError(
                f"{location} has index format {data['format']!r}, but this version reads format {_FORMAT}; "
                f"the index was written by {data.get('written_by', 'an unknown version')}; upgrade compressae-qdrant"
            )
        try:
            settings = IndexSettings(**{"navigation": None, **data["settings"]})  # version 0.1 had no navigation
            adopted, projection = bool(data.get("adopted", False)), data.get("projection")
            identity = data.get("identity")
            return cls(
                str(data["fingerprint"]), int(data["latents"]), int(data["dim"]), settings, adopted,
                None if projection is None else str(projection),
                old_ids=not adopted and not data.get("uuid_spellings", False),
                identity=None if identity is None else str(identity),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, ConfigError) as exc:
            raise CodeIndexError(
                f"the manifest of {location} is damaged ({type(exc).__name__}: {exc}); create the index again"
            ) from exc

    def check_model(self, model: CodeModel | Manifest | None, location: str) -> None:
        """Raise an error for any model but the one of the index; None is not checked.

        Raises:
            ModelMismatchError: the fingerprints differ; the message names both.
        """
        if model is not None and model.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"{location} holds codes of model {self.fingerprint!r} ({self.latents} latents), but model "
                f"{model.fingerprint!r} ({model.latents} latents) was given; load the index's own model, or create a "
                "new index for this one"
            )


class Described:
    """Properties of an index that come from its manifest."""

    _manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model whose codes the index holds."""
        return self._manifest.fingerprint

    @property
    def latents(self) -> int:
        """Number of latents h of that model."""
        return self._manifest.latents

    @property
    def identity(self) -> str | None:
        """Random id of the index, by which it is told from a later one of the same name; None in indexes of 0.1."""
        return self._manifest.identity

    @property
    def settings(self) -> IndexSettings:
        """Settings with which the index was created."""
        return self._manifest.settings

    @property
    def projection(self) -> str | None:
        """Fingerprint of the projection that made its navigation vectors; None for an index without them."""
        return self._manifest.projection


def _check_adoptable(settings: IndexSettings) -> None:
    """Refuse settings that an existing collection cannot have."""
    usual = IndexSettings()
    fixed = ("keep_dense", "dense_datatype", "shards", "replicas", "write_consistency", "shard_keys", "segments")
    given = [name for name in fixed if getattr(settings, name) != getattr(usual, name)]
    if given:
        raise ConfigError(
            f"codes are added to an existing collection, which has its own {', '.join(given)}; omit these settings, or "
            "create another index"
        )


def _sized(navigation: NavigationSettings, model: CodeModel) -> NavigationSettings:
    """Navigation settings with the number of dimensions filled in."""
    largest = model.max_navigation_dim
    dim = navigation.dim or min(NAVIGATION_DIM, largest)
    if dim > largest:
        raise ConfigError(
            f"navigation dim is {dim}, but this model, which encodes {model.dim} dimensions, offers at most {largest}; "
            "choose a smaller dim"
        )
    return dataclasses.replace(navigation, dim=dim)


def _version() -> str:
    try:
        return importlib.metadata.version("compressae-qdrant")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"
