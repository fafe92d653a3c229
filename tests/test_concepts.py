from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, SparseCodes, open_source
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.concepts import find_concepts
from compressae_qdrant.concepts.names import distinctive_terms, unique_name
from compressae_qdrant.concepts.strongest_items import StrongestItems
from compressae_qdrant.errors import InvalidInputError, ModelFileError, ModelMismatchError, SourceError
from compressae_qdrant.model.concepts import Concept, Concepts, StrongItem
from compressae_qdrant.sources import Source

from .support.shell import Shell

ENDINGS = ("an", "el", "ic", "or", "us", "ix", "om", "yr", "ed", "ish")
WORDS = [f"{word}{ending}" for word in ("apple", "brook", "cloud", "dune") for ending in ENDINGS]
"""One for each of the 40 centres of the embeddings."""


@pytest.fixture(scope="module")
def topics(embeddings: FloatArray) -> list[str]:
    """The word of each item's centre: what the texts of its neighbours say too."""
    random = np.random.default_rng(0)
    random.normal(size=(40, 24))
    return [WORDS[centre] for centre in random.integers(0, 40, 600)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, embeddings: FloatArray, topics: list[str]) -> Source:
    path = tmp_path_factory.mktemp("concepts") / "catalog.jsonl"
    rows = [
        {
            "id": f"item-{n}",
            "title": f"the {word} thing {n}",
            "embedding": embeddings[n].tolist(),
            "text": f"for {word}",
        }
        for n, word in enumerate(topics)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return open_source(path)


@pytest.fixture(scope="module")
def found(source: Source, model: CompresSAE) -> Concepts:
    return find_concepts(source, model, keep=10, batch_size=97)


def _concept(latent: int, name: str, items: int = 5, **fields: Any) -> Concept:
    made = Concept(latent, 1, name, name, (), items, 1, 0.5, (StrongItem(latent, f"title of {latent}", 0.5, 0.6),))
    return dataclasses.replace(made, **fields)


def test_strongest_items_are_those_of_a_full_sort() -> None:
    random = np.random.default_rng(1)
    indices = np.argsort(random.random((500, 20)), axis=1)[:, :5]
    values = np.round(random.normal(loc=0.3, size=(500, 5)), 1).astype(np.float32)  # rounded, so that there are ties
    values[~values.any(axis=1)] = 1
    codes = SparseCodes(indices, values, 20)
    closeness = np.round(random.normal(size=(500, 5)), 1).astype(np.float32)
    strongest = StrongestItems(20, 7)
    for start in range(0, 500, 33):
        part = slice(start, start + 33)
        strongest.add(codes[part], closeness[part], range(500)[part])
    shares = codes.values * closeness
    leading = [(int(codes.indices[row, at]), codes.values[row, at]) for row, at in enumerate(shares.argmax(axis=1))]
    dense = codes.to_csr().toarray()
    close = np.full((500, 20), -np.inf)
    np.put_along_axis(close, codes.indices.astype(np.int64), closeness.astype(np.float64), axis=1)
    assert strongest.rows == 500
    usage = strongest.usage()
    assert [one.latent for one in usage] == list(range(20))
    for one in usage:
        column = dense[:, one.latent].astype(np.float64)
        positive, negative = np.square(column[column > 0]).sum(), np.square(column[column < 0]).sum()
        assert one.sign == (1 if positive >= negative else -1)
        side = column * one.sign
        assert (one.items, one.opposed) == ((side > 0).sum(), (side < 0).sum())
        assert one.main == sum(latent == one.latent and value * one.sign > 0 for latent, value in leading)
        assert one.strength == pytest.approx(side[side > 0].mean())
        near = np.where(side > 0, one.sign * close[:, one.latent], -np.inf)
        order = np.lexsort((np.arange(500), -near))[:7]
        assert [strong.item for strong in one.strongest] == order.tolist()
        assert [strong.value for strong in one.strongest] == pytest.approx(side[order].tolist())
        assert [strong.closeness for strong in one.strongest] == pytest.approx(near[order].tolist())


def test_memory_is_bounded_however_many_items_come(codes: SparseCodes) -> None:
    strongest = StrongestItems(codes.latents, 3)
    for _ in range(5):
        strongest.add(codes, codes.values, range(len(codes)))
    assert max(map(len, strongest._heaps)) == 3


def test_concepts_tell_how_latents_are_used(
    found: Concepts, model: CompresSAE, codes: SparseCodes, embeddings: FloatArray, topics: list[str]
) -> None:
    assert (found.fingerprint, found.items) == (model.fingerprint, 600)
    products = embeddings @ model.atoms.detach().numpy().T
    leading = (codes.values * np.take_along_axis(products, codes.indices, 1)).argmax(axis=1)[:, None]
    latents, values = (np.take_along_axis(each, leading, 1)[:, 0] for each in (codes.indices, codes.values))
    dense = codes.to_csr().toarray()
    for concept in found:
        side = concept.sign * dense[:, concept.latent]
        assert concept.items == (side > 0).sum()
        assert concept.main == ((latents == concept.latent) & (values * concept.sign > 0)).sum()
        best = [int(str(item.id).removeprefix("item-")) for item in concept.strongest]
        assert [item.value for item in concept.strongest] == pytest.approx(side[best], abs=1e-4)
        cosines = concept.sign * (embeddings @ model.atoms[concept.latent].detach().numpy())
        nearest = np.sort(cosines[side > 0])[::-1][:10]
        assert [item.cosine for item in concept.strongest] == pytest.approx(nearest, abs=1e-4)
        assert [item.title for item in concept.strongest] == [f"the {topics[row]} thing {row}" for row in best]


def test_names_are_terms_that_distinguish_the_strongest_items(found: Concepts, topics: list[str]) -> None:
    clear = 0
    for concept in found:
        words = [topics[int(str(item.id).removeprefix("item-"))] for item in concept.strongest]
        word = max(words, key=words.count)
        if words.count(word) >= 6:
            clear += 1
            assert concept.terms[0].split()[0] == word, (concept, words)
            assert word in concept.name
    assert clear > 20
    names = [concept.name.casefold() for concept in found]
    assert len(set(names)) == len(names)


def test_terms_prefer_phrases_and_ignore_common_words() -> None:
    texts = [f"package {n} fast text editor" for n in range(4)] + [f"package {n} chess engine in c++" for n in range(4)]
    editor, chess = distinctive_terms(texts, texts, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert {"text editor", "fast text"} & set(editor)
    assert any("chess" in term for term in chess)
    assert any("c++" in term for term in chess)
    assert "package" not in editor[0] + chess[0]
    assert distinctive_terms(["", "1 2"], ["", ""], [[0], [1]]) == [[], []]


def test_names_are_unique() -> None:
    taken: set[str] = set()
    terms = [["a", "b", "c"], ["a", "b", "c"], ["a", "b"], []]
    named = [unique_name(own, latent, taken) for latent, own in enumerate(terms)]
    assert named == ["a, b", "a, b, c", "a, b #2", "latent 3"]


def test_codes_are_read_as_written(found: Concepts, tmp_path: Path) -> None:
    found.save(tmp_path)
    assert Concepts.load(tmp_path, found.fingerprint) == found
    assert Concepts.load(tmp_path / "elsewhere", found.fingerprint) is None
    lines = (tmp_path / "concepts.json").read_text().splitlines()
    assert sum('"name": ' in line for line in lines) == len(found)
    assert list(tmp_path.iterdir()) == [tmp_path / "concepts.json"]


def test_names_given_by_hand_are_kept(source: Source, model: CompresSAE, found: Concepts, tmp_path: Path) -> None:
    model.save(tmp_path)
    found.save(tmp_path)
    path = tmp_path / "concepts.json"
    first = found.concepts[0]
    path.write_text(path.read_text().replace(f'"name": {json.dumps(first.name)}', '"name": "Mine, <b>é"'))
    known = Concepts.load(tmp_path, model.fingerprint)
    assert known is not None
    assert known.concepts[0].edited
    again = find_concepts(source, model, keep=10, known=known)
    assert again.concepts[0].name == "Mine, <b>é"
    assert again.concepts[0].suggested == first.suggested
    assert again.concepts[1:] == found.concepts[1:]
    assert CompresSAE.load(tmp_path).fingerprint == model.fingerprint


def test_a_file_of_another_model_is_renamed(found: Concepts, tmp_path: Path) -> None:
    found.save(tmp_path)
    other = dataclasses.replace(found, fingerprint="m-other")
    with pytest.raises(ModelMismatchError, match=f"{found.fingerprint}.*m-other"):
        Concepts.load(tmp_path, "m-other")
    assert Concepts.load_previous(tmp_path, "m-other") is None
    other.save(tmp_path)
    assert Concepts.load(tmp_path, "m-other") == other
    aside = tmp_path / f"concepts-{found.fingerprint}.json"
    assert aside.read_text() == found.to_json()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"sign": 1', '"sign" 1', "not valid JSON.*line 2 column"),
        ('"format": 1', '"format": 2', "concept format 2"),
        ('"terms"', '"trems"', "KeyError: 'terms'"),
        ('"sign": 1', '"sign": 0', "latent 0 has sign 0"),
        ('"name": "game"', '"name": " "', "latent 0 has name ' '; its texts must be strings, its name not empty"),
        ('"name": "game"', '"name": 3', "latent 0"),
    ],
)
def test_an_invalid_edit_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    made = Concepts("m-1", 10, (_concept(0, "game"),))
    text = made.to_json()
    assert old in text
    (tmp_path / "concepts.json").write_text(text.replace(old, new))
    with pytest.raises(ModelFileError, match=complaint):
        Concepts.load(tmp_path, "m-1")


