from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    Retriever,
    SparseCodes,
)
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import IndexNotFoundError, InvalidInputError
from compressae_qdrant.index import Hit
from compressae_qdrant.model.concepts import Concept, Concepts

from .support.shell import Shell


@pytest.fixture
def named(model: CompresSAE, codes: SparseCodes) -> CompresSAE:
    """Return the model with concepts for even latents, whose sign is -1 for multiples of four and +1 otherwise."""
    signs = {latent: -1 if latent % 4 == 0 else 1 for latent in range(0, model.latents, 2)}
    concepts = [Concept(n, sign, f"concept {n}", f"concept {n}", (), 1, 0, 0.1, ()) for n, sign in signs.items()]
    model = copy.copy(model)
    model.concepts = Concepts(model.fingerprint, 600, tuple(concepts))
    return model


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("scoring", ["asymmetric", "reconstructed", "sparse"])
@pytest.mark.parametrize("steered", [None, {"+5": 0.4, "concept 8": 0.2}])
def test_shares_sum_to_the_score(
    named: CompresSAE, index: EdgeIndex, embeddings: FloatArray, scoring: Any, inside: bool, steered: Any
) -> None:
    retriever = Retriever(named, index)
    for row in (3, 77):
        for hit in retriever.search(embeddings[row], 8, scoring=scoring, rescore_in_engine=inside, concepts=steered):
            explanation = hit.explain()
            assert explanation.score == hit.score
            assert sum(share.share for share in explanation.shares) == pytest.approx(hit.score, abs=2e-6)
            assert abs(explanation.remainder) < 2e-6
            sizes = [abs(share.share) for share in explanation.shares]
            assert sizes == sorted(sizes, reverse=True)


def test_shares_are_the_products_of_atoms_and_codes(
    named: CompresSAE, index: EdgeIndex, embeddings: FloatArray, codes: SparseCodes
) -> None:
    atoms = named.atoms.detach().numpy().astype(np.float64)
    for hit in Retriever(named, index).search(embeddings[9], 3):
        assert isinstance(hit.id, int)
        latents, values = codes.row(hit.id)
        shares = {share.latent: share for share in hit.explain().shares}
        assert sorted(shares) == latents.tolist()
        for latent, value in zip(latents.tolist(), values.tolist(), strict=True):
            share = shares[latent]
            assert share.item_value == pytest.approx(value, abs=1e-6)
            assert share.share == pytest.approx(float(atoms[latent] @ embeddings[9]) * value, abs=1e-6)
            assert share.name == (f"concept {latent}" if latent % 2 == 0 else None)
            assert share.opposed == (value * (-1 if latent % 4 == 0 else 1) < 0)


def test_explain_accepts_hits_of_several_searches(named: CompresSAE, index: EdgeIndex, embeddings: FloatArray) -> None:
    retriever = Retriever(named, index)
    hits = [
        *retriever.search(embeddings[3], 5),
        *retriever.similar_to(3, 5),
        *retriever.search_batch(embeddings[4:5])[0],
    ]
    assert retriever.explain(hits) == [hit.explain() for hit in hits]
    assert retriever.explain([]) == []


def test_scores_by_stored_embeddings_leave_a_remainder(
    tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    with EdgeIndex.create(tmp_path / "dense", model, IndexSettings(keep_dense=True)) as index:
        index.upsert(range(600), model.encode(embeddings), dense=embeddings)
        retriever = Retriever(model, index)
        (hit,) = retriever.search(embeddings[9], 1, prefetch=600, dense_candidates=600)
        by_codes = {other.id: other.score for other in retriever.search(embeddings[9], 600, dense_candidates=0)}
        explanation = hit.explain()
        assert explanation.remainder == pytest.approx(hit.score - by_codes[hit.id], abs=1e-5)
        assert abs(explanation.remainder) > 1e-3


def test_an_item_changed_after_the_search_leaves_a_remainder_or_is_missing(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, index)
    hits = retriever.search(embeddings[3], 2)
    index.upsert([hits[0].id], model.encode(embeddings[500]))
    assert abs(hits[0].explain().remainder) > 1e-3
    index.delete([hits[1].id])
    with pytest.raises(IndexNotFoundError, match=f"item {hits[1].id} is no longer in the index"):
        hits[1].explain()


def test_the_origin_of_a_hit_is_not_part_of_its_value(
    model: CompresSAE, index: EdgeIndex, embeddings: FloatArray
) -> None:
    (hit,) = Retriever(model, index).search(embeddings[3], 1)
    plain = Hit(hit.id, hit.score, hit.payload)
    assert hit == plain == pickle.loads(pickle.dumps(hit)) == copy.deepcopy(hit)
    assert repr(hit) == repr(plain)
    stored = {"indices": None, "values": None, "dense": None}
    assert dataclasses.asdict(hit) == {"id": hit.id, "score": hit.score, "payload": hit.payload, **stored}
    with pytest.raises(InvalidInputError, match=f"hit {hit.id} was not found by a retriever"):
        pickle.loads(pickle.dumps(hit)).explain()
    with pytest.raises(InvalidInputError, match="was not found by a retriever"):
        Retriever(model, index).explain([plain])


def test_async_hits_are_explained_by_their_retriever(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray
) -> None:
    async def run() -> None:
        index = await AsyncQdrantIndex.create(AsyncQdrantClient(":memory:"), "items", model)
        await index.upsert(range(60), codes[:60])
        retriever = AsyncRetriever(model, index)
        hits = [*await retriever.search(embeddings[5], 3), *await retriever.similar_to(7, 3)]
        hits += (await retriever.search_batch(embeddings[:1], 3))[0]
        for hit, explanation in zip(hits, await retriever.explain(hits), strict=True):
            assert sum(share.share for share in explanation.shares) == pytest.approx(hit.score, abs=2e-6)
        with pytest.raises(InvalidInputError, match=r"await retriever.explain\(\[hit\]\)"):
            hits[0].explain()

    asyncio.run(run())


def test_the_command_line_explains_hits(
    shell: Shell, tmp_path: Path, named: CompresSAE, embeddings: FloatArray
) -> None:
    assert named.concepts is not None
    named.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", embeddings[:200])
    shell.json("ingest x.npy --model model --index index")
    line = "search 11 --like --model model --index index -n 4"
    for hit in shell.json(f"{line} --explain --concept 'concept 6=0.3' --concept=+3=0.1"):
        explanation = hit["explanation"]
        total = sum(share["share"] for share in explanation["shares"]) + explanation["remainder"]
        assert total == pytest.approx(hit["score"])
        assert {share["name"] for share in explanation["shares"]} - {None}
    code, out, _ = shell(f"{line} --explain")
    assert code == 0
    assert "explanation" in out
    assert "concept " in out
    within = shell.json(f"{line} --within 'concept 6' --within-strength 0.05 --explain")
    assert within
    for hit in within:
        assert any(share["latent"] == 6 and share["item_value"] >= 0.05 for share in hit["explanation"]["shares"])
    assert "explanation" not in json.dumps(shell.json(line))
    for invalid in ("game", "=0.3", "game=much"):
        code, _, err = shell(f"{line} --concept {invalid}")
        assert (code, f"--concept is '{invalid}'" in err) == (2, True)
    code, _, err = shell(f"{line} --concept 'concpt 6=1'")
    assert (code, "did you mean 'concept 6'" in err) == (2, True)
