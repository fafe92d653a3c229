"""A query without Python: the documented formula, file layout, request and test vectors, and the example in Node."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, IndexSettings, QdrantIndex, Retriever, SparseCodes
from compressae_qdrant.codes import FloatArray

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "docs" / "reference" / "query-test-vectors"
PAGE = (ROOT / "docs" / "how-to" / "query-from-other-languages.md").read_text(encoding="utf-8")


def _tensor(path: Path, name: str) -> FloatArray:
    """A tensor of a safetensors file, read as the page says."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entry = json.loads(content[8 : 8 + length])[name]
    assert entry["dtype"] == "F32"
    first, last = (8 + length + offset for offset in entry["data_offsets"])
    return np.frombuffer(content[first:last], "<f4").reshape(entry["shape"])


def _formula(folder: Path, embedding: Any, size: int) -> tuple[FloatArray, list[int]]:
    """The query vector, and the latents of the first stage, as the page says."""
    config = json.loads((folder / "config.json").read_text())
    x = np.asarray(embedding, np.float64)
    vector = _tensor(folder / config["weights"], "atoms").astype(np.float64) @ x / np.sqrt(x @ x)
    gain = np.abs(vector) * _tensor(folder / config["weights"], "latent_magnitude")
    return vector.astype(np.float32), sorted(np.argsort(-gain)[:size].tolist())


def test_the_test_vectors_are_those_of_the_formula_and_of_the_page() -> None:
    expected = json.loads((VECTORS / "query.json").read_text())
    vector, first = _formula(VECTORS, expected["embedding"], 5)
    np.testing.assert_allclose(vector, expected["query_vector"], atol=1e-6)
    assert first == expected["first_stage_of_5"]
    rows = re.findall(r"^\| (\d) \| (-?[\d.]+) \| (yes)? *\|$", PAGE, re.MULTILINE)
    assert [float(value) for _, value, _ in rows] == expected["query_vector"]
    assert [int(latent) for latent, _, chosen in rows if chosen] == first
    assert CompresSAE.load(VECTORS).dim == 4


def test_the_formula_is_what_a_retriever_sends(model: CompresSAE, embeddings: FloatArray, tmp_path: Path) -> None:
    model.save(tmp_path)
    vector, first = _formula(tmp_path, embeddings[3] * 7, 40)
    client = QdrantClient(":memory:")
    retriever = Retriever(model, QdrantIndex.create(client, "items", model))
    (plan,) = retriever._queries.plans([embeddings[3]], 10, {"first_stage": "codes", "first_stage_latents": 40}, 600)
    client.close()
    assert plan.first_stage is not None
    np.testing.assert_allclose(plan.engine_rescoring.values, vector, atol=1e-6)
    assert plan.first_stage.indices.tolist() == first


def test_the_example_in_node_finds_the_same(
    model: CompresSAE, codes: SparseCodes, embeddings: FloatArray, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node 20 or newer, and there is no `node`")
    model.save(tmp_path / "model")
    (tmp_path / "embedding.json").write_text(json.dumps((embeddings[5] * 3).tolist()))
    script = ROOT / "examples" / "query_from_node.mjs"
    done = subprocess.run(
        [node, script, tmp_path / "model", tmp_path / "embedding.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    vector, _ = _formula(tmp_path / "model", embeddings[5], 1)
    sent = request["query"]["recommend"]["positive"][0]
    assert sent["indices"] == list(range(96))
    np.testing.assert_allclose(sent["values"], vector, atol=1e-6)
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model, IndexSettings(datatype="float32"))
    index.upsert(range(600), codes)
    query = models.QueryRequest.model_validate(request)
    found = client.query_points("items", query=query.query, prefetch=query.prefetch, using=query.using, limit=10).points
    expected = Retriever(model, index).search(embeddings[5], 10, first_stage="codes")
    assert [point.id for point in found] == [hit.id for hit in expected]
    np.testing.assert_allclose([point.score for point in found], [hit.score for hit in expected], atol=1e-5)
    client.close()

    (tmp_path / "embedding.json").write_text("[1, 2]")
    done = subprocess.run(
        [node, script, tmp_path / "model", tmp_path / "embedding.json"], capture_output=True, text=True, check=False
    )
    assert "2 dimensions, but the model has 24" in done.stderr