def test_names_find_concepts_and_errors_suggest() -> None:
    made = Concepts("m-1", 10, (_concept(0, "Chess Game"), _concept(1, "editor"), _concept(2, "editor"),
                                _concept(3, "game data")))  # fmt: skip
    assert [concept.latent for concept in made.named(" chess  game")] == [0]
    assert [concept.latent for concept in made.named("Editor")] == [1, 2]
    assert made.of_latent(3) is made.concepts[3]
    assert made.of_latent(4) is None
    with pytest.raises(InvalidInputError, match=re.escape("no concept 'editr'; did you mean 'editor'?")):
        made.named("editr")
    with pytest.raises(InvalidInputError, match=re.escape("did you mean 'game data', 'chess game'?")):
        made.named("game")
    with pytest.raises(InvalidInputError, match="no name is similar"):
        made.named("xyzzy")


def test_search_looks_at_names_then_terms_then_titles() -> None:
    made = Concepts("m-1", 10, (
        _concept(0, "other", 9, strongest=(StrongItem(1, "a GAME of go", 0.5, 0.6),)),
        _concept(1, "board", 7, terms=("chess game",)),
        _concept(2, "game", 3),
        _concept(3, "games", 4),
        _concept(4, "editor", 99),
    ))  # fmt: skip
    assert [concept.latent for concept in made.search("game")] == [3, 2, 1, 0]
    assert [concept.latent for concept in made.most_used(2)] == [4, 0]
    leading = dataclasses.replace(made, concepts=(*made.concepts[:4], dataclasses.replace(made.concepts[4], main=0),
                                                  _concept(5, "tiny", 1, main=1)))  # fmt: skip
    assert [concept.latent for concept in leading.most_used(2)] == [5, 4]


