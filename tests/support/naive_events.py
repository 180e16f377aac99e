"""A slow, obvious simulator of pools that batch, scale, fail or are retried, which the engine must equal.

One heap holds all events of a pool. Its entries are (time, kind, tie, ...): events of one instant happen in the order
of the kinds below, and within a kind in the order of their ties. Arrivals and draws come from `naive`. What an instance
does with its requests stands in its own part of `Variant`, which naive_tokens.py replaces.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass, field, fields
from types import SimpleNamespace

import naive
import numpy as np

from shadowsim.engine import _event_kernel as e
from shadowsim.engine import _kernel as k

# The order of events at one instant.
(
    ANSWER, FINISH, GIVE_UP, TIME_OUT, OUTAGE, REPAIR, SCALE_OUT, SCALE_IN, COLD_START_END, START, TICK, ENTRY, ARRIVAL,
    RETRY,
) = range(14)  # fmt: skip

SUCCESS = 0  # what a caller learns, unless it is one of the bits e.ON_...

NO_BATCHING = e.Batching(0, 0.0, np.ones(0))
NO_SCALING = e.Scaling(e.NO_SCALING, 0.0, 0, 0, 0.0, 0.0, 0, 0, 0.0, 0.0)
NO_RETRIES = e.Retries(1, 0.0, 0.0, math.inf, -1, 0, 0, 1, 0)


def outages(listed=(), mtbf_s=math.inf, mttr_s=0.0, column=e.SOURCE_OUTAGE):
    """Outages: (instance, at_s, for_s) of those listed, and random ones."""
    rows = sorted(listed, key=lambda row: (row[1], row[0]))
    instance, at_s, for_s = (np.array([row[n] for row in rows]) for n in range(3))
    return e.Outages(instance.astype(np.int64), at_s.astype(float), for_s.astype(float), mtbf_s, mttr_s, column)


def dynamics(batching=NO_BATCHING, scaling=NO_SCALING, outages=outages(), retries=NO_RETRIES, evented=True):  # noqa: B008
    return e.Dynamics(evented, batching, scaling, outages, retries)


PLAIN = dynamics(evented=False)


def with_dynamics(c, source, shadow):
    """Columns with other dynamics."""
    values = {f.name: getattr(c, f.name) for f in fields(c)}
    return SimpleNamespace(**(values | {"source_dynamics": source, "shadow_dynamics": shadow}))


@dataclass
class Attempt:
    number: int  # of the request in the run
    window: int  # of the request's first arrival: what all draws are keyed by
    in_window: int
    attempt: int  # 0: the first
    arrival: float
    drawn: float = math.nan  # service time before slowdown and batching
    admission: int = -1  # in the order in which the pool's instances took requests
    instance: int = -1
    start: float = math.nan
    service: float = math.nan
    latency: float = math.nan
    status: str = (
        ""  # answered error_4xx error_5xx timed_out refused unavailable failed lost_max_in_flight lost_max_per_s
    )
    ended: float = math.nan  # when it ended for the endpoint
    told: bool = False  # its caller has an answer, or gave up

    @property
    def over(self):
        return self.status != ""


@dataclass
class Work:
    """One service or batch: it holds a worker."""

    members: list
    start: float
    service: float
    end: float
    stopped: bool = False  # by an outage


@dataclass
class Instance:
    number: int
    history: list = field(default_factory=list)  # (time, state): starting serving down draining gone
    queue: deque = field(default_factory=deque)
    works: list = field(default_factory=list)
    spell: int = 0  # how many outages it had

    @property
    def state(self):
        return self.history[-1][1]

    @property
    def up(self):
        return self.state in ("serving", "draining")

    @property
    def present(self):
        """All requests in the instance, in order of admission; also those that have timed out."""
        return sorted((a for w in self.works for a in w.members), key=lambda a: a.admission) + list(self.queue)

    @property
    def outstanding(self):
        return sum(not a.over for a in self.present)


@dataclass
class Action:
    """A scaling decision; `desired` is the desired number after its effect, None if that is not before the horizon."""

    kind: str  # out in
    decided: float
    effect: float
    wanted: int
    desired_before: int  # at the decision
    desired: int | None = None
    dropped: bool = False  # it changed nothing


@dataclass
class Call:
    """All attempts of one request, as the caller sees them; `end` is nan and `success` None while it lasts."""

    first_arrival: float
    client: int
    end: float = math.nan
    success: bool | None = None
    paid: int = 0  # for the last retry
    attempts: int = 1


@dataclass
class History:
    """A pool's run; lists by window have one element per window."""

    attempts: list  # in order of arrival
    batches: list  # (start, size); without a batcher of single requests
    samples: list  # (time, {instance: requests present}) of instances that serve or drain
    actions: list
    steps: list  # (time, number of serving instances), from time 0 on, before the horizon
    serving_s: list
    up_s: list  # serving and draining
    existing_s: list  # from an instance's request to its end, cold starts and drains included
    busy_s: list  # of all workers
    calls: dict  # by the request's number; source only
    tokens: list  # of each client; source only


