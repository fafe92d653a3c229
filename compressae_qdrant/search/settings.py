"""Options of a search: types, defaults and checks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack, get_args

from ..checks import check_choice, check_flag, check_number, check_sequence, check_text, check_whole, shown
from ..errors import InvalidInputError
from ..index.text import RRF_K, Fusion
from ..model.config import Method
from ..scoring import Scoring

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["DEFAULTS", "FirstStage", "SearchOptions", "SearchSettings", "ranks_of", "search_settings"]


FirstStage = Literal["auto", "codes", "graph", "both"]
"""What finds the candidates of a search; see `SearchOptions.first_stage`."""


class SearchOptions(TypedDict, total=False):
    """Keyword arguments of the search methods. Every option may be left out; `DEFAULTS` holds the defaults."""

    filter: models.Filter | None
    """Payload condition that every hit must meet."""
    offset: int
    """Best hits to leave out, for the next pages of a result. The number of candidates grows with it; give every page
    the same `prefetch` if an item must not change its page."""
    score_threshold: float | None
    """Lowest score of a hit, in the unit of the hits' scores: by default an estimate of the cosine, with stored
    embeddings the cosine itself."""
    scoring: Scoring
    """Similarity that ranks the hits."""
    text: str | Sequence[str] | None
    """Words to search for in text fields of the payload (`IndexSettings.text_fields`), besides the query. The engine
    ranks items by the codes and by BM25 in each field, and fuses the rankings; scores are then those of the fusion. A
    batch takes one text for all queries, or one for each. Filters hold for all rankings; a word that every hit must
    have belongs in `filter`."""
    text_fields: Mapping[str, float] | Sequence[str] | None
    """Fields to search for the words, with weights if given; None takes all text fields of the index."""
    fusion: Fusion
    """How rankings are fused: "rrf" by ranks, or "dbsf", the sum of normalised scores, which has no weights."""
    fusion_k: int
    """Constant of reciprocal rank fusion; see `index.text.TextSearch.k`."""
    code_weight: float
    """Weight of the ranking by codes in the fusion; 0 searches for the words alone."""
    prefetch: int | None
    """Candidates that the first stage passes on to rescoring. The default is 100, or three times the limit if that is
    more; four times where embeddings rescore, and once more for every 16 non-zeros of a code above 32. Rescoring one
    candidate takes about 6 microseconds in a search by codes, whatever the number of items. Where `first_stage_latents`
    is left out too, a catalog of more than 65,536 items is searched by fewer latents for more candidates (see
    `default_plan`): 320 latents and 400 candidates for 10 of a million items. The default of the graph is 16, or 1.2
    times the limit; 30, or 1.8 times, where kept embeddings rank the candidates. Navigation vectors that hold less than
    0.9 of an item (`CompresSAE.navigation_share`) need more candidates: 60, or 1.8 times, and 90, or four times."""
    first_stage: FirstStage
    """What finds the candidates: "codes", the inverted index; "graph", the navigation vectors and their graph; "both",
    which unites the candidates of each, by default as many as those of the graph. "auto" takes the graph where the
    index has one, the search can use it, and it takes less time than codes by the measured constants of `compressae
    plan` for this number of items; with `target_recall`, by the calibration. It takes codes otherwise: for
    `first_stage_latents`, `exact`, `concepts`, `within` and sparse scoring, in indexes smaller than those that were
    measured, and in those of more than 200,000 items for filters by fields that are not indexed."""
    navigation_ef: int | None
    """Nodes that the search of the graph keeps, at least `prefetch` and `navigation_candidates`; more find more of the
    true candidates in more time. The default is 200, or 3.75 times `prefetch`; 225, or five times, where kept
    embeddings rank the candidates. With coarse navigation vectors it is 2.25 times `prefetch`, and at least as many.
    For each doubling of the index above 65,536 items, an eighth of that is added."""
    navigation_candidates: int | None
    """Nodes of the graph that are compared again by their stored navigation vectors, which are more precise than the
    quantised ones in memory; the best `prefetch` of them are the candidates. Comparing one takes less than a twentieth
    of the time of ranking a candidate by its code, and reads one vector from the disk or its cache. By default all
    nodes that the search keeps are compared. 0, or no more than there are candidates, skips this."""
    first_stage_latents: int | None
    """Latents of the query vector that search for candidates, 1,280 by default; 0 searches by the query's own code.
    One latent takes about 20 nanoseconds for every 1,000 items: 1.5 ms for 1,280 latents and 63,666 items."""
    target_recall: float | None
    """Recall@limit against exact dense search that the search must reach, in place of `prefetch`,
    `first_stage_latents` and `navigation_ef`. The model's calibration (`compressae calibrate`) chooses the cheapest
    plan that does, by the graph or by codes, or of the first stage that `first_stage` names."""
    exact: bool
    """Whether the first stage uses the whole query vector, so that every item sharing a latent with it is scored."""
    dense_candidates: int | None
    """Rescored candidates that are scored once more by the embeddings that the index keeps (`keep_dense`); asymmetric
    scoring only. Where the index keeps embeddings, the default is three times the limit for a search by codes, and all
    candidates for one by the graph; 0 turns this off."""
    query_method: Method
    """How the query is encoded, where the scoring or `first_stage_latents=0` needs its code. Items that the encoder
    coded are found by sparse scoring only if the encoder codes the query too."""
    with_payload: bool
    """Whether hits carry their payload."""
    with_codes: bool
    """Whether hits carry their code (`Hit.indices`, `Hit.values`); `stacked_codes` makes one value of them."""
    with_dense: bool
    """Whether hits carry their embedding (`Hit.dense`), which an index with `keep_dense` has."""
    rescore_in_engine: bool | None
    """Whether the engine rescores; otherwise the candidates' codes are fetched and rescored in this process, with the
    same result. None, the default, chooses what takes less time: this process for at most 40 candidates of the graph
    that nothing but their codes ranks, which need no query vector of all latents. Their payloads are read too."""
    concepts: Mapping[str, float] | None
    """Weights that steer the search, by the name of a concept or by a latent with its sign ("+17"). A weight is added
    to the query vector at the concept's latents, so an item gains the weight times its own value there. With asymmetric
    scoring, 0.3 has the effect of a query whose cosine with the latent's atom is 0.3 higher. Stored embeddings do not
    reflect the weights, so they do not rescore a steered search."""
    within: str | None
    """Concept that every hit must have. The candidates are the items with its highest values: 10,000 unless `prefetch`
    is given, or a million with `exact`."""
    within_strength: float
    """Lowest value of the `within` concept in an item's code; a hit's value is above 0 in any case."""


class SearchSettings(SearchOptions):
    """All options of one search, complete and checked; made by `search_settings`."""

    limit: int
    """Hits to return."""


DEFAULTS: Final[SearchOptions] = {
    "filter": None,
    "offset": 0,
    "score_threshold": None,
    "scoring": "asymmetric",
    "text": None,
    "text_fields": None,
    "fusion": "rrf",
    "fusion_k": RRF_K,
    "code_weight": 1.0,
    "prefetch": None,
    "first_stage": "auto",
    "navigation_ef": None,
    "navigation_candidates": None,
    "first_stage_latents": None,
    "target_recall": None,
    "exact": False,
    "dense_candidates": None,
    "query_method": "pursuit",
    "with_payload": True,
    "with_codes": False,
    "with_dense": False,
    "rescore_in_engine": None,
    "concepts": None,
    "within": None,
    "within_strength": 0.0,
}
"""The value of each option that a search does not name; None lets the planner choose."""


_PLAIN_TYPES: Final = frozenset({bool, int, float, str, NoneType})


def search_settings(limit: int = 10, **options: Unpack[SearchOptions]) -> SearchSettings:
    """Complete the options of a search with the defaults, and check them.

    Raises:
        InvalidInputError: an option is unknown or out of range, or contradicts another.
    """
    if type(limit) is int and all(type(value) in _PLAIN_TYPES for value in options.values()):
        return {**_remembered(limit, **options)}
    return _checked(limit, **options)


@functools.lru_cache(maxsize=256, typed=True)
def _remembered(limit: int, **options: Unpack[SearchOptions]) -> SearchSettings:
    """`_checked` for plain values, which most searches repeat: the checks take a tenth of a short search's time."""
    return _checked(limit, **options)


