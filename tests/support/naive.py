"""A slow, obvious simulator that the engine must equal: one heap of events, one deque per instance, plain numbers.

It shares with the engine only published definitions: the draws (`mix`, `key`), the logarithm, the tables of quantiles,
and the numbers of the draws' columns.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from shadowsim.engine import _kernel as k

# The order of events at one instant: workers become free, callers give up, waiting requests start, ticks, arrivals.
FINISH, LEAVE, BEGIN, TICK, ARRIVAL = range(5)


@dataclass
class Request:
    number: int  # in the run
    window: int  # of the source request: what its draws are keyed by
    in_window: int
    arrival: float
    service: float = math.nan
    instance: int = -1
    start: float = math.nan
    refused: bool = False
    lost: str = ""
    gone: bool = False  # its caller has an answer, or gave up

    @property
    def finish(self):
        return self.start + self.service

    @property
    def wait(self):
        return self.start - self.arrival

    @property
    def latency(self):
        return self.finish - self.arrival

    def answered(self, timeout):
        """The time at which the caller has a response."""
        return self.arrival if self.refused else self.arrival + min(self.latency, timeout)


def z(c, column, window, i):
    with np.errstate(over="ignore"):  # a compiled function returns a plain int
        return np.uint64(k.mix(np.uint64(k.key(c.seed, column, window)) + k.GOLDEN * np.uint64(i)))


def bounds(c, window):
    return window * c.period_s, min((window + 1) * c.period_s, c.horizon_s)


def arrivals(c, all_streams):
    """(window, number in the window, time) of every request: all streams together, in order of time."""
    kinds = {k.POISSON: poisson, k.CONSTANT: constant, k.TRACE: trace}
    times = sorted(
        t for s in all_streams.streams for t in (renewal(c, s) if s.sums.size else kinds[s.arrivals.process](c, s))
    )
    last_window, i = -1, 0
    for t in times:
        window = window_of(c, t)
        i = i + 1 if window == last_window else 0
        last_window = window
        yield window, i, t


def stretches(a, begin, end):
    """(start, rate, slope, area, end) of the stretches of a window on which the rate is linear."""
    for j in range(len(a.knot_s) - 1):
        lo, hi = max(a.knot_s[j], begin), min(a.knot_s[j + 1], end)
        if lo < hi:
            slope = (a.knot_rate[j + 1] - a.knot_rate[j]) / (a.knot_s[j + 1] - a.knot_s[j])
            r0, r1 = a.knot_rate[j] + slope * (lo - a.knot_s[j]), a.knot_rate[j] + slope * (hi - a.knot_s[j])
            yield lo, r0, slope, 0.5 * (r0 + r1) * (hi - lo), hi


def when(count, t0, rate, slope):
    if slope == 0:
        return t0 + count / rate
    root = math.sqrt(max(rate * rate + 2.0 * slope * count, 0.0))
    return t0 + 2.0 * count / max(rate + root, 1e-300)


def poisson(c, s):
    for window in range(c.n_windows):
        begin, end = bounds(c, window)
        pieces = list(stretches(s.arrivals, begin, end))
        count, last, i = 0.0, begin, 0
        while True:
            count += k.neg_log(k.uniform(z(c, s.column, window, i)))
            i += 1
            before, at = 0.0, 0
            while at < len(pieces) and count >= before + pieces[at][3]:
                before += pieces[at][3]
                at += 1
            if at == len(pieces):
                break
            t0, rate, slope, _, stop = pieces[at]
            last = max(min(when(count - before, t0, rate, slope), math.nextafter(stop, 0.0)), last)
            yield last


def after(count, a):
    """The time at which `count` requests are due."""
    j = max(j for j in range(len(a.knot_s) - 1) if a.knot_count[j] <= count)
    slope = (a.knot_rate[j + 1] - a.knot_rate[j]) / (a.knot_s[j + 1] - a.knot_s[j])
    rate = a.knot_rate[j]
    return math.inf if rate == slope == 0 else when(count - a.knot_count[j], a.knot_s[j], rate, slope)


def constant(c, s):
    for i in range(s.arrivals.n_total):
        t = after(i, s.arrivals)
        if t >= c.horizon_s:
            return
        yield t


def renewal(c, s):
    """Gaps of mean 1 where the rate is 1, summed in blocks."""
    block, total = 0, 0.0
    while True:
        inside = 0.0
        for i in range(4096):
            inside += k.draw(z(c, s.column, block, i), s.table)
            t = after(total + inside, s.arrivals)
            if t >= c.horizon_s:
                return
            yield t
        block, total = block + 1, total + inside


def trace(c, s):
    a = s.arrivals
    for turn in range(a.n_total // len(a.trace_s)):
        for t in a.trace_s:
            at = t + turn * a.pass_s
            if at < c.horizon_s:
                yield at


def window_of(c, t):
    window = int(t / c.period_s)
    while t < window * c.period_s:
        window -= 1
    while t >= (window + 1) * c.period_s:
        window += 1
    return window


def copied(c, request, window, i):
    """Whether a request is chosen: `request` is its number in the run, from 0."""
    m = c.mirror
    if m.rule == k.COIN:
        return int(z(c, k.COPY, window, i)) >> 32 < int(m.coin)
    if m.rule == k.COUNTER:
        return (request + 1) * m.percent // 100 > request * m.percent // 100
    session = (int(z(c, k.SESSION, window, i)) >> 32) * m.n_sessions >> 32
    if m.session_by_request.size:
        session = int(m.session_by_request[request % m.session_by_request.size])
    return int(z(c, k.SESSION_COPY, 0, session)) >> 32 < int(m.coin)


def body(c, request, window, i):
    return k.bytes_of(z(c, k.REQUEST_BYTES, window, i), request, c.request)


def simulate(c, all_streams):
    """Both pools: (requests in order of arrival, {window: [in flight per tick and instance]}) of source and shadow.

    And how many copies the body limit kept back, by window.
    """
    everything = [Request(n, window, i, float(t)) for n, (window, i, t) in enumerate(arrivals(c, all_streams))]
    source = run(c, c.source, everything, False)
    kept_back = {}
    copies = []
    for r in everything:
        if not copied(c, r.number, r.window, r.in_window):
            continue
        if 0 <= c.mirror.max_body_bytes < body(c, r.number, r.window, r.in_window):
            kept_back[r.window] = kept_back.get(r.window, 0) + 1
            continue
        late = c.mirror.instant == k.AT_RESPONSE
        t = r.answered(c.source.timeout_s) if late else r.arrival
        if t < c.horizon_s:
            copies.append(Request(r.number, r.window, r.in_window, t))
    copies.sort(key=lambda r: (r.arrival, r.window, r.in_window))
    return source, run(c, c.shadow, copies, True), kept_back


def run(c, pool, requests, capped):
    """Requests through a pool; `capped`: they are copies, to which the mirror's caps apply."""
    events = [(r.arrival, ARRIVAL, n, r) for n, r in enumerate(requests)]
    events += [(10.0 * m, TICK, m, None) for m in range(math.ceil(c.horizon_s / 10.0))]
    heapq.heapify(events)
    instances = range(pool.n_instances)
    busy, outstanding, idle_since = [0 for _ in instances], [0 for _ in instances], [0.0 for _ in instances]
    queue = [deque() for _ in instances]
    in_flight, copy_times = {}, []
    counter = 0

    def event(at, kind, subject):
        nonlocal counter
        counter += 1
        heapq.heappush(events, (at, kind, counter, subject))

    def begin(r, now):
        busy[r.instance] += 1
        r.start = now
        if pool.slowdown.size:
            r.service *= pool.slowdown[min(busy[r.instance], pool.slowdown.size) - 1]
        if pool.wake_s and busy[r.instance] == 1 and now > idle_since[r.instance]:
            idle = now - idle_since[r.instance]
            r.service += pool.wake_s * (idle / (idle + pool.wake_half_s))
        event(r.finish, FINISH, r)

    def leave(r):
        outstanding[r.instance] -= not r.gone
        r.gone = True

    def arrive(r, now):
        m = c.mirror
        if capped and 0 <= m.max_in_flight <= sum(outstanding):
            r.lost = "max_in_flight"
            return
        if capped and 0 <= m.max_per_s <= sum(t > now - 1.0 for t in copy_times):
            r.lost = "max_per_s"
            return
        copy_times.append(now)
        if pool.work_s.size:
            r.service = float(pool.work_s[r.number % pool.work_s.size])
        else:
            r.service = float(k.draw(z(c, pool.service, r.window, r.in_window), pool.table) * pool.mean_s)
        draw = int(z(c, pool.route, r.window, r.in_window)) >> 32
        tied = list(instances)
        if pool.routing == k.LEAST_OUTSTANDING:
            tied = [i for i in instances if outstanding[i] == min(outstanding)]
        r.instance = tied[draw * len(tied) >> 32]
        if busy[r.instance] == pool.n_workers and 0 <= pool.queue_limit <= len(queue[r.instance]):
            r.refused = True
            return
        outstanding[r.instance] += 1
        event(now + pool.timeout_s, LEAVE, r)
        if busy[r.instance] < pool.n_workers:
            begin(r, now)
        else:
            queue[r.instance].append(r)

    while events:
        now, kind, _, subject = heapq.heappop(events)
        if kind == FINISH:
            busy[subject.instance] -= 1
            idle_since[subject.instance] = now
            leave(subject)
            event(now, BEGIN, subject.instance)
        elif kind == LEAVE:
            leave(subject)
        elif kind == BEGIN:
            if queue[subject] and busy[subject] < pool.n_workers:
                begin(queue[subject].popleft(), now)
        elif kind == TICK:
            in_flight.setdefault(window_of(c, now), []).extend(b + len(q) for b, q in zip(busy, queue, strict=True))
        else:
            arrive(subject, now)
    return requests, in_flight


def status(c, pool, r):
    """The status that the caller of a request sees."""
    if r.refused:
        return "refused"
    if r.latency > pool.timeout_s:
        return "timed_out"
    u = k.uniform(z(c, pool.error, r.window, r.in_window))
    if u <= pool.error_4xx:
        return "error_4xx"
    return "error_5xx" if u <= pool.error_4xx + pool.error_5xx else "answered"
