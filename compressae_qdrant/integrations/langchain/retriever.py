"""A LangChain retriever on a vector store of codes."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from .store import CompresSAEVectorStore

__all__ = ["CompresSAERetriever"]


class CompresSAERetriever(BaseRetriever):  # type: ignore[misc]  # untyped
    """A LangChain retriever on a `CompresSAEVectorStore`.

    Unlike `as_retriever`, it takes `k` as an argument, and can return scores.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: CompresSAEVectorStore
    """The store to search."""
    k: int = 4
    """Documents to return."""
    filter: Any = None
    """Filter of every search; see `CompresSAEVectorStore.similarity_search`."""
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Other options of every search."""
    score_key: str | None = None
    """Metadata field in which to return the score of a document; None returns no scores."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 (the interface's)
        **kwargs: Any,
    ) -> list[Document]:
        return self._scored(self.store.similarity_search_with_score(query, **self._options(kwargs)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 (the interface's)
        **kwargs: Any,
    ) -> list[Document]:
        return self._scored(await self.store.asimilarity_search_with_score(query, **self._options(kwargs)))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"k": self.k, "filter": self.filter, **self.search_kwargs, **given}

    def _scored(self, found: list[tuple[Document, float]]) -> list[Document]:
        if self.score_key is not None:
            for document, score in found:
                document.metadata[self.score_key] = score
        return [document for document, _ in found]
