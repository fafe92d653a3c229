"""Parse the values of options: catalogs, indexes, devices, queries and filters.

Functions import the packages that they need, so that the help of a command loads none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast, get_args
from urllib.parse import parse_qs

from ..errors import ConfigError, IncompleteIndexError, IndexNotFoundError
from .groups import CatalogOptions, LoadOptions

if TYPE_CHECKING:
    import torch
    from qdrant_client import QdrantClient

    from ..embedders import SentenceTransformerEmbedder
    from ..index.protocol import CodeIndex
    from ..index.text import Fusion
    from ..model.compressae import CompresSAE
    from ..model.config import Method
    from ..scoring import Scoring
    from ..search.settings import FirstStage
    from ..sources import Source
    from ..sources.cells import Binary
    from ..sources.source import OnError
    from .groups import EmbeddingOptions, PayloadOptions

__all__ = [
    "PayloadFields",
    "collection_of_source",
    "index_settings",
    "item_id",
    "open_catalog",
    "open_embedder",
    "open_or_create",
    "parse_device",
    "parse_filter",
    "parse_first_stage",
    "parse_fusion",
    "parse_method",
    "parse_query",
    "parse_scoring",
    "payload_fields",
    "request_bytes",
]

_EMBEDDER_SETTINGS: Final[Mapping[str, Callable[[str], Any]]] = {
    "query_prompt": str, "document_prompt": str, "truncate_dim": int, "device": str,
    "trust_remote_code": {"true": True, "false": False}.__getitem__,
    "local_files_only": {"true": True, "false": False}.__getitem__, "batch_size": int,
}  # fmt: skip
"""Settings of `load_embedder` that --embedder-option takes, and how their values are read."""


def open_catalog(source: str, options: EmbeddingOptions, *, with_payload: bool = True) -> Source:
    """Open the catalog that a command reads: a file, a directory, the shipped sample, or a collection.

    Ids and payloads are read only if the command has options for them, and payloads only if `with_payload`.

    Raises:
        ConfigError: one of --text and --embedder was given without the other, or an option is invalid.
        SourceError: there is no such catalog, or it cannot be read.
    """
    from ..datasets import sample_path
    from ..sources import Columns, QdrantSource, open_source

    if (options.text is None) != (options.embedder is None):
        raise ConfigError(
            "--text names a column of texts and --embedder the model that embeds them; give both or neither"
        )
    loaded = open_embedder(options.embedder, options.embedder_option)
    id, metadata = None, None
    fields: PayloadFields = {"payload": ()}
    if isinstance(options, CatalogOptions):
        id, metadata = options.id, options.metadata
        fields = {} if with_payload else fields
    if isinstance(options, LoadOptions):
        fields = payload_fields(options)
    on_error: OnError = "skip" if options.skip_bad_rows else "raise"
    if "://" in source:
        return QdrantSource(*collection_of_source(source), on_error, columns=Columns(**fields))
    path = sample_path() if source == "sample" and not Path(source).exists() else Path(source)
    columns = Columns(id=id, embedding=options.embedding, text=options.text, **fields)
    return open_source(path, columns=columns, embedder=loaded, metadata=metadata, on_error=on_error)


class PayloadFields(TypedDict, total=False):
    """Which columns of a catalog become payload; see `sources.Columns`."""

    payload: tuple[str, ...] | None
    drop: tuple[str, ...]
    rename: Mapping[str, str]
    binary: Binary


def payload_fields(options: PayloadOptions) -> PayloadFields:
    """The options that choose the payload. Each text may hold several names, separated by commas.

    Raises:
        ConfigError: a text of --rename is not COLUMN=FIELD, or --binary has another value than those it takes.
    """
    from ..sources.cells import Binary

    renamed: dict[str, str] = {}
    for pair in _names(options.rename):
        old, _, new = pair.partition("=")
        if not old or not new or old in renamed:
            raise ConfigError(f"--rename is {pair!r}; it must be COLUMN=FIELD, once for each column")
        renamed[old] = new
    return {
        "payload": None if options.payload is None else _names(options.payload), "drop": _names(options.drop),
        "rename": renamed, "binary": cast("Binary", _one_of(options.binary, get_args(Binary), "--binary")),
    }  # fmt: skip


def _names(texts: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for text in texts or () for name in text.split(",") if name)


def open_embedder(model: str | None, options: Sequence[str] | None) -> SentenceTransformerEmbedder | None:
    """The embedder of a command, or None without one.

    Args:
        model: name or directory of a sentence-transformers model.
        options: its settings, each as NAME=VALUE.

    Raises:
        ConfigError: there are settings without a model, or a setting is unknown or has an invalid value.
    """
    settings: dict[str, Any] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if name not in _EMBEDDER_SETTINGS or not equals:
            raise ConfigError(
                f"--embedder-option is {option!r}; it must be NAME=VALUE, with a name among "
                f"{', '.join(_EMBEDDER_SETTINGS)}"
            )
        try:
            settings[name] = _EMBEDDER_SETTINGS[name](value)
        except (KeyError, ValueError) as exc:
            expected = "true or false" if isinstance(exc, KeyError) else "a whole number"
            raise ConfigError(f"--embedder-option {name} is {value!r}; it must be {expected}") from exc
    if model is None:
        if settings:
            raise ConfigError("--embedder-option sets up the model of --embedder; name one, or omit the option")
        return None
    from ..embedders import load_embedder

    return load_embedder(model, **settings)


def collection_of_source(location: str) -> tuple[QdrantClient, str, str | None]:
    """Client, collection and vector name of a location such as http://host:6333/items?vector=name."""
    from ..index.location import connect

    base, _, query = location.partition("?")
    parameters = parse_qs(query, keep_blank_values=True)
    if set(parameters) - {"vector"} or len(parameters.get("vector", ())) > 1:
        raise ConfigError("a collection as source takes one parameter, the name of a vector: ?vector=NAME")
    client, collection = connect(base)
    return client, collection, parameters["vector"][0] if "vector" in parameters else None


