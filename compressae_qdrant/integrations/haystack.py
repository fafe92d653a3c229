"""Haystack: components that compute sparse embeddings from codes, and a retriever on an index.

`CompresSAEDocumentEmbedder` and `CompresSAETextEmbedder` serve a document store that keeps sparse embeddings, such as
qdrant-haystack's. `CompresSAERetriever` searches an index of this package, with both of its stages.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ..embedders import SentenceTransformerEmbedder, embed_documents, embed_queries, load_embedder
from ..errors import InvalidInputError
from ..index.location import open_index
from ..index.results import Hit
from ..lazy import needs_extra
from ..model.compressae import CompresSAE
from ..search.settings import SearchOptions
from .documents import DocumentFields
from .haystack_filters import haystack_filter
from .index_pair import IndexPair

with needs_extra("haystack", "a Haystack component", "haystack-ai"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import SparseEmbedding
    from haystack.document_stores.types import FilterPolicy
    from haystack.document_stores.types.filter_policy import apply_filter_policy

__all__ = ["CompresSAEDocumentEmbedder", "CompresSAERetriever", "CompresSAETextEmbedder"]


class _Coder:
    """What the embedders share: a model, and an embedder if texts are embedded here."""

    def __init__(self, model: str, embedder: str | None, embedder_options: dict[str, Any] | None) -> None:
        self.model_path, self.embedder_name = model, embedder
        self.embedder_options: Final = dict(embedder_options or {})
        self.model: CompresSAE | None = None
        self.embedder: SentenceTransformerEmbedder | None = None

    def load(self) -> CompresSAE:
        """The model, loaded at first use together with the embedder."""
        if self.model is None:
            if self.embedder_name is not None:
                self.embedder = load_embedder(self.embedder_name, **self.embedder_options)
            self.model = CompresSAE.load(self.model_path)
        return self.model

    def settings(self) -> dict[str, Any]:
        """Arguments that make the same component again."""
        return {"model": self.model_path, "embedder": self.embedder_name, "embedder_options": self.embedder_options}


@component
class CompresSAEDocumentEmbedder:
    """Sets `sparse_embedding` of documents to their codes.

    Args:
        model: directory of the CompresSAE model.
        embedder: name or directory of the sentence-transformers model that embeds the documents' content. None takes
            the embeddings that a component before this one has set.
        embedder_options: other arguments of `load_embedder`.
        keep_embedding: whether documents keep their dense embeddings. Without them a store holds the codes only.
    """

    def __init__(
        self,
        model: str,
        embedder: str | None = None,
        embedder_options: dict[str, Any] | None = None,
        keep_embedding: bool = False,
    ) -> None:
        self._coder = _Coder(model, embedder, embedder_options)
        self._keep_embedding = keep_embedding

    def warm_up(self) -> None:
        """Load the models."""
        self._coder.load()

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, for a pipeline's file."""
        data: dict[str, Any] = default_to_dict(self, **self._coder.settings(), keep_embedding=self._keep_embedding)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CompresSAEDocumentEmbedder:
        """The component of a dictionary."""
        made: CompresSAEDocumentEmbedder = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Copies of the documents with `sparse_embedding`.

        Raises:
            InvalidInputError: a document has no embedding or no content, or its embedding is unusable.
        """
        if not documents:
            return {"documents": []}
        model, embedder = self._coder.load(), self._coder.embedder
        field = "embedding" if embedder is None else "content"
        for document in documents:
            if getattr(document, field) is None:
                raise InvalidInputError(
                    f"document {document.id!r} has no {field}; "
                    + ("put a document embedder before this one, or name an embedder" if embedder is None else "set it")
                )
        if embedder is None:
            vectors = np.array([document.embedding for document in documents], np.float32)
        else:
            vectors = embed_documents(embedder, [document.content for document in documents])
        codes = model.encode(vectors)
        coded = []
        for row, document in enumerate(documents):
            indices, values = codes.row(row)
            sparse = SparseEmbedding(indices=indices.tolist(), values=values.tolist())
            dense = vectors[row].tolist() if self._keep_embedding else None
            coded.append(replace(document, sparse_embedding=sparse, embedding=dense))
        return {"documents": coded}


@component
class CompresSAETextEmbedder:
    """The sparse embedding of a query: `W x_q`, a value for every latent. Its dot product with a document's code
    estimates the cosine of their dense embeddings.

    Args:
        model: directory of the CompresSAE model.
        embedder: name or directory of the sentence-transformers model that embeds the query.
        embedder_options: other arguments of `load_embedder`.
    """

    def __init__(self, model: str, embedder: str, embedder_options: dict[str, Any] | None = None) -> None:
        self._coder = _Coder(model, embedder, embedder_options)

    def warm_up(self) -> None:
        """Load the models."""
        self._coder.load()

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, for a pipeline's file."""
        data: dict[str, Any] = default_to_dict(self, **self._coder.settings())
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CompresSAETextEmbedder:
        """The component of a dictionary."""
        made: CompresSAETextEmbedder = default_from_dict(cls, data)
        return made

    @component.output_types(sparse_embedding=SparseEmbedding, embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """The sparse and the dense embedding of a query."""
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; the query is a string")
        model, embedder = self._coder.load(), self._coder.embedder
        assert embedder is not None
        (x,) = embed_queries(embedder, [text])
        vector = model.atoms.detach().cpu().numpy() @ (x / np.linalg.norm(x))
        sparse = SparseEmbedding(indices=list(range(model.latents)), values=vector.tolist())
        return {"sparse_embedding": sparse, "embedding": x.tolist()}


@component
class CompresSAERetriever:
    """Retrieves documents from an index of codes, by the embedding of a query.

    Args:
        model: directory of the CompresSAE model.
        location: the index, opened at first use: a directory, or the URL of a collection such as
            `http://localhost:6333/Document`, also of one that qdrant-haystack made and `QdrantIndex.adopt` added codes
            to.
        filters: Haystack's filters of every search.
        top_k: documents to return.
        filter_policy: whether filters of a call replace those, or are merged with them.
        search_options: options of every search; see `SearchOptions`.
        content_field: payload field that holds the content.
        meta_field: payload field that holds the metadata; None if all other fields are metadata.
    """

    def __init__(
        self,
        model: str,
        location: str,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        search_options: dict[str, Any] | None = None,
        content_field: str = "content",
        meta_field: str | None = "meta",
    ) -> None:
        self._model, self._location = model, location
        self._filters, self._top_k = filters, top_k
        self._policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy
        self._options: dict[str, Any] = dict(search_options or {})
        self._fields = DocumentFields(content_field, meta_field)
        self._pair: IndexPair | None = None

    def warm_up(self) -> None:
        """Load the model and open the index."""
        self._opened()

    def close(self) -> None:
        """Close the index."""
        if self._pair is not None:
            self._pair.index.close()
        self._pair = None

    async def close_async(self) -> None:
        """Close the index and the connections of async calls."""
        if self._pair is not None:
            await self._pair.close_async()
        self.close()

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, for a pipeline's file."""
        data: dict[str, Any] = default_to_dict(
            self, model=self._model, location=self._location, filters=self._filters, top_k=self._top_k,
            filter_policy=self._policy.value, search_options=self._options, content_field=self._fields.content,
            meta_field=self._fields.metadata,
        )  # fmt: skip
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CompresSAERetriever:
        """The component of a dictionary."""
        made: CompresSAERetriever = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """The documents closest to a query, best first, with their scores.

        Raises:
            FilterError: the filters are not valid.
            DimensionError: the embedding has another number of dimensions than the model.
        """
        hits = self._opened().retriever.search(query_embedding, top_k or self._top_k, **self._search_options(filters))
        return {"documents": [self._document(hit) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """See `run`."""
        pair = await asyncio.to_thread(self._opened)
        options = self._search_options(filters)
        hits = await pair.async_side().retriever.search(query_embedding, top_k or self._top_k, **options)
        return {"documents": [self._document(hit) for hit in hits]}

    def _opened(self) -> IndexPair:
        if self._pair is None:
            model = CompresSAE.load(self._model)
            self._pair = IndexPair(model, open_index(self._location, model))
        return self._pair

    def _search_options(self, filters: dict[str, Any] | None) -> SearchOptions:
        chosen = apply_filter_policy(self._policy, self._filters, filters)
        options: SearchOptions = {**self._options, "filter": haystack_filter(chosen, self._key)}  # type: ignore[typeddict-item]
        return options

    def _key(self, field: str) -> str:
        """The payload key of a field of Haystack's filters."""
        if field == "content":
            return self._fields.content
        if field.startswith("meta.") and self._fields.metadata != "meta":
            name = field.removeprefix("meta.")
            return name if self._fields.metadata is None else f"{self._fields.metadata}.{name}"
        return field

    def _document(self, hit: Hit) -> Document:
        content, meta = self._fields.document(hit.id, hit.payload)
        id = hit.payload.get("id") if self._fields.metadata is not None else None  # where Haystack's stores keep it
        return Document(id=str(hit.id if id is None else id), content=content, meta=meta, score=hit.score)
