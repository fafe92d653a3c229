"""compressae search: hits for a text, a vector or an item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import ConfigError
from .groups import PlanOptions, WordOptions
from .hits import show_hits, weights_of
from .inputs import item_id, open_embedder, parse_filter, parse_first_stage, parse_fusion, parse_query, parse_scoring
from .options import (
    ConfigOption,
    EmbedderSettingsOption,
    IndexOption,
    JsonOption,
    ModelOption,
)

if TYPE_CHECKING:
    from ..search.settings import SearchOptions

__all__ = ["search"]

_CONCEPTS = "Concept options"


def search(
    *,
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="A text (needs --embedder), a vector as a JSON array, or an item id (with --like)."
        ),
    ],
    model: ModelOption,
    index: IndexOption,
    like: Annotated[bool, typer.Option("--like", help="Take QUERY as an item id and find similar items.")] = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder", metavar="MODEL", help="Model of sentence-transformers that embeds the query: a name or a "
            "directory. Must be the model that embedded the catalog. Needs the extra 'text'.",
        ),
    ] = None,
    embedder_option: EmbedderSettingsOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Maximum number of hits, or of groups.")] = 10,
    offset: Annotated[int, typer.Option("--offset", help="Best hits to leave out, for the next pages.")] = 0,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", metavar="SCORE", help="Lowest score of a hit, in the unit of the scores."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by", metavar="FIELD", help="Return the best hits of each value of a payload field."
        ),
    ] = None,
    group_size: Annotated[int, typer.Option("--group-size", help="With --group-by: hits of a group.")] = 3,
    filter: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Qdrant filter on payload fields: {"must": [{"key": "section", "match": {"value": "games"}}]}.',
        ),
    ] = None,
    config: ConfigOption = None,
    plan: PlanOptions,
    word: WordOptions,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept", metavar="NAME=WEIGHT", rich_help_panel=_CONCEPTS,
            help="Rank items with this concept higher, or lower if the weight is negative: game=0.3. May be repeated.",
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="NAME", help="Return only items that have this concept.",
                     rich_help_panel=_CONCEPTS),
    ] = None,
    within_strength: Annotated[
        float,
        typer.Option(
            help="With --within: lowest value of the concept in an item's code.", rich_help_panel=_CONCEPTS
        ),
    ] = 0.0,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show how much each concept contributes to the score of a hit.",
                     rich_help_panel=_CONCEPTS),
    ] = False,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Search an index by text, by vector, or for items similar to one of its items.

    Example:
        compressae search 'text editor for programmers' --model model --index index --embedder all-MiniLM-L6-v2
    """
    from ..index import open_index
    from ..model.compressae import CompresSAE
    from ..search.retriever import Retriever

    options = _plan_options(
        config, prefetch=plan.prefetch, first_stage=plan.first_stage and parse_first_stage(plan.first_stage),
        navigation_ef=plan.navigation_ef, navigation_candidates=plan.navigation_candidates,
        first_stage_latents=plan.first_stage_latents, target_recall=plan.target_recall,
    )  # fmt: skip
    scored_by = parse_scoring(plan.scoring)
    target = query if like else parse_query(query)
    if not like and isinstance(target, str) and embedder is None:
        raise ConfigError(
            f"the query {query!r} is a text; name the model that embeds texts with --embedder, or add --like if it is "
            "an item id"
        )
    if within_strength and within is None:
        raise ConfigError(f"--within-strength is {within_strength} without a concept; name one with --within")
    by_words = _word_options(word)
    if group_by is not None and like:
        raise ConfigError("--group-by groups the hits of a text or a vector; leave --like out")
    embed = open_embedder(embedder, embedder_option)
    coder = CompresSAE.load(model)
    with open_index(index, coder) as opened:
        retriever = Retriever(coder, opened, embed)
        settings: SearchOptions = {
            **options, "scoring": scored_by, "exact": plan.exact, "filter": parse_filter(filter),
            "concepts": weights_of(concept), "within": within, "within_strength": within_strength,
            "offset": offset, "score_threshold": score_threshold, **by_words,
        }  # fmt: skip
        if group_by is not None:
            groups = retriever.search_groups(target, group_by, limit, group_size, **settings)
            hits = [hit for group in groups for hit in group.hits]
        elif like:
            hits = retriever.similar_to(item_id(query, opened), limit, **settings)
        else:
            hits = retriever.search(target, limit, **settings)
        explained = retriever.explain(hits) if explain else None
    show_hits(hits, explained, json_output, None if group_by is None else groups)


def _word_options(word: WordOptions) -> SearchOptions:
    """The words to search for, their fields and the fusion."""
    fusion = parse_fusion(word.fusion)
    if word.words is None:
        if word.word_field or word.code_weight != 1 or fusion != "rrf" or word.fusion_k is not None:
            raise ConfigError(
                "--word-field, --code-weight, --fusion and --fusion-k are for a search with --words; give it too"
            )
        return {}
    fields = weights_of(word.word_field, "--word-field", "title=2")
    options: SearchOptions = {
        "text": word.words, "text_fields": fields, "code_weight": word.code_weight, "fusion": fusion,
    }  # fmt: skip
    if word.fusion_k is not None:
        options["fusion_k"] = word.fusion_k
    return options


def _plan_options(config: Path | None, **given: Any) -> SearchOptions:
    """Settings of the query plan: those of the file, overridden by each that was given.

    A target recall and a plan of one's own exclude each other, so either one replaces the other of the file.
    """
    from ..tuning.settings_file import Settings

    chosen = {name: value for name, value in given.items() if value is not None}
    filed: dict[str, Any] = {} if "target_recall" in chosen else dict(Settings.read(config).search)
    if chosen:
        filed.pop("target_recall", None)
    return cast("SearchOptions", {**filed, **chosen})
