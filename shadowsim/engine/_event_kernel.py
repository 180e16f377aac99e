"""Simulates one pool event by event: batches, auto scaling, outages and retries.

The loops of `_kernel` know when a request ends as soon as it arrives. Here that is not known: a batch waits for later
arrivals, an instance may fail, and another attempt depends on the answer to the first. So a pool is a set of machines,
each with the time of its next event, and `_advance` lets the earliest of all events happen, one after the other. The
rules of `_kernel` hold here, too; `watch` makes numba's cache notice a change in either file.

Events
------
At one instant: services and batches finish, by instance and order of admission; callers give up, then the endpoint's
time-outs come; instances fail, then are repaired; scaling takes effect, then new instances begin to serve; waiting
requests and due batches start; ConcurrentRequestsPerModel is sampled, then the scaling policy decides; requests arrive
by (window, number); retries arrive by (window, number, attempt).

A run of a side is cut into windows only for its counts. A figure of an attempt belongs to the window in which it
arrived, and is booked when the attempt ends; a window is closed when all of its attempts have ended, in order. What is
in the pool at the horizon is followed to its end.

Instances
---------
An instance has a queue and `n_workers` workers, each with one request or one batch. Where requests wait, workers are
asked to start them after all changes of an instant. With a batcher (Triton's dynamic batcher, with a queue for each
instance), an idle worker takes the first `max_size` requests once so many wait, or all of them once the oldest has
waited `max_delay_s`.

The worker that ends first is found by a timing wheel as in `_kernel`. It holds only what is in service, and a turn is
several service times long, so that hardly any request is met in an earlier turn than its own. The batch that is due
first is found by a tournament (Knuth, The Art of Computer Programming, volume 3, 5.4.1): a change costs one comparison
per level, and the winner is read at the top.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shadowsim.engine import _kernel, _prefix_kernel, _token_kernel
from shadowsim.engine._kernel import (
    ARRIVE,
    AT_RESPONSE,
    BUCKETS,
    C_ARRIVED,
    C_BASE,
    C_MORE,
    C_OUT,
    C_PHASE,
    C_WINDOW,
    CLOSE,
    COIN,
    CONCURRENCY_EVERY_S,
    COPY,
    COUNTER,
    DONE,
    GOLDEN,
    LOW32,
    NEEDS_ROOM,
    NUMBER_OF_OFFSET,
    OPEN,
    R_CONCURRENT_MAX,
    R_CONCURRENT_MIN,
    R_ERROR_4XX,
    R_ERROR_5XX,
    R_LATENCY_MAX,
    R_LATENCY_MIN,
    R_LATENCY_SUM,
    R_LOST_BODY,
    R_LOST_IN_FLIGHT,
    R_LOST_PER_S,
    R_REFUSED,
    R_REQUEST_BYTES,
    R_REQUESTS,
    R_RESPONSE_BYTES,
    R_TIMED_OUT,
    R_WAIT_SUM,
    R_WORK,
    RANDOM,
    REACHED_COUNT,
    REACHED_S,
    RELEASE,
    S_ARRIVAL,
    S_INSTANCE,
    S_NUMBER,
    S_ORDER,
    S_SERVICE,
    S_START,
    S_WINDOW,
    SESSION,
    SESSION_COPY,
    Arrivals,
    Floats,
    Hashes,
    Int32s,
    Ints,
    Mirror,
    Payload,
    Pending,
    Pool,
    Progress,
    RunSettings,
    Sample,
    Scratch,
    Tally,
    arrive,
    bucket_of,
    bytes_of,
    close_histogram,
    draw,
    inline,
    inner,
    just_below,
    key,
    lowest_bit,
    mix,
    neg_log,
    njit,
    open_arrivals,
    open_row,
    pop,
    rise,
    session_of,
    uniform,
    watch,
    wheel_bucket,
)  # fmt: skip
from shadowsim.engine._prefix_kernel import P_CACHED, Prefixes, PrefixNames, forget
from shadowsim.engine._token_kernel import (
    ENTERING,
    G_HEAD,
    G_PREFILL,
    G_RUNNING,
    LEFT,
    NO_LENGTHS,
    NO_SCHEDULER,
    Q_EARLIER,
    Q_LATER,
    Q_OUTPUT,
    Q_PLACE,
    Q_PROMPT,
    RUNNING,
    Engines,
    Lengths,
    Scheduler,
    TokenTally,
    abort,
    book,
    cached_blocks,
    count_tokens,
    end_steps,
    enter_queue,
    fail_engine,
    new_sequence,
    start_steps,
    work_of,
)

# ---- More columns of draws. Attempt a of a request (0: the first) uses column + ATTEMPT a for its service, route,
# error, response bytes and copy. ----
ATTEMPT = 64
MOST_ATTEMPTS = 128
TICKS_PER_MINUTE = 6
HIGH, ONE, _0, _6, _63 = (np.uint64(n) for n in (32, 1, 0, 6, 63))
SOURCE_OUTAGE, SHADOW_OUTAGE = 14, 15  # keyed by the instance's number in place of a window: up, repair, up, ...
CLIENT, BACKOFF = 16, 17  # which client makes a request; how long attempt a waits before it is made again

# ---- Metrics that a scaling policy follows ----
NO_SCALING, INVOCATIONS, CONCURRENCY = 0, 1, 2

# ---- Causes for which a caller retries, as bits ----
ON_TIMEOUT, ON_UNAVAILABLE, ON_OUTAGE, ON_REFUSED, ON_MODEL_ERROR = 1, 2, 4, 8, 16


class Batching(NamedTuple):
    """A dynamic batcher; `max_size` 0: none. `factors` (max_size,): on the service time of a batch of 1, 2, ..."""

    max_size: int
    max_delay_s: float
    factors: Floats


class Scaling(NamedTuple):
    """A target-tracking policy; `target` is per instance: invocations per minute, or concurrent requests."""

    metric: int
    target: float
    least: int
    most: int
    out_cooldown_s: float
    in_cooldown_s: float
    out_points: int
    in_points: int
    delay_s: float
    cold_start_s: float


class Outages(NamedTuple):
    """Failures of instances: those listed, ordered by time and instance, and random ones unless `mtbf_s` is inf."""

    instance: Ints
    at_s: Floats
    for_s: Floats
    mtbf_s: float
    mttr_s: float
    column: int


class Retries(NamedTuple):
    """The callers' retries; `max_attempts` 1: none.

    Attempt a + 1 is made u min(base_s 2^a, cap_s) after the answer to attempt a = 0, 1, ... `timeout_s`: when a caller
    gives up, inf: never. `quota`: tokens of each of `n_clients` clients, -1 for no limit; a retry costs `cost`, after a
    time-out `timeout_cost`. `causes`: the bits ON_... .
    """

    max_attempts: int
    base_s: float
    cap_s: float
    timeout_s: float
    quota: int
    cost: int
    timeout_cost: int
    n_clients: int
    causes: int


class Dynamics(NamedTuple):
    """What makes a pool need events; `evented` tells whether it does."""

    evented: bool
    batching: Batching
    scaling: Scaling
    outages: Outages
    retries: Retries
    scheduler: Scheduler = NO_SCHEDULER
    lengths: Lengths = NO_LENGTHS
    prefix: PrefixNames | None = None


# ---- Columns of a window's row after those of `_kernel` ----
R_UNAVAILABLE, R_FAILED, R_STARTED, R_BATCHES, R_RETRIES = 24, 25, 26, 27, 28
R_BUSY_S, R_SERVING_S, R_UP_S, R_EXISTING_S, R_DESIRED = 29, 30, 31, 32, 33  # worker-seconds, then instance-seconds
R_CALLS, R_CALLS_ANSWERED, R_CALL_SUM = 34, 35, 36  # by the window of a call's first attempt
R_BATCHED = 37  # requests in the batches of R_BATCHES, by the window in which these start
# tokens made, tokens of prompts processed, and preemptions, by the window in which they happen; then sums and greatest
# values over R_SAMPLES instances at ticks
R_OUTPUT_TOKENS, R_PREFILL_TOKENS, R_PREEMPTIONS = 38, 39, 40
R_SAMPLES, R_RUNNING, R_RUNNING_MAX, R_CACHE, R_CACHE_MAX = 41, 42, 43, 44, 45
# tokens of prompts that were looked up in prefix caches, and found, by the window of a request's first admission
R_PREFIX_QUERIED, R_PREFIX_HIT = 46, 47
EVENT_ROW_WIDTH = 48

# ---- Columns of the sample after those of `_kernel` ----
S_ATTEMPT, S_STATUS, S_LATENCY, S_FIRST_TOKEN, S_PROMPT, S_OUTPUT, S_CACHED = 7, 8, 9, 10, 11, 12, 13
EVENT_SAMPLE_WIDTH = 14

# ---- How an attempt ended for the endpoint; `run_frames.STATUSES` names them in this order ----
ANSWERED, ERROR_4XX, ERROR_5XX, TIMED_OUT, REFUSED, UNAVAILABLE, FAILED = range(7)

# ---- Columns of `Machines.node_s` and `Machines.node` ----
N_ARRIVAL, N_WORK, N_START, N_FIRST = range(4)
NODE_S_WIDTH = 4
(
    N_WINDOW, N_NUMBER, N_REQUEST, N_ATTEMPT, N_ORDER, N_OWN_WINDOW, N_SLOT, N_ADMITTED, N_NEXT, N_FLAGS, N_STATUS,
    N_CLIENT, N_PAID, N_EARLIER, N_LATER, N_EARLIER_CALL, N_LATER_CALL,
) = range(17)  # fmt: skip
NODE_WIDTH = 17
# flags of a node: it ended for the endpoint; its caller knows; its caller may give up; it is to be copied at its end;
# it has left its instance, and its answer is on its way
F_ENDED, F_TOLD, F_CALLING, F_COPIED, F_LEFT = 1, 2, 4, 8, 16

# ---- Columns of `Machines.slot`, and an instance's status ----
I_NUMBER, I_STATUS, I_BUSY, I_HEAD, I_TAIL, I_QUEUED, I_PRESENT, I_OUTSTANDING, I_PLACE, I_OUTAGES, I_READY = range(11)
SLOT_WIDTH = 11
EMPTY, STARTING, SERVING, DRAINING, DOWN = range(5)

# ---- Elements of `Machines.count` and `Machines.clock` ----
(
    M_FREE, M_N_FREE, M_DEADLINES, M_LAST_DEADLINE, M_CALLS, M_LAST_CALL, M_READY, M_SERVING, M_ADMITTED, M_BUSY,
    M_OUTSTANDING, M_RETRIES, M_TICK, M_INVOCATIONS, M_HIGH, M_LOW, M_DESIRED, M_NEXT_NUMBER, M_LISTED,
    M_EFFECT, M_EFFECTS, M_OPEN, M_UP, M_EXISTING, M_ACTIONS, M_FREE_SLOTS, M_FIRST, M_FRESH,
    M_ENTERING, M_LAST_ENTERING, M_ANSWERING, M_LAST_ANSWERING, M_FAULT,
) = range(33)  # fmt: skip
N_COUNTS = 33
T_NOW, T_BUSY, T_POOL, T_WORLD, T_OUT_COOLDOWN, T_IN_COOLDOWN, T_MINUTE_SUM, T_END = range(8)
N_CLOCKS = 8

# ---- Columns of `Machines.effect_s`, `Machines.effect` and `Machines.action`, in which NaN is what a row has not ----
E_TIME_S, E_DECIDED_S, E_METRIC = 0, 1, 2
EFFECT_S_WIDTH = 3
E_WANTED, E_DESIRED = 0, 1
A_TIME_S, A_DECIDED_S, A_DONE_S, A_BEFORE, A_AFTER, A_METRIC, A_INSTANCE, A_SERVING = range(8)
ACTION_WIDTH = 8

# ---- More elements of `Progress.cursor`: the next attempt of a chunk, and how many it has ----
C_AT, C_CHUNK = 10, 11
CURSOR = 12
RELEASED, CLOSING, ENDED = 4, 5, 6  # phases of a window besides those of `_kernel`

# ---- Kinds of events, in their order at one instant ----
FINISH, GIVE_UP, DEADLINE, WORLD, READY, DUE, TICK, ARRIVAL, RETRY = range(9)
LEAVE, NOTHING = 9, 10  # the next of those that leave together; no event
ANSWER, ENTER = 11, 12  # with tokens: an answer arrives, before any finish; a sequence enters a queue, before arrivals
TOO_LONG = 2  # what `run_side` returns for a request that no instance can hold; M_FAULT is its number


class Attempts(NamedTuple):
    """Attempts on their way to a pool, in order of time; as `_kernel.Copies`, with the number of the attempt."""

    arrival: Floats
    window: Ints
    offset: Hashes
    request: Ints
    order: Hashes
    attempt: Ints


class Machines(NamedTuple):
    """The state of an evented pool; updated in place.

    A request is a node: `node_s` (nodes, NODE_S_WIDTH) and `node` (nodes, NODE_WIDTH); N_NEXT links the queue of an
    instance, the members of a batch and the free nodes, but for those from M_FRESH on, which were never used: so their
    memory is not touched yet. Nodes that may time out are a list in order of arrival, from
    M_DEADLINES to M_LAST_DEADLINE by N_EARLIER and N_LATER; those whose callers may give up before are another.

    An instance is a slot, used again once it is gone: `slot` (slots, SLOT_WIDTH). Its worker j is number
    slot x workers + j: `end_s` (all,) is when the worker ends, inf if it is idle, `job` (all,) the first node that it
    serves, and `idle` (all,) holds the slot's idle workers as a stack. Workers that end in one bucket of time are a
    list by `next_worker` (all,), from `wheel` (buckets,) on, and bit b of `occupied` (buckets / 64,) says that bucket b
    has one; M_FIRST ends first, at T_END. `due_s` (slots,) is when an instance's forming batch is due, and `due_tree`
    (2 slots,) a tournament: element i is the slot that is due first of those below. `world_s` (slots,) is when an
    instance starts, fails or is repaired next.

    `serving` (slots,) are the slots that serve, by number, and `load` (slots,) their outstanding requests; `ready`
    (slots,): slots that may start waiting requests now; `free_slot` (slots,): a stack.

    `retry` (nodes,): a heap of nodes that will be attempts. `effect_s` (effects, EFFECT_S_WIDTH) and `effect`
    (effects, 2): scaling decisions on their way, a ring. `action` (actions, ACTION_WIDTH): those that took effect, and
    outages, in order. `tokens` (clients,). `open_bucket` (ring, BUCKETS) and `open_n` (ring,): histogram and unanswered
    requests of a window that is not closed, at w mod ring, a power of two.
    `call_sections` (sections, BUCKETS): the histogram of the callers' latencies.
    """

    node_s: Floats
    node: Ints
    slot: Ints
    end_s: Floats
    next_worker: Int32s
    wheel: Int32s
    occupied: Hashes
    job: Int32s
    idle: Int32s
    due_s: Floats
    due_tree: Int32s
    world_s: Floats
    serving: Int32s
    load: Int32s
    ready: Int32s
    free_slot: Int32s
    retry: Int32s
    effect_s: Floats
    effect: Ints
    action: Floats
    tokens: Ints
    open_bucket: NDArray[np.uint32]
    open_n: Ints
    call_sections: Ints
    count: Ints
    clock: Floats
    copied_s: Floats
    copied_at: Ints


class EventRun(NamedTuple):
    """One evented side of a run, with all that is updated; None is what it has not, and is compiled without."""

    pool: Pool
    dynamics: Dynamics
    answer: Payload
    machines: Machines
    tally: Tally
    sample: Sample
    engines: Engines | None
    prefixes: Prefixes | None
    token_tally: TokenTally | None


# ---- Workers that are busy ----


@inline
def _ends_before(a: int, b: int, workers: int, end_s: Floats, job: Int32s, node: Ints, slot: Ints) -> bool:
    """Return whether busy worker a ends before b: by (time, instance's number, order of admission)."""
    end_a, end_b = end_s[np.uint64(a)], end_s[np.uint64(b)]
    before = end_a < end_b
    if end_a == end_b:
        number_a, number_b = slot[a // workers, I_NUMBER], slot[b // workers, I_NUMBER]
        before = number_a < number_b
        if number_a == number_b:
            before = node[job[a], N_ADMITTED] < node[job[b], N_ADMITTED]
    return before


@inline
def _begin_work(
    worker: int, t: float, workers: int, per_s: float, end_s: Floats, next_worker: Int32s, wheel: Int32s,
    occupied: Hashes, job: Int32s, node: Ints, slot: Ints, count: Ints, clock: Floats,
) -> None:  # fmt: skip
    """Let a worker be busy until t."""
    u, b = np.uint64(worker), np.uint64(wheel_bucket(t, per_s) & (wheel.size - 1))
    end_s[u], next_worker[u] = t, wheel[b]
    wheel[b] = np.int32(worker)
    occupied[b >> _6] |= ONE << (b & _63)
    first = count[M_FIRST]
    if first < 0 or (t <= clock[T_END] and _ends_before(worker, first, workers, end_s, job, node, slot)):
        count[M_FIRST], clock[T_END] = worker, t


@inline
def _end_work(worker: int, per_s: float, end_s: Floats, next_worker: Int32s, wheel: Int32s, occupied: Hashes) -> None:
    """Let a worker be idle; `_find_first` must come after."""
    u = np.uint64(worker)
    b = np.uint64(wheel_bucket(end_s[u], per_s) & (wheel.size - 1))
    end_s[u] = np.inf
    before = np.int64(wheel[b])
    if before == worker:
        wheel[b] = next_worker[u]
        occupied[b >> _6] &= ~(np.uint64(next_worker[u] < 0) << (b & _63))
    else:
        while next_worker[np.uint64(before)] != worker:
            before = np.int64(next_worker[np.uint64(before)])
        next_worker[np.uint64(before)] = next_worker[u]


@inline
def _find_first(
    now: float, workers: int, per_s: float, end_s: Floats, next_worker: Int32s, wheel: Int32s, occupied: Hashes,
    job: Int32s, node: Ints, slot: Ints, count: Ints, clock: Floats,
) -> None:  # fmt: skip
    """Find the worker that ends first; none does before now."""
    first, b = np.int64(-1), wheel_bucket(now, per_s)
    stop = b + (wheel.size if count[M_BUSY] > 0 else 0)
    while b < stop:
        # the buckets from b on that share a word of bits; a worker may end in a later turn of the wheel
        bits = occupied[np.uint64(b & (wheel.size - 1)) >> _6] >> (np.uint64(b) & _63)
        while bits != _0:
            at = b + np.int64(lowest_bit(bits))
            bits &= bits - ONE
            worker = np.int64(wheel[np.uint64(at & (wheel.size - 1))])
            while worker >= 0:
                this_turn = wheel_bucket(end_s[np.uint64(worker)], per_s) == at
                if this_turn and (first < 0 or _ends_before(worker, first, workers, end_s, job, node, slot)):
                    first = worker
                worker = np.int64(next_worker[np.uint64(worker)])
            if first >= 0:
                bits, stop = _0, b
        b += 64 - (b & 63)
    if first < 0 and count[M_BUSY] > 0:
        for worker in range(end_s.size):
            busy = end_s[worker] < np.inf
            if busy and (first < 0 or _ends_before(worker, first, workers, end_s, job, node, slot)):
                first = np.int64(worker)
    count[M_FIRST], clock[T_END] = first, end_s[np.uint64(first)] if first >= 0 else np.inf


# ---- Batches that form ----


@inline
def _set_due(i: int, t: float, due_s: Floats, tree: Int32s) -> None:
    """Set when slot i's forming batch is due; inf: never."""
    if due_s[i] != t:
        due_s[i] = t
        j = np.uint64((i + due_s.size) >> 1)
        while j > 0:
            a, b = tree[j << ONE], tree[(j << ONE) | ONE]
            tree[j] = a if due_s[np.uint64(a)] <= due_s[np.uint64(b)] else b
            j = j >> ONE


# ---- Nodes ----


@inline
def _take_node(node: Ints, count: Ints) -> int:
    x = count[M_FREE]
    if x >= 0:
        count[M_FREE] = node[x, N_NEXT]
    else:
        x = count[M_FRESH]
        count[M_FRESH] = x + 1
    count[M_N_FREE] -= 1
    return x


@inline
def _give_node(x: int, node: Ints, count: Ints) -> None:
    node[x, N_NEXT] = count[M_FREE]
    count[M_FREE] = x
    count[M_N_FREE] += 1


@inline
def _append(x: int, head: int, tail: int, earlier: int, later: int, node: Ints, count: Ints) -> None:
    """Add a node to the list of deadlines or of calls, whose ends and links are at the given columns."""
    at, last = np.uint64(x), count[tail]
    node[at, earlier], node[at, later] = last, -1
    if last >= 0:
        node[np.uint64(last), later] = x
    else:
        count[head] = x
    count[tail] = x


@inline
def _unlink(x: int, head: int, tail: int, earlier: int, later: int, node: Ints, count: Ints) -> None:
    at = np.uint64(x)
    before, after = node[at, earlier], node[at, later]
    if before >= 0:
        node[np.uint64(before), later] = after
    else:
        count[head] = after
    if after >= 0:
        node[np.uint64(after), earlier] = before
    else:
        count[tail] = before


@inline
def _comes_before(a: int, b: int, node_s: Floats, node: Ints) -> bool:
    """Return whether retry a is made before b: by (time, window, number, attempt)."""
    if node_s[a, N_ARRIVAL] != node_s[b, N_ARRIVAL]:
        first = node_s[a, N_ARRIVAL] < node_s[b, N_ARRIVAL]
    elif node[a, N_WINDOW] != node[b, N_WINDOW]:
        first = node[a, N_WINDOW] < node[b, N_WINDOW]
    elif node[a, N_NUMBER] != node[b, N_NUMBER]:
        first = node[a, N_NUMBER] < node[b, N_NUMBER]
    else:
        first = node[a, N_ATTEMPT] < node[b, N_ATTEMPT]
    return first


@inner
def _push_retry(x: int, retry: Int32s, node_s: Floats, node: Ints, count: Ints) -> None:
    i = count[M_RETRIES]
    count[M_RETRIES] = i + 1
    while i > 0 and _comes_before(x, retry[(i - 1) >> 1], node_s, node):
        retry[i] = retry[(i - 1) >> 1]
        i = (i - 1) >> 1
    retry[i] = x


@inner
def _pop_retry(retry: Int32s, node_s: Floats, node: Ints, count: Ints) -> int:
    first, n = np.int64(retry[0]), count[M_RETRIES] - 1
    count[M_RETRIES] = n
    x, i = np.int64(retry[n]), 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and _comes_before(retry[child + 1], retry[child], node_s, node):
            child += 1
        if not _comes_before(retry[child], x, node_s, node):
            break
        retry[i] = retry[child]
        i = child
    retry[i] = x
    return first


# ---- Callers ----
# What is called once per request takes arrays, not tuples of them, and returns once: see `_kernel`, Requests in flight.


@inline
def _tell(
    x: int, cause: int, now: float, settings: RunSettings, retries: Retries, node_s: Floats, node: Ints, count: Ints,
    tokens: Ints, retry: Int32s, rows: Floats, call_sections: Ints,
) -> None:  # fmt: skip
    """Tell a caller how attempt x ended, by an ON_... or 0 for success: another attempt is due, or the call ends."""
    if node[x, N_FLAGS] & F_CALLING:
        _unlink(x, M_CALLS, M_LAST_CALL, N_EARLIER_CALL, N_LATER_CALL, node, count)
    node[x, N_FLAGS] = (node[x, N_FLAGS] | F_TOLD) & ~F_CALLING
    window, attempt, client = node[x, N_WINDOW], node[x, N_ATTEMPT], node[x, N_CLIENT]
    cost = retries.timeout_cost if cause == ON_TIMEOUT else retries.cost
    limited, again = retries.quota >= 0, False
    if cause == 0:
        if limited:
            tokens[client] = min(tokens[client] + (1 if attempt == 0 else node[x, N_PAID]), retries.quota)
    elif retries.causes & cause != 0 and attempt + 1 < retries.max_attempts and (not limited or tokens[client] >= cost):
        if limited:
            tokens[client] -= cost
        k_wait = key(settings.seed, BACKOFF + ATTEMPT * attempt, window)
        u = uniform(mix(k_wait + GOLDEN * np.uint64(node[x, N_NUMBER])))
        t = now + u * min(retries.base_s * np.float64(np.int64(1) << attempt), retries.cap_s)
        again = t < settings.horizon_s
        if again:
            y = _take_node(node, count)
            for column in range(NODE_WIDTH):
                node[y, column] = node[x, column]
            node_s[y, N_ARRIVAL], node_s[y, N_FIRST] = t, node_s[x, N_FIRST]
            node[y, N_ATTEMPT], node[y, N_PAID] = attempt + 1, cost
            _push_retry(y, retry, node_s, node, count)
    if not again:
        latency = now - node_s[x, N_FIRST]
        rows[window, R_CALLS] += 1.0
        rows[window, R_CALLS_ANSWERED] += np.float64(cause == 0)
        rows[window, R_CALL_SUM] += latency
        section = window * call_sections.shape[0] // settings.n_windows
        call_sections[section, bucket_of(latency)] += 1


# ---- Attempts ----


@inline
def _let_go(s: np.uint64, slot: Ints, load: Int32s, count: Ints) -> None:
    """Count one outstanding request less in an instance."""
    slot[s, I_OUTSTANDING] -= 1
    count[M_OUTSTANDING] -= 1
    place = slot[s, I_PLACE]
    if place >= 0:
        load[np.uint64(place)] -= np.int32(1)


@inline
def _book(
    x: int, status: int, now: float, timeout_s: float, patience_s: float, node_s: Floats, node: Ints, slot: Ints,
    load: Int32s, count: Ints, rows: Floats, open_bucket: NDArray[np.uint32], open_n: Ints,
) -> int:  # fmt: skip
    """Book how an attempt ended for the endpoint; return what its caller is told, an ON_... or 0 for success."""
    u = np.uint64(x)  # an index that may be negative is tested at each access
    own, latency, cause = node[u, N_OWN_WINDOW], -1.0, 0
    w = np.uint64(own)
    if status != REFUSED and status != UNAVAILABLE:
        if not node[u, N_FLAGS] & F_LEFT:
            _let_go(np.uint64(node[u, N_SLOT]), slot, load, count)
        _unlink(x, M_DEADLINES, M_LAST_DEADLINE, N_EARLIER, N_LATER, node, count)
    if status == ANSWERED:
        latency, status = min(now - node_s[u, N_ARRIVAL], timeout_s), node[u, N_STATUS]
        if status != ANSWERED:
            rows[w, R_ERROR_4XX] += np.float64(status == ERROR_4XX)
            rows[w, R_ERROR_5XX] += np.float64(status == ERROR_5XX)
            cause = ON_MODEL_ERROR
    elif status == TIMED_OUT:
        rows[w, R_TIMED_OUT] += 1.0
        latency, cause = timeout_s, ON_TIMEOUT if patience_s <= timeout_s else ON_MODEL_ERROR
    elif status == REFUSED:
        rows[w, R_REFUSED] += 1.0
        cause = ON_REFUSED
    elif status == UNAVAILABLE:
        rows[w, R_UNAVAILABLE] += 1.0
        cause = ON_UNAVAILABLE
    else:
        rows[w, R_FAILED] += 1.0
        cause = ON_OUTAGE
    at = own & (open_n.size - 1)
    open_n[np.uint64(at)] -= 1
    if latency >= 0.0:
        rows[w, R_LATENCY_SUM] += latency
        rows[w, R_LATENCY_MIN] = min(rows[w, R_LATENCY_MIN], latency)
        rows[w, R_LATENCY_MAX] = max(rows[w, R_LATENCY_MAX], latency)
        open_bucket[np.uint64(at), np.uint64(bucket_of(latency))] += np.uint32(1)
    node[u, N_STATUS] = status
    node[u, N_FLAGS] |= F_ENDED
    return cause


@inline
def _keep(
    x: int, latency_s: float, after_s: float, node_s: Floats, node: Ints, slot: Ints, engines: Engines | None,
    prefixes: Prefixes | None, rows: Floats, n: Ints,
) -> None:  # fmt: skip
    """Write an attempt to the sample. `n` also counts attempts without room."""
    at = n[0]
    n[0] = at + 1
    if at < rows.shape[0]:
        i = node[x, N_SLOT]
        rows[at, S_WINDOW], rows[at, S_NUMBER], rows[at, S_ORDER] = (
            node[x, N_WINDOW],
            node[x, N_NUMBER],
            node[x, N_ORDER],
        )
        rows[at, S_ARRIVAL], rows[at, S_START], rows[at, S_SERVICE] = (
            node_s[x, N_ARRIVAL], node_s[x, N_START], node_s[x, N_WORK],
        )  # fmt: skip
        rows[at, S_INSTANCE] = slot[i, I_NUMBER] if i >= 0 else -1
        rows[at, S_ATTEMPT], rows[at, S_STATUS], rows[at, S_LATENCY] = node[x, N_ATTEMPT], node[x, N_STATUS], latency_s
        if engines is not None:
            rows[at, S_FIRST_TOKEN] = (engines.first_token_s[x] + after_s) - node_s[x, N_ARRIVAL]
            rows[at, S_PROMPT], rows[at, S_OUTPUT] = engines.sequence[x, Q_PROMPT], engines.sequence[x, Q_OUTPUT]
            rows[at, S_CACHED] = np.nan
        if prefixes is not None and prefixes.of_node[x, P_CACHED] >= 0:
            rows[at, S_CACHED] = prefixes.of_node[x, P_CACHED]


# ---- Instances ----


@inline
def _count_busy(by: int, now: float, count: Ints, clock: Floats, row: Floats) -> None:
    """Integrate the busy workers up to now, and change their number."""
    row[R_BUSY_S] += np.float64(count[M_BUSY]) * (now - clock[T_BUSY])
    clock[T_BUSY] = now
    count[M_BUSY] += by


@inner
def _count_pool(now: float, machines: Machines, row: Floats) -> None:
    """Integrate the instances that serve, are up, and exist, up to now."""
    count, clock = machines.count, machines.clock
    length = now - clock[T_POOL]
    row[R_SERVING_S] += np.float64(count[M_SERVING]) * length
    row[R_UP_S] += np.float64(count[M_UP]) * length
    row[R_EXISTING_S] += np.float64(count[M_EXISTING]) * length
    clock[T_POOL] = now


@inline
def _start_waiting(
    i: int, now: float, workers: int, per_s: float, most: int, max_delay_s: float, slowdown: Floats, factors: Floats,
    node_s: Floats, node: Ints, slot: Ints, job: Int32s, idle: Int32s, end_s: Floats, next_worker: Int32s,
    wheel: Int32s, occupied: Hashes, due_s: Floats, due_tree: Int32s, count: Ints, clock: Floats, rows: Floats,
    row: Floats,
) -> None:  # fmt: skip
    """Start what an instance may start now: waiting requests on idle workers, or batches that are full or due.

    `most` requests fill a batch; without a batcher, `factors` is empty and each request starts alone.
    """
    s = np.uint64(i)
    queued, busy = slot[s, I_QUEUED], slot[s, I_BUSY]
    while queued > 0 and busy < workers:
        head, size = np.uint64(slot[s, I_HEAD]), min(queued, most)
        if size < most and now < node_s[head, N_ARRIVAL] + max_delay_s:
            break
        work = node_s[head, N_WORK]
        if slowdown.size:
            work *= slowdown[min(busy, slowdown.size - 1)]
        if factors.size:
            work *= factors[size - 1]
        x, last, following = head, head, np.int64(-1)
        for _ in range(size):
            own = np.uint64(node[x, N_OWN_WINDOW])
            rows[own, R_WAIT_SUM] += now - node_s[x, N_ARRIVAL]
            rows[own, R_STARTED] += 1.0
            node_s[x, N_START], node_s[x, N_WORK] = now, work
            last = x
            following = node[x, N_NEXT]
            x = np.uint64(max(following, 0))
        node[last, N_NEXT] = -1
        slot[s, I_HEAD] = following
        queued -= size
        _count_busy(1, now, count, clock, row)
        row[R_BATCHES] += 1.0
        row[R_BATCHED] += np.float64(size)
        worker = np.int64(idle[np.uint64(i * workers + workers - busy - 1)])
        busy += 1
        job[np.uint64(worker)] = np.int32(head)
        _begin_work(
            worker, now + work, workers, per_s, end_s, next_worker, wheel, occupied, job, node, slot, count, clock
        )  # fmt: skip
    slot[s, I_QUEUED], slot[s, I_BUSY] = queued, busy
    if factors.size:
        due = np.inf
        if queued > 0 and busy < workers:
            due = node_s[np.uint64(slot[s, I_HEAD]), N_ARRIVAL] + max_delay_s
        _set_due(i, due, due_s, due_tree)


@inner
def _move_end(worker: int, t: float, now: float, workers: int, per_s: float, machines: Machines) -> None:
    """Let a busy worker end at another time."""
    end_s, next_worker, wheel, occupied = machines.end_s, machines.next_worker, machines.wheel, machines.occupied
    job, node, slot, count, clock = machines.job, machines.node, machines.slot, machines.count, machines.clock
    _end_work(worker, per_s, end_s, next_worker, wheel, occupied)
    _begin_work(worker, t, workers, per_s, end_s, next_worker, wheel, occupied, job, node, slot, count, clock)
    _find_first(now, workers, per_s, end_s, next_worker, wheel, occupied, job, node, slot, count, clock)


# ---- Engines: instances that make tokens; their one worker is busy while a step is in progress ----


@inner
def _start_engine(
    i: int, now: float, per_s: float, scheduler: Scheduler, engines: Engines, prefixes: Prefixes | None,
    machines: Machines, rows: Floats, row: Floats,
) -> int:  # fmt: skip
    """Start an engine's next step; return the first of the aborted requests that leave it, linked by N_NEXT."""
    node, node_s, slot, count, clock = machines.node, machines.node_s, machines.slot, machines.count, machines.clock
    end, leaving, preempted, n_admitted = start_steps(now, i, engines, prefixes, scheduler)
    row[R_PREEMPTIONS] += np.float64(preempted)
    for j in range(n_admitted):
        x = engines.listed[j]
        if np.isnan(node_s[x, N_START]):  # one that was preempted has started before
            own = node[x, N_OWN_WINDOW]
            rows[own, R_WAIT_SUM] += now - node_s[x, N_ARRIVAL]
            rows[own, R_STARTED] += 1.0
            node_s[x, N_START] = now
            if prefixes is not None:
                hit = np.float64(prefixes.of_node[x, P_CACHED])
                row[R_PREFIX_QUERIED] += np.float64(engines.sequence[x, Q_PROMPT])
                row[R_PREFIX_HIT] += hit
                # its work was booked at its arrival, when this was not known
                rows[own, R_WORK] -= scheduler.prefill_s * hit + scheduler.pair_s * (hit * hit)
    if end < np.inf:
        _count_busy(1, now, count, clock, row)
        slot[i, I_BUSY] = 1
        _begin_work(
            i, end, 1, per_s, machines.end_s, machines.next_worker, machines.wheel, machines.occupied, machines.job,
            node, slot, count, clock,
        )  # fmt: skip
    return _linked(leaving, engines, node)


@inner
def _end_engine(
    i: int, now: float, timeout_s: float, scheduler: Scheduler, engines: Engines, prefixes: Prefixes | None,
    token_tally: TokenTally, machines: Machines, row: Floats,
) -> int:  # fmt: skip
    """Book the tokens of an engine's steps; return the first of those that made their last, linked by N_NEXT."""
    node, node_s = machines.node, machines.node_s
    row[R_PREFILL_TOKENS] += np.float64(engines.engine[i, G_PREFILL])
    made, leaving, n_first = end_steps(i, engines, prefixes, scheduler.block_tokens)
    row[R_OUTPUT_TOKENS] += np.float64(made)
    told = now + scheduler.after_s
    for j in range(n_first):
        x = engines.listed[j]
        if not node[x, N_FLAGS] & F_ENDED and told <= node_s[x, N_ARRIVAL] + timeout_s:
            own = node[x, N_OWN_WINDOW]
            at = own & (machines.open_n.size - 1)
            engines.first_token_s[x] = now
            book(own, at, told - node_s[x, N_ARRIVAL], token_tally.first_token)
    x = leaving
    while x >= 0:
        engines.last_token_s[x] = now
        node_s[x, N_WORK] = told - node_s[x, N_START]
        x = engines.sequence[x, Q_LATER]
    return _linked(leaving, engines, node)


@inner
def _linked(first: int, engines: Engines, node: Ints) -> int:
    """Link sequences by N_NEXT as they are by Q_LATER; return the first."""
    x = first
    while x >= 0:
        node[x, N_NEXT] = engines.sequence[x, Q_LATER]
        x = node[x, N_NEXT]
    return first


@inner
def _empty_engine(i: int, scheduler: Scheduler, engines: Engines, node: Ints, count: Ints) -> int:
    """Empty an engine; return the first of what was in it, linked by Q_LATER: what has not entered yet comes last."""
    sequence = engines.sequence
    first = fail_engine(i, engines, scheduler)
    last, x = first, first
    while x >= 0:
        last = x
        x = sequence[x, Q_LATER]
    x = count[M_ENTERING]
    while x >= 0:
        following = sequence[x, Q_LATER]
        if node[x, N_SLOT] == i:
            _unlink(x, M_ENTERING, M_LAST_ENTERING, Q_EARLIER, Q_LATER, sequence, count)
            sequence[x, Q_LATER] = -1
            if first < 0:
                first = x
            else:
                sequence[last, Q_LATER] = x
            last = x
        x = following
    return first


@inner
def _enter(
    x: int, i: int, now: float, per_s: float, scheduler: Scheduler, engines: Engines, machines: Machines
) -> int:  # fmt: skip
    """Let a request enter an engine's queue; return the engine if it is to be started, or -1."""
    moved = enter_queue(now, x, i, engines, scheduler)
    if moved >= 0.0:
        _move_end(i, moved, now, 1, per_s, machines)
    return i if machines.slot[i, I_BUSY] == 0 else -1


@inner
def _give_up_tokens(
    x: int, now: float, per_s: float, scheduler: Scheduler, engines: Engines, machines: Machines
) -> bool:  # fmt: skip
    """Abort a request that timed out; return whether it left its instance at once."""
    sequence, i = engines.sequence, machines.node[x, N_SLOT]
    place = sequence[x, Q_PLACE]
    if place == LEFT:
        return False  # its answer is on its way
    if place == ENTERING:
        _unlink(x, M_ENTERING, M_LAST_ENTERING, Q_EARLIER, Q_LATER, sequence, machines.count)
        sequence[x, Q_PLACE] = LEFT
        return True
    moved = abort(now, x, i, engines, scheduler)
    if moved >= 0.0:
        _move_end(i, moved, now, 1, per_s, machines)
    return place != RUNNING


@inline
def _book_tokens(
    x: int, answered: bool, ring: int, after_s: float, node_s: Floats, node: Ints, engines: Engines,
    token_tally: TokenTally,
) -> None:  # fmt: skip
    """Book an answer's time per token, and the joint goals that it meets if it is no error."""
    own, output = node[x, N_OWN_WINDOW], engines.sequence[x, Q_OUTPUT]
    per_token = 0.0
    if output > 1:
        per_token = (engines.last_token_s[x] - engines.first_token_s[x]) / np.float64(output - 1)
        book(own, own & (ring - 1), per_token, token_tally.per_token)
    if answered:
        first = (engines.first_token_s[x] + after_s) - node_s[x, N_ARRIVAL]
        for goal in range(token_tally.goal_s.shape[0]):
            met = first <= token_tally.goal_s[goal, 0] and per_token <= token_tally.goal_s[goal, 1]
            token_tally.met[own, goal] += np.float64(met)


@inner
def _remove(i: int, now: float, machines: Machines, row: Floats) -> None:
    """Free the slot of an instance that is gone."""
    slot, count = machines.slot, machines.count
    _count_pool(now, machines, row)
    count[M_EXISTING] -= 1
    if slot[i, I_STATUS] == DRAINING:
        count[M_UP] -= 1
    slot[i, I_STATUS] = EMPTY
    machines.world_s[i] = np.inf
    machines.free_slot[count[M_FREE_SLOTS]] = i
    count[M_FREE_SLOTS] += 1


@inner
def _serve_from(
    i: int, now: float, seed: np.uint64, outages: Outages, prefixes: Prefixes | None, machines: Machines, row: Floats
) -> None:  # fmt: skip
    """Let an instance serve, until its next random outage; its prefix cache is empty."""
    if prefixes is not None:
        forget(i, prefixes)
    slot, count, serving, load = machines.slot, machines.count, machines.serving, machines.load
    _count_pool(now, machines, row)
    slot[i, I_STATUS] = SERVING
    count[M_UP] += 1
    place = count[M_SERVING]
    count[M_SERVING] = place + 1
    while place > 0 and slot[serving[place - 1], I_NUMBER] > slot[i, I_NUMBER]:
        serving[place], load[place] = serving[place - 1], load[place - 1]
        slot[serving[place], I_PLACE] = place
        place -= 1
    serving[place], load[place], slot[i, I_PLACE] = i, slot[i, I_OUTSTANDING], place
    machines.world_s[i] = np.inf
    if outages.mtbf_s < np.inf:
        z = mix(key(seed, outages.column, slot[i, I_NUMBER]) + GOLDEN * np.uint64(2 * slot[i, I_OUTAGES]))
        machines.world_s[i] = now + neg_log(uniform(z)) * outages.mtbf_s


@inner
def _leave(i: int, now: float, status: int, machines: Machines, row: Floats) -> None:
    """Take an instance from those that serve: it drains, or is down."""
    slot, count, serving, load = machines.slot, machines.count, machines.serving, machines.load
    _count_pool(now, machines, row)
    n = count[M_SERVING] - 1
    count[M_SERVING] = n
    for place in range(slot[i, I_PLACE], n):
        serving[place], load[place] = serving[place + 1], load[place + 1]
        slot[serving[place], I_PLACE] = place
    slot[i, I_PLACE] = -1
    slot[i, I_STATUS] = status
    if status == DOWN:
        count[M_UP] -= 1


@inner
def _empty_workers(i: int, workers: int, per_s: float, machines: Machines) -> int:
    """Let an instance's workers be idle; return the first of what was in it, linked by N_NEXT in order of admission."""
    node, slot, end_s, job = machines.node, machines.slot, machines.end_s, machines.job
    first, last = np.int64(-1), np.int64(-1)
    for _ in range(slot[i, I_BUSY] + 1):
        earliest = np.int64(-1)
        for worker in range(i * workers, (i + 1) * workers):
            if end_s[worker] < np.inf and (
                earliest < 0 or node[job[worker], N_ADMITTED] < node[job[earliest], N_ADMITTED]
            ):
                earliest = np.int64(worker)
        # what waits was admitted after what is in service
        x = np.int64(job[earliest]) if earliest >= 0 else (slot[i, I_HEAD] if slot[i, I_QUEUED] > 0 else np.int64(-1))
        if earliest >= 0:
            _end_work(earliest, per_s, end_s, machines.next_worker, machines.wheel, machines.occupied)
        if x >= 0:
            if first < 0:
                first = x
            else:
                node[last, N_NEXT] = x
            while x >= 0:
                last = x
                x = node[x, N_NEXT]
    return first


@inner
def _fail(
    i: int, now: float, repair_s: float, workers: int, per_s: float, scheduler: Scheduler, engines: Engines | None,
    machines: Machines, row: Floats,
) -> int:  # fmt: skip
    """Fail an instance until `repair_s`; return the first of what was in it, linked by N_NEXT."""
    node, slot, end_s, job, count = machines.node, machines.slot, machines.end_s, machines.job, machines.count
    next_worker, wheel, occupied = machines.next_worker, machines.wheel, machines.occupied
    if engines is None:
        first = _empty_workers(i, workers, per_s, machines)
    else:
        row[R_OUTPUT_TOKENS] += np.float64(count_tokens(now, i, engines, scheduler))
        first = _linked(_empty_engine(i, scheduler, engines, node, count), engines, node)
        if slot[i, I_BUSY] > 0:
            _end_work(i, per_s, end_s, next_worker, wheel, occupied)
    _count_busy(-slot[i, I_BUSY], now, count, machines.clock, row)
    _find_first(
        now, workers, per_s, end_s, next_worker, wheel, occupied, job, node, slot, count, machines.clock
    )  # fmt: skip
    slot[i, I_BUSY], slot[i, I_QUEUED], slot[i, I_PRESENT] = 0, 0, 0
    for worker in range(i * workers, (i + 1) * workers):
        machines.idle[worker] = worker
    _set_due(i, np.inf, machines.due_s, machines.due_tree)
    slot[i, I_OUTAGES] += 1
    if slot[i, I_STATUS] == DRAINING:
        _remove(i, now, machines, row)
    else:
        _leave(i, now, DOWN, machines, row)
        machines.world_s[i] = repair_s
    return first


# ---- What changes a pool: outages, repairs, scaling ----


@inner
def _next_world(outages: Outages, machines: Machines) -> float:
    """Return when the next outage, repair, scaling or start of an instance happens."""
    count, world_s, t = machines.count, machines.world_s, np.inf
    for i in range(world_s.size):
        t = min(t, world_s[i])
    if count[M_LISTED] < outages.at_s.size:
        t = min(t, outages.at_s[count[M_LISTED]])
    if count[M_EFFECTS] > 0:
        t = min(t, machines.effect_s[count[M_EFFECT], E_TIME_S])
    return t


@inner
def _note_action(now: float, machines: Machines) -> int:
    """Return the row of `action` for what happens now; there is room for it."""
    row = machines.count[M_ACTIONS]
    machines.count[M_ACTIONS] = row + 1
    for column in range(ACTION_WIDTH):
        machines.action[row, column] = np.nan
    machines.action[row, A_TIME_S] = now
    return row


@inner
def _first_slot(now: float, status: int, other: int, machines: Machines) -> int:
    """Return the slot with the lowest number among those whose time has come with one of two statuses; -1: none."""
    slot, world_s, first = machines.slot, machines.world_s, np.int64(-1)
    for i in range(world_s.size):
        due = world_s[i] <= now and slot[i, I_STATUS] in (status, other)
        if due and (first < 0 or slot[i, I_NUMBER] < slot[first, I_NUMBER]):
            first = np.int64(i)
    return first


@inner
def _change_world(
    now: float,
    seed: np.uint64,
    workers: int,
    per_s: float,
    dynamics: Dynamics,
    engines: Engines | None,
    prefixes: Prefixes | None,
    machines: Machines,
    row: Floats,
) -> int:
    """Make the first change that is due now: outages come before repairs, scaling, and starts of instances.

    Return the first of the requests that fail with their instance, linked by N_NEXT; -1: none.
    """
    count, slot, world_s, outages = machines.count, machines.slot, machines.world_s, dynamics.outages
    down, repair_s, failing = _first_slot(now, SERVING, DRAINING, machines), 0.0, np.int64(-1)
    listed = count[M_LISTED]
    by_list = listed < outages.at_s.size and outages.at_s[listed] <= now
    if by_list:
        count[M_LISTED] = listed + 1
        down = -1
        for i in range(world_s.size):
            up = slot[i, I_STATUS] in (SERVING, DRAINING)
            if up and slot[i, I_NUMBER] == outages.instance[listed]:
                down, repair_s = np.int64(i), now + outages.for_s[listed]
    elif down >= 0:
        k_outage = key(seed, outages.column, slot[down, I_NUMBER])
        z = mix(k_outage + GOLDEN * np.uint64(2 * slot[down, I_OUTAGES] + 1))
        repair_s = now + neg_log(uniform(z)) * outages.mttr_s
    repaired = _first_slot(now, DOWN, DOWN, machines)
    if down >= 0:
        action = machines.action[_note_action(now, machines)]
        action[A_INSTANCE] = slot[down, I_NUMBER]
        if slot[down, I_STATUS] == SERVING:
            action[A_DONE_S] = repair_s
        failing = _fail(down, now, repair_s, workers, per_s, dynamics.scheduler, engines, machines, row)
        action[A_SERVING] = count[M_SERVING]
    elif by_list:
        pass  # its instance is not up
    elif repaired >= 0:
        _serve_from(repaired, now, seed, outages, prefixes, machines, row)
    elif count[M_EFFECTS] > 0 and machines.effect_s[count[M_EFFECT], E_TIME_S] <= now:
        _scale(now, dynamics.scaling, machines, row)
    else:
        starting = _first_slot(now, STARTING, STARTING, machines)
        _serve_from(starting, now, seed, outages, prefixes, machines, row)
    machines.clock[T_WORLD] = _next_world(outages, machines)
    return failing


@inner
def _scale(now: float, scaling: Scaling, machines: Machines, row: Floats) -> None:
    """Let the oldest scaling decision take effect; one to scale in is dropped if the desired count has changed."""
    count, clock, slot, at = machines.count, machines.clock, machines.slot, machines.count[M_EFFECT]
    wanted, before, desired = machines.effect[at, E_WANTED], machines.effect[at, E_DESIRED], count[M_DESIRED]
    out = wanted > before
    count[M_EFFECT] = (at + 1) % machines.effect.shape[0]
    count[M_EFFECTS] -= 1
    if (wanted <= desired) if out else (before != desired):
        return
    action = machines.action[_note_action(now, machines)]
    action[A_DECIDED_S], action[A_METRIC] = machines.effect_s[at, E_DECIDED_S], machines.effect_s[at, E_METRIC]
    action[A_BEFORE], action[A_AFTER] = desired, wanted
    count[M_DESIRED] = wanted
    _count_pool(now, machines, row)
    if out:
        action[A_DONE_S] = now + scaling.cold_start_s
        action[A_SERVING] = count[M_SERVING]
        clock[T_OUT_COOLDOWN] = now + scaling.out_cooldown_s
        for _ in range(wanted - desired):
            count[M_FREE_SLOTS] -= 1
            i = np.int64(machines.free_slot[count[M_FREE_SLOTS]])
            slot[i, I_NUMBER], slot[i, I_STATUS], slot[i, I_OUTAGES] = count[M_NEXT_NUMBER], STARTING, 0
            count[M_NEXT_NUMBER] += 1
            count[M_EXISTING] += 1
            machines.world_s[i] = now + scaling.cold_start_s
        return
    clock[T_IN_COOLDOWN] = now + scaling.in_cooldown_s
    for _ in range(desired - wanted):
        # starting ones first, then those with the highest numbers
        last = np.int64(-1)
        for i in range(machines.world_s.size):
            status = slot[i, I_STATUS]
            if status in (STARTING, SERVING, DOWN):
                starting, other = status == STARTING, last >= 0 and slot[last, I_STATUS] == STARTING
                if (
                    last < 0
                    or (starting and not other)
                    or (starting == other and slot[i, I_NUMBER] > slot[last, I_NUMBER])
                ):
                    last = np.int64(i)
        if slot[last, I_STATUS] == SERVING:
            _leave(last, now, DRAINING, machines, row)
        if slot[last, I_PRESENT] == 0:
            _remove(last, now, machines, row)
    action[A_SERVING] = count[M_SERVING]


@inner
def _decide(now: float, value: float, scale_in: bool, scaling: Scaling, machines: Machines) -> None:
    """Evaluate one data point of the scaling metric for scaling out, or in, and pass a decision on."""
    count, clock, n = machines.count, machines.clock, np.float64(machines.count[M_SERVING])
    desired = count[M_DESIRED]
    wanted = np.int64(math.ceil(min(value / scaling.target, np.float64(scaling.most))))
    while wanted > 0 and np.float64(wanted - 1) * scaling.target >= value:
        wanted -= 1
    while wanted < scaling.most and np.float64(wanted) * scaling.target < value:
        wanted += 1
    wanted = min(max(wanted, scaling.least), scaling.most)
    if scale_in:
        count[M_LOW] = count[M_LOW] + 1 if value < (0.9 * scaling.target) * n else 0
        cool = now >= clock[T_OUT_COOLDOWN] and now >= clock[T_IN_COOLDOWN]
        decided = count[M_LOW] >= scaling.in_points and wanted < desired and cool
    else:
        count[M_HIGH] = count[M_HIGH] + 1 if value > scaling.target * n else 0
        decided = count[M_HIGH] >= scaling.out_points and wanted > desired
    if decided:
        at = (count[M_EFFECT] + count[M_EFFECTS]) % machines.effect.shape[0]
        machines.effect_s[at, E_TIME_S], machines.effect_s[at, E_DECIDED_S] = now + scaling.delay_s, now
        machines.effect_s[at, E_METRIC] = value / n if n > 0 else np.inf
        machines.effect[at, E_WANTED], machines.effect[at, E_DESIRED] = wanted, desired
        count[M_EFFECTS] += 1
        clock[T_WORLD] = min(clock[T_WORLD], now + scaling.delay_s)


@inner
def _tick(
    now: float, scaling: Scaling, scheduler: Scheduler, engines: Engines | None, machines: Machines, row: Floats
) -> None:  # fmt: skip
    """Sample ConcurrentRequestsPerModel, and let the scaling policy look at its metric."""
    count, clock, slot, present = machines.count, machines.clock, machines.slot, 0
    for i in range(machines.world_s.size):
        status, here = slot[i, I_STATUS], slot[i, I_PRESENT]
        if status in (SERVING, DRAINING):
            row[R_CONCURRENT_MIN] = min(row[R_CONCURRENT_MIN], np.float64(here))
            row[R_CONCURRENT_MAX] = max(row[R_CONCURRENT_MAX], np.float64(here))
            present += here
            if engines is not None:
                n_running = np.float64(engines.engine[i, G_RUNNING])
                cached = np.float64(cached_blocks(now, i, engines, scheduler)) / np.float64(scheduler.blocks)
                row[R_SAMPLES] += 1.0
                row[R_RUNNING] += n_running
                row[R_RUNNING_MAX] = max(row[R_RUNNING_MAX], n_running)
                row[R_CACHE] += cached
                row[R_CACHE_MAX] = max(row[R_CACHE_MAX], cached)
    tick = count[M_TICK]
    count[M_TICK] = tick + 1
    if scaling.metric == NO_SCALING or tick == 0:
        return
    clock[T_MINUTE_SUM] += np.float64(present)
    if scaling.metric == CONCURRENCY:
        _decide(now, np.float64(present), False, scaling, machines)
    if tick % TICKS_PER_MINUTE == 0:
        if scaling.metric == INVOCATIONS:
            invocations = np.float64(count[M_INVOCATIONS])
            _decide(now, invocations, False, scaling, machines)
            _decide(now, invocations, True, scaling, machines)
        else:
            _decide(now, clock[T_MINUTE_SUM] / TICKS_PER_MINUTE, True, scaling, machines)
        count[M_INVOCATIONS] = 0
        clock[T_MINUTE_SUM] = 0.0


@inner
def _next_tick(horizon_s: float, count: Ints) -> float:
    t = np.float64(count[M_TICK]) * CONCURRENCY_EVERY_S
    return t if t < horizon_s else np.inf


# ---- Arrivals ----


@inline
def _choose(route: np.uint64, routing: int, serving: Int32s, load: Int32s, n: int) -> int:
    """Return the place, among the n instances that serve, to which a request goes."""
    place = np.int64(0)
    if n > 1:
        if routing == RANDOM:
            place = np.int64((route * np.uint64(n)) >> HIGH)
        else:
            least, ties = load[0], 0
            for j in range(n):
                least = min(least, load[j])
            for j in range(n):
                ties += np.int64(load[j] == least)
            m = np.int64((route * np.uint64(ties)) >> HIGH)
            for j in range(n):
                tied = np.int64(load[j] == least)
                place += np.int64(m >= tied)
                m -= tied
                if m < 0:
                    break
    return place


@inner
def _advance(
    w: int, through: float, last_retry: float, called: bool, settings: RunSettings, mirror: Mirror, sent: Payload,
    side: EventRun, engines: Engines | None, prefixes: Prefixes | None, incoming: Attempts, cursor: Ints,
    pending: Pending, copies: Attempts,
) -> int:  # fmt: skip
    """Let all events up to `through` happen, among them the attempts `incoming` and retries up to `last_retry`.

    `called`: this is the source, whose attempts are copied and whose callers retry; else the caps of copies apply.
    Return NEEDS_ROOM, to be called again, when a structure is full.
    """
    # unpacked once: reading a field of a tuple in a loop counts references
    pool, dynamics, answer, machines, tally, sample, _, _, token_tally = side
    scheduler, lengths = dynamics.scheduler, dynamics.lengths
    batching, scaling, outages, retries = dynamics.batching, dynamics.scaling, dynamics.outages, dynamics.retries
    node_s, node, slot, end_s = machines.node_s, machines.node, machines.slot, machines.end_s
    next_worker, wheel, occupied, per_s = machines.next_worker, machines.wheel, machines.occupied, pool.buckets_per_s
    job, idle, due_s, due_tree, ready = machines.job, machines.idle, machines.due_s, machines.due_tree, machines.ready
    count, clock, retry, open_n, open_bucket = (
        machines.count, machines.clock, machines.retry, machines.open_n, machines.open_bucket,
    )  # fmt: skip
    serving, load, tokens, call_sections = machines.serving, machines.load, machines.tokens, machines.call_sections
    copied_s, copied_at, action = machines.copied_s, machines.copied_at, machines.action
    in_arrival, in_window, in_offset, in_request, in_order, in_attempt = incoming
    to_arrival, to_window, to_offset, to_request, to_order, to_attempt = copies
    pending_s, pending_window, pending_number, pending_request, n_pending = pending
    threshold, kept, n_kept = sample
    rows, table, work_s, slowdown, factors = tally.rows, pool.table, pool.work_s, pool.slowdown, batching.factors
    seed, horizon_s, row, workers = settings.seed, settings.horizon_s, rows[w], pool.n_workers
    timeout_s, patience_s, most = pool.timeout_s, retries.timeout_s, max(batching.max_size, 1)
    mean_s, routing, queue_limit, most_new = pool.mean_s, pool.routing, pool.queue_limit, scaling.most
    late, impatient = called and mirror.instant == AT_RESPONSE, called and patience_s < timeout_s
    bodies, answers, failing = sent.mean >= 0.0, answer.mean >= 0.0, pool.error_4xx + pool.error_5xx
    share_of_worker = factors[most - 1] / np.float64(most) if factors.size else 1.0
    k_work, k_route, k_error = key(seed, pool.service, w), key(seed, pool.route, w), key(seed, pool.error, w)
    k_sent, k_copy, k_client = key(seed, sent.column, w), key(seed, COPY, w), key(seed, CLIENT, w)
    k_session, k_session_copy = key(seed, SESSION, w), key(seed, SESSION_COPY, 0)
    # requests that leave together, linked by N_NEXT, and how they end; the instance that they leave
    leaving, leaving_status, left = np.int64(-1), ANSWERED, np.int64(-1)
    tick_s = _next_tick(horizon_s, count)
    calm_s = min(clock[T_WORLD], tick_s)  # until then the pool does not change, and is not looked at
    result = -1
    while result < 0:
        # What happens is chosen here; the end of an attempt and starts on an instance are common to several events.
        t, x, status, told, released, start = clock[T_NOW], np.int64(-1), -1, False, False, np.int64(-1)
        emptied = np.int64(-1)
        latency, cause, kind = timeout_s, 0, LEAVE
        if leaving < 0:
            kind, t = FINISH, clock[T_END]
            if engines is not None and count[M_ANSWERING] >= 0:
                answer_s = engines.last_token_s[count[M_ANSWERING]] + scheduler.after_s
                if answer_s <= t:
                    kind, t = ANSWER, answer_s
            if impatient and count[M_CALLS] >= 0 and node_s[count[M_CALLS], N_ARRIVAL] + patience_s < t:
                kind, t = GIVE_UP, node_s[count[M_CALLS], N_ARRIVAL] + patience_s
            if count[M_DEADLINES] >= 0 and node_s[count[M_DEADLINES], N_ARRIVAL] + timeout_s < t:
                kind, t = DEADLINE, node_s[count[M_DEADLINES], N_ARRIVAL] + timeout_s
            if calm_s < t and clock[T_WORLD] < t:
                kind, t = WORLD, clock[T_WORLD]
            if count[M_READY] > 0 and clock[T_NOW] < t:
                kind, t = READY, clock[T_NOW]
            if due_s[due_tree[1]] < t:
                kind, t = DUE, due_s[due_tree[1]]
            if calm_s < t and tick_s < t:
                kind, t = TICK, tick_s
            if engines is not None and count[M_ENTERING] >= 0:
                enter_s = node_s[count[M_ENTERING], N_ARRIVAL] + scheduler.before_s
                if enter_s < t:
                    kind, t = ENTER, enter_s
            at = cursor[C_AT]
            if at < cursor[C_CHUNK] and in_arrival[at] < t:
                kind, t = ARRIVAL, in_arrival[at]
            if count[M_RETRIES] > 0:
                retry_s = node_s[retry[0], N_ARRIVAL]
                if retry_s < t and retry_s <= last_retry:
                    kind, t = RETRY, retry_s
            full = (
                count[M_N_FREE] < 2
                or (kind == WORLD and (count[M_FREE_SLOTS] < most_new or count[M_ACTIONS] == action.shape[0]))
                or (late and pending_s.size - n_pending[0] < node.shape[0])
                or (called and to_arrival.size == cursor[C_OUT])
            )
            # after the horizon outages would go on for ever
            if t > through or (through == np.inf and count[M_N_FREE] == node.shape[0]):
                kind, result = NOTHING, DONE
            elif full:
                kind, result = NOTHING, NEEDS_ROOM
            else:
                clock[T_NOW] = t
        if kind == FINISH:
            worker, leaving_status = count[M_FIRST], ANSWERED
            if engines is None:
                leaving, kind = np.int64(job[np.uint64(worker)]), LEAVE
                left = node[np.uint64(leaving), N_SLOT]
            else:
                left = worker
            _end_work(worker, per_s, end_s, next_worker, wheel, occupied)
            _count_busy(-1, t, count, clock, row)
            _find_first(
                t, workers, per_s, end_s, next_worker, wheel, occupied, job, node, slot, count, clock
            )  # fmt: skip
            busy = slot[left, I_BUSY] - 1
            slot[left, I_BUSY] = busy
            idle[left * workers + workers - busy - 1] = worker
            if engines is None:
                waits = slot[left, I_QUEUED] > 0
            else:
                leaving = _end_engine(
                    left, t, timeout_s, scheduler, engines, prefixes, token_tally, machines, row
                )  # fmt: skip
                kind = LEAVE if leaving >= 0 else FINISH
                waits = engines.engine[left, G_RUNNING] > 0 or engines.engine[left, G_HEAD] >= 0
            if waits and slot[left, I_READY] == 0:
                slot[left, I_READY] = 1
                ready[count[M_READY]] = left
                count[M_READY] += 1
        if kind == LEAVE:
            x, released = leaving, True
            leaving = node[x, N_NEXT]
            if leaving_status == ANSWERED:
                slot[left, I_PRESENT] -= 1
                emptied = left
            if not node[x, N_FLAGS] & F_ENDED:
                if engines is not None and scheduler.after_s > 0.0 and leaving_status == ANSWERED:
                    released = False
                    _let_go(np.uint64(left), slot, load, count)
                    node[x, N_FLAGS] |= F_LEFT
                    _append(x, M_ANSWERING, M_LAST_ANSWERING, Q_EARLIER, Q_LATER, engines.sequence, count)
                else:
                    status = leaving_status
                    latency = min(t - node_s[x, N_ARRIVAL], timeout_s) if status == ANSWERED else np.nan
        elif kind == ANSWER:
            if engines is not None:
                x, released = count[M_ANSWERING], True
                _unlink(x, M_ANSWERING, M_LAST_ANSWERING, Q_EARLIER, Q_LATER, engines.sequence, count)
                if not node[x, N_FLAGS] & F_ENDED:
                    status, latency = ANSWERED, min(t - node_s[x, N_ARRIVAL], timeout_s)
        elif kind == ENTER:
            if engines is not None:
                entering = count[M_ENTERING]
                _unlink(entering, M_ENTERING, M_LAST_ENTERING, Q_EARLIER, Q_LATER, engines.sequence, count)
                start = _enter(entering, node[entering, N_SLOT], t, per_s, scheduler, engines, machines)
        elif kind == GIVE_UP:
            x, told, cause = count[M_CALLS], True, ON_TIMEOUT
        elif kind == DEADLINE:
            x, status = count[M_DEADLINES], TIMED_OUT
            if engines is not None and scheduler.aborts:
                released = _give_up_tokens(x, t, per_s, scheduler, engines, machines)
                if released:
                    emptied = node[x, N_SLOT]
                    slot[emptied, I_PRESENT] -= 1
        elif kind == WORLD:
            leaving, leaving_status = _change_world(
                t, seed, workers, per_s, dynamics, engines, prefixes, machines, row
            ), FAILED  # fmt: skip
            calm_s = min(clock[T_WORLD], tick_s)
        elif kind == READY:
            n = count[M_READY] - 1
            count[M_READY] = n
            start = np.int64(ready[n])
            slot[start, I_READY] = 0
        elif kind == DUE:
            start = np.int64(due_tree[1])
        elif kind == TICK:
            _tick(t, scaling, scheduler, engines, machines, row)
            tick_s = _next_tick(horizon_s, count)
            calm_s = min(clock[T_WORLD], tick_s)
        elif kind in (ARRIVAL, RETRY):
            lost = 0
            window, attempt, request, offset = w, np.int64(0), np.int64(0), np.uint64(0)
            if kind == ARRIVAL:
                window, attempt, request, offset = in_window[at], in_attempt[at], in_request[at], in_offset[at]
                cursor[C_AT] = at + 1
                if not called:
                    if mirror.max_in_flight >= 0 and count[M_OUTSTANDING] >= mirror.max_in_flight:
                        lost = R_LOST_IN_FLIGHT
                    elif mirror.max_per_s >= 0:
                        if mirror.max_per_s == 0 or copied_s[copied_at[0]] > t - 1.0:
                            lost = R_LOST_PER_S
                        else:
                            copied_s[copied_at[0]] = t
                            copied_at[0] = (copied_at[0] + 1) % mirror.max_per_s
                if lost:
                    row[lost] += 1.0
                else:
                    x = _take_node(node, count)
                    node_s[x, N_ARRIVAL], node_s[x, N_FIRST] = t, t
                    node[x, N_WINDOW], node[x, N_REQUEST], node[x, N_ATTEMPT] = window, request, attempt
                    node[x, N_NUMBER], node[x, N_ORDER] = np.int64(offset * NUMBER_OF_OFFSET), np.int64(in_order[at])
                    node[x, N_CLIENT] = 0
                    if called and retries.n_clients > 1:
                        z = mix(k_client + offset) >> HIGH
                        node[x, N_CLIENT] = np.int64((z * np.uint64(retries.n_clients)) >> HIGH)
            else:
                x = _pop_retry(retry, node_s, node, count)
                window, attempt, request = node[x, N_WINDOW], node[x, N_ATTEMPT], node[x, N_REQUEST]
                offset = GOLDEN * np.uint64(node[x, N_NUMBER])
                row[R_RETRIES] += 1.0
            if not lost:
                u = np.uint64(x)  # an index that may be negative is tested at each access
                row[R_REQUESTS] += 1.0
                count[M_INVOCATIONS] += 1
                open_n[np.uint64(w & (open_n.size - 1))] += 1
                own_keys, shift = attempt == 0 and window == w, ATTEMPT * attempt
                node[u, N_OWN_WINDOW], node[u, N_SLOT], node[u, N_NEXT], node[u, N_FLAGS] = w, -1, -1, 0
                node[u, N_STATUS] = ANSWERED
                node_s[u, N_START] = np.nan
                if failing > 0.0:
                    chance = uniform(mix((k_error if own_keys else key(seed, pool.error + shift, window)) + offset))
                    if chance <= pool.error_4xx:
                        node[u, N_STATUS] = ERROR_4XX
                    elif chance <= failing:
                        node[u, N_STATUS] = ERROR_5XX
                if engines is not None:
                    if not new_sequence(
                        x, window, offset, request, shift, seed, scheduler, lengths, engines, prefixes
                    ):  # fmt: skip
                        count[M_FAULT], result = (
                            request if lengths.prompt_by_request.size else node[u, N_NUMBER],
                            TOO_LONG,
                        )
                    work = work_of(x, scheduler, lengths, engines)
                elif work_s.size:
                    work = work_s[request % work_s.size]
                else:
                    z = mix((k_work if own_keys else key(seed, pool.service + shift, window)) + offset)
                    work = draw(z, table) * mean_s
                node_s[u, N_WORK] = work if engines is None else np.nan
                row[R_WORK] += work * share_of_worker
                body = 0.0
                if bodies:
                    k_body = k_sent if window == w else key(seed, sent.column, window)
                    body = bytes_of(mix(k_body + offset), request, sent)
                    row[R_REQUEST_BYTES] += body
                if called:
                    # the mirror sees each attempt
                    copied = False
                    if mirror.rule == COIN:
                        z = mix((k_copy if own_keys else key(seed, COPY + shift, window)) + offset)
                        copied = (z >> HIGH) < mirror.coin
                    elif mirror.rule == COUNTER:
                        g = cursor[C_ARRIVED] + 1
                        copied = g * mirror.percent // 100 > (g - 1) * mirror.percent // 100
                    else:
                        z = mix((k_session if window == w else key(seed, SESSION, window)) + offset)
                        session = session_of(z, request, mirror)
                        copied = (mix(k_session_copy + GOLDEN * session) >> HIGH) < mirror.coin
                    cursor[C_ARRIVED] += 1
                    if copied and mirror.max_body_bytes >= 0.0 and body > mirror.max_body_bytes:
                        row[R_LOST_BODY] += 1.0
                    elif copied and late:
                        node[u, N_FLAGS] = F_COPIED
                    elif copied:
                        out = cursor[C_OUT]
                        to_arrival[out], to_window[out], to_offset[out] = t, window, offset
                        to_request[out], to_attempt[out] = request, attempt
                        to_order[out] = np.uint64(node[u, N_ORDER])
                        cursor[C_OUT] = out + 1
                n = count[M_SERVING]
                i, place = np.int64(-1), np.int64(0)
                if n > 0:
                    if n > 1:
                        z = mix((k_route if own_keys else key(seed, pool.route + shift, window)) + offset) >> HIGH
                        place = _choose(z, routing, serving, load, n)
                    i = np.int64(serving[np.uint64(place)])
                node[u, N_SLOT] = i
                s = np.uint64(max(i, 0))
                if engines is None:
                    no_room = slot[s, I_BUSY] == workers and slot[s, I_QUEUED] >= queue_limit >= 0
                else:
                    no_room = queue_limit >= 0 and slot[s, I_PRESENT] >= scheduler.max_sequences + queue_limit
                if n == 0 or no_room:
                    status, released, latency = (UNAVAILABLE if n == 0 else REFUSED), True, np.nan
                else:
                    node[u, N_ADMITTED] = count[M_ADMITTED]
                    count[M_ADMITTED] += 1
                    slot[s, I_PRESENT] += 1
                    slot[s, I_OUTSTANDING] += 1
                    count[M_OUTSTANDING] += 1
                    load[np.uint64(place)] += np.int32(1)
                    _append(x, M_DEADLINES, M_LAST_DEADLINE, N_EARLIER, N_LATER, node, count)
                    if impatient:
                        node[u, N_FLAGS] |= F_CALLING
                        _append(x, M_CALLS, M_LAST_CALL, N_EARLIER_CALL, N_LATER_CALL, node, count)
                    if engines is None:
                        if slot[s, I_QUEUED] > 0:
                            node[np.uint64(slot[s, I_TAIL]), N_NEXT] = x
                        else:
                            slot[s, I_HEAD] = x
                        slot[s, I_TAIL] = x
                        slot[s, I_QUEUED] += 1
                        start = i
                    elif scheduler.before_s > 0.0:
                        engines.sequence[x, Q_PLACE] = ENTERING
                        _append(x, M_ENTERING, M_LAST_ENTERING, Q_EARLIER, Q_LATER, engines.sequence, count)
                    else:
                        start = _enter(x, i, t, per_s, scheduler, engines, machines)
        if status >= 0:
            cause = _book(
                x, status, t, timeout_s, patience_s, node_s, node, slot, load, count, rows, open_bucket, open_n
            )
            window, attempt, number = node[x, N_WINDOW], node[x, N_ATTEMPT], node[x, N_NUMBER]
            if engines is not None and status == ANSWERED:
                good = node[x, N_STATUS] == ANSWERED
                _book_tokens(x, good, open_n.size, scheduler.after_s, node_s, node, engines, token_tally)
            if answers and status == ANSWERED:
                k_answer = key(seed, answer.column + ATTEMPT * attempt, window)
                body = bytes_of(mix(k_answer + GOLDEN * np.uint64(number)), node[x, N_REQUEST], answer)
                rows[node[x, N_OWN_WINDOW], R_RESPONSE_BYTES] += body
            if late and node[x, N_FLAGS] & F_COPIED:
                n = n_pending[0]
                pending_s[n], pending_window[n], pending_request[n] = t, window, node[x, N_REQUEST]
                pending_number[n] = number * MOST_ATTEMPTS + attempt
                rise(n, pending_s, pending_window, pending_number, pending_request)
                n_pending[0] = n + 1
            told = called and not node[x, N_FLAGS] & F_TOLD
        if told:
            _tell(x, cause, t, settings, retries, node_s, node, count, tokens, retry, rows, call_sections)
        if released:
            if np.uint64(node[x, N_ORDER]) < threshold:
                _keep(x, latency, scheduler.after_s, node_s, node, slot, engines, prefixes, kept, n_kept)
            _give_node(x, node, count)
        if emptied >= 0 and slot[emptied, I_PRESENT] == 0 and slot[emptied, I_STATUS] == DRAINING:
            _remove(emptied, t, machines, row)
            clock[T_WORLD] = _next_world(outages, machines)
            calm_s = min(clock[T_WORLD], tick_s)
        if start >= 0 and engines is not None:
            leaving, leaving_status, left = (
                _start_engine(start, t, per_s, scheduler, engines, prefixes, machines, rows, row), ANSWERED, start,
            )  # fmt: skip
        elif start >= 0:
            _start_waiting(
                start, t, workers, per_s, most, batching.max_delay_s, slowdown, factors, node_s, node, slot, job, idle,
                end_s, next_worker, wheel, occupied, due_s, due_tree, count, clock, rows, row,
            )  # fmt: skip
    return result


# ---- The run of one side ----


@inner
def _open_rows(w: int, rows: Floats, token_tally: TokenTally | None) -> None:
    open_row(rows[w])
    if token_tally is not None:
        open_row(token_tally.first_token.rows[w])
        open_row(token_tally.per_token.rows[w])


@inner
def _close_row(row: Floats, section: int, bucket: NDArray[np.uint32], sections: Ints) -> None:
    """Compute a window's quantiles, and move its histogram to its section; all that arrived in it have ended."""
    n = 0.0
    for b in range(BUCKETS):
        n += np.float64(bucket[b])
    if n > 0.0:
        close_histogram(n, row, section, bucket, sections)


@inner
def _close_ended(
    last: int, settings: RunSettings, machines: Machines, tally: Tally, token_tally: TokenTally | None
) -> None:  # fmt: skip
    """Close the windows up to `last` in order, as far as all that arrived in them have ended."""
    count, open_n = machines.count, machines.open_n
    while count[M_OPEN] <= last and open_n[count[M_OPEN] & (open_n.size - 1)] == 0:
        w = count[M_OPEN]
        section, at = w * settings.n_sections // settings.n_windows, w & (open_n.size - 1)
        _close_row(tally.rows[w], section, machines.open_bucket[at], tally.sections)
        if token_tally is not None:
            first, per = token_tally.first_token, token_tally.per_token
            _close_row(first.rows[w], section, first.open_bucket[at], first.sections)
            _close_row(per.rows[w], section, per.open_bucket[at], per.sections)
        count[M_OPEN] = w + 1


@inner
def _close_clocks(
    end: float, scheduler: Scheduler, engines: Engines | None, machines: Machines, row: Floats
) -> None:  # fmt: skip
    """Integrate busy workers and instances up to a window's end, and count the tokens made until then."""
    if engines is not None:
        for i in range(machines.world_s.size):
            row[R_OUTPUT_TOKENS] += np.float64(count_tokens(just_below(end), i, engines, scheduler))
    _count_busy(0, end, machines.count, machines.clock, row)
    _count_pool(end, machines, row)
    row[R_DESIRED] = np.float64(machines.count[M_DESIRED])


@njit
def start_pool(seed: np.uint64, n_instances: int, outages: Outages, machines: Machines, row: Floats) -> None:
    """Let the first instances serve from time 0; their slots and numbers are 0 to n_instances - 1."""
    count = machines.count
    for i in range(n_instances):
        count[M_FREE_SLOTS] -= 1  # the stack's top is slot i
        machines.slot[i, I_NUMBER] = i
        count[M_EXISTING] += 1
        _serve_from(i, 0.0, seed, outages, None, machines, row)
    count[M_NEXT_NUMBER], count[M_DESIRED] = n_instances, n_instances
    machines.clock[T_WORLD] = _next_world(outages, machines)


@njit
def plant_tree(machines: Machines) -> None:
    """Compute the tournament of forming batches."""
    due_s, tree = machines.due_s, machines.due_tree
    for leaf in range(due_s.size):
        tree[due_s.size + leaf] = leaf
    for i in range(due_s.size - 1, 0, -1):
        a, b = tree[2 * i], tree[2 * i + 1]
        tree[i] = a if due_s[a] <= due_s[b] else b


@njit
def run_side(
    last_window: int, called: bool, settings: RunSettings, arrivals: Arrivals, mirror: Mirror, sent: Payload,
    side: EventRun, counted: bool, pending: Pending, incoming: Attempts, copies: Attempts, copies_end: Ints,
    scratch: Scratch, progress: Progress,
) -> int:  # fmt: skip
    """Simulate one side up to window `last_window`; the source's if `called`, which makes `copies` of its `arrivals`.

    The copies of window w end at `copies_end[w]`. They are `incoming` for the shadow, which makes none: both sides have
    arguments of the same types, or the code would be compiled twice. After the last window comes a spare one, in which
    what is in the pool at the horizon is followed to its end; what happens then counts in a row of no window.

    Returns
    -------
    int
        DONE, or NEEDS_ROOM: a structure is full; the call is to be repeated once it has more room.
    """
    n_windows, _, period_s, horizon_s, seed = settings
    cursor, reached = progress
    machines, rows = side.machines, side.tally.rows
    late = called and mirror.instant == AT_RESPONSE
    while cursor[C_WINDOW] < last_window or (last_window == n_windows and cursor[C_PHASE] != ENDED):
        w = cursor[C_WINDOW]
        begin, end = np.float64(w) * period_s, min(np.float64(w + 1) * period_s, horizon_s)
        if cursor[C_PHASE] == OPEN:
            if w < n_windows and w - machines.count[M_OPEN] >= machines.open_n.size:
                return NEEDS_ROOM
            _open_rows(w, rows, side.token_tally)
            if w == n_windows:
                reached[REACHED_S], cursor[C_PHASE] = np.inf, CLOSING
            elif called:
                open_arrivals(begin, end, arrivals, True, scratch.stretch, cursor)
                reached[REACHED_COUNT], reached[REACHED_S] = 0.0, begin
                cursor[C_BASE], cursor[C_MORE], cursor[C_AT], cursor[C_CHUNK] = 0, 1, 0, 0
                cursor[C_PHASE] = ARRIVE
            else:
                cursor[C_CHUNK] = copies_end[w]
                reached[REACHED_S], cursor[C_PHASE] = just_below(end), CLOSING
        elif cursor[C_PHASE] == ARRIVE:
            cursor[C_AT], cursor[C_CHUNK], cursor[C_PHASE] = 0, 0, RELEASE
            if cursor[C_MORE] == 0:
                reached[REACHED_S], cursor[C_PHASE] = just_below(end), CLOSING
            else:
                n = arrive(w, end, seed, arrivals, True, counted, scratch, scratch.stretch, cursor, reached)
                _number(w, n, seed, counted, cursor[C_BASE], scratch, incoming)
                cursor[C_BASE] += n
                cursor[C_CHUNK] = n
        elif cursor[C_PHASE] == RELEASE or cursor[C_PHASE] == CLOSING:
            through = reached[REACHED_S]
            # a retry at the instant of the last arrival comes after any other arrival then
            last_retry = through if cursor[C_PHASE] == CLOSING or through == 0.0 else just_below(through)
            status = _advance(
                w, through, last_retry, called, settings, mirror, sent, side, side.engines, side.prefixes, incoming,
                cursor, pending, copies,
            )  # fmt: skip
            if status != DONE:
                return status
            cursor[C_PHASE] = RELEASED if cursor[C_PHASE] == RELEASE else CLOSE
        elif w == n_windows:
            _close_ended(w - 1, settings, machines, side.tally, side.token_tally)
            cursor[C_PHASE] = ENDED
        else:
            if late and not _release_copies(seed, reached[REACHED_S], pending, copies, cursor):
                return NEEDS_ROOM
            if cursor[C_PHASE] == RELEASED:
                cursor[C_PHASE] = ARRIVE
            else:
                _close_clocks(end, side.dynamics.scheduler, side.engines, machines, rows[w])
                _close_ended(w, settings, machines, side.tally, side.token_tally)
                if called:
                    copies_end[w] = cursor[C_OUT]
                cursor[C_WINDOW], cursor[C_PHASE] = w + 1, OPEN
    return DONE


@inner
def _number(w: int, n: int, seed: np.uint64, counted: bool, base: int, scratch: Scratch, incoming: Attempts) -> None:
    """Write a chunk of arrivals of window w as first attempts."""
    arrival, window, offset, request, order, attempt = incoming
    k, k_copy, chunk_offset = GOLDEN * np.uint64(base), key(seed, COPY, w), scratch.offset
    for i in range(n):
        arrival[i], window[i], offset[i], attempt[i] = scratch.arrival[i], w, k + chunk_offset[i], 0
        order[i] = mix(k_copy + offset[i]) & LOW32
        request[i] = 0
    if counted:
        for i in range(n):
            request[i] = scratch.request[i]


@inner
def _release_copies(seed: np.uint64, through: float, pending: Pending, copies: Attempts, cursor: Ints) -> bool:
    """Move pending copies with a response at or before `through` to `copies`; return whether there was room for all."""
    while pending.n[0] > 0 and pending.time_s[0] <= through:
        out = cursor[C_OUT]
        if out == copies.arrival.size:
            return False
        window, number = pending.window[0], pending.number[0] // MOST_ATTEMPTS
        copies.arrival[out], copies.window[out] = pending.time_s[0], window
        copies.offset[out], copies.request[out] = GOLDEN * np.uint64(number), pending.request[0]
        copies.attempt[out] = pending.number[0] % MOST_ATTEMPTS
        copies.order[out] = mix(key(seed, COPY, window) + copies.offset[out]) & LOW32
        pending.n[0] -= 1
        pop(pending.n[0], pending.time_s, pending.window, pending.number, pending.request)
        cursor[C_OUT] = out + 1
    return True


watch(__name__, _kernel, _prefix_kernel, _token_kernel)
