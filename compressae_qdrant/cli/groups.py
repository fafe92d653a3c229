"""Groups of options: a command that has one of these classes as a parameter has all its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from .options import (
    ATOMS_PER_STEP,
    WORDS,
    AtomsOption,
    BinaryOption,
    DatatypeOption,
    DenseDatatypeOption,
    DeviceOption,
    DropOption,
    EmbedderOption,
    EmbedderSettingsOption,
    EmbeddingOption,
    ExactOption,
    FirstStageLatentsOption,
    FirstStageOption,
    IdOption,
    KeepDenseOption,
    MetadataOption,
    MethodOption,
    NavigationCandidatesOption,
    NavigationEfOption,
    NavigationOption,
    PayloadOption,
    PrefetchOption,
    RenameOption,
    ScoringOption,
    SkipOption,
    TargetRecallOption,
    TextFieldOption,
    TextOption,
)

__all__ = [
    "CatalogOptions",
    "CodingOptions",
    "EmbeddingOptions",
    "LoadOptions",
    "PayloadOptions",
    "PlanOptions",
    "StorageOptions",
    "WordOptions",
]


@dataclass(frozen=True)
class _ItemOptions:
    """Columns of a catalog besides the embeddings."""

    id: IdOption = "id"
    metadata: MetadataOption = None


@dataclass(frozen=True)
class EmbeddingOptions:
    """Options of the commands that read only the embeddings of a catalog."""

    embedding: EmbeddingOption = "embedding"
    text: TextOption = None
    embedder: EmbedderOption = None
    embedder_option: EmbedderSettingsOption = None
    skip_bad_rows: SkipOption = False


@dataclass(frozen=True)
class CatalogOptions(EmbeddingOptions, _ItemOptions):
    """Options of the commands that read items: ids, embeddings and payloads."""


@dataclass(frozen=True)
class PayloadOptions:
    """Options that choose the payload; see `sources.Columns`."""

    payload: PayloadOption = None
    drop: DropOption = None
    rename: RenameOption = None
    binary: BinaryOption = "refuse"


@dataclass(frozen=True)
class LoadOptions(PayloadOptions, CatalogOptions):
    """Options of the commands that load a catalog into an index."""


@dataclass(frozen=True)
class CodingOptions:
    """How a catalog is encoded."""

    method: MethodOption = "pursuit"
    atoms_per_step: AtomsOption = ATOMS_PER_STEP
    device: DeviceOption = "cpu"


def _text_fields(options: Sequence[str] | None) -> dict[str, str | None] | None:
    """Text fields given as NAME or NAME=LANGUAGE; None if there are none."""
    pairs = [option.partition("=") for option in options or ()]
    return {name: language or None for name, _, language in pairs} or None


@dataclass(frozen=True)
class StorageOptions:
    """What an index stores for each item."""

    datatype: DatatypeOption = None
    keep_dense: KeepDenseOption = False
    dense_datatype: DenseDatatypeOption = None
    text_field: TextFieldOption = None
    navigation: NavigationOption = None

    def given(self) -> dict[str, object]:
        """The settings of the index by name; None for those that the command line does not give."""
        return {
            "datatype": self.datatype or None, "keep_dense": self.keep_dense or None,
            "dense_datatype": self.dense_datatype, "navigation": self.navigation,
            "text_fields": _text_fields(self.text_field),
        }  # fmt: skip


@dataclass(frozen=True)
class PlanOptions:
    """How an index is searched, as far as the command line says."""

    scoring: ScoringOption = "asymmetric"
    exact: ExactOption = False
    prefetch: PrefetchOption = None
    first_stage: FirstStageOption = None
    navigation_ef: NavigationEfOption = None
    navigation_candidates: NavigationCandidatesOption = None
    first_stage_latents: FirstStageLatentsOption = None
    target_recall: TargetRecallOption = None


@dataclass(frozen=True)
class WordOptions:
    """Words that a search looks for besides its query."""

    words: Annotated[
        str | None,
        typer.Option(
            "--words",
            metavar="TEXT",
            rich_help_panel=WORDS,
            help="Also search the text fields of the index for these words, and fuse both rankings.",
        ),
    ] = None
    word_field: Annotated[
        list[str] | None,
        typer.Option(
            "--word-field",
            metavar="FIELD=WEIGHT",
            rich_help_panel=WORDS,
            show_default="all text fields with weight 1",
            help="Text field to search for the words, with its weight: title=2. May be repeated.",
        ),
    ] = None
    code_weight: Annotated[
        float,
        typer.Option(help="Weight of the ranking by codes; 0 searches for the words alone.", rich_help_panel=WORDS),
    ] = 1.0
    fusion: Annotated[
        str,
        typer.Option(
            metavar="[rrf|dbsf]", rich_help_panel=WORDS,
            help="How the rankings are fused: by ranks, or by normalised scores, which have no weights.",
        ),
    ] = "rrf"  # fmt: skip
    fusion_k: Annotated[
        int | None,
        typer.Option(
            "--fusion-k", metavar="K", show_default="2", rich_help_panel=WORDS,
            help="Constant of 'rrf': with a small one the first ranks decide, with a large one (60) items that both "
            "rankings hold.",
        ),
    ] = None  # fmt: skip
