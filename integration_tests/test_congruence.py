"""Every backend returns the items and scores of brute force, for every scoring, filter and plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import models

from compressae_qdrant import IndexSettings, SparseCodes
from compressae_qdrant import scoring as similarity
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.index import QueryPlan
from compressae_qdrant.index.protocol import CodeIndex
from compressae_qdrant.scoring import QueryVector, truncate

from .backends import Create

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

D, H, K, N = 16, 128, 8, 300
FILTERS: dict[str, models.Filter | None] = {
    "all": None,
    "match": models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="red"))]),
    "range": models.Filter(must=[models.FieldCondition(key="price", range=models.Range(gte=20, lt=70))]),
    "not": models.Filter(must_not=[models.FieldCondition(key="colour", match=models.MatchAny(any=["red", "blue"]))]),
    "either": models.Filter(
        should=[
            models.FieldCondition(key="price", range=models.Range(lt=10)),
            models.HasIdCondition(has_id=list(range(100, 140))),
        ]
    ),
    "nothing": models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="mauve"))]),
}


@dataclass(frozen=True)
class StandIn:
    """The properties of a model that an index needs."""

    fingerprint: str = "m-0123456789ab"
    latents: int = H
    dim: int = D
    projection_fingerprint: str = "p-0123456789ab"
    max_navigation_dim: int = D

    def navigation_vectors(self, codes: SparseCodes, dim: int) -> FloatArray:
        """Random projections of the codes."""
        maps = np.random.default_rng(5).normal(size=(self.latents, dim)) / np.sqrt(dim)
        return np.asarray(codes.to_csr() @ maps, np.float32)


@dataclass(frozen=True)
class World:
    """Items, their payloads, and queries of every scoring."""

    codes: SparseCodes
    payloads: list[dict[str, Any]]
    vectors: dict[str, FloatArray]

    def kept(self, name: str) -> npt.NDArray[np.bool_]:
        """(n,) which items match a filter, computed independently."""
        colour = np.array([p["colour"] for p in self.payloads])
        price = np.array([p["price"] for p in self.payloads])
        number = np.arange(N)
        kept: dict[str, npt.NDArray[np.bool_]] = {
            "all": np.ones(N, bool),
            "match": colour == "red",
            "range": (price >= 20) & (price < 70),
            "not": ~np.isin(colour, ["red", "blue"]),
            "either": (price < 10) | ((number >= 100) & (number < 140)),
            "nothing": np.zeros(N, bool),
        }
        return kept[name]


def _world() -> World:
    random = np.random.default_rng(5)
    atoms = random.normal(size=(H, D)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)

    def codes(n: int) -> SparseCodes:
        indices = np.sort(np.stack([random.choice(H, K, replace=False) for _ in range(n)]), axis=1)
        values = random.normal(size=(n, K)).astype(np.float32)
        x_hat = np.einsum("nk,nkd->nd", values, atoms[indices])
        return SparseCodes(indices, values / np.linalg.norm(x_hat, axis=1, keepdims=True), H, "reconstruction")

    items, queries = codes(N), codes(6)
    x = random.normal(size=(6, D)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    payloads = [{"colour": str(random.choice(["red", "blue", "green"])), "price": int(random.integers(0, 100))}
                for _ in range(N)]  # fmt: skip
    return World(items, payloads, {
        "asymmetric": similarity.asymmetric(atoms, x),
        "reconstructed": similarity.reconstructed(atoms, queries),
        "sparse": similarity.sparse(queries),
    })  # fmt: skip


WORLD = _world()


def _fill(create: Create, datatype: Any) -> CodeIndex:
    # Index the fields of the filters, as a server in strict mode requires.
    fields: dict[str, Any] = {"colour": "keyword", "price": "integer"}
    index = create(StandIn(), IndexSettings(datatype=datatype, scale="reconstruction", payload_fields=fields))
    index.upsert(range(N), WORLD.codes, WORLD.payloads)
    index.optimize()
    return index


def _brute_force(first: FloatArray, full: FloatArray, keep: npt.NDArray[np.bool_], prefetch: int) -> FloatArray:
    """Scores of the hits by definition: candidates of the first stage, rescored, best first."""
    dense = WORLD.codes.to_csr().toarray()
    reached = keep & ((dense != 0) @ (first != 0).astype(np.float32) > 0)
    scores = np.where(reached, dense @ first, -np.inf)
    candidates = np.argsort(-scores, kind="stable")[: min(prefetch, int(reached.sum()))]
    return np.sort(dense[candidates] @ full)[::-1]


@pytest.mark.parametrize("scoring", ["asymmetric", "reconstructed", "sparse"])
@pytest.mark.parametrize("name", FILTERS)
def test_backends_equal_brute_force(create: Create, scoring: str, name: str) -> None:
    index = _fill(create, "float32")
    keep = WORLD.kept(name)
    assert index.count(FILTERS[name]) == int(keep.sum())
    for vector in WORLD.vectors[scoring][:2]:
        for size, prefetch, in_engine in ((None, N, True), (12, 40, True), (12, 40, False)):
            first, full = truncate(vector, size), truncate(vector)
            plan = QueryPlan(first, full, 10, prefetch, FILTERS[name], rescore_in_engine=in_engine)
            hits = index.search(plan)
            narrow = np.zeros(H, np.float32)
            narrow[first.indices] = first.values
            wanted = _brute_force(narrow, vector, keep, prefetch)[:10]
            np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=2e-5)
            for hit in hits:
                assert isinstance(hit.id, int)
                assert keep[hit.id]
                assert hit.payload == WORLD.payloads[hit.id]
                exact = float(WORLD.codes[[hit.id]].to_csr().toarray()[0] @ vector)
                assert hit.score == pytest.approx(exact, abs=2e-5)


@pytest.mark.parametrize("datatype", ["float32", "float16", "uint8"])
def test_rescoring_is_exact_for_every_datatype(create: Create, datatype: str) -> None:
    index = _fill(create, datatype)
    for vector in WORLD.vectors["asymmetric"]:
        hits = index.search(QueryPlan(truncate(vector), truncate(vector), 10, N))
        wanted = _brute_force(vector, vector, WORLD.kept("all"), N)[:10]
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=2e-5)


def test_one_stage_gives_the_first_stages_own_scores(create: Create) -> None:
    index = _fill(create, "float32")
    vector = WORLD.vectors["asymmetric"][0]
    hits = index.search(QueryPlan(truncate(vector), None, 7, 7))
    np.testing.assert_allclose([hit.score for hit in hits], _brute_force(vector, vector, WORLD.kept("all"), N)[:7],
                               atol=2e-5)  # fmt: skip


def test_a_batch_equals_single_searches(create: Create) -> None:
    index = _fill(create, "uint8")
    plans = [QueryPlan(truncate(v, 20), truncate(v), 5, 50, FILTERS["range"]) for v in WORLD.vectors["sparse"]]
    assert index.search_batch(plans) == [index.search(plan) for plan in plans]
    assert index.search_batch([]) == []


def test_kept_embeddings_rescore_the_best_candidates(create: Create) -> None:
    random = np.random.default_rng(9)
    embeddings = random.normal(size=(N, D)).astype(np.float32)
    fields: dict[str, Any] = {"price": "integer"}
    index = create(StandIn(), IndexSettings(scale="reconstruction", keep_dense=True, payload_fields=fields))
    index.upsert(range(N), WORLD.codes, WORLD.payloads, embeddings)
    index.optimize()
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    stored = index.retrieve([3])[0].dense
    assert stored is not None
    np.testing.assert_allclose(stored, unit[3], atol=1e-3)
    codes = WORLD.codes.to_csr().toarray()
    keep = WORLD.kept("range")
    for vector, query in zip(WORLD.vectors["asymmetric"], random.normal(size=(6, D)).astype(np.float32), strict=True):
        query /= np.linalg.norm(query)
        plan = QueryPlan(truncate(vector), truncate(vector), 5, N, FILTERS["range"], dense=query, dense_candidates=20)
        hits = index.search(plan)
        best = np.argsort(-np.where(keep, codes @ vector, -np.inf), kind="stable")[:20]
        wanted = np.sort(unit[best] @ query)[::-1][:5]
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-3)  # float16 on disk
        assert {hit.id for hit in hits} <= set(best.tolist())


def test_rescoring_by_embeddings_needs_keep_dense(create: Create) -> None:
    index = _fill(create, "uint8")
    vector = truncate(WORLD.vectors["asymmetric"][0])
    plan = QueryPlan(vector, vector, 5, 50, dense=np.ones(D, np.float32), dense_candidates=20)
    with pytest.raises(InvalidInputError, match="keeps no embeddings to rescore by"):
        index.search(plan)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["all", "range"])
def test_score_threshold_applies_to_stored_values(create: Create, inside: bool, name: str) -> None:
    """The threshold is exact, although the index stores 8-bit values. A search within a concept relies on it."""
    index = _fill(create, "uint8")
    codes = WORLD.codes.to_csr().toarray()
    full = WORLD.vectors["asymmetric"][1]
    for latent, least in ((3, 1e-30), (3, 0.2), (40, 0.1)):
        concept = QueryVector(np.array([latent], np.int32), np.array([-1.0], np.float32))
        plan = QueryPlan(concept, truncate(full), N, N, FILTERS[name], rescore_in_engine=inside, score_threshold=least)
        hits = index.search(plan)
        wanted = np.flatnonzero((-codes[:, latent] >= least) & WORLD.kept(name))
        assert {hit.id for hit in hits} == set(wanted.tolist())
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(codes[wanted] @ full)[::-1], atol=2e-5)
