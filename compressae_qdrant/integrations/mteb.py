"""MTEB: retrieval tasks through an index of codes, with any dense model of MTEB as the encoder.

MTEB's scores then cover all that a search does: the codes, the candidates of the first stage, and the rescoring.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from qdrant_client import models

from ..codes import FloatArray
from ..errors import InvalidInputError
from ..index import EdgeIndex, IndexSettings
from ..index.results import Hit
from ..lazy import needs_extra
from ..model.compressae import CompresSAE
from ..model.config import Method
from ..search import Retriever
from ..search.settings import SearchOptions

with needs_extra("mteb", "an evaluation on MTEB", "mteb"):
    from mteb.models.search_wrappers import SearchEncoderWrapper

__all__ = ["CompresSAESearch", "CompresSAESearchIndex"]

_BATCH: Final = 4096


class CompresSAESearchIndex:
    """An index backend of MTEB (`IndexEncoderSearchProtocol`): an embedded index in a temporary directory.

    Args:
        model: the model of the codes, trained on embeddings of the encoder.
        settings: settings of the index.
        method: how documents are encoded; see `Method`.
        options: options of every search. Documents that a task has ranked already are all scored.
    """

    def __init__(
        self,
        model: CompresSAE,
        *,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        method: Method = "pursuit",
        options: SearchOptions | None = None,
    ) -> None:
        self.model = model
        self._settings, self._method = settings, method
        self._options: SearchOptions = {} if options is None else options
        self._documents: list[str] = []
        self._index: EdgeIndex | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add_documents(self, embeddings: Any, idxs: Sequence[str]) -> None:
        """Encode and add documents.

        Args:
            embeddings: (n, d) array or tensor.
            idxs: n ids.

        Raises:
            DimensionError: the embeddings have another number of dimensions than the model.
            InvalidInputError: an embedding is zero, NaN or infinite.
        """
        rows = _array(embeddings)
        if self._index is None:
            self._folder = tempfile.TemporaryDirectory(prefix="compressae-mteb-")
            self._index = EdgeIndex.create(Path(self._folder.name) / "index", self.model, self._settings)
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            first = len(self._documents) + start
            codes = self.model.encode(batch, self._method, scale=self._settings.scale)
            ids = range(first, first + len(batch))
            self._index.upsert(ids, codes, dense=batch if self._settings.keep_dense else None)
        self._documents += list(idxs)
        self._index.optimize()

    def search(
        self,
        embeddings: Any,
        top_k: int,
        similarity_fn: Callable[[Any, Any], Any],  # noqa: ARG002 (the protocol's)
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Search for queries.

        Args:
            embeddings: (q, d) array or tensor.
            top_k: documents of each query.
            similarity_fn: not used: scores estimate cosines.
            top_ranked: documents to rank, by the id of the query.
            query_idx_to_id: ids of the queries, needed with `top_ranked`.

        Returns:
            Scores, best first, and numbers of documents: rows as added or, with `top_ranked`, places in its list.

        Raises:
            InvalidInputError: no documents were added, or `query_idx_to_id` is missing.
        """
        if self._index is None:
            raise InvalidInputError("the index has no documents; call add_documents first")
        rows, retriever = _array(embeddings), Retriever(self.model, self._index)
        options: SearchOptions = {**self._options, "with_payload": False}
        if top_ranked is None:
            found = retriever.search_batch(rows, min(top_k, len(self._documents)), **options)
            return _scores(found), [[int(hit.id) for hit in hits] for hits in found]
        if query_idx_to_id is None:
            raise InvalidInputError("top_ranked was given without query_idx_to_id, which names the queries")
        row_of = {document: row for row, document in enumerate(self._documents)}
        scores, places = [], []
        for number, query in enumerate(rows):
            candidates = [row_of[document] for document in top_ranked.get(query_idx_to_id[number], ())]
            hits = self._rank(retriever, query, candidates, top_k) if candidates else []
            scores += _scores([hits])
            place_of = {row: place for place, row in enumerate(candidates)}
            places.append([place_of[int(hit.id)] for hit in hits])
        return scores, places

    def clear(self) -> None:
        """Remove the index."""
        if self._index is not None:
            self._index.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._index, self._folder, self._documents = None, None, []

    def _rank(self, retriever: Retriever, query: FloatArray, candidates: list[int], top_k: int) -> list[Hit]:
        among = models.Filter(must=[models.HasIdCondition(has_id=[*candidates])])
        return retriever.search(query, min(top_k, len(candidates)), filter=among, exact=True, with_payload=False)


class CompresSAESearch:
    """A model for MTEB's retrieval tasks (`SearchProtocol`): an encoder of MTEB, with codes and the engine behind it.

    Args:
        encoder: a dense encoder of MTEB, such as `mteb.get_model` returns.
        model: the model of the codes, trained on embeddings of the encoder.
        **options: see `CompresSAESearchIndex`.
    """

    def __init__(self, encoder: Any, model: CompresSAE, **options: Any) -> None:
        self._backend = CompresSAESearchIndex(model, **options)
        self._search = SearchEncoderWrapper(encoder, index_backend=self._backend)
        meta = encoder.mteb_model_meta
        self.mteb_model_meta = meta.model_copy(update={"name": f"{meta.name}-compressae-{model.fingerprint}"})
        """The encoder's metadata. The name has the fingerprint of the codes, so that cached results are kept apart.
        MTEB replaces it for a model of its registry."""

    def index(self, corpus: Any, **arguments: Any) -> None:
        """Embed, encode and index a corpus; see MTEB's `SearchProtocol`."""
        self._backend.clear()
        self._search.index(corpus, **arguments)

    def search(self, queries: Any, **arguments: Any) -> dict[str, dict[str, float]]:
        """The score of each document found, by query and document; see MTEB's `SearchProtocol`."""
        results: dict[str, dict[str, float]] = self._search.search(queries, **arguments)
        return results


def _array(embeddings: Any) -> FloatArray:
    if hasattr(embeddings, "detach"):  # a torch tensor of any device and precision
        embeddings = embeddings.detach().float().cpu().numpy()
    return np.asarray(embeddings, np.float32)


def _scores(found: Sequence[Sequence[Hit]]) -> list[list[float]]:
    return [[hit.score for hit in hits] for hits in found]