def test_a_callback_names_concepts_that_were_not_edited(source: Source, model: CompresSAE, found: Concepts) -> None:
    asked: list[tuple[str, ...]] = []

    def namer(terms: Sequence[str], titles: Sequence[str]) -> str:
        asked.append(tuple(terms))
        assert len(titles) <= 5
        return f" all about {terms[0]} "

    first = dataclasses.replace(found.concepts[0], name="mine")
    known = dataclasses.replace(found, concepts=(first, *found.concepts[1:]))
    named = find_concepts(source, model, keep=5, namer=namer, known=known)
    assert named.concepts[0].name == "mine"
    assert len(asked) == len(named) - 1
    assert all(concept.name.startswith(f"all about {concept.terms[0]}") for concept in named.concepts[1:])
    assert not any(concept.edited for concept in named.concepts[1:])
    with pytest.raises(InvalidInputError, match="the namer returned None for latent"):
        find_concepts(source, model, namer=lambda terms, titles: None)  # type: ignore[arg-type,return-value]


def test_unusable_calls_are_named(source: Source, model: CompresSAE, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="keep is 0"):
        find_concepts(source, model, keep=0)
    with pytest.raises(SourceError, match="'colour'"):
        find_concepts(source, model, fields=["colour"])
    (tmp_path / "empty.jsonl").write_text('{"id": 1, "embedding": "bad"}\n')
    with pytest.raises(SourceError, match="no items"):
        find_concepts(open_source(tmp_path / "empty.jsonl", on_error="skip"), model)


def test_the_command_finds_lists_and_searches_concepts(
    shell: Shell, tmp_path: Path, embeddings: FloatArray, topics: list[str], model: CompresSAE
) -> None:
    rows = [{"id": n, "embedding": x.tolist(), "title": topics[n]} for n, x in enumerate(embeddings[:200])]
    (tmp_path / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model.save(tmp_path / "model")
    code, _, err = shell("concepts --model model")
    assert (code, "has no concepts yet" in err) == (2, True)
    code, _, err = shell("concepts --model model --top 0")
    assert (code, "--top" in err) == (2, True)
    made = shell.json("concepts catalog.jsonl --model model --top 500 --keep 5")
    assert made["fingerprint"] == model.fingerprint == CompresSAE.load(tmp_path / "model").fingerprint
    mains = [concept["main"] for concept in made["concepts"]]
    assert mains == sorted(mains, reverse=True)
    assert shell.json("concepts --model model --top 500") == made
    path = tmp_path / "model" / "concepts.json"
    some = made["concepts"][3]
    path.write_text(path.read_text().replace(f'"name": "{some["name"]}"', '"name": "[red]my own"'))
    shell("concepts catalog.jsonl --model model")
    code, out, _ = shell("concepts --model model --search 'MY OWN'")
    assert code == 0
    assert "[red]my own" in out
    assert len(out.splitlines()) == 2
    assert "no concept has 'xyzzy' in its name" in shell("concepts --model model --search xyzzy")[2]
    assert shell.json("concepts --model model --search 'my own'")["concepts"][0]["latent"] == some["latent"]
