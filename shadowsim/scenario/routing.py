"""Names the routing strategies, and says which of them split requests independently.

A new strategy is an entry in `ROUTINGS`, a code in engine/columns.py, the choice of an instance in engine/_kernel.py
and in server/data_plane/pools.py, and, if it needs the requests in flight, room for them in engine/run_state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RANDOM = "RANDOM"
LEAST_OUTSTANDING = "LEAST_OUTSTANDING_REQUESTS"  # fewest unfinished requests, ties at random

# Whether each request's instance is drawn evenly, independently of the queues and of all other requests. Then an
# instance of a pool that gets a share s of the requests, and has s times as many instances, sees the same arrivals in
# law; and a pool soon forgets its initial state, so that a run can be cut in time.
ROUTINGS: Mapping[str, bool] = MappingProxyType({RANDOM: True, LEAST_OUTSTANDING: False})
DEFAULT_ROUTING = RANDOM


def splits_independently(routing: str) -> bool:
    """Return whether a strategy sends each request to any instance with equal probability, whatever else happens."""
    return ROUTINGS[routing]