def index_settings(config: Path | None, **given: object) -> dict[str, Any]:
    """Settings of an index: those of the file, overridden by each that is given and not None."""
    from ..tuning.settings_file import Settings

    return {**Settings.read(config).index, **{name: value for name, value in given.items() if value is not None}}


def open_or_create(location: str, model: CompresSAE, requested: Mapping[str, Any]) -> CodeIndex:
    """Open the index at a location, or create it with the requested settings. An incomplete one is completed.

    Raises:
        ConfigError: the index exists with other settings than those requested.
    """
    from ..index import IndexSettings, create_index, open_index

    settings = IndexSettings(**requested)
    try:
        opened = open_index(location, model)
    except (IndexNotFoundError, IncompleteIndexError):
        return create_index(location, model, settings)
    actual = opened.settings
    different = [name for name in requested if getattr(actual, name) != getattr(settings, name)]
    if different:
        opened.close()
        listed = ", ".join(f"{name}={getattr(actual, name)!r}, not {getattr(settings, name)!r}" for name in different)
        raise ConfigError(
            f"the index at {location} has {listed}. Settings are fixed when an index is created: omit these options, "
            "or create another index"
        )
    return opened


def parse_method(name: str) -> Method:
    """Return the encoding method of this name, or raise ConfigError before anything is loaded or created."""
    from ..model.config import Method

    return cast("Method", _one_of(name, get_args(Method), "--method"))


def request_bytes(megabytes: float) -> int:
    """The size of the largest request in bytes, from --max-request-mb."""
    if not 0 < megabytes < 1e6:
        raise ConfigError(f"--max-request-mb is {megabytes:g}; it must be above 0, and a server accepts 32 by default")
    return max(1, round(megabytes * 2**20))


def parse_scoring(name: str) -> Scoring:
    """Return the scoring of this name, or raise ConfigError."""
    from ..scoring import Scoring

    return cast("Scoring", _one_of(name, get_args(Scoring), "--scoring"))


def parse_fusion(name: str) -> Fusion:
    """Return the fusion of this name, or raise ConfigError."""
    from ..index.text import Fusion

    return cast("Fusion", _one_of(name, get_args(Fusion), "--fusion"))


def parse_first_stage(name: str | None) -> FirstStage:
    """What finds the candidates, by its name."""
    from ..search.settings import FirstStage

    return cast("FirstStage", _one_of(name or "auto", get_args(FirstStage), "--first-stage"))


def _one_of(name: str, known: tuple[str, ...], option: str) -> str:
    if name not in known:
        raise ConfigError(f"{option} is {name!r}; it must be one of {', '.join(known)}")
    return name


def item_id(text: str, index: CodeIndex) -> int | str:
    """Parse an item id. Digits are a number if the index holds an item with that number, otherwise a text."""
    if not text.isdecimal() or str(int(text)) != text or int(text) >= 2**64:
        return text
    return int(text) if index.hashes([int(text)]) != [None] else text


def parse_device(name: str) -> torch.device:
    """Return the device of this name after a test allocation on it."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        reason = str(exc).partition("\n")[0]
        raise ConfigError(
            f"--device is {name!r}, which cannot be used here ({reason}); use cpu, cuda or cuda:1"
        ) from exc
    return device


def parse_query(text: str) -> Any:
    """Return the query vector if the text is a JSON array, otherwise the text."""
    if not text.lstrip().startswith("["):
        return text
    import numpy as np

    try:
        return np.array(json.loads(text), np.float32)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"the query starts with '[' but is not a JSON array of numbers: {exc}") from exc


def parse_filter(text: str | None) -> Any:
    """Parse a Qdrant filter from JSON."""
    if text is None:
        return None
    from pydantic import ValidationError
    from qdrant_client import models

    try:
        return models.Filter.model_validate_json(text)
    except ValidationError as exc:
        raise ConfigError(f"--filter is not a Qdrant filter in JSON: {exc.errors()[0]['msg']}") from exc
