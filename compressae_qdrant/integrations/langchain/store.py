"""A LangChain vector store on an index of codes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from qdrant_client import models

from ...codes import FloatArray, SparseCodes
from ...embedders import Embedder
from ...errors import ConfigError, IndexNotFoundError, InvalidInputError
from ...index import AsyncQdrantIndex, IndexSettings
from ...index.location import create_index, open_index
from ...index.protocol import CodeIndex
from ...index.results import Hit, ItemId, stacked_codes
from ...model.compressae import CompresSAE
from ...search.diversity import diverse
from ...search.settings import SearchOptions
from ..documents import DocumentFields, NewTexts, hybrid_options
from ..index_pair import IndexPair
from .embeddings import EmbedderEmbeddings

__all__ = ["CompresSAEVectorStore"]


class CompresSAEVectorStore(VectorStore):  # type: ignore[misc]  # untyped
    """A vector store of CompresSAE codes, on an embedded index or a collection of a Qdrant server.

    All methods of LangChain's interface work, sync and async. Searches take every option of `SearchOptions`, such as
    `exact`, `target_recall` or `first_stage`, besides LangChain's own. The score of a document estimates the cosine of
    query and document. Search by maximal marginal relevance compares reconstructions, or embeddings where the index
    keeps them.

    Args:
        model: the model of the codes, with the dimensions of the embeddings.
        index: an index of its codes; None if only async methods are called. A collection that was `adopt`ed can be
            searched, but documents are neither added nor deleted.
        embedding: embeds texts: LangChain's `Embeddings`, or an embedder of this package.
        async_index: the same index for async methods. By default it is made from `index`: on a server, with an async
            client of the same options; embedded and in the client's local mode, calls are made in threads.
        content_key: payload field that holds the text.
        metadata_key: payload field that holds the metadata; None if all other fields are metadata.
        integer_ids: whether the ids of the index are integers, which LangChain writes as strings of digits.
        search_options: options of every search, unless a call names them.

    Raises:
        ConfigError: there is neither an index nor an async index.
        ModelMismatchError: the index holds another model's codes.
    """

    def __init__(
        self,
        model: CompresSAE,
        index: CodeIndex | None,
        embedding: Embeddings | Embedder,
        *,
        async_index: AsyncQdrantIndex | None = None,
        content_key: str = "page_content",
        metadata_key: str | None = "metadata",
        integer_ids: bool = False,
        search_options: SearchOptions | None = None,
    ) -> None:
        self.model = model
        self._pair = IndexPair(model, index, async_index)
        self._embedding = embedding if isinstance(embedding, Embeddings) else EmbedderEmbeddings(embedding)
        self._fields = DocumentFields(content_key, metadata_key)
        self._integer_ids = integer_ids
        self._options: SearchOptions = {} if search_options is None else search_options
        self._owns_index = False

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | Embedder,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        model: CompresSAE | None = None,
        location: str | None = None,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        **kwargs: Any,
    ) -> Self:
        """Make a store and add texts to it.

        Args:
            texts: the texts.
            embedding: embeds them.
            metadatas: metadata of each text.
            ids: id of each text; a UUID by default.
            model: the model of the codes.
            location: directory, or URL of a collection (see `index.location`), of the index, which is created unless
                it exists.
            settings: settings of an index that is created.
            **kwargs: `index` in place of `location`, and other arguments of the class.

        Raises:
            ConfigError: there is no model, or not exactly one of `location`, `index` and `async_index`.
        """
        store = cls._of(embedding, model, location, settings, kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | Embedder,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        model: CompresSAE | None = None,
        location: str | None = None,
        settings: IndexSettings = IndexSettings(),  # noqa: B008 (frozen)
        **kwargs: Any,
    ) -> Self:
        """See `from_texts`."""
        store = await asyncio.to_thread(cls._of, embedding, model, location, settings, kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def _of(
        cls,
        embedding: Embeddings | Embedder,
        model: CompresSAE | None,
        location: str | None,
        settings: IndexSettings,
        options: dict[str, Any],
    ) -> Self:
        if model is None:
            raise ConfigError("from_texts needs the model of the codes; pass model=CompresSAE.load(directory)")
        given = [name for name in ("index", "async_index") if options.get(name) is not None]
        if (location is not None) == bool(given):
            got = f"location={location!r} and {' and '.join(given) or 'no index'}"
            raise ConfigError(f"from_texts got {got}; pass either the location of an index or an index")
        if location is not None:
            try:
                options["index"] = open_index(location, model)
            except IndexNotFoundError:
                options["index"] = create_index(location, model, settings)
        store = cls(model, options.pop("index", None), embedding, **options)
        store._owns_index = location is not None
        return store

    @property
    def embeddings(self) -> Embeddings:
        """What embeds texts."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 256,
        **kwargs: Any,  # noqa: ARG002 (the interface's)
    ) -> list[str]:
        """Add or replace texts. They are on disk when this method returns.

        Args:
            texts: the texts.
            metadatas: metadata of each text: JSON-like mappings.
            ids: id of each text; a UUID where there is none. The last text of equal ids is kept.
            batch_size: texts embedded, encoded and written at once.

        Returns:
            The id of each text.

        Raises:
            InvalidInputError: there are not as many ids or metadatas as texts, or a text's embedding or metadata is
                unusable. Batches before it have been written.
        """
        new = NewTexts.of(texts, metadatas, ids)
        for batch in new.batches(batch_size):
            vectors = np.asarray(self._embedding.embed_documents(batch.texts), np.float32)
            self._pair.index.upsert(
                self._item_ids(batch.ids), self._codes(vectors), self._payloads(batch), self._kept(vectors)
            )
        self._pair.index.flush()
        return new.ids

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 256,
        **kwargs: Any,  # noqa: ARG002 (the interface's)
    ) -> list[str]:
        """See `add_texts`. Codes are computed in a thread."""
        new = NewTexts.of(texts, metadatas, ids)
        index = self._pair.async_side().index
        for batch in new.batches(batch_size):
            vectors = np.asarray(await self._embedding.aembed_documents(batch.texts), np.float32)
            codes = await asyncio.to_thread(self._codes, vectors)
            await index.upsert(self._item_ids(batch.ids), codes, self._payloads(batch), self._kept(vectors))
        return new.ids

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: models.Filter | Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG002 (the interface's)
    ) -> bool:
        """Delete documents by their ids, or all that match a filter. Without either, all documents are deleted.

        Args:
            ids: ids; those that are not in the store are ignored.
            filter: see `similarity_search`.

        Raises:
            InvalidInputError: there are ids and a filter.
        """
        index = self._pair.index
        if ids is not None:
            index.delete(self._to_delete(ids, filter))
        else:
            index.delete_by_filter(self._fields.filter(filter) or models.Filter(), all_items=filter is None)
        index.flush()
        return True

    async def adelete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: models.Filter | Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG002 (the interface's)
    ) -> bool:
        """See `delete`."""
        index = self._pair.async_side().index
        if ids is not None:
            await index.delete(self._to_delete(ids, filter))
        else:
            await index.delete_by_filter(self._fields.filter(filter) or models.Filter(), all_items=filter is None)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in their order; ids that are not in the store are left out."""
        return [self._document(r.id, r.payload) for r in self._pair.index.retrieve(self._item_ids(ids))]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """See `get_by_ids`."""
        found = await self._pair.async_side().index.retrieve(self._item_ids(ids))
        return [self._document(record.id, record.payload) for record in found]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents closest to a text, best first.

        Args:
            query: the text.
            k: documents to return.
            **kwargs: `filter`, a Qdrant filter on payload fields, or metadata fields with the value that each must
                have, or a list of allowed values; `hybrid=True`, which also searches for the words of the query, in an
                index with `text_fields`; and `SearchOptions`.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """See `similarity_search`."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """`similarity_search` with the score of each document, an estimate of the cosine; fused ranks if hybrid."""
        options = hybrid_options(query, kwargs)
        return self.similarity_search_by_vector_with_score(self._embedding.embed_query(query), k, **options)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See `similarity_search_with_score`."""
        vector = await self._embedding.aembed_query(query)
        return await self.asimilarity_search_by_vector_with_score(vector, k, **hybrid_options(query, kwargs))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search` by an embedding, of any norm."""
        return [document for document, _ in self.similarity_search_by_vector_with_score(embedding, k, **kwargs)]

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """See `similarity_search_by_vector`."""
        found = await self.asimilarity_search_by_vector_with_score(embedding, k, **kwargs)
        return [document for document, _ in found]

    def similarity_search_by_vector_with_score(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_by_vector` with the score of each document."""
        hits = self._pair.retriever.search(embedding, k, **self._search_options(kwargs))
        return [(self._document(hit.id, hit.payload), hit.score) for hit in hits]

    async def asimilarity_search_by_vector_with_score(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """See `similarity_search_by_vector_with_score`."""
        hits = await self._pair.async_side().retriever.search(embedding, k, **self._search_options(kwargs))
        return [(self._document(hit.id, hit.payload), hit.score) for hit in hits]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """k of the `fetch_k` documents closest to a text, chosen by maximal marginal relevance.

        Args:
            query: the text.
            k: documents to return.
            fetch_k: documents to choose from.
            lambda_mult: 1 considers the query only, 0 only the differences between documents.
            **kwargs: see `similarity_search`.
        """
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See `max_marginal_relevance_search`."""
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search` by an embedding."""
        hits = self._pair.retriever.search(embedding, max(k, fetch_k), **self._with_vectors(kwargs))
        return self._diverse(embedding, hits, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """See `max_marginal_relevance_search_by_vector`."""
        retriever = self._pair.async_side().retriever
        hits = await retriever.search(embedding, max(k, fetch_k), **self._with_vectors(kwargs))
        return self._diverse(embedding, hits, k, lambda_mult)

    def close(self) -> None:
        """Close an index that `from_texts` opened by its location. One that was given stays open."""
        if self._owns_index:
            self._pair.index.close()

    async def aclose(self) -> None:
        """`close`, and close the connections that async methods made in the running event loop."""
        await self._pair.close_async()
        self.close()

    def _select_relevance_score_fn(self) -> Any:
        """Scores as relevances from 0 to 1. An estimate of a cosine may be outside that range."""
        return lambda score: min(max(score, 0.0), 1.0)

    def _codes(self, vectors: FloatArray) -> SparseCodes:
        return self.model.encode(vectors, scale=self._pair.settings.scale)

    def _kept(self, vectors: FloatArray) -> FloatArray | None:
        return vectors if self._pair.settings.keep_dense else None

    def _payloads(self, batch: NewTexts) -> list[dict[str, Any]]:
        return [self._fields.payload(*pair) for pair in zip(batch.texts, batch.metadatas, strict=True)]

    def _item_ids(self, ids: Sequence[str]) -> Sequence[ItemId]:
        if not self._integer_ids:
            return ids
        bad = [each for each in ids if not (each.isascii() and each.isdigit())]
        if bad:
            raise InvalidInputError(f"id {bad[0]!r} is not an integer, but the store has integer_ids=True")
        return [int(each) for each in ids]

    def _to_delete(self, ids: Sequence[str], filter: object) -> Sequence[ItemId]:
        if filter is not None:
            raise InvalidInputError("delete got ids and a filter; pass one of them")
        return self._item_ids(ids)

    def _document(self, item: ItemId, payload: Mapping[str, Any]) -> Document:
        text, metadata = self._fields.document(item, payload)
        return Document(id=str(item), page_content=text, metadata=metadata)

    def _search_options(self, given: dict[str, Any]) -> SearchOptions:
        options: SearchOptions = {**self._options, **given}  # type: ignore[typeddict-item]  # checked by the search
        if options.get("filter") is not None:
            options["filter"] = self._fields.filter(options["filter"])
        return options

    def _with_vectors(self, given: dict[str, Any]) -> SearchOptions:
        """The options of a search whose hits carry their embeddings, or their codes if the index keeps none."""
        keeps = self._pair.settings.keep_dense
        return {**self._search_options(given), "with_dense": keeps, "with_codes": not keeps}

    def _diverse(self, embedding: list[float], hits: list[Hit], k: int, lambda_mult: float) -> list[Document]:
        """Documents of k hits, chosen by maximal marginal relevance."""
        if not hits:
            return []
        kept = [hit.dense for hit in hits if hit.dense is not None]
        vectors = np.stack(kept) if kept else self.model.decode(stacked_codes(hits, self.model))
        chosen = diverse(np.asarray(embedding, np.float32), vectors, k, lambda_mult)
        return [self._document(hits[row].id, hits[row].payload) for row in chosen]
