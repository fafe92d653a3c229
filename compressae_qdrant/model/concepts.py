"""Concept and Concepts: what the latents of a model stand for, and the file beside the model that people edit."""

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

__all__ = ["CONCEPTS_FILE", "Concept", "Concepts", "StrongItem", "set_aside", "use_order"]

CONCEPTS_FILE: Final = "concepts.json"

_FORMAT: Final = 1
_CLOSE: Final = 4
"""Names that an error suggests."""


@dataclass(frozen=True)
class StrongItem:
    """An item that uses a latent, and lies close to its atom."""

    id: int | str
    title: str
    """A line for people to read."""
    value: float
    """|stored value| of the latent in its code, at projection scale."""
    cosine: float
    """Of its embedding with the latent's atom, on the concept's side."""


@dataclass(frozen=True)
class Concept:
    """One latent, on the side where most of what it stores lies.

    Pursuit gives each latent values of both signs, but one sign carries it: the other one's are few and small, and
    correct what other atoms added too much of. So a latent is one concept with a sign; items of the other sign lean
    away from it.
    """

    latent: int
    sign: int
    """+1 or -1: of the stored values that mean this concept."""
    name: str
    """What people call it: the suggestion, until someone edits it."""
    suggested: str
    """What its terms suggest. A name that differs was given by hand, and outlives the next run."""
    terms: tuple[str, ...]
    """Terms that set its strongest items apart, best first."""
    items: int
    """Items that use it."""
    opposed: int
    """Items that use the latent with the other sign."""
    strength: float
    """Mean |value| over the items that use it."""
    strongest: tuple[StrongItem, ...]
    """Closest first."""
    main: int = 0
    """Items whose main concept it is: it has the largest share in their codes, value times cosine with the atom. 0 in
    files of older versions."""

    @property
    def key(self) -> str:
        """Sign and latent, "+17": names the concept whatever people call it."""
        return f"{'+' if self.sign > 0 else '-'}{self.latent}"

    @property
    def edited(self) -> bool:
        """Whether the name was given by hand."""
        return self.name != self.suggested


@dataclass(frozen=True)
class Concepts:
    """The concepts of one model, found on one catalog."""

    fingerprint: str
    """Of the model."""
    items: int
    """Items of the catalog."""
    concepts: tuple[Concept, ...]
    """By latent, ascending. A latent that no item uses has none."""

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def of_latent(self, latent: int) -> Concept | None:
        """The concept of a latent, if it has one."""
        return self._by_latent.get(latent)

    def named(self, name: str) -> list[Concept]:
        """The concepts of a name, letter case and outer blanks aside. Several latents may be given one name by hand:
        then it means all of them.

        Raises:
            InvalidInputError: there is no such name; the message has those that come close.
        """
        found = self._by_name.get(_key(name))
        if found is None:
            known = list(self._by_name)
            close = difflib.get_close_matches(_key(name), known, _CLOSE, 0.6)
            close += [other for other in known if _key(name) in other and other not in close][: _CLOSE - len(close)]
            hint = f"did you mean {', '.join(map(repr, close))}?" if close else "none comes close;"
            raise InvalidInputError(f"there is no concept {name!r}; {hint} see `compressae concepts --search`")
        return found

    def search(self, word: str) -> list[Concept]:
        """The concepts that have a text in their name, their terms or a title of their strongest items, as `most_used`
        orders them; names before terms before titles."""
        wanted = _key(word)

        def rank(concept: Concept) -> int | None:
            places = (
                [concept.name, concept.suggested],
                concept.terms,
                [item.title for item in concept.strongest],
            )
            return next((n for n, texts in enumerate(places) if any(wanted in _key(text) for text in texts)), None)

        ranked = [(place, concept) for concept in self.most_used() if (place := rank(concept)) is not None]
        return [concept for _, concept in sorted(ranked, key=lambda found: found[0])]

    def most_used(self, count: int | None = None) -> list[Concept]:
        """The concepts that are the main one of most items first; of as many, those that more items use."""
        return sorted(self, key=lambda one: use_order(one.main, one.items, one.latent))[:count]

    def save(self, directory: Path) -> None:
        """Write `concepts.json` to a model's directory, in one step. One of another model is set aside, not lost."""
        set_aside(directory, self.fingerprint)
        write_text(directory / CONCEPTS_FILE, self.to_json())

    def to_json(self) -> str:
        """The text of the file: JSON, a concept over a few lines with its name in the first, for people to edit."""
        head = json.dumps({"format": _FORMAT, "fingerprint": self.fingerprint, "items": self.items})
        concepts = ",\n".join(map(_lines, self.concepts))
        return f'{head[:-1]}, "concepts": [\n{concepts}\n]}}\n'

    @classmethod
    def load(cls, directory: Path, fingerprint: str) -> Self | None:
        """Read the concepts in the directory of the model of that fingerprint; None if there are none.

        Raises:
            ModelFileError: the file is no such JSON, perhaps after an edit; the message says where.
            ModelMismatchError: they are of another model.
        """
        path = directory / CONCEPTS_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise ModelFileError(f"can't read {path}: {exc}") from exc
        found = cls._parsed(text, path)
        if found.fingerprint != fingerprint:
            raise ModelMismatchError(
                f"{path} has the concepts of model {found.fingerprint!r} but the model is {fingerprint!r}; run "
                "`compressae concepts` again"
            )
        return found

    @classmethod
    def before(cls, directory: Path, fingerprint: str) -> Self | None:
        """What `load` gives, but None for those of another model too: what a new run has to keep."""
        try:
            return cls.load(directory, fingerprint)
        except ModelMismatchError:
            return None

    @classmethod
    def _parsed(cls, text: str, path: Path) -> Self:
        try:
            data = json.loads(text)
        except ValueError as exc:
            raise ModelFileError(f"{path} is no JSON: {exc}; mend it there, or delete the file") from exc
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise ModelFileError(f"{path} has concept format {found!r}, this version reads {_FORMAT}; run "
                                 "`compressae concepts` again")  # fmt: skip
        try:
            return cls(data["fingerprint"], int(data["items"]), tuple(map(_concept, data["concepts"])))
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelFileError(
                f"{path} lacks or misspells something ({type(exc).__name__}: {exc}); mend it, or delete the file"
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
    """The key that puts the most used concepts first: see `Concepts.most_used`."""
    return -main, -items, latent


def set_aside(directory: Path, fingerprint: str) -> None:
    """Rename a `concepts.json` of another model than that: the names in it may be someone's work."""
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
        raise ValueError(f"latent {data['latent']} has a name that is no text, {data['name']!r}")
    if data["sign"] not in (1, -1):
        raise ValueError(f"latent {data['latent']} has sign {data['sign']!r}")
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