class Callers:
    def __init__(self, c, retries):
        self.c, self.retries = c, retries
        self.tokens = [retries.quota for _ in range(retries.n_clients)]
        self.calls = {}

    def call(self, a):
        draw = int(naive.z(self.c, e.CLIENT, a.window, a.in_window)) >> 32
        self.calls[a.number] = Call(a.arrival, draw * self.retries.n_clients >> 32)

    def learn(self, a, outcome, now):
        """The caller of an attempt learns its outcome; returns the next attempt, or None."""
        assert not a.told
        a.told = True
        r, call = self.retries, self.calls[a.number]
        limited = r.quota >= 0
        if outcome == SUCCESS:
            if limited:
                refund = 1 if a.attempt == 0 else call.paid
                self.tokens[call.client] = min(r.quota, self.tokens[call.client] + refund)
            call.end, call.success = now, True
            return None
        cost = r.timeout_cost if outcome == e.ON_TIMEOUT else r.cost
        retried = outcome & r.causes and a.attempt + 1 < r.max_attempts
        if retried and (not limited or self.tokens[call.client] >= cost):
            if limited:
                self.tokens[call.client] -= cost
            call.paid = cost
            u = k.uniform(naive.z(self.c, e.BACKOFF + e.ATTEMPT * a.attempt, a.window, a.in_window))
            at = now + u * min(r.base_s * 2**a.attempt, r.cap_s)
            if at < self.c.horizon_s:
                call.attempts += 1
                return Attempt(a.number, a.window, a.in_window, a.attempt + 1, at)
        call.end, call.success = now, False
        return None


