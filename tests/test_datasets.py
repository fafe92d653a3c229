from __future__ import annotations

import numpy as np

from compressae_qdrant.datasets import load_sample, sample_path
from compressae_qdrant.sources import open_source


def test_the_sample_has_ids_embeddings_and_payloads() -> None:
    sample = load_sample()
    assert len(sample) == len(set(sample.ids)) == len(sample.payloads) == 8_000
    assert sample.embeddings.shape == (8_000, 384)
    np.testing.assert_allclose(np.linalg.norm(sample.embeddings, axis=1), 1, rtol=1e-4)
    assert all(payload["title"] and payload["section"] for payload in sample.payloads)
    assert sum(bool(payload["tags"]) for payload in sample.payloads) > 3_000
    assert sample_path().stat().st_size < 8 * 2**20


def test_the_sample_can_be_opened_as_a_source() -> None:
    sample = load_sample()
    batch = next(open_source(sample_path()).batches(5, 7_995))
    assert batch.ids == sample.ids[-5:]
    np.testing.assert_allclose(batch.embeddings, sample.embeddings[-5:], atol=1e-3)
    assert batch.payloads[0]["title"] == sample.payloads[-5]["title"]
