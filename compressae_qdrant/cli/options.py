"""Options that several commands share, each declared once. This module loads nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

CATALOG: Final = "Catalog options"
ENCODING: Final = "Encoding options"
INDEX: Final = "Index options"
SEARCH: Final = "Search options"
WORDS: Final = "Options for words"
OUTPUT: Final = "Other options"

ATOMS_PER_STEP: Final = 4
"""Default of `--atoms-per-step`: the library's, repeated here because the library loads torch. A test compares them."""

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Catalog to read: a .parquet file or a directory of them, a .jsonl, .csv or .npy file, a Qdrant "
        "collection of dense vectors (http://host:6333/items?vector=NAME), or 'sample', the catalog that comes with "
        "the package.",
    ),
]
ModelOption = Annotated[Path, typer.Option("--model", "-m", metavar="DIRECTORY", help="Directory of the model.")]
IndexOption = Annotated[
    str,
    typer.Option(
        "--index", "-i", metavar="LOCATION",
        help="Index: a directory for the embedded engine, or http://host:6333/collection for a Qdrant server. Set "
        "the server's API key in the environment variable QDRANT_API_KEY.",
    ),
]  # fmt: skip
AliasOption = Annotated[
    str,
    typer.Option(
        "--alias", "-a", metavar="URL",
        help="Alias on a Qdrant server: http://host:6333/alias. Set the server's API key in the environment variable "
        "QDRANT_API_KEY.",
    ),
]  # fmt: skip
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE",
        help="TOML file of settings, as `compressae tune` writes it. Options given on the command line override it.",
    ),
]  # fmt: skip

IdOption = Annotated[
    str, typer.Option("--id", metavar="COLUMN", help="Column that holds the item ids.", rich_help_panel=CATALOG)
]
EmbeddingOption = Annotated[
    str,
    typer.Option("--embedding", metavar="COLUMN", help="Column that holds the embeddings.", rich_help_panel=CATALOG),
]
TextOption = Annotated[
    str | None,
    typer.Option(
        "--text", metavar="COLUMN", rich_help_panel=CATALOG,
        help="Column of texts to embed with --embedder, in place of --embedding.",
    ),
]  # fmt: skip
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder", metavar="MODEL", rich_help_panel=CATALOG,
        help="Model of sentence-transformers that embeds the texts: a name or a directory. Needs the extra 'text'.",
    ),
]  # fmt: skip
EmbedderSettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--embedder-option", metavar="NAME=VALUE", rich_help_panel=CATALOG,
        help="Setting of the embedder: query_prompt, document_prompt, truncate_dim, device, trust_remote_code, "
        "local_files_only or batch_size. May be repeated.",
    ),
]  # fmt: skip
MetadataOption = Annotated[
    Path | None,
    typer.Option(
        "--metadata", metavar="FILE", rich_help_panel=CATALOG,
        help="Table of ids and payloads that belongs to a .npy file, row by row.",
    ),
]  # fmt: skip
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows", rich_help_panel=CATALOG,
        help="Skip malformed rows and report how many there were. By default the first one stops the command.",
    ),
]  # fmt: skip
PayloadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--payload", metavar="COLUMNS", rich_help_panel=CATALOG, show_default="all columns but the id and embeddings",
        help="Columns that become the payload, separated by commas; '' stores none. May be repeated.",
    ),
]  # fmt: skip
DropOption = Annotated[
    list[str] | None,
    typer.Option(
        "--drop", metavar="COLUMNS", rich_help_panel=CATALOG,
        help="Columns that do not become payload, separated by commas. May be repeated.",
    ),
]  # fmt: skip
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rename", metavar="COLUMN=FIELD", rich_help_panel=CATALOG,
        help="Store a column as the payload field FIELD. May be repeated.",
    ),
]  # fmt: skip
BinaryOption = Annotated[
    str,
    typer.Option(
        "--binary", metavar="[refuse|base64|text]", rich_help_panel=CATALOG,
        help="What to do with bytes in the payload: 'refuse' treats the row as malformed, 'base64' stores them as "
        "base64 text, 'text' stores them as the UTF-8 text that they encode.",
    ),
]  # fmt: skip

MethodOption = Annotated[
    str,
    typer.Option(
        "--method", metavar="[pursuit|refit|encoder]", rich_help_panel=ENCODING,
        help="How codes are found: 'pursuit' (best recall), 'refit' (the encoder's latents with refitted values) or "
        "'encoder' (fastest).",
    ),
]  # fmt: skip
AtomsOption = Annotated[
    int,
    typer.Option(
        "--atoms-per-step", rich_help_panel=ENCODING,
        help="Latents that pursuit selects in each step. 1 gives the best codes; more is faster.",
    ),
]  # fmt: skip
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", rich_help_panel=ENCODING, help="Device that computes: cpu, cuda, or one GPU such as cuda:1."
    ),
]
TrainingDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", show_default="cpu; under torchrun one GPU for each process, if there are GPUs",
        help="Device that computes: cpu, cuda, or one GPU such as cuda:1.", rich_help_panel=ENCODING,
    ),
]  # fmt: skip
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", help="Items encoded and written at a time.", rich_help_panel=ENCODING)
]

MaxRequestOption = Annotated[
    float,
    typer.Option(
        "--max-request-mb", metavar="MB", rich_help_panel=INDEX,
        help="Approximate size of the largest request to a server, in MB. A request that the server refuses as too "
        "large is split.",
    ),
]  # fmt: skip
MAX_REQUEST_MB: Final = 8.0
"""Default of `--max-request-mb`: the library's, repeated here because the library loads torch. A test compares them."""

