"""Search: a query becomes a plan, an index runs it, and a retriever returns the hits.

::

    text --embedder--> vector --QueryPlanner--> QueryPlan --index--> hits

    retriever.py, async_retriever.py    one search from query to hits; alias_retriever.py follows an alias
    settings.py                         options of a search, their defaults and checks
    queries.py                          texts and vectors to plans, with embedder, tenant and item count
    planner.py                          one embedding to one plan; defaults.py and steering.py serve it
    hybrid.py                           words of a query besides its vector
    groups.py                           groups of hits by a payload field
    explanations.py                     the score of a hit, latent by latent
    hit_table.py                        hits as an Arrow table

Names are imported when they are first used, so that `search.settings` can be read without loading torch.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .alias_retriever import AliasRetriever, AsyncAliasRetriever
    from .async_retriever import AsyncRetriever
    from .groups import Group
    from .hit_table import hits_to_arrow
    from .planner import QueryPlanner
    from .retriever import Retriever
    from .settings import SearchOptions, SearchSettings, search_settings
else:
    _MODULES = {
        "AliasRetriever": "alias_retriever",
        "AsyncAliasRetriever": "alias_retriever",
        "AsyncRetriever": "async_retriever",
        "Group": "groups",
        "QueryPlanner": "planner",
        "Retriever": "retriever",
        "SearchOptions": "settings",
        "SearchSettings": "settings",
        "hits_to_arrow": "hit_table",
        "search_settings": "settings",
    }
    __getattr__, __dir__ = lazy_exports(__name__, _MODULES)

__all__ = [
    "AliasRetriever",
    "AsyncAliasRetriever",
    "AsyncRetriever",
    "Group",
    "QueryPlanner",
    "Retriever",
    "SearchOptions",
    "SearchSettings",
    "hits_to_arrow",
    "search_settings",
]
