"""Search: a query becomes a plan, an index runs it, and a retriever returns the hits.

::

    text --embedder--> vector --QueryPlanner--> QueryPlan --index--> hits

    retriever.py, async_retriever.py    one search from query to hits; alias_retriever.py follows an alias
    settings.py                         options of a search, their defaults and checks
    queries.py                          texts and vectors to plans, with embedder, tenant and item count
    planner.py                          one embedding to one plan; defaults.py and steering.py serve it
    explanations.py                     the score of a hit, latent by latent
"""

from .alias_retriever import AliasRetriever, AsyncAliasRetriever
from .async_retriever import AsyncRetriever
from .planner import QueryPlanner
from .retriever import Retriever
from .settings import SearchOptions, SearchSettings, search_settings

__all__ = [
    "AliasRetriever",
    "AsyncAliasRetriever",
    "AsyncRetriever",
    "QueryPlanner",
    "Retriever",
    "SearchOptions",
    "SearchSettings",
    "search_settings",
]
