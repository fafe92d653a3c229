"""Names from the terms that set a concept's strongest items apart: class-based TF-IDF, a concept being a class.

The weight of a term in a concept is the share of its strongest items that hold the term, times the inverse document
frequency of the term where each concept counts as one document (Grootendorst, BERTopic, arXiv 2203.05794, with items
that hold a term in place of its occurrences: one long text must not name a concept). An item that doesn't have the term
in its title counts half, or the phrases that all texts of one family share would name everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import scipy.sparse as sp

from ..errors import MissingExtraError

__all__ = ["Namer", "distinctive_terms", "unique_name"]

Namer = Callable[[Sequence[str], Sequence[str]], str]
"""Terms and titles of the strongest items in, a name out: for a language model's names."""

_TERMS: Final = 8
"""Terms kept for each concept."""
_LEAST_SHARE: Final = 0.2
"""Of a concept's items that must hold a term: what one or two items say names nothing."""
_PHRASE_SHARE: Final = 0.6
"""Of the items with a word, how many must have it in a phrase for the phrase to stand for the word."""
_NAME_TERMS: Final = 2
_TOKEN: Final = r"(?u)[^\W\d_][\w+#.-]*[\w+#]"  # noqa: S105 (no password: a word, with what c++, node.js and f-spot need)


def distinctive_terms(
    texts: Sequence[str],
    titles: Sequence[str],
    members: Sequence[Sequence[int]],
    stop_words: str | None = "english",
) -> list[list[str]]:
    """For each concept at most eight terms of one or two words, best first.

    Args:
        texts: of the items that any concept has.
        titles: of the same items.
        members: for each concept the numbers of its strongest items in `texts`.
        stop_words: of scikit-learn; None for a language that it doesn't know.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    except ImportError as exc:
        raise MissingExtraError(
            "naming concepts needs scikit-learn; install it by: pip install 'compressae-qdrant[concepts]'"
        ) from exc
    counter = CountVectorizer(
        binary=True, ngram_range=(1, 2), stop_words=stop_words, token_pattern=_TOKEN, min_df=min(2, len(texts)),
        dtype=np.float32,
    )  # fmt: skip
    try:
        held = counter.fit_transform(texts)
    except ValueError:  # no text has a word: catalogs without texts get no terms
        return [[] for _ in members]
    held = (held + counter.transform(titles)) / 2
    sizes = np.array([max(len(rows), 1) for rows in members])
    rows = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    columns = np.array([row for rows in members for row in rows], np.int64)
    ones = np.ones(len(columns), np.float32)
    shares = sp.diags_array(1 / sizes) @ sp.csr_array((ones, (rows, columns)), (len(members), len(texts))) @ held
    shares = sp.csr_array(shares)
    weights = sp.csr_array(TfidfTransformer(norm=None).fit_transform(shares))
    names = counter.get_feature_names_out()
    found = []
    for concept in range(len(members)):
        part = slice(shares.indptr[concept], shares.indptr[concept + 1])
        share = dict(zip(names[shares.indices[part]].tolist(), shares.data[part].tolist(), strict=True))
        part = slice(weights.indptr[concept], weights.indptr[concept + 1])
        weight = zip(weights.data[part].tolist(), names[weights.indices[part]].tolist(), strict=True)
        found.append(_chosen([term for _, term in sorted(weight, key=lambda w: (-w[0], w[1]))], share))
    return found


def _chosen(ranked: Sequence[str], share: dict[str, float]) -> list[str]:
    """The best terms, none of which says again what another says."""
    common = [term for term in ranked if share[term] >= _LEAST_SHARE]
    kept: list[str] = []
    for term in common:
        phrase = _phrase_of(term, common, share)
        if not any(set(phrase.split()) & set(other.split()) for other in kept):
            kept.append(phrase)
        if len(kept) == _TERMS:
            break
    return kept


def _phrase_of(word: str, terms: Sequence[str], share: dict[str, float]) -> str:
    """The phrase in which most items have a word, or the word."""
    phrases = [term for term in terms if " " in term and word in term.split()]
    best = max(phrases, key=lambda phrase: share[phrase], default=word)
    return best if share[best] >= _PHRASE_SHARE * share[word] else word


def unique_name(terms: Sequence[str], latent: int, taken: set[str]) -> str:
    """A name of the first terms that no other concept has: with as many terms as that takes, or the latent's number.

    `taken` are the names there are, in lower case; this one is added.
    """
    names = [", ".join(terms[:count]) for count in range(min(_NAME_TERMS, len(terms)), len(terms) + 1) if terms]
    numbered = f"{names[0]} #{latent}" if names else f"latent {latent}"
    name = next((name for name in names if name.casefold() not in taken), numbered)
    taken.add(name.casefold())
    return name
