"""find_concepts(): collect the strongest items of each latent in one pass over a catalog, then name the latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .. import scoring as similarity
from ..codes import FloatArray
from ..errors import InvalidInputError, SourceError
from ..model.compressae import CompresSAE
from ..model.concepts import Concept, Concepts, StrongItem, use_order
from ..model.config import Method
from ..model.pursuit import ATOMS_PER_STEP
from ..sources.source import Batch, Source
from .names import Namer, distinctive_terms, unique_name
from .strongest_items import LatentUsage, StrongestItems

__all__ = ["find_concepts"]

_TEXT_CHARACTERS: Final = 1000
"""Characters of an item's text used for naming; bounds the memory of an item."""
_DIGITS: Final = 4
_TITLE_CHARACTERS: Final = 100
_TITLE_FIELDS: Final = ("title", "name")


@dataclass(frozen=True, eq=False)
class _Item:
    id: int | str
    title: str
    text: str


def find_concepts(
    source: Source,
    model: CompresSAE,
    *,
    keep: int = 20,
    fields: Sequence[str] | None = None,
    stop_words: str | None = "english",
    namer: Namer | None = None,
    known: Concepts | None = None,
    method: Method = "pursuit",
    atoms_per_step: int = ATOMS_PER_STEP,
    batch_size: int = 2048,
    on_batch: Callable[[Batch], None] | None = None,
) -> Concepts:
    """Find the concepts of a model on a catalog: strongest items, usage counts and names. The catalog is read once;
    memory is bounded by `keep` items for each latent and sign.

    Args:
        source: the catalog.
        model: the model; it is not changed.
        keep: strongest items stored for each concept.
        fields: payload fields whose texts are used for naming; None uses every text field.
        stop_words: "english", or None; words that are not used in names.
        namer: creates each name from terms and titles, for example with a language model. It is not called for
            concepts that were named by hand.
        known: earlier concepts of the same model; names given by hand are kept.
        method: coding method; see `CompresSAE.encode`.
        atoms_per_step: atoms selected in each step of pursuit.
        batch_size: rows read and encoded at a time.
        on_batch: called after each batch.

    Raises:
        SourceError: the catalog has no items, or no item has any of the fields.
        MissingExtraError: scikit-learn is not installed.
        InvalidInputError: a setting is out of range, or `namer` did not return a text.
    """
    if keep < 1:
        raise InvalidInputError(f"keep is {keep}; it must be at least 1 item for each concept")
    atoms: FloatArray = model.atoms.detach().cpu().numpy()
    strongest = StrongestItems(model.latents, keep)
    for batch in source.batches(batch_size):
        if batch.ids:
            unit = batch.unit_rows()
            codes = model.encode(unit, method, atoms_per_step=atoms_per_step)
            items = [_item(id, payload, fields) for id, payload in zip(batch.ids, batch.payloads, strict=True)]
            products = similarity.asymmetric(atoms, unit.rows)
            strongest.add(codes, np.take_along_axis(products, codes.indices, axis=1), items)
        if on_batch is not None:
            on_batch(batch)
    usage = strongest.usage()
    if not usage:
        raise SourceError("the source has no items; find concepts on a catalog with items")
    if fields is not None and not any(strong.item.text for latent in usage for strong in latent.strongest):
        raise SourceError(f"no item has a text in {', '.join(map(repr, fields))}; choose text fields of the payload")
    terms = _terms(usage, stop_words)
    by_hand = {} if known is None else {concept.latent: concept.name for concept in known if concept.edited}
    concepts = _named(usage, terms, namer, by_hand)
    return Concepts(model.fingerprint, strongest.rows, tuple(sorted(concepts, key=lambda concept: concept.latent)))


def _terms(usage: Sequence[LatentUsage], stop_words: str | None) -> list[list[str]]:
    numbers: dict[_Item, int] = {}
    members = [[numbers.setdefault(strong.item, len(numbers)) for strong in latent.strongest] for latent in usage]
    texts, titles = [item.text for item in numbers], [item.title for item in numbers]
    return distinctive_terms(texts, titles, members, stop_words)


def _named(
    usage: Sequence[LatentUsage], terms: Sequence[Sequence[str]], namer: Namer | None, by_hand: Mapping[int, str]
) -> list[Concept]:
    """Concepts with unique names; the most used concepts are named first."""
    taken = {name.casefold() for name in by_hand.values()}
    concepts = []
    pairs = zip(usage, terms, strict=True)
    for one, own in sorted(pairs, key=lambda pair: use_order(pair[0].main, pair[0].items, pair[0].latent)):
        suggested = unique_name(own, one.latent, taken)
        concept = Concept(
            latent=one.latent, sign=one.sign, name=suggested, suggested=suggested, terms=tuple(own), items=one.items,
            opposed=one.opposed, strength=round(one.strength, _DIGITS),
            strongest=tuple(
                StrongItem(
                    strong.item.id, strong.item.title, round(strong.value, _DIGITS), round(strong.closeness, _DIGITS)
                )
                for strong in one.strongest
            ),
            main=one.main,
        )  # fmt: skip
        if one.latent in by_hand:
            concept = dataclasses.replace(concept, name=by_hand[one.latent])
        elif namer is not None:
            name = _name_from(namer, concept, taken)
            concept = dataclasses.replace(concept, name=name, suggested=name)
        concepts.append(concept)
    return concepts


def _name_from(namer: Namer, concept: Concept, taken: set[str]) -> str:
    name: Any = namer(concept.terms, [item.title for item in concept.strongest])
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError(f"the namer returned {name!r} for latent {concept.latent}; it must return a text")
    return unique_name([name.strip()], concept.latent, taken)


def _item(id: int | str, payload: Mapping[str, Any], fields: Sequence[str] | None) -> _Item:
    texts = [value for name, value in payload.items() if isinstance(value, str) and (fields is None or name in fields)]
    title = next((payload[name] for name in _TITLE_FIELDS if isinstance(payload.get(name), str)), None)
    line = " ".join((title or (texts[0] if texts else str(id))).split())
    return _Item(id, line[:_TITLE_CHARACTERS], " ".join(texts)[:_TEXT_CHARACTERS])