def _checked(limit: int, **options: Unpack[SearchOptions]) -> SearchSettings:
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise InvalidInputError(
            f"search has no setting {', '.join(sorted(unknown))}; it has limit, {', '.join(DEFAULTS)}"
        )
    settings: SearchSettings = {**DEFAULTS, **options, "limit": limit}
    _check_choices(settings)
    _check_sizes(settings)
    _check_threshold(settings)
    _check_text(settings)
    _check_dense(settings)
    _check_within(settings)
    _check_graph(settings)
    if settings["target_recall"] is not None:
        settings["target_recall"] = check_number("target_recall", settings["target_recall"])
        _check_target(settings, settings["target_recall"])
    return settings


def ranks_of(settings: SearchSettings) -> int:
    """Ranks that a search has to find: those it returns, and those that the offset leaves out."""
    return settings["limit"] + settings["offset"]


def _ranks_text(settings: SearchSettings) -> str:
    limit, offset = settings["limit"], settings["offset"]
    return f"limit is {limit}" if not offset else f"limit and offset are {limit} and {offset}"


def _check_threshold(settings: SearchSettings) -> None:
    if settings["score_threshold"] is not None:
        settings["score_threshold"] = check_number("score_threshold", settings["score_threshold"])


def _is_default(name: str, value: object) -> bool:
    """Whether an option has its default. Values of other types are not compared: some raise errors of their own."""
    return isinstance(value, (int, float, str, NoneType)) and value == DEFAULTS[name]  # type: ignore[literal-required]


