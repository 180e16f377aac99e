"""Tells how long a thread has had a core, and how long it has waited for one, as Linux counts it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple


class CoreTime(NamedTuple):
    """Seconds since a thread began; NaN where the system does not tell."""

    ran_s: float
    waited_s: float


def core_time() -> CoreTime:
    """Return how long this thread has run, and how long it was ready to run without a core."""
    try:
        ran_ns, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()
        return CoreTime(int(ran_ns) / 1e9, int(waited_ns) / 1e9)
    except (OSError, ValueError):
        return CoreTime(math.nan, math.nan)
