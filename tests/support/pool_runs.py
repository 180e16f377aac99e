"""Runs of the oracle of pools on requests at given times, for several test modules."""

from types import SimpleNamespace

import naive_events as events
import numpy as np
from cases import scenario, service

from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns


def run(times, work_s, source=events.PLAIN, shadow=events.PLAIN, horizon_s=60.0, period_s=60.0, pool=None, **case):
    """Requests at given times with given work through the source; `pool` replaces numbers of both pools."""
    poisson = {"process": "poisson", "rate_per_s": 1.0}
    s = scenario(poisson, service("deterministic", 1.0), horizon_s=horizon_s, period_s=period_s, **case)
    c = events.with_dynamics(columns(s, arrivals_of(s)), source, shadow)
    pool = {"work_s": np.array(work_s, float)} | (pool or {})
    c.source, c.shadow = c.source._replace(**pool), c.shadow._replace(**pool)
    none = np.empty(0)
    trace = k.Arrivals(k.TRACE, none, none, none, np.array(times, float), 0.0, len(times))
    streams = SimpleNamespace(streams=[SimpleNamespace(sums=none, arrivals=trace)])
    return events.simulate(c, streams)


def source_of(*arguments, **options):
    return run(*arguments, **options)[0]
