from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.model.concepts import Concept, Concepts
from compressae_qdrant.search.planner import QueryPlanner
from compressae_qdrant.search.settings import search_settings

SCORINGS: list[Any] = ["asymmetric", "reconstructed", "sparse"]


@pytest.fixture(scope="module")
def named(model: CompresSAE) -> CompresSAE:
    """Return the model with concepts "game" (latent 5), "away" (latent 8, sign -1) and "both" (latents 11 and 12)."""
    named_latents = [(5, 1, "game"), (8, -1, "away"), (11, 1, "both"), (12, -1, "Both")]
    model = copy.copy(model)
    concepts = tuple(Concept(latent, sign, name, name, (), 1, 0, 0.1, ()) for latent, sign, name in named_latents)
    model.concepts = Concepts(model.fingerprint, 600, concepts)
    return model


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: CompresSAE, codes: SparseCodes) -> Any:
    """Return an index for all examples of property tests: uint8 values, payload `group` = id modulo 3."""
    with EdgeIndex.create(tmp_path_factory.mktemp("steering") / "index", model) as index:
        index.upsert(range(len(codes)), codes, [{"group": i % 3} for i in range(len(codes))])
        index.optimize()
        yield index


def _strengths(codes: SparseCodes, latent: int, sign: int) -> FloatArray:
    return np.asarray(sign * codes.to_csr().toarray()[:, latent], np.float32)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("name", ["game", "away", "+5", "-5"])
def test_a_weight_of_0_changes_nothing(
    named: CompresSAE, index: EdgeIndex, embeddings: FloatArray, scoring: Any, name: str
) -> None:
    retriever = Retriever(named, index)
    for options in ({}, {"first_stage_latents": 3}, {"exact": True}, {"first_stage_latents": 0}):
        plain: Any = {"scoring": scoring} | options
        assert retriever.search(embeddings[3], 9, concepts={name: 0}, **plain) == retriever.search(
            embeddings[3], 9, **plain
        )


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(
    ("name", "latents"), [("game", {5: 1}), ("away", {8: -1}), ("-5", {5: -1}), (" BOTH", {11: 1, 12: -1})]
)
def test_an_item_gains_the_weight_times_its_own_value(
    named: CompresSAE,
    index: EdgeIndex,
    embeddings: FloatArray,
    codes: SparseCodes,
    scoring: Any,
    name: str,
    latents: Any,
) -> None:
    retriever = Retriever(named, index)
    before, after = (
        {h.id: h.score for h in retriever.search(embeddings[3], 600, exact=True, scoring=scoring, concepts=concepts)}
        for concepts in (None, {name: 0.7})
    )
    gain = 0.7 * np.sum([_strengths(codes, latent, sign) for latent, sign in latents.items()], axis=0)
    for item, score in after.items():
        assert isinstance(item, int)
        assert score == pytest.approx(before.get(item, 0.0) + float(gain[item]), abs=2e-6)
    assert set(np.flatnonzero(gain).tolist()) <= set(after)


@settings(max_examples=25, deadline=None)
@given(
    row=st.integers(0, 599),
    latent=st.integers(0, 95),
    sign=st.sampled_from([1, -1]),
    weights=st.tuples(st.floats(-3, 3), st.floats(-3, 3)).map(sorted),
)
def test_more_weight_never_lowers_an_item_with_the_concept(
    named: CompresSAE, shared: EdgeIndex, embeddings: FloatArray, codes: SparseCodes, row: int, latent: int, sign: int,
    weights: list[float],
) -> None:  # fmt: skip
    """With the weight, items that have the concept gain score and rise among the items that do not have it."""
    retriever = Retriever(named, shared)
    strengths = _strengths(codes, latent, sign)
    key = f"{'+' if sign > 0 else '-'}{latent}"
    less, more = (
        {hit.id: hit.score for hit in retriever.search(embeddings[row], 600, exact=True, concepts={key: weight})}
        for weight in weights
    )
    with_concept = [i for i in np.flatnonzero(strengths > 0).tolist() if i in less and i in more]
    without_concept = [i for i in np.flatnonzero(strengths == 0).tolist() if i in less and i in more]
    scores = [np.array([scores_of[i] for i in with_concept]) for scores_of in (less, more)]
    assert (scores[1] >= scores[0] - 2e-6).all()
    others = [np.array([scores_of[i] for i in without_concept]) for scores_of in (less, more)]
    below = [(others[n][None, :] < scores[n][:, None] + 4e-6).sum(axis=1) for n in (0, 1)]
    strictly = (others[0][None, :] < scores[0][:, None] - 4e-6).sum(axis=1)
    assert (below[1] >= strictly).all()


