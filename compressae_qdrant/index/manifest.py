"""The manifest of an index: a file beside an embedded shard, or metadata of a collection on a server."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from ..errors import CodeIndexError, ConfigError, ModelMismatchError
from .protocol import CodeModel
from .settings import IndexSettings

__all__ = ["DENSE_NAME", "METADATA_KEY", "VECTOR_NAME", "Described", "Manifest"]

VECTOR_NAME: Final = "code"
"""Name of the sparse vector that holds the codes."""

DENSE_NAME: Final = "dense"
"""Name of the dense vector that holds the embeddings, if the index keeps them."""

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

    @classmethod
    def of(cls, model: CodeModel, settings: IndexSettings, *, adopted: bool = False) -> Self:
        """The manifest of a new index for `model`."""
        return cls(model.fingerprint, model.latents, model.dim, settings, adopted)

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
            settings = IndexSettings(**data["settings"])
            adopted = bool(data.get("adopted", False))
            return cls(str(data["fingerprint"]), int(data["latents"]), int(data["dim"]), settings, adopted)
        except (KeyError, TypeError, ValueError, ConfigError) as exc:
            raise CodeIndexError(
                f"the manifest of {location} is damaged ({type(exc).__name__}: {exc}); create the index again"
            ) from exc

    def check_model(self, model: CodeModel | None, location: str) -> None:
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
    def settings(self) -> IndexSettings:
        """Settings with which the index was created."""
        return self._manifest.settings


def _version() -> str:
    try:
        return importlib.metadata.version("compressae-qdrant")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"
