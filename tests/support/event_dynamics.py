"""What makes a pool need events, by hand and by hypothesis, for several test modules."""

import math

import naive_events as events
import numpy as np
from hypothesis import strategies as st

from shadowsim.engine import _event_kernel as e

ALL = e.ON_TIMEOUT | e.ON_UNAVAILABLE | e.ON_OUTAGE | e.ON_REFUSED | e.ON_MODEL_ERROR


def retried(attempts=3, base=1.0, cap=20.0, timeout=math.inf, quota=-1, cost=5, timeout_cost=10, clients=1, causes=ALL):
    return e.Retries(attempts, base, cap, timeout, quota, cost, timeout_cost, clients, causes)


def scaling(
    metric=e.INVOCATIONS, target=10.0, least=1, most=5, out=300.0, into=300.0, points=(3, 15), delay=0.0, cold=0.0
):  # fmt: skip
    return e.Scaling(metric, target, least, most, out, into, *points, delay, cold)


BATCHINGS = st.sampled_from([events.NO_BATCHING, *(e.Batching(3, d, np.array([1.0, 1.5, 1.75])) for d in (0.0, 0.5))])
SCALINGS = st.sampled_from(
    [
        events.NO_SCALING,
        scaling(target=20.0, points=(1, 2), out=0.0, into=60.0, delay=0.0, cold=15.0),
        scaling(e.CONCURRENCY, target=1.0, points=(2, 1), out=20.0, into=0.0, delay=5.0, cold=0.0),
    ]
)
OUTAGES = st.sampled_from(
    [
        events.outages(),
        events.outages([(0, 10.0, 10.0), (1, 10.0, 0.0), (2, 70.0, 5.0)]),
        events.outages(mtbf_s=15.0, mttr_s=5.0),
    ]
)
RETRIES = st.sampled_from(
    [events.NO_RETRIES, retried(4, base=0.5, timeout=1.5), retried(3, base=0.0, quota=30, timeout=0.5, clients=3)]
)