def test_more_weight_gives_more_hits_with_the_concept(
    named: CompresSAE, shared: EdgeIndex, embeddings: FloatArray, codes: SparseCodes
) -> None:
    """The search has the usual two stages, and few latents in the first."""
    retriever = Retriever(named, shared)
    strengths = _strengths(codes, 5, 1)
    shares = []
    for weight in (-3.0, 0.0, 0.3, 1.0, 3.0, 10.0):
        hits = retriever.search(embeddings[3], 10, concepts={"game": weight}, first_stage_latents=4)
        shares.append(sum(strengths[int(hit.id)] > 0 for hit in hits))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 10)


@pytest.mark.parametrize("first_stage_latents", [0, 1, 7, None])
def test_steered_latents_are_part_of_both_stages(
    model: CompresSAE, embeddings: FloatArray, first_stage_latents: int | None
) -> None:
    planner = QueryPlanner(model)
    plain, steered = (
        planner.plans(embeddings[:2], search_settings(concepts=concepts, first_stage_latents=first_stage_latents))
        for concepts in (None, {"+5": 1e-4, "-8": 2.0})
    )
    for a, b in zip(plain, steered, strict=True):
        assert a.first_stage is not None
        assert b.first_stage is not None
        for stage_a, stage_b in ((a.first_stage, b.first_stage), (a.engine_rescoring, b.engine_rescoring)):
            before = dict(zip(stage_a.indices.tolist(), stage_a.values.tolist(), strict=True))
            after = dict(zip(stage_b.indices.tolist(), stage_b.values.tolist(), strict=True))
            assert {5, 8} <= set(after)
        assert after[5] == pytest.approx(before[5] + 1e-4, abs=1e-6)
        assert after[8] == pytest.approx(before[8] - 2, abs=1e-6)
        assert (np.diff(b.first_stage.indices) > 0).all()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("strength", [0.0, 0.08])
@pytest.mark.parametrize(("name", "latent", "sign"), [("game", 5, 1), ("away", 8, -1), ("-5", 5, -1)])
def test_within_finds_all_items_that_have_the_concept(
    named: CompresSAE, shared: EdgeIndex, embeddings: FloatArray, codes: SparseCodes, name: str, latent: int, sign: int,
    strength: float, inside: bool,
) -> None:  # fmt: skip
    retriever = Retriever(named, shared)
    strengths = _strengths(codes, latent, sign)
    expected = np.flatnonzero((strengths > 0) & (strengths >= strength))
    scores = named.decode(codes) @ embeddings[3]
    settings: Any = {"within": name, "within_strength": strength, "rescore_in_engine": inside}
    hits = retriever.search(embeddings[3], 600, **settings)
    assert {hit.id for hit in hits} == set(expected.tolist())
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores[expected])[::-1], atol=1e-5)
    only = models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=1))])
    filtered = retriever.search(embeddings[3], 600, filter=only, exact=True, **settings)
    assert {hit.id for hit in filtered} == {i for i in expected.tolist() if i % 3 == 1}
    few = retriever.search(embeddings[3], 2, prefetch=2, **settings)
    assert {hit.id for hit in few} <= {hit.id for hit in hits}


