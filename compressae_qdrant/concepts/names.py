"""Names of concepts from the terms that distinguish their strongest items: class-based TF-IDF, each concept a class.

The weight of a term in a concept is the share of the concept's strongest items that contain the term, times the term's
inverse document frequency with each concept as one document (Grootendorst, BERTopic, arXiv 2203.05794). Items are
counted instead of occurrences, so that one long text cannot name a concept. An item without the term in its title
counts half; otherwise phrases that many similar texts share would dominate the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import scipy.sparse as sp

from ..lazy import needs_extra

__all__ = ["Namer", "distinctive_terms", "unique_name"]

Namer = Callable[[Sequence[str], Sequence[str]], str]
"""Returns a name from a concept's terms and the titles of its strongest items, for example with a language model."""

_MAX_TERMS: Final = 8
"""Maximum number of terms of a concept."""
_MIN_SHARE: Final = 0.2
"""Minimum share of a concept's items that contain a term; terms of only one or two items are not descriptive."""
_PHRASE_SHARE: Final = 0.6
"""Minimum share of the items with a word that contain it in a phrase, for the phrase to replace the word."""
_NAME_TERMS: Final = 2
_TOKEN: Final = r"(?u)[^\W\d_][\w+#.-]*[\w+#]"  # noqa: S105 (not a password: words, including c++, node.js and f-spot)


def distinctive_terms(
    texts: Sequence[str],
    titles: Sequence[str],
    members: Sequence[Sequence[int]],
    stop_words: str | None = "english",
) -> list[list[str]]:
    """At most eight terms of one or two words for each concept, best first.

    Args:
        texts: texts of all strongest items.
        titles: titles of the same items.
        members: for each concept, the positions of its strongest items in `texts`.
        stop_words: a stop word list of scikit-learn; None for languages without one.

    Raises:
        MissingExtraError: scikit-learn is not installed (extra `concepts`).
    """
    with needs_extra("concepts", "naming concepts", "scikit-learn"):
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    counter = CountVectorizer(
        binary=True, ngram_range=(1, 2), stop_words=stop_words, token_pattern=_TOKEN, min_df=min(2, len(texts)),
        dtype=np.float32,
    )  # fmt: skip
    try:
        contained = counter.fit_transform(texts)
    except ValueError:  # no text contains a word: catalogs without texts have no terms
        return [[] for _ in members]
    contained = (contained + counter.transform(titles)) / 2
    sizes = np.array([max(len(rows), 1) for rows in members])
    rows = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    columns = np.array([row for rows in members for row in rows], np.int64)
    ones = np.ones(len(columns), np.float32)
    shares = sp.diags_array(1 / sizes) @ sp.csr_array((ones, (rows, columns)), (len(members), len(texts))) @ contained
    shares = sp.csr_array(shares)
    weights = sp.csr_array(TfidfTransformer(norm=None).fit_transform(shares))
    names = counter.get_feature_names_out()
    terms = []
    for concept in range(len(members)):
        part = slice(shares.indptr[concept], shares.indptr[concept + 1])
        share = dict(zip(names[shares.indices[part]].tolist(), shares.data[part].tolist(), strict=True))
        part = slice(weights.indptr[concept], weights.indptr[concept + 1])
        weight = zip(weights.data[part].tolist(), names[weights.indices[part]].tolist(), strict=True)
        terms.append(_selected([term for _, term in sorted(weight, key=lambda w: (-w[0], w[1]))], share))
    return terms


def _selected(ranked: Sequence[str], share: dict[str, float]) -> list[str]:
    """The best terms, without terms that share a word with a better one."""
    common = [term for term in ranked if share[term] >= _MIN_SHARE]
    kept: list[str] = []
    for term in common:
        phrase = _phrase_of(term, common, share)
        if not any(set(phrase.split()) & set(other.split()) for other in kept):
            kept.append(phrase)
        if len(kept) == _MAX_TERMS:
            break
    return kept


def _phrase_of(word: str, terms: Sequence[str], share: dict[str, float]) -> str:
    """The phrase that contains the word in most of its items, or the word itself."""
    phrases = [term for term in terms if " " in term and word in term.split()]
    best = max(phrases, key=lambda phrase: share[phrase], default=word)
    return best if share[best] >= _PHRASE_SHARE * share[word] else word


def unique_name(terms: Sequence[str], latent: int, taken: set[str]) -> str:
    """A name made of the first terms that is not taken: it uses as many terms as needed, and else the latent's number.

    Args:
        terms: terms of the concept, best first.
        latent: number of the latent.
        taken: existing names in lower case; the new name is added.
    """
    names = [", ".join(terms[:count]) for count in range(min(_NAME_TERMS, len(terms)), len(terms) + 1) if terms]
    numbered = f"{names[0]} #{latent}" if names else f"latent {latent}"
    name = next((name for name in names if name.casefold() not in taken), numbered)
    taken.add(name.casefold())
    return name