def _check_text(settings: SearchSettings) -> None:
    if settings["text"] is None:
        others = ("text_fields", "fusion", "fusion_k", "code_weight")
        changed = [name for name in others if not _is_default(name, settings[name])]  # type: ignore[literal-required]
        if changed:
            raise InvalidInputError(f"{changed[0]} is given without text, the words to search for; give text too")
        return
    text, fields = settings["text"], settings["text_fields"]
    if not isinstance(text, str):
        check_sequence("text", text)
        for one in text:
            check_text("text", one)
        settings["text"] = text = list(text)
    if fields is not None and not isinstance(fields, (str, Mapping)):
        check_sequence("text_fields", fields)
    for name in () if fields is None or isinstance(fields, str) else fields:
        check_text("a name in text_fields", name)
    if isinstance(fields, Mapping):
        settings["text_fields"] = {name: check_number(f"text_fields[{name!r}]", fields[name]) for name in fields}
    settings["fusion_k"] = check_whole("fusion_k", settings["fusion_k"])
    settings["code_weight"] = check_number("code_weight", settings["code_weight"])
    reasons = {
        "score_threshold, as fused scores have no unit": settings["score_threshold"] is not None,
        "within, as words find items without the concept": settings["within"] is not None,
        "rescore_in_engine=False, as the engine fuses": settings["rescore_in_engine"] is False,
    }
    for reason, applies in reasons.items():
        if applies:
            raise InvalidInputError(f"text cannot be combined with {reason}; leave one of them out")


def _check_choices(settings: SearchSettings) -> None:
    for name, value, choices in (
        ("query_method", settings["query_method"], get_args(Method)),
        ("scoring", settings["scoring"], get_args(Scoring)),
        ("first_stage", settings["first_stage"], get_args(FirstStage)),
    ):
        check_choice(name, value, choices)
    settings["exact"] = check_flag("exact", settings["exact"])
    settings["with_payload"] = check_flag("with_payload", settings["with_payload"])
    if settings["rescore_in_engine"] is not None:
        settings["rescore_in_engine"] = check_flag("rescore_in_engine", settings["rescore_in_engine"])
    settings["with_codes"] = check_flag("with_codes", settings["with_codes"])
    settings["with_dense"] = check_flag("with_dense", settings["with_dense"])
    concepts = settings["concepts"]
    if concepts is not None and not isinstance(concepts, Mapping):
        raise InvalidInputError(f"concepts are {shown(concepts)}; pass a mapping of names to weights")
    if settings["within"] is not None:
        check_text("within", settings["within"])


