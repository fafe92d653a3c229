"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args
from urllib.parse import parse_qs

import numpy as np
import torch
import typer
from qdrant_client import QdrantClient

from ..datasets import sample_path
from ..embedders import Embedder, load_embedder
from ..errors import ConfigError, IndexNotFoundError
from ..index import IndexSettings, create_index, open_index
from ..index.location import connect
from ..index.protocol import CodeIndex
from ..model.compressae import CompresSAE
from ..model.encoder import Method
from ..scoring import Scoring
from ..sources import Columns, QdrantSource, Source, open_source
from ..tuning.settings_file import Settings

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="Catalog: .parquet (or a directory of them), .jsonl, .csv, .npy, a collection of dense vectors "
        "(http://host:6333/items?vector=name); 'sample' is the shipped one."
    ),
]
ModelOption = Annotated[Path, typer.Option("--model", "-m", help="Directory of the model.")]
IndexOption = Annotated[
    str,
    typer.Option(
        "--index", "-i", help="A directory (embedded engine) or http://host:6333/collection (key: QDRANT_API_KEY)."
    ),
]
IdOption = Annotated[str, typer.Option("--id", help="Column of the item ids.")]
EmbeddingOption = Annotated[str, typer.Option("--embedding", help="Column of the embeddings.")]
TextOption = Annotated[str | None, typer.Option("--text", help="Column of texts to embed, instead of --embedding.")]
EmbedderOption = Annotated[
    str | None, typer.Option("--embedder", help="sentence-transformers model for texts: a name or a directory.")
]
MetadataOption = Annotated[Path | None, typer.Option("--metadata", help="For .npy: the table of ids and payloads.")]
SkipOption = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave malformed rows out and count them.")]
MethodOption = Annotated[str, typer.Option("--method", help="pursuit, refit or encoder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")]
TrainingDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", help="cpu, cuda, cuda:1 ...; cpu if left out, but under torchrun cuda (a GPU a process) if present."
    ),
]
AtomsOption = Annotated[int, typer.Option("--atoms-per-step", help="Of pursuit: 1 is best, more is faster.")]
ScoringOption = Annotated[str, typer.Option("--scoring", help="asymmetric, reconstructed or sparse.")]
ExactOption = Annotated[bool, typer.Option("--exact", help="Score everything instead of candidates only.")]
PrefetchOption = Annotated[int | None, typer.Option("--prefetch", help="Candidates to rescore.")]
FirstStageOption = Annotated[
    int | None, typer.Option("--first-stage-latents", help="Latents that search for candidates.")
]
TargetRecallOption = Annotated[
    float | None,
    typer.Option(
        help="Recall to reach at least cost, instead of --prefetch and --first-stage-latents (`compressae calibrate`)."
    ),
]
KeepVanishedOption = Annotated[
    bool, typer.Option("--keep-vanished", help="Of a sync: don't delete items that the source doesn't have.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML of settings, as `compressae tune` writes; options go before it.")
]
BackfillOption = Annotated[
    bool, typer.Option("--backfill", help="Of a sync: leave items alone that someone else adds meanwhile.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def source_of(
    source: str, columns: Columns, embedder: Embedder | None, metadata: Path | None, skip_bad_rows: bool
) -> Source:
    on_error: Literal["raise", "skip"] = "skip" if skip_bad_rows else "raise"
    if "://" in source:
        return _collection(source, on_error)
    path = sample_path() if source == "sample" and not Path(source).exists() else Path(source)
    return open_source(path, columns=columns, embedder=embedder, metadata=metadata, on_error=on_error)


def _collection(location: str, on_error: Literal["raise", "skip"]) -> Source:
    client, collection, vector = collection_of_source(location)
    return QdrantSource(client, collection, vector, on_error)


def collection_of_source(location: str) -> tuple[QdrantClient, str, str | None]:
    """Client, collection and vector of a text like http://host:6333/items?vector=name."""
    base, _, query = location.partition("?")
    asked = parse_qs(query, keep_blank_values=True)
    if set(asked) - {"vector"} or len(asked.get("vector", ())) > 1:
        raise ConfigError("a collection as source may ask for ?vector=NAME and nothing else")
    client, collection = connect(base)
    return client, collection, asked["vector"][0] if "vector" in asked else None


def columns_of(id: str | None, embedding: str, text: str | None) -> Columns:
    return Columns(id=id, embedding=embedding, text=text)


def embedder_of(text: str | None, embedder: str | None) -> Embedder | None:
    if (text is None) != (embedder is None):
        raise ConfigError(
            "--text names a column of texts and --embedder the model that embeds them; give both or neither"
        )
    return None if embedder is None else load_embedder(embedder)


def wanted_settings(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of an index: those of the file, but for what is `given` and not None."""
    return {**Settings.read(config).index, **{name: value for name, value in given.items() if value is not None}}


def open_or_create(location: str, model: CompresSAE, wanted: Mapping[str, Any]) -> CodeIndex:
    """The index at a location, made with the wanted settings if it isn't there; one that has others is refused."""
    settings = IndexSettings(**wanted)
    try:
        opened = open_index(location, model)
    except IndexNotFoundError:
        return create_index(location, model, settings)
    has = opened.settings
    other = [name for name in wanted if getattr(has, name) != getattr(settings, name)]
    if other:
        opened.close()
        told = ", ".join(f"{name}={getattr(has, name)!r}, not {getattr(settings, name)!r}" for name in other)
        raise ConfigError(
            f"the index at {location} has {told}; settings are fixed when an index is made: leave them out, or make "
            "another index"
        )
    return opened


def method_of(name: str) -> Method:
    """A method by its name; refused here, before anything is made."""
    return cast(Method, _one_of(name, get_args(Method), "--method"))


def scoring_of(name: str) -> Scoring:
    """A scoring by its name."""
    return cast(Scoring, _one_of(name, get_args(Scoring), "--scoring"))


def _one_of(name: str, known: tuple[str, ...], option: str) -> str:
    if name not in known:
        raise ConfigError(f"{option} is {name!r}; it must be one of {', '.join(known)}")
    return name


def item_id(text: str, index: CodeIndex) -> int | str:
    """The id of an item as it is written in a shell: digits are a number where the index has it, or else a text."""
    if not text.isdecimal() or str(int(text)) != text or int(text) >= 2**64:
        return text
    return int(text) if index.hashes([int(text)]) != [None] else text


def device_of(name: str) -> torch.device:
    """A device by its name, tried."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        why = str(exc).partition("\n")[0]
        raise ConfigError(f"--device is {name!r}, which can't be used here ({why}); take cpu, cuda or cuda:1") from exc
    return device


def query_of(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return text
    try:
        return np.array(json.loads(text), np.float32)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"the query begins like a vector but isn't one in JSON: {exc}") from exc


def filter_of(text: str | None) -> Any:
    if text is None:
        return None
    from pydantic import ValidationError
    from qdrant_client import models

    try:
        return models.Filter.model_validate_json(text)
    except ValidationError as exc:
        raise ConfigError(f"--filter is no Qdrant filter in JSON: {exc.errors()[0]['msg']}") from exc
