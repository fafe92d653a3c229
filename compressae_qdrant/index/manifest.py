"""What an index remembers about itself: kept beside an embedded shard, or in the metadata of a server's collection."""

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
"""Name of the vector that holds the embeddings, where an index keeps them."""

METADATA_KEY: Final = "compressae"
"""Of the manifest in the metadata of a server's collection."""

_FORMAT: Final = 1


@dataclass(frozen=True)
class Manifest:
    """The model and the settings of one index."""

    fingerprint: str
    """Of the model whose codes it holds."""
    latents: int
    """h of that model."""
    dim: int
    """d of that model."""
    settings: IndexSettings
    adopted: bool = False
    """The codes were added to a collection that was there before, whose points and payloads are not ours."""

    @classmethod
    def of(cls, model: CodeModel, settings: IndexSettings, *, adopted: bool = False) -> Self:
        """The manifest of a new index for `model`."""
        return cls(model.fingerprint, model.latents, model.dim, settings, adopted)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON, with its format and the version of the package that wrote it."""
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
        """Read what `to_json` gave.

        Raises:
            CodeIndexError: it is not a manifest, or in a newer format; the message names `location`.
        """
        if not isinstance(data, Mapping) or "format" not in data:
            raise CodeIndexError(
                f"{location} holds no index of this package (no manifest); create one there or elsewhere"
            )
        if data["format"] != _FORMAT:
            raise CodeIndexError(
                f"{location} has index format {data['format']!r}, this version reads {_FORMAT}; "
                f"it was written by {data.get('written_by', 'an unknown version')}; upgrade compressae-qdrant"
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
        """Refuse to go on with another model than the index's own; None is not checked.

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
    """An index that tells what its manifest says."""

    _manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Of the model whose codes it holds."""
        return self._manifest.fingerprint

    @property
    def latents(self) -> int:
        """h of that model."""
        return self._manifest.latents

    @property
    def settings(self) -> IndexSettings:
        """As fixed at its creation."""
        return self._manifest.settings


def _version() -> str:
    try:
        return importlib.metadata.version("compressae-qdrant")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "(not installed)"
