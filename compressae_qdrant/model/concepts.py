"""Concepts: names and statistics of the latents of a model, stored in a file of the model that users may edit."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from ..errors import InvalidInputError, ModelFileError, ModelMismatchError
from ..files import write_text

__all__ = ["CONCEPTS_FILE", "Concept", "Concepts", "StrongItem", "rename_foreign", "use_order"]

CONCEPTS_FILE: Final = "concepts.json"
"""Name of the file in a model's directory."""

_FORMAT: Final = 1
_MAX_SUGGESTIONS: Final = 4
"""Names that an error message suggests."""


@dataclass(frozen=True)
class StrongItem:
    """An item that uses a latent and is close to its atom."""

    id: int | str
    title: str
    """Title of the item, one line."""
    value: float
    """|value| of the latent in the item's code, at projection scale."""
    cosine: float
    """Cosine of the item's embedding with the latent's atom, times the sign of the concept."""


@dataclass(frozen=True)
class Concept:
    """One latent with the sign that most of its stored values have.

    Pursuit gives a latent values of both signs, but those of one sign dominate. The others are few and small, and
    correct contributions of other atoms. A latent is therefore one concept with a sign; items with the other sign are
    opposed to it.
    """

    latent: int
    sign: int
    """+1 or -1: sign of the stored values that represent this concept."""
    name: str
    """Name of the concept: the suggested name, unless a user edited it."""
    suggested: str
    """Name derived from the terms. A different `name` was edited by a user and is kept by later runs."""
    terms: tuple[str, ...]
    """Terms that distinguish its strongest items, best first."""
    items: int
    """Number of items that use the latent."""
    opposed: int
    """Number of items that use the latent with the other sign."""
    strength: float
    """Mean |value| over the items that use the latent."""
    strongest: tuple[StrongItem, ...]
    """Items with the highest cosine, closest first."""
    main: int = 0
    """Number of items whose main concept it is: it has the largest share in their codes, value times cosine with the
    atom. 0 in files of older versions."""

    @property
    def key(self) -> str:
        """Identifier of the concept that does not depend on its name: sign and latent, such as "+17"."""
        return f"{'+' if self.sign > 0 else '-'}{self.latent}"

    @property
    def edited(self) -> bool:
        """Whether a user edited the name."""
        return self.name != self.suggested