PatienceOption = Annotated[
    float | None,
    typer.Option(
        "--patience", metavar="SECONDS", rich_help_panel=INDEX,
        show_default="120, or 600 where the server reports little (before Qdrant 1.17)",
        help="How long the optimisers of a server may show no progress before the command stops waiting for them. The "
        "rows are in the index by then.",
    ),
]  # fmt: skip

DatatypeOption = Annotated[
    str | None,
    typer.Option(
        "--datatype", metavar="[uint8|float16|float32]", show_default="uint8", rich_help_panel=INDEX,
        help="Type of the values in the index. Fixed when the index is created.",
    ),
]  # fmt: skip
KeepDenseOption = Annotated[
    bool,
    typer.Option(
        "--keep-dense", rich_help_panel=INDEX,
        help="Also keep the embeddings on disk and rescore the top hits with them. Fixed when the index is created.",
    ),
]  # fmt: skip
DenseDatatypeOption = Annotated[
    str | None,
    typer.Option(
        "--dense-datatype", metavar="[float16|turbo8|turbo4]", show_default="float16", rich_help_panel=INDEX,
        help="Type of the embeddings that --keep-dense keeps: 2 bytes, 1 byte or half a byte per dimension. Fixed when "
        "the index is created.",
    ),
]  # fmt: skip
NavigationOption = Annotated[
    bool | None,
    typer.Option(
        "--navigation/--no-navigation", show_default="--navigation", rich_help_panel=INDEX,
        help="Whether the index gets navigation vectors with a graph, which keep searches of large catalogs fast. "
        "Servers before Qdrant 1.18 have none. Fixed when the index is created.",
    ),
]  # fmt: skip
TextFieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field", metavar="FIELD[=LANGUAGE]", rich_help_panel=INDEX,
        help="Payload field whose words can be searched, such as title; title=english adds stemming and stop words. "
        "May be repeated. Fixed when the index is created.",
    ),
]  # fmt: skip
KeepVanishedOption = Annotated[
    bool,
    typer.Option(
        "--keep-vanished", rich_help_panel=INDEX,
        help="Keep items that are no longer in the catalog. By default they are deleted from the index.",
    ),
]  # fmt: skip
BackfillOption = Annotated[
    bool,
    typer.Option(
        "--backfill", rich_help_panel=INDEX,
        help="Do not overwrite items that another program adds to the index while this command runs.",
    ),
]  # fmt: skip

ScoringOption = Annotated[
    str,
    typer.Option(
        "--scoring", metavar="[asymmetric|reconstructed|sparse]", rich_help_panel=SEARCH,
        help="Similarity that ranks the hits: 'asymmetric' (the query's embedding with the reconstructed item; best "
        "recall), 'reconstructed' (both reconstructed) or 'sparse' (both codes).",
    ),
]  # fmt: skip
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact", rich_help_panel=SEARCH,
        help="Score every item instead of a first stage's candidates. Slow on large indexes.",
    ),
]  # fmt: skip
PrefetchOption = Annotated[
    int | None,
    typer.Option(
        "--prefetch", metavar="CANDIDATES", rich_help_panel=SEARCH,
        show_default="16 or more of the graph, 100 or more of codes, by the number of hits and items",
        help="Candidates that the first stage passes on to rescoring.",
    ),
]  # fmt: skip
FirstStageOption = Annotated[
    str | None,
    typer.Option(
        "--first-stage", metavar="[auto|codes|graph|both]", rich_help_panel=SEARCH, show_default="auto",
        help="What finds the candidates: the inverted index of the codes, the graph of navigation vectors, or both. "
        "auto takes the graph if the index has one and it is faster for this number of items.",
    ),
]  # fmt: skip
NavigationEfOption = Annotated[
    int | None,
    typer.Option(
        "--navigation-ef", metavar="NODES", rich_help_panel=SEARCH,
        show_default="200, or more for many hits or above 65,536 items",
        help="Nodes of the graph that a search keeps while it walks the graph. A larger number finds more of the best "
        "candidates and takes longer.",
    ),
]  # fmt: skip
NavigationCandidatesOption = Annotated[
    int | None,
    typer.Option(
        "--navigation-candidates", metavar="NODES", rich_help_panel=SEARCH, show_default="all nodes that are kept",
        help="Nodes of the graph that are compared again by their navigation vectors on disk, which are more precise "
        "than those in memory. 0 skips that, which loses recall with vectors of one bit.",
    ),
]  # fmt: skip
FirstStageLatentsOption = Annotated[
    int | None,
    typer.Option(
        "--first-stage-latents", metavar="LATENTS", rich_help_panel=SEARCH,
        show_default="1280, fewer above 65,536 items",
        help="Latents of the query that the first stage searches with. 0 uses the query's own code.",
    ),
]  # fmt: skip
TargetRecallOption = Annotated[
    float | None,
    typer.Option(
        "--target-recall", metavar="RECALL", rich_help_panel=SEARCH,
        help="Recall to reach, from 0 to 1: the cheapest calibrated plan that reaches it sets "
        "--first-stage, --prefetch, and --navigation-ef or --first-stage-latents. Needs `compressae calibrate`.",
    ),
]  # fmt: skip

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
