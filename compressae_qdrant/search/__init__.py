"""Search: a query is planned here, run by an index, and its hits explained."""

from .alias_retriever import AliasRetriever, AsyncAliasRetriever
from .planner import SearchOptions, SearchSettings
from .retriever import AsyncRetriever, Retriever

__all__ = ["AliasRetriever", "AsyncAliasRetriever", "AsyncRetriever", "Retriever", "SearchOptions", "SearchSettings"]