def _check_sizes(settings: SearchSettings) -> None:
    for name in (
        "limit",
        "offset",
        "prefetch",
        "first_stage_latents",
        "dense_candidates",
        "navigation_ef",
        "navigation_candidates",
    ):
        value = settings[name]
        if value is not None or name in ("limit", "offset"):
            settings[name] = check_whole(name, value)
    limit, prefetch, latents = settings["limit"], settings["prefetch"], settings["first_stage_latents"]
    if limit < 1:
        raise InvalidInputError(f"limit is {limit}; ask for at least 1 hit")
    if settings["offset"] < 0:
        raise InvalidInputError(f"offset is {settings['offset']}; it must be at least 0")
    if prefetch is not None and prefetch < ranks_of(settings):
        raise InvalidInputError(
            f"prefetch is {prefetch} but {_ranks_text(settings)}; rescoring needs at least as many candidates"
        )
    if latents is not None and latents < 0:
        raise InvalidInputError(f"first_stage_latents is {latents}; it must be at least 0 (the query's own code)")


def _check_dense(settings: SearchSettings) -> None:
    dense = settings["dense_candidates"]
    if not dense:
        return
    if dense < 0:
        raise InvalidInputError(f"dense_candidates is {dense}; it must be at least 0")
    if settings["scoring"] != "asymmetric" or settings["rescore_in_engine"] is False:
        raise InvalidInputError(
            f"dense_candidates={dense} needs asymmetric scoring and rescoring in the engine; set it to 0"
        )
    if dense < ranks_of(settings):
        raise InvalidInputError(f"dense_candidates is {dense} but {_ranks_text(settings)}; it needs at least as many")
    if any((settings["concepts"] or {}).values()):
        raise InvalidInputError(
            f"dense_candidates is {dense} but concepts steer the search, which embeddings would undo; leave one of "
            "them out"
        )


def _check_within(settings: SearchSettings) -> None:
    strength, within = check_number("within_strength", settings["within_strength"]), settings["within"]
    settings["within_strength"] = strength
    if strength and (within is None or strength < 0):
        raise InvalidInputError(
            f"within_strength is {strength} and within is {within!r}; within_strength must be a finite number of at "
            "least 0 and needs the concept that within names"
        )


def _check_graph(settings: SearchSettings) -> None:
    ef = settings["navigation_ef"]
    if ef is not None and ef < 1:
        raise InvalidInputError(f"navigation_ef is {ef}; it must be at least 1")
    compared, least = settings["navigation_candidates"], settings["prefetch"] or ranks_of(settings)
    if compared is not None and compared < 0:
        raise InvalidInputError(f"navigation_candidates is {compared}; it must be at least 0")
    if compared and compared < least:
        raise InvalidInputError(
            f"navigation_candidates is {compared} but {least} candidates are needed; it must be 0 or at least as many"
        )
    if settings["first_stage"] not in ("graph", "both"):
        return
    reasons = {
        "exact=True scores every item by its code": settings["exact"],
        "within takes its candidates from the inverted index": settings["within"] is not None,
        "target_recall chooses a plan of one first stage": settings["first_stage"] == "both"
        and settings["target_recall"] is not None,
        "sparse scoring is not what navigation vectors approximate": settings["scoring"] == "sparse",
        "concepts steer the search, which navigation vectors do not reflect": settings["first_stage"] == "graph"
        and any((settings["concepts"] or {}).values()),
        "first_stage_latents are for codes": settings["first_stage"] == "graph"
        and settings["first_stage_latents"] is not None,
        "rescore_in_engine=False works with one first stage": settings["first_stage"] == "both"
        and settings["rescore_in_engine"] is False,
    }
    for reason, applies in reasons.items():
        if applies:
            raise InvalidInputError(f"first_stage is {settings['first_stage']!r}, but {reason}; leave one of them out")


def _check_target(settings: SearchSettings, target: float) -> None:
    if not 0 < target <= 1:
        raise InvalidInputError(f"target_recall is {target}; it must be above 0 and at most 1")
    given = {
        "prefetch": settings["prefetch"] is not None,
        "first_stage_latents": settings["first_stage_latents"] is not None,
        "navigation_ef": settings["navigation_ef"] is not None,
        "navigation_candidates": settings["navigation_candidates"] is not None,
        "exact": settings["exact"],
        "dense_candidates": bool(settings["dense_candidates"]),
        "within": settings["within"] is not None,
        "concepts": any((settings["concepts"] or {}).values()),
        "scoring": settings["scoring"] != "asymmetric",
    }
    others = [name for name, is_given in given.items() if is_given]
    if others:
        raise InvalidInputError(
            f"target_recall is {target} and {', '.join(others)} given too; target_recall chooses the plan of a plain "
            "search by asymmetric scoring, so leave one of them out"
        )
