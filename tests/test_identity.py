"""Codes and collections that are not what they were taken for: of another model, replaced, recreated or incomplete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from compressae_qdrant import AsyncQdrantIndex, CompresSAE, EdgeIndex, QdrantIndex, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError, ModelMismatchError
from compressae_qdrant.model.config import ModelConfig


@pytest.fixture(scope="module")
def other() -> CompresSAE:
    """A model with the shape of `model` and other weights."""
    return CompresSAE(ModelConfig(24, 96, 6), seed=77)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    local = QdrantClient(":memory:")
    yield local
    local.close()


def test_codes_carry_the_fingerprint_of_their_model(
    model: CompresSAE, other: CompresSAE, embeddings: FloatArray, tmp_path: Path
) -> None:
    codes = model.encode(embeddings[:9])
    codes.save(tmp_path / "codes.safetensors")
    table = codes.to_arrow(range(9))
    kept = [
        codes, codes[2:5], codes[[1, 3]], SparseCodes.concatenate([codes[:4], codes[4:]]),
        SparseCodes.load(tmp_path / "codes.safetensors"), SparseCodes.from_arrow(table),
        SparseCodes.from_arrow(table.replace_schema_metadata(None), 96, "projection", model.fingerprint),
    ]  # fmt: skip
    assert {each.fingerprint for each in kept} == {model.fingerprint}
    foreign, by_hand = other.encode(embeddings[:9]), SparseCodes(codes.indices, codes.values, 96, codes.scale)
    assert (foreign.fingerprint, by_hand.fingerprint) == (other.fingerprint, None)
    assert by_hand == codes
    for mixed in (foreign, by_hand):
        with pytest.raises(InvalidInputError, match=r"can't concatenate codes of 2 kinds .*fingerprint"):
            SparseCodes.concatenate([codes, mixed])
    with pytest.raises(ModelMismatchError, match=f"made by model '{other.fingerprint}', not by '{model.fingerprint}'"):
        model.decode(foreign)
    np.testing.assert_array_equal(model.decode(by_hand), model.decode(codes))


def test_codes_of_another_model_are_refused(
    model: CompresSAE, other: CompresSAE, embeddings: FloatArray, client: QdrantClient, tmp_path: Path
) -> None:
    foreign = other.encode(embeddings[:3])
    by_hand = SparseCodes(foreign.indices, foreign.values, foreign.latents)
    complaint = f"made by model '{other.fingerprint}' but the index holds codes of model '{model.fingerprint}'"
    with EdgeIndex.create(tmp_path / "index", model) as edge:
        for index in (edge, QdrantIndex.create(client, "items", model)):
            with pytest.raises(ModelMismatchError, match=complaint):
                index.upsert([1, 2, 3], foreign)
            assert index.count() == 0
            index.upsert([1, 2, 3], by_hand)
            assert index.count() == 3

    async def same() -> None:
        local = AsyncQdrantClient(":memory:")
        index = await AsyncQdrantIndex.create(local, "items", model)
        with pytest.raises(ModelMismatchError, match=complaint):
            await index.upsert([1, 2, 3], foreign)
        await local.close()

    asyncio.run(same())