def test_within_and_steering_combine(
    named: CompresSAE, shared: EdgeIndex, embeddings: FloatArray, codes: SparseCodes
) -> None:
    retriever = Retriever(named, shared)
    hits = retriever.search(embeddings[3], 600, within="game", concepts={"away": 1.5})
    gained = named.decode(codes) @ embeddings[3] + 1.5 * _strengths(codes, 8, -1)
    assert {hit.id for hit in hits} == set(np.flatnonzero(_strengths(codes, 5, 1) > 0).tolist())
    for hit in hits:
        assert hit.score == pytest.approx(float(gained[int(hit.id)]), abs=1e-5)
    similar = retriever.similar_to(3, 600, within="game")
    assert {hit.id for hit in similar} == {hit.id for hit in hits} - {3}


def test_stored_embeddings_do_not_undo_steering(tmp_path: Path, named: CompresSAE, embeddings: FloatArray) -> None:
    with EdgeIndex.create(tmp_path / "dense", named, IndexSettings(keep_dense=True)) as index:
        index.upsert(range(600), named.encode(embeddings), dense=embeddings)
        retriever = Retriever(named, index)
        query = embeddings[3]
        steered = retriever.search(query, 9, concepts={"game": 0.5})
        assert steered == retriever.search(query, 9, concepts={"game": 0.5}, dense_candidates=0)
        assert retriever.search(query, 9, concepts={"game": 0.0}) == retriever.search(query, 9)
        assert retriever.search(query, 9, concepts={"game": 0.0}, dense_candidates=9)
        with pytest.raises(InvalidInputError, match="which embeddings would undo"):
            retriever.search(query, 9, concepts={"game": 0.5}, dense_candidates=9)
        within = retriever.search(query, 5, within="game")
        cosines = [float(query @ embeddings[int(hit.id)]) for hit in within]
        np.testing.assert_allclose([hit.score for hit in within], cosines, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concepts": {"gmae": 1.0}}, "no concept 'gmae'; did you mean 'game'"),
        ({"within": "awya"}, "did you mean 'away'"),
        ({"concepts": {"+96": 1.0}}, r"concept '\+96' names latent 96 but the model has 96"),
        ({"concepts": {"game": float("nan")}}, "the weight of concept 'game' is nan"),
        ({"concepts": {"game": "much"}}, "the weight of concept 'game' is 'much'"),
        ({"within_strength": 0.2}, "within_strength is 0.2 and within is None"),
        ({"within": "game", "within_strength": -1}, "within_strength is -1"),
    ],
)
def test_invalid_concepts_are_refused(
    named: CompresSAE, index: EdgeIndex, embeddings: FloatArray, options: Any, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Retriever(named, index).search(embeddings[0], **options)


def test_without_concepts_latents_are_given_by_number(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, index)
    assert retriever.search(embeddings[0], concepts={"+5": 0.3})
    with pytest.raises(InvalidInputError, match="no concept 'game': the model has none yet"):
        retriever.search(embeddings[0], concepts={"game": 0.3})


def test_concepts_are_saved_with_their_model(named: CompresSAE, tmp_path: Path) -> None:
    named.save(tmp_path / "model")
    loaded = CompresSAE.load(tmp_path / "model")
    assert loaded.concepts == named.concepts
    loaded.save(tmp_path / "copy")
    assert CompresSAE.load(tmp_path / "copy").concepts == named.concepts
    edited = (tmp_path / "copy" / "concepts.json").read_text().replace('"name": "game"', '"name": "play"')
    (tmp_path / "copy" / "concepts.json").write_text(edited)
    loaded.save(tmp_path / "copy")  # does not overwrite edited concepts
    again = CompresSAE.load(tmp_path / "copy").concepts
    assert again is not None
    assert again.named("play")[0].latent == 5
    CompresSAE(named.config, seed=8).save(tmp_path / "copy")  # another model, which has no concepts
    assert CompresSAE.load(tmp_path / "copy").concepts is None
    assert (tmp_path / "copy" / f"concepts-{named.fingerprint}.json").read_text() == edited
