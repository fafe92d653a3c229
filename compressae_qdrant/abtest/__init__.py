"""Online A/B tests: assign users to variants, and analyse the results at any time during the test."""

from .assignment import assign
from .events import Event, UserTotals, read_events
from .statistics import Comparison, compare, required_users, sample_ratio_p

__all__ = ["Comparison", "Event", "UserTotals", "assign", "compare", "read_events", "required_users", "sample_ratio_p"]