@dataclass(frozen=True)
class Concepts:
    """Concepts of one model, determined on one catalog."""

    fingerprint: str
    """Fingerprint of the model."""
    items: int
    """Number of items of the catalog."""
    concepts: tuple[Concept, ...]
    """Concepts by ascending latent. A latent that no item uses has no concept."""

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def of_latent(self, latent: int) -> Concept | None:
        """Return the concept of a latent, or None."""
        return self._by_latent.get(latent)

    def named(self, name: str) -> list[Concept]:
        """Return the concepts with a name, ignoring letter case and repeated blanks. Several latents may share a name.

        Raises:
            InvalidInputError: there is no such name; the message suggests similar ones.
        """
        found = self._by_name.get(_key(name))
        if found is None:
            known = list(self._by_name)
            close = difflib.get_close_matches(_key(name), known, _MAX_SUGGESTIONS, 0.6)
            close += [other for other in known if _key(name) in other and other not in close][
                : _MAX_SUGGESTIONS - len(close)
            ]
            hint = f"did you mean {', '.join(map(repr, close))}?" if close else "no name is similar;"
            raise InvalidInputError(f"there is no concept {name!r}; {hint} see `compressae concepts --search`")
        return found

    def search(self, word: str) -> list[Concept]:
        """Find concepts by a text in their names, their terms or the titles of their strongest items.

        Matches in names come first, then those in terms, then those in titles; each group is ordered as by `most_used`.
        """
        text = _key(word)

        def rank(concept: Concept) -> int | None:
            places = (
                [concept.name, concept.suggested],
                concept.terms,
                [item.title for item in concept.strongest],
            )
            return next((n for n, texts in enumerate(places) if any(text in _key(other) for other in texts)), None)

        ranked = [(place, concept) for concept in self.most_used() if (place := rank(concept)) is not None]
        return [concept for _, concept in sorted(ranked, key=lambda pair: pair[0])]

    def most_used(self, count: int | None = None) -> list[Concept]:
        """Return concepts by descending `main`, then by descending `items`; all or the first `count`."""
        return sorted(self, key=lambda one: use_order(one.main, one.items, one.latent))[:count]

    def save(self, directory: Path) -> None:
        """Write `concepts.json` to a model's directory, in one step. A file of another model is renamed."""
        rename_foreign(directory, self.fingerprint)
        write_text(directory / CONCEPTS_FILE, self.to_json())

    def to_json(self) -> str:
        """Return the text of the file: JSON with a few lines for each concept, its name in the first, for editing."""
        head = json.dumps({"format": _FORMAT, "fingerprint": self.fingerprint, "items": self.items})
        concepts = ",\n".join(map(_lines, self.concepts))
        return f'{head[:-1]}, "concepts": [\n{concepts}\n]}}\n'

    @classmethod
    def load(cls, directory: Path, fingerprint: str) -> Self | None:
        """Read the concepts of a model from its directory; None if there are none.

        Raises:
            ModelFileError: the file is invalid, perhaps after an edit; the message says where.
            ModelMismatchError: the concepts belong to another model.
        """
        path = directory / CONCEPTS_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise ModelFileError(
                f"cannot read {path}: {exc}; check its permissions, or delete it and run `compressae concepts` again"
            ) from exc
        concepts = cls._parsed(text, path)
        if concepts.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"{path} belongs to model {concepts.fingerprint!r} but the model here is {fingerprint!r}; "
                "run `compressae concepts` again"
            )
        return concepts

    @classmethod
    def load_previous(cls, directory: Path, fingerprint: str) -> Self | None:
        """Read the concepts of the previous run as `load` does, but return None if they belong to another model."""
        try:
            return cls.load(directory, fingerprint)
        except ModelMismatchError:
            return None

    @classmethod
    def _parsed(cls, text: str, path: Path) -> Self:
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise ModelFileError(f"{path} is not valid JSON: {exc}; correct the file or delete it") from exc
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            version = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise ModelFileError(f"{path} has concept format {version!r}, this version reads {_FORMAT}; run "
                                 "`compressae concepts` again")  # fmt: skip
        try:
            return cls(data["fingerprint"], int(data["items"]), tuple(map(_concept, data["concepts"])))
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelFileError(
                f"{path} has a missing or invalid field ({type(exc).__name__}: {exc}); correct the file or delete it"
            ) from exc

    @cached_property
    def _by_latent(self) -> dict[int, Concept]:
        return {concept.latent: concept for concept in self}

    @cached_property
    def _by_name(self) -> dict[str, list[Concept]]:
        names: dict[str, list[Concept]] = {}
        for concept in self:
            names.setdefault(_key(concept.name), []).append(concept)
        return names


def use_order(main: int, items: int, latent: int) -> tuple[int, int, int]:
    """Return the sort key of `Concepts.most_used`."""
    return -main, -items, latent


def rename_foreign(directory: Path, fingerprint: str) -> None:
    """Rename a `concepts.json` that belongs to another model, because its names may have been edited."""
    path = directory / CONCEPTS_FILE
    try:
        other = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        other = "unreadable"
    if other != fingerprint:
        path.replace(path.with_stem(f"{path.stem}-{other}"))


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _lines(concept: Concept) -> str:
    fields = dataclasses.asdict(concept)
    items = [json.dumps(item, ensure_ascii=False) for item in fields.pop("strongest")]
    rest = [json.dumps({name: fields.pop(name)}, ensure_ascii=False)[1:-1] for name in ("latent", "sign", "name")]
    more = json.dumps(fields, ensure_ascii=False)[1:-1]
    return "{" + ", ".join(rest) + ",\n " + more + ',\n "strongest": [' + ",\n  ".join(items) + "]}"


def _concept(data: dict[str, Any]) -> Concept:
    texts = [data["name"], data["suggested"], *data["terms"]]
    if not all(isinstance(text, str) for text in texts) or not data["name"].strip():
        raise ValueError(
            f"latent {data['latent']} has name {data['name']!r}; its texts must be strings, its name not empty"
        )
    if data["sign"] not in (1, -1):
        raise ValueError(f"latent {data['latent']} has sign {data['sign']!r}; it must be 1 or -1")
    strongest: Sequence[dict[str, Any]] = data["strongest"]
    return Concept(
        latent=int(data["latent"]), sign=data["sign"], name=data["name"], suggested=data["suggested"],
        terms=tuple(data["terms"]), items=int(data["items"]), opposed=int(data["opposed"]),
        strength=float(data["strength"]),
        strongest=tuple(
            StrongItem(one["id"], str(one["title"]), float(one["value"]), float(one["cosine"])) for one in strongest
        ),
        main=int(data.get("main", 0)),
    )  # fmt: skip
