"""Settings of training, index and searches in one TOML file, written by `compressae tune` for other commands."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError
from ..files import write_text
from ..index.settings import IndexSettings
from ..training.config import TrainConfig

__all__ = ["Settings"]

_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "train": frozenset(field.name for field in fields(TrainConfig)),
    "index": frozenset(field.name for field in fields(IndexSettings)),
    "search": frozenset(
        {"first_stage", "navigation_ef", "navigation_candidates", "first_stage_latents", "prefetch", "target_recall"}
    ),
}


@dataclass(frozen=True)
class Settings:
    """Three tables of settings; settings that are left out keep their defaults."""

    train: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `TrainConfig`."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `IndexSettings`."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """`first_stage`, `navigation_ef`, `navigation_candidates`, `first_stage_latents`, `prefetch` and `target_recall` of
    `SearchOptions`."""

    def __post_init__(self) -> None:
        for section, known in _KNOWN.items():
            unknown = sorted(set(getattr(self, section)) - known)
            if unknown:
                raise ConfigError(
                    f"[{section}] has no setting {', '.join(unknown)}; its settings are {', '.join(sorted(known))}"
                )

        for section, config in (("train", TrainConfig), ("index", IndexSettings)):
            try:
                config(**getattr(self, section))
            except ConfigError as exc:
                raise ConfigError(f"[{section}]: {exc}") from exc

    @classmethod
    def read(cls, file: Path | None) -> Settings:
        """Read a file; None gives the defaults.

        Raises:
            ConfigError: the file cannot be read, or has an unknown section or setting.
        """
        if file is None:
            return cls()
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{file} is not a TOML file of settings ({exc})") from exc
        if set(data) - set(_KNOWN) or not all(isinstance(section, dict) for section in data.values()):
            raise ConfigError(f"{file} has {', '.join(sorted(data))}; its sections must be {', '.join(_KNOWN)}")
        if isinstance(data.get("search", {}).get("first_stage"), int):  # the number of latents in files of version 0.1
            data["search"]["first_stage_latents"] = data["search"].pop("first_stage")
        return cls(**data)

    def write(self, file: Path, comment: str = "") -> None:
        """Write a file, with a comment at its top."""
        lines = [f"# {line}" for line in comment.splitlines()]
        for section in _KNOWN:
            values: Mapping[str, Any] = getattr(self, section)
            if values:
                # Strings, numbers and booleans are written the same in JSON and TOML.
                lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        write_text(file, "\n".join(lines).lstrip("\n") + "\n")
