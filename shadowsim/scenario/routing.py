"""Names the routing strategies, and says which of them split requests independently.

A new strategy is an entry in `ROUTINGS`, a code in engine/columns.py, the choice of an instance in engine/_kernel.py
and in server/data_plane/pools.py, and, if it needs the requests in flight, room for them in engine/run_state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RANDOM = "RANDOM"
LEAST_OUTSTANDING = "LEAST_OUTSTANDING_REQUESTS"  # fewest unfinished requests, ties at random

# Whether each request's instance is drawn evenly, and independently of the queues and of all other requests. A share s
# of the requests on s times as many instances is then, to each instance, the same stream in law; and a pool forgets its
# initial state soon, so that a run can be cut in time.
ROUTINGS: Mapping[str, bool] = MappingProxyType({RANDOM: True, LEAST_OUTSTANDING: False})
DEFAULT_ROUTING = RANDOM


def splits_independently(routing: str) -> bool:
    """Return whether a strategy sends each request to any instance alike, whatever else happens."""
    return ROUTINGS[routing]