class Variant:
    """One variant's pool of instances; `callers` only for the source, the mirror's caps only for the shadow."""

    kind_of_instance = Instance

    def __init__(self, c, pool, dynamics, first_attempts, callers):
        self.c, self.pool, self.dynamics, self.callers = c, pool, dynamics, callers
        self.events, self.n_events, self.n_admitted = [], 0, 0
        self.attempts, self.copy_times, self.samples, self.actions, self.held = [], [], [], [], []
        self.instances, self.batches = [], []
        self.desired = pool.n_instances
        self.high_streak = self.low_streak = 0
        self.out_cooldown_end = self.in_cooldown_end = -math.inf
        for n, a in enumerate(first_attempts):
            self.at(a.arrival, ARRIVAL, n, a)
        for m in range(math.ceil(c.horizon_s / 10.0)):
            self.at(10.0 * m, TICK, m, m)
        o = dynamics.outages
        for j, at_s, for_s in zip(o.instance, o.at_s, o.for_s, strict=True):
            self.at(float(at_s), OUTAGE, (int(j), 0), (int(j), None, float(for_s)))
        for _ in range(pool.n_instances):
            self.serve(self.add("starting", 0.0), 0.0)

    def at(self, time, kind, tie, subject):
        self.n_events += 1
        heapq.heappush(self.events, (time, kind, tie, self.n_events, subject))

    def handlers(self):
        return {
            FINISH: self.finish,
            GIVE_UP: self.give_up,
            TIME_OUT: self.time_out,
            OUTAGE: self.outage,
            REPAIR: self.repair,
            SCALE_OUT: self.scale_out,
            SCALE_IN: self.scale_in,
            COLD_START_END: self.end_cold_start,
            START: self.start,
            TICK: self.tick,
            ARRIVAL: self.arrive,
            RETRY: self.arrive,
        }

    def run(self):
        handlers = self.handlers()
        while self.events:
            now, kind, _, _, subject = heapq.heappop(self.events)
            if now >= self.c.horizon_s and self.is_empty():
                break  # nothing arrives any more, and nobody is left whom anything could happen to
            handlers[kind](subject, now)
        if not self.dynamics.evented:
            for a in self.attempts:
                self.book_as_plain(a)
        return self.history()

    def is_empty(self):
        return not any(i.present for i in self.instances)

    # ---- Instances ----

    def in_state(self, *states):
        return [i for i in self.instances if i.state in states]

    def add(self, state, now):
        instance = self.kind_of_instance(len(self.instances), [(now, state)])
        self.instances.append(instance)
        return instance

    def serve(self, instance, now):
        """The instance begins, or begins again, to serve."""
        instance.history.append((now, "serving"))
        o = self.dynamics.outages
        if o.mtbf_s < math.inf:
            at = now + self.outage_draw(instance, 2 * instance.spell) * o.mtbf_s
            self.at(at, OUTAGE, (instance.number, 1), (instance.number, instance.spell, None))

    def outage_draw(self, instance, n):
        return k.neg_log(k.uniform(naive.z(self.c, self.dynamics.outages.column, instance.number, n)))

    def outage(self, subject, now):
        number, spell, for_s = subject
        listed = spell is None
        if number >= len(self.instances):
            return
        instance = self.instances[number]
        if not instance.up or (not listed and spell != instance.spell):
            return
        if not listed:
            for_s = self.outage_draw(instance, 2 * instance.spell + 1) * self.dynamics.outages.mttr_s
        instance.spell += 1
        present = instance.present
        self.stop(instance, now)
        if instance.state == "draining":
            instance.history.append((now, "gone"))
        else:
            instance.history.append((now, "down"))
            self.at(now + for_s, REPAIR, number, instance)
        for a in present:
            if not a.over:
                self.end(a, "failed", now, e.ON_OUTAGE)

    def repair(self, instance, now):
        if instance.state == "down":
            self.serve(instance, now)

    # ---- Requests ----

    def end(self, a, status, now, outcome):
        """An attempt ends for the endpoint, and for its caller unless he gave up before."""
        a.status, a.ended = status, now
        if not a.told:
            self.tell(a, outcome, now)

    def tell(self, a, outcome, now):
        if self.callers is None:
            a.told = True
            return
        retry = self.callers.learn(a, outcome, now)
        if retry is not None:
            self.at(retry.arrival, RETRY, (retry.window, retry.in_window, retry.attempt), retry)

    def z(self, column, a):
        return naive.z(self.c, column + e.ATTEMPT * a.attempt, a.window, a.in_window)

    def arrive(self, a, now):
        pool, mirror = self.pool, self.c.mirror
        self.attempts.append(a)
        if self.callers is None:
            if 0 <= mirror.max_in_flight <= sum(i.outstanding for i in self.instances):
                a.status = "lost_max_in_flight"
                return
            if 0 <= mirror.max_per_s <= sum(t > now - 1.0 for t in self.copy_times):
                a.status = "lost_max_per_s"
                return
            self.copy_times.append(now)
        elif a.attempt == 0:
            self.callers.call(a)
        a.drawn = self.work_of(a)
        serving = self.in_state("serving")
        if not serving:
            self.end(a, "unavailable", now, e.ON_UNAVAILABLE)
            return
        if pool.routing == k.LEAST_OUTSTANDING:
            fewest = min(i.outstanding for i in serving)
            serving = [i for i in serving if i.outstanding == fewest]
        instance = serving[(int(self.z(pool.route, a)) >> 32) * len(serving) >> 32]
        a.instance = instance.number
        if self.is_full(instance):
            self.end(a, "refused", now, e.ON_REFUSED)
            return
        a.admission = self.n_admitted
        self.n_admitted += 1
        if self.callers is not None:
            self.at(now + self.callers.retries.timeout_s, GIVE_UP, a.admission, a)
        self.at(now + pool.timeout_s, TIME_OUT, a.admission, a)
        self.take(instance, a, now)

    def give_up(self, a, now):
        if not a.told:
            self.tell(a, e.ON_TIMEOUT, now)

    def time_out(self, a, now):
        if not a.over:
            a.latency = self.pool.timeout_s
            self.end(a, "timed_out", now, e.ON_MODEL_ERROR)

    def answer(self, a):
        u = k.uniform(self.z(self.pool.error, a))
        if u <= self.pool.error_4xx:
            return "error_4xx"
        return "error_5xx" if u <= self.pool.error_4xx + self.pool.error_5xx else "answered"

    # ---- Workers, with or without a batcher ----

    def work_of(self, a):
        if self.pool.work_s.size:
            return float(self.pool.work_s[a.number % self.pool.work_s.size])
        return float(k.draw(self.z(self.pool.service, a), self.pool.table) * self.pool.mean_s)

    def is_full(self, instance):
        return len(instance.works) == self.pool.n_workers and 0 <= self.pool.queue_limit <= len(instance.queue)

    def take(self, instance, a, now):
        if self.dynamics.batching.max_size:
            self.at(now + self.dynamics.batching.max_delay_s, START, instance.number, instance)
        instance.queue.append(a)
        self.start(instance, now)

    def start(self, instance, now):
        """Start what an instance can start: single requests, or full or due batches."""
        pool, batching = self.pool, self.dynamics.batching
        queue = instance.queue
        while queue and len(instance.works) < pool.n_workers:
            size = 1
            if batching.max_size:
                if len(queue) < batching.max_size and now < queue[0].arrival + batching.max_delay_s:
                    return
                size = min(len(queue), batching.max_size)
            members = [queue.popleft() for _ in range(size)]
            service = members[0].drawn
            if pool.slowdown.size:
                service *= pool.slowdown[min(len(instance.works) + 1, pool.slowdown.size) - 1]
            if batching.max_size:
                service *= batching.factors[size - 1]
            work = Work(members, now, float(service), float(now + service))
            self.batches.append((now, size))
            instance.works.append(work)
            for a in members:
                a.start, a.service = work.start, work.service
            self.at(work.end, FINISH, (instance.number, members[0].admission), (instance, work))

    def finish(self, subject, now):
        instance, work = subject
        if work.stopped:
            return
        instance.works.remove(work)
        self.held.append((work.start, now))
        if instance.state == "draining" and not instance.present:
            instance.history.append((now, "gone"))
        self.at(now, START, instance.number, instance)
        for a in work.members:
            if not a.over:
                a.latency = min(work.end - a.arrival, self.pool.timeout_s)
                status = self.answer(a)
                self.end(a, status, now, SUCCESS if status == "answered" else e.ON_MODEL_ERROR)

    def stop(self, instance, now):
        """An outage ends all services, and empties the queue."""
        for work in instance.works:
            work.stopped = True
            self.held.append((work.start, now))
        instance.works.clear()
        instance.queue.clear()

    def book_as_plain(self, a):
        """A plain pool compares latencies, not instants, with the limit; the two differ by rounding only."""
        if a.status in ("refused", "lost_max_in_flight", "lost_max_per_s"):
            return
        latency = (a.start + a.service) - a.arrival
        a.latency = min(latency, self.pool.timeout_s)
        a.status = "timed_out" if latency > self.pool.timeout_s else self.answer(a)
        a.ended = a.arrival + a.latency

    # ---- Scaling ----

    def tick(self, m, now):
        started = self.in_state("serving", "draining")  # an instance that is down reports nothing
        self.samples.append((now, {i.number: len(i.present) for i in started}))
        s = self.dynamics.scaling
        n = len(self.in_state("serving"))
        minute = m > 0 and m % 6 == 0
        if s.metric == e.INVOCATIONS and minute:
            reached = [a for a in self.attempts if not a.status.startswith("lost_")]
            count = sum(now - 60.0 <= a.arrival < now for a in reached)
            self.note_high(count, n)
            self.note_low(count, n)
            if not self.decide_out(count, now):
                self.decide_in(count, now)
        if s.metric == e.CONCURRENCY and m > 0:
            values = [sum(present.values()) for _, present in self.samples]
            self.note_high(values[-1], n)
            self.decide_out(values[-1], now)
            if minute:
                mean = sum(values[-6:]) / 6.0
                self.note_low(mean, n)
                self.decide_in(mean, now)

    def note_high(self, count, n):
        self.high_streak = self.high_streak + 1 if count > self.dynamics.scaling.target * n else 0

    def note_low(self, count, n):
        self.low_streak = self.low_streak + 1 if count < (0.9 * self.dynamics.scaling.target) * n else 0

    def wanted(self, count):
        s = self.dynamics.scaling
        n = math.ceil(count / s.target)
        while (n - 1) * s.target >= count:
            n -= 1
        while n * s.target < count:
            n += 1
        return min(max(n, s.least), s.most)

    def decide_out(self, count, now):
        s, wanted = self.dynamics.scaling, self.wanted(count)
        if self.high_streak < s.out_points or wanted <= self.desired:
            return False
        self.decide("out", SCALE_OUT, wanted, now)
        return True

    def decide_in(self, count, now):
        s, wanted = self.dynamics.scaling, self.wanted(count)
        cooling = now < self.out_cooldown_end or now < self.in_cooldown_end
        if self.low_streak >= s.in_points and wanted < self.desired and not cooling:
            self.decide("in", SCALE_IN, wanted, now)

    def decide(self, name, kind, wanted, now):
        action = Action(name, now, now + self.dynamics.scaling.delay_s, wanted, self.desired)
        self.actions.append(action)
        self.at(action.effect, kind, len(self.actions), action)

    def note_effect(self, action, now, dropped):
        action.dropped = dropped
        action.desired = self.desired if now < self.c.horizon_s else None
        assert len(self.in_state("starting", "serving", "down")) == self.desired

    def scale_out(self, action, now):
        s, dropped = self.dynamics.scaling, action.wanted <= self.desired
        if not dropped:
            for _ in range(action.wanted - self.desired):
                instance = self.add("starting", now)
                self.at(now + s.cold_start_s, COLD_START_END, instance.number, instance)
            self.desired = action.wanted
            self.out_cooldown_end = now + s.out_cooldown_s
        self.note_effect(action, now, dropped)

    def scale_in(self, action, now):
        dropped = action.desired_before != self.desired
        if not dropped:
            starting, started = self.in_state("starting"), self.in_state("serving", "down")
            leaving = (starting[::-1] + started[::-1])[: self.desired - action.wanted]
            for instance in leaving:
                drains = instance.state == "serving" and instance.present
                instance.history.append((now, "draining" if drains else "gone"))
            self.desired = action.wanted
            self.in_cooldown_end = now + self.dynamics.scaling.in_cooldown_s
        self.note_effect(action, now, dropped)

    def end_cold_start(self, instance, now):
        if instance.state == "starting":
            self.serve(instance, now)

    # ---- Books ----

    def history(self):
        callers, horizon_s = self.callers, self.c.horizon_s
        serving, up, existing = [], [], []
        for i in self.instances:
            ends = [t for t, _ in i.history[1:]] + [horizon_s]
            for (begin, state), end in zip(i.history, ends, strict=True):
                if state != "gone":
                    existing.append((begin, end))
                if state == "serving":
                    serving.append((begin, end))
                if state in ("serving", "draining"):
                    up.append((begin, end))
        return History(
            attempts=self.attempts,
            batches=self.batches,
            samples=self.samples,
            actions=self.actions,
            steps=steps(serving, horizon_s),
            serving_s=by_window(self.c, serving),
            up_s=by_window(self.c, up),
            existing_s=by_window(self.c, existing),
            busy_s=by_window(self.c, self.held),
            calls=callers.calls if callers else {},
            tokens=callers.tokens if callers else [],
        )


