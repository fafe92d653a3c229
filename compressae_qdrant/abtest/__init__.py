"""Online A/B tests: who sees which variant, and what may be concluded while one watches."""

from .assignment import assign
from .events import Event, UserTotals, read_events
from .statistics import Comparison, compare, required_users, sample_ratio_p

__all__ = ["Comparison", "Event", "UserTotals", "assign", "compare", "read_events", "required_users", "sample_ratio_p"]
