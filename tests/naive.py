"""What the engine must equal, written to be obvious: one heap of events, one deque an instance, plain Python numbers.

It shares with the engine only what is published: the draws (`mix`, `key`), the logarithm, the tables of quantiles, and
the numbers of the draws' columns.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from shadowsim import _kernel as k

FINISH, TICK, ARRIVAL = 0, 1, 2  # the order of events at one instant


@dataclass
class Request:
    number: int  # in the run
    window: int
    in_window: int
    arrival: float
    instance: int
    service: float
    start: float = math.nan
    refused: bool = False

    @property
    def finish(self):
        return self.start + self.service

    @property
    def wait(self):
        return self.start - self.arrival

    @property
    def latency(self):
        return self.finish - self.arrival


def z(c, column, window, i):
    with np.errstate(over="ignore"):  # a compiled function hands back a plain int
        return np.uint64(k.mix(np.uint64(k.key(c.seed, column, window)) + k.GOLDEN * np.uint64(i)))


def bounds(c, window):
    return window * c.period_s, min((window + 1) * c.period_s, c.horizon_s)


def arrivals(c):
    """(window, number in the window, time) of every request."""
    times = {k.POISSON: poisson, k.CONSTANT: constant, k.TRACE: trace}[c.arrivals.process](c)
    last_window, i = -1, 0
    for window, t in times:
        i = i + 1 if window == last_window else 0
        last_window = window
        yield window, i, t


def stretches(c, begin, end):
    """(start, rate, slope, area) of the stretches of a window on which the rate is linear."""
    a = c.arrivals
    for j in range(len(a.knot_s) - 1):
        lo, hi = max(a.knot_s[j], begin), min(a.knot_s[j + 1], end)
        if lo < hi:
            slope = (a.knot_rate[j + 1] - a.knot_rate[j]) / (a.knot_s[j + 1] - a.knot_s[j])
            r0, r1 = a.knot_rate[j] + slope * (lo - a.knot_s[j]), a.knot_rate[j] + slope * (hi - a.knot_s[j])
            yield lo, r0, slope, 0.5 * (r0 + r1) * (hi - lo)


def when(count, t0, rate, slope):
    if slope == 0:
        return t0 + count / rate
    root = math.sqrt(max(rate * rate + 2.0 * slope * count, 0.0))
    return t0 + 2.0 * count / max(rate + root, 1e-300)


def poisson(c):
    for window in range(c.n_windows):
        begin, end = bounds(c, window)
        pieces = list(stretches(c, begin, end))
        count, last, i = 0.0, begin, 0
        while True:
            count += k.neg_log(k.uniform(z(c, k.ARRIVAL, window, i)))
            i += 1
            before, at = 0.0, 0
            while at < len(pieces) and count >= before + pieces[at][3]:
                before += pieces[at][3]
                at += 1
            if at == len(pieces):
                break
            t0, rate, slope, _ = pieces[at]
            last = min(max(when(count - before, t0, rate, slope), last), math.nextafter(end, 0.0))
            yield window, last


def constant(c):
    a = c.arrivals
    for i in range(a.n_total):
        j = max(j for j in range(len(a.knot_s) - 1) if a.knot_count[j] <= i)
        slope = (a.knot_rate[j + 1] - a.knot_rate[j]) / (a.knot_s[j + 1] - a.knot_s[j])
        rate = a.knot_rate[j]
        if rate == 0 and slope == 0:
            return
        t = when(i - a.knot_count[j], a.knot_s[j], rate, slope)
        if t >= c.horizon_s:
            return
        yield window_of(c, t), t


def trace(c):
    a = c.arrivals
    for turn in range(a.n_total // len(a.trace_s)):
        for t in a.trace_s:
            at = t + turn * a.pass_s
            if at < c.horizon_s:
                yield window_of(c, at), at


def window_of(c, t):
    window = int(t / c.period_s)
    while t < window * c.period_s:
        window -= 1
    while t >= (window + 1) * c.period_s:
        window += 1
    return window


def requests(c, pool, chosen):
    """The pool's requests, with what is drawn for each: its service time and its instance."""
    for number, window, i, t in chosen:
        if pool.work_s.size:
            service = pool.work_s[number % pool.work_s.size]
        else:
            service = k.draw(z(c, pool.service, window, i), pool.table) * pool.mean_s
        instance = ((int(z(c, pool.route, window, i)) >> 32) * pool.n_instances) >> 32
        yield Request(number, window, i, float(t), instance, float(service))


def simulate(c):
    """Both pools: ([Request, ...], {(window, variant): [in flight per tick and instance]}) of source and shadow."""
    everything = [(n, *rest) for n, rest in enumerate(arrivals(c))]
    copied = [r for r in everything if int(z(c, k.COPY, r[1], r[2])) >> 32 < int(c.coin)]
    return run(c, c.source, everything), run(c, c.shadow, copied)


def run(c, pool, chosen):
    done = list(requests(c, pool, chosen))
    events = [(r.arrival, ARRIVAL, n, r) for n, r in enumerate(done)]
    events += [(10.0 * m, TICK, m, None) for m in range(math.ceil(c.horizon_s / 10.0))]
    heapq.heapify(events)
    busy = [0] * pool.n_instances
    queue = [deque() for _ in busy]
    in_flight = {}
    finished = 0

    def begin(r, now):
        nonlocal finished
        finished += 1
        busy[r.instance] += 1
        r.start = now
        heapq.heappush(events, (r.finish, FINISH, finished, r))

    while events:
        now, kind, _, r = heapq.heappop(events)
        if kind == TICK:
            in_flight.setdefault(window_of(c, now), []).extend(b + len(q) for b, q in zip(busy, queue, strict=True))
        elif kind == FINISH:
            busy[r.instance] -= 1
            if queue[r.instance]:
                begin(queue[r.instance].popleft(), now)
        elif busy[r.instance] < pool.n_workers:
            begin(r, now)
        elif 0 <= pool.queue_limit <= len(queue[r.instance]):
            r.refused = True
        else:
            queue[r.instance].append(r)
    return done, in_flight


def status(c, pool, r):
    """What the caller of a request sees."""
    if r.refused:
        return "refused"
    if r.latency > pool.timeout_s:
        return "timed_out"
    u = k.uniform(z(c, pool.error, r.window, r.in_window))
    if u <= pool.error_4xx:
        return "error_4xx"
    return "error_5xx" if u <= pool.error_4xx + pool.error_5xx else "answered"