def steps(intervals, horizon_s):
    """(time, number of intervals that hold it) at 0 and wherever the number changes, up to the horizon."""
    number, result = 0, []
    for now in sorted({0.0} | {t for interval in intervals for t in interval if t < horizon_s}):
        number = sum(begin <= now < end for begin, end in intervals)
        if not result or number != result[-1][1]:
            result.append((now, number))
    return result


def by_window(c, intervals):
    """How many seconds of the intervals lie in each window."""
    windows = [naive.bounds(c, w) for w in range(c.n_windows)]
    return [math.fsum(max(0.0, min(end, hi) - max(begin, lo)) for begin, end in intervals) for lo, hi in windows]


def copied(c, n_before, a):
    """Whether an attempt is chosen; `n_before` attempts arrived before it."""
    if c.mirror.rule == k.COIN:
        return int(naive.z(c, k.COPY + e.ATTEMPT * a.attempt, a.window, a.in_window)) >> 32 < int(c.mirror.coin)
    number = n_before if c.mirror.rule == k.COUNTER else a.number
    return naive.copied(c, number, a.window, a.in_window)


def simulate(c, all_streams, source_kind=Variant, shadow_kind=Variant):
    """Both pools' histories, and how many copies the body limit kept back, by window of the attempt's arrival."""
    requests = [Attempt(n, window, i, 0, float(t)) for n, (window, i, t) in enumerate(naive.arrivals(c, all_streams))]
    callers = Callers(c, c.source_dynamics.retries)
    source = source_kind(c, c.source, c.source_dynamics, requests, callers).run()
    kept_back, copies = {}, []
    for n, a in enumerate(source.attempts):
        if not copied(c, n, a):
            continue
        if 0 <= c.mirror.max_body_bytes < naive.body(c, a.number, a.window, a.in_window):
            window = naive.window_of(c, a.arrival)
            kept_back[window] = kept_back.get(window, 0) + 1
            continue
        at = a.ended if c.mirror.instant == k.AT_RESPONSE else a.arrival
        if at < c.horizon_s:
            copies.append(Attempt(a.number, a.window, a.in_window, a.attempt, at))
    if c.mirror.instant == k.AT_RESPONSE:
        copies.sort(key=lambda a: (a.arrival, a.window, a.in_window, a.attempt))
    return source, shadow_kind(c, c.shadow, c.shadow_dynamics, copies, None).run(), kept_back
