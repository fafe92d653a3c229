"""Embedders: texts to dense embeddings, separately for queries and documents where the embedder distinguishes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .codes import FloatArray
from .errors import ConfigError, InvalidInputError
from .lazy import needs_extra

__all__ = [
    "Embedder", "SentenceTransformerEmbedder", "TwoSidedEmbedder", "embed_documents", "embed_queries", "load_embedder",
]  # fmt: skip


@runtime_checkable
class TwoSidedEmbedder(Protocol):
    """Embeds queries and documents differently, as many retrieval models require: E5, BGE or Qwen3, for example.

    The methods have the names of sentence-transformers, so a loaded `SentenceTransformer` is one. Each takes n texts
    and returns n vectors of equal length; norms do not matter.
    """

    def encode_query(self, texts: list[str], /) -> Any:
        """The embeddings of n queries."""

    def encode_document(self, texts: list[str], /) -> Any:
        """The embeddings of n documents, which are the items of a catalog."""


Embedder = Callable[[list[str]], Any] | TwoSidedEmbedder
"""What embeds texts: a callable that takes n texts and returns n vectors, for queries and documents alike, or a
`TwoSidedEmbedder`. Vectors are an array, a list of lists or a torch tensor."""


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> FloatArray:
    """(n, d) float32 embeddings of n queries.

    Raises:
        InvalidInputError: the embedder did not return one vector of numbers for each text.
    """
    embed = embedder.encode_query if isinstance(embedder, TwoSidedEmbedder) else embedder
    return _matrix(embed(list(texts)), len(texts))


def embed_documents(embedder: Embedder, texts: Sequence[str]) -> FloatArray:
    """(n, d) float32 embeddings of n documents.

    Raises:
        InvalidInputError: the embedder did not return one vector of numbers for each text.
    """
    embed = embedder.encode_document if isinstance(embedder, TwoSidedEmbedder) else embedder
    return _matrix(embed(list(texts)), len(texts))


def _matrix(vectors: Any, texts: int) -> FloatArray:
    if hasattr(vectors, "detach") and not vectors.is_sparse:  # a torch tensor of any device and precision
        vectors = vectors.detach().float().cpu().numpy()
    try:
        matrix = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"the embedder returned {type(vectors).__name__}, which is not a matrix of numbers ({exc}); it must return "
            "one dense vector for each text"
        ) from exc
    if matrix.ndim != 2 or len(matrix) != texts:
        raise InvalidInputError(
            f"the embedder returned shape {matrix.shape} for {texts} texts; it must return one vector for each text"
        )
    return matrix


class SentenceTransformerEmbedder:
    """A sentence-transformers model with its query side and its document side. Called, it embeds documents.

    Args:
        model: the loaded model.
        query_prompt: text put before each query, in place of the prompt that the model configures for queries.
        document_prompt: the same for documents.
        batch_size: texts embedded at once.
    """

    def __init__(
        self,
        model: Any,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        batch_size: int = 64,
    ) -> None:
        self.model = model
        self._query_prompt, self._document_prompt, self._batch_size = query_prompt, document_prompt, batch_size

    def __call__(self, texts: Sequence[str], /) -> FloatArray:
        return self.encode_document(list(texts))

    def encode_query(self, texts: list[str], /) -> FloatArray:
        """(n, d) float32 embeddings of n queries."""
        return self._encode(self.model.encode_query, texts, self._query_prompt)

    def encode_document(self, texts: list[str], /) -> FloatArray:
        """(n, d) float32 embeddings of n documents."""
        return self._encode(self.model.encode_document, texts, self._document_prompt)

    def _encode(self, encode: Callable[..., Any], texts: list[str], prompt: str | None) -> FloatArray:
        vectors: npt.NDArray[np.floating] = encode(
            texts, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


def load_embedder(
    model: str,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    truncate_dim: int | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    batch_size: int = 64,
) -> SentenceTransformerEmbedder:
    """Load a sentence-transformers model by its name or directory.

    Queries go through the model's `encode_query` and documents through `encode_document`, which apply the prompts and
    routes that the model configures for them.

    Args:
        model: name on the hub, or a directory.
        query_prompt: text put before each query, such as "query: " for E5 models that configure no prompts. None uses
            the model's own prompt, if it has one.
        document_prompt: the same for documents.
        truncate_dim: dimensions to keep of each embedding, for models trained for it (Matryoshka). None keeps all.
        device: device that embeds, such as "cpu" or "cuda:1". None lets sentence-transformers choose.
        trust_remote_code: run code that comes with the model.
        local_files_only: do not download anything; the model must be a directory or in the cache.
        batch_size: texts embedded at once.

    Raises:
        MissingExtraError: sentence-transformers is not installed (extra `text`).
        ConfigError: the model cannot be loaded, or a setting is out of range.
    """
    for name, number in (("truncate_dim", truncate_dim), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} is {number}; it must be at least 1")
    with needs_extra("text", "embedding text", "sentence-transformers"):
        from sentence_transformers import SentenceTransformer
    try:
        loaded = SentenceTransformer(
            model, truncate_dim=truncate_dim, device=device, trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as exc:
        raise ConfigError(
            f"can't load the sentence-transformers model {model!r} ({exc}); give its name on the hub, or its directory"
        ) from exc
    return SentenceTransformerEmbedder(
        loaded, query_prompt=query_prompt, document_prompt=document_prompt, batch_size=batch_size
    )
