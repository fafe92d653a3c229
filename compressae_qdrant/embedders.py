"""Embedders: texts to dense embeddings, by sentence-transformers where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .codes import FloatArray
from .errors import ConfigError, MissingExtraError

__all__ = ["Embedder", "load_embedder"]


class Embedder(Protocol):
    """Turns n texts into (n, d) float32 embeddings. Norms don't matter."""

    def __call__(self, texts: Sequence[str], /) -> FloatArray: ...


def load_embedder(model: str, *, batch_size: int = 64) -> Embedder:
    """A sentence-transformers model, by its name or directory.

    Args:
        model: name on the hub, or a directory; offline (HF_HUB_OFFLINE=1) it must be a directory or in the cache.
        batch_size: texts embedded at once.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ConfigError: the model can't be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise MissingExtraError(
            "embedding text needs sentence-transformers; install it by: pip install 'compressae-qdrant[text]'"
        ) from exc
    try:
        loaded = SentenceTransformer(model)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"can't load the sentence-transformers model {model!r} ({exc}); give its name on the hub, or its directory"
        ) from exc

    def embed(texts: Sequence[str], /) -> FloatArray:
        return np.asarray(loaded.encode(list(texts), batch_size=batch_size, show_progress_bar=False), np.float32)

    return embed
