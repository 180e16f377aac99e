"""Simulates a language model's server: requests join a running batch, and tokens come step by step.

The scheduler is vLLM's (V1). A step processes one token of each sequence that decodes, and a chunk of at most one
prompt more than fits; `start_step` is the pass that decides which. Between two steps that differ in their sequences,
nothing needs to be computed: while B sequences decode, step j of such a segment ends at

    T0 + ((base + s B) j + c I_j),  I_j = j K0 + B j (j - 1) / 2,

with K0 tokens in their contexts at its start. So an engine's next event is the end of the last step before something
may change: a sequence makes its last token, or the cache is full. What enters or leaves the queue meanwhile moves the
event to the first end of a step after it. Each event costs one pass over the running sequences, and the number of
events does not depend on the number of tokens.

With a prefix cache (`_prefix_kernel`) a sequence that is admitted, also again after a preemption, begins its prefill
after the blocks that are known; its own are remembered when its prefill ends.

A sequence has a row in `Sequences`, at its request's node. `running` holds an engine's sequences in order of admission.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shadowsim.engine import _kernel, _prefix_kernel
from shadowsim.engine._kernel import (
    R_LATENCY_MAX,
    R_LATENCY_MIN,
    R_LATENCY_SUM,
    R_REQUESTS,
    Floats,
    Int32s,
    Ints,
    bucket_of,
    draw,
    inline,
    inner,
    key,
    mix,
    watch,
)
from shadowsim.engine._prefix_kernel import Prefixes, known_blocks, name_prefix, remember, use_known

# ---- More columns of draws; attempt a of a request uses column + 64 a for its output ----
PROMPT, SOURCE_OUTPUT, SHADOW_OUTPUT = 24, 25, 26
LONGEST = 2.0**31  # tokens of a prompt or an output, which no engine can hold


class Scheduler(NamedTuple):
    """What an engine can do; `max_sequences` 0: the pool has no such engines.

    A step lasts base_s + prefill_s P + sequence_s n + kv_s K + pair_s Q + prompt_s m for P tokens of m prompts, n
    sequences, K tokens in the contexts of those that decode, and Q = sum of (done + chunk)^2 - done^2 over prompts.
    """

    max_sequences: int
    max_step_tokens: int
    blocks: int
    block_tokens: int
    base_s: float
    prefill_s: float
    sequence_s: float
    kv_s: float
    pair_s: float
    prompt_s: float
    before_s: float
    after_s: float
    chunked: bool
    aborts: bool


class Lengths(NamedTuple):
    """Tokens of prompts and outputs: tables of quantiles with means, or a trace's columns (else empty)."""

    prompt_table: Floats
    prompt_mean: float
    prompt_by_request: Floats
    output_table: Floats
    output_mean: float
    output_by_request: Floats
    output_column: int
    mean_batch: float


NO_SCHEDULER = Scheduler(0, 0, 0, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, True, False)
NO_LENGTHS = Lengths(np.empty(0), 0.0, np.empty(0), np.empty(0), 0.0, np.empty(0), 0, 1.0)


class Measure(NamedTuple):
    """A time that is measured per request: rows as those of a pool, of which it uses R_REQUESTS and R_LATENCY_...

    `rows` (windows + 1, R_WIDTH), `sections` (sections, BUCKETS), `open_bucket` (ring, BUCKETS) as in `Machines`.
    """

    rows: Floats
    sections: Ints
    open_bucket: NDArray[np.uint32]


class TokenTally(NamedTuple):
    """Counts of a pool with tokens: times to the first token and per output token, and joint goals.

    `goal_s` (goals, 2): the greatest time to the first token and per token; `met` (windows + 1, goals): requests that
    meet both.
    """

    first_token: Measure
    per_token: Measure
    goal_s: Floats
    met: Floats


# ---- Columns of `Engines.sequence`; a sequence that produces tokens has Q_DONE == Q_PREFILL ----
(
    Q_PROMPT, Q_OUTPUT, Q_PRODUCED, Q_PREFILL, Q_DONE, Q_CHUNK, Q_BLOCKS, Q_PLACE, Q_EARLIER, Q_LATER,
) = range(10)  # fmt: skip
SEQUENCE_WIDTH = 10
ENTERING, WAITING, RUNNING, ABORTED, LEFT = range(5)  # Q_PLACE; an aborted one runs to the end of its step

# ---- Columns of `Engines.engine`; steps are those of the segment ----
(
    G_RUNNING, G_ABORTED, G_FREE, G_HEAD, G_TAIL, G_PREFILL, G_CHANGED, G_CONTEXT, G_DONE, G_NEXT, G_COUNTED,
) = range(11)  # fmt: skip
ENGINE_WIDTH = 11


class Engines(NamedTuple):
    """The engines of a pool; updated in place.

    `sequence` (nodes, SEQUENCE_WIDTH), `first_token_s` and `last_token_s` (nodes,). `listed` (max_sequences,): those
    that a step admits, or that make their first token. `running` (slots, max_sequences): nodes. `engine`
    (slots, ENGINE_WIDTH): G_PREFILL are the prompts' tokens in the step, G_CONTEXT is K0, G_CHANGED tells that the
    sequences are not those of the step before. Of the steps of a segment G_DONE are booked with the sequences, and
    G_COUNTED in windows; the engine's next event is the end of step G_NEXT, and no step is in progress when that is
    G_DONE. `segment_s` (slots,): T0. `wraps` (block_tokens + 1,)
    is scratch.
    """

    sequence: Ints
    first_token_s: Floats
    last_token_s: Floats
    listed: Int32s
    running: Int32s
    engine: Ints
    segment_s: Floats
    wraps: Ints


@inline
def step_end(j: int, start_s: float, n: int, context: int, scheduler: Scheduler) -> float:
    """Return when step j of a segment with n sequences ends."""
    tokens = j * context + n * (j * (j - 1) // 2)
    per_step = scheduler.base_s + scheduler.sequence_s * np.float64(n)
    return start_s + (per_step * np.float64(j) + scheduler.kv_s * np.float64(tokens))


@inline
def _ended_steps(t: float, i: int, engines: Engines, scheduler: Scheduler) -> int:
    """Return how many steps of an engine's segment have ended at t; its next event is not before t."""
    engine = engines.engine
    done, most = engine[i, G_DONE], engine[i, G_NEXT]
    if engine[i, G_PREFILL] == 0:
        n, context, start_s = engine[i, G_RUNNING], engine[i, G_CONTEXT], engines.segment_s[i]
        while done < most:
            middle = (done + most + 1) >> 1
            if step_end(middle, start_s, n, context, scheduler) <= t:
                done = middle
            else:
                most = middle - 1
    return done


@inner
def count_tokens(t: float, i: int, engines: Engines, scheduler: Scheduler) -> int:
    """Return the tokens that an engine has made by steps up to t since it was last asked, mixed steps apart."""
    engine, made = engines.engine, np.int64(0)
    if engine[i, G_RUNNING] > 0 and engine[i, G_PREFILL] == 0:
        ended = _ended_steps(t, i, engines, scheduler)
        made = (ended - engine[i, G_COUNTED]) * engine[i, G_RUNNING]
        engine[i, G_COUNTED] = ended
    return made


@inner
def cached_blocks(t: float, i: int, engines: Engines, scheduler: Scheduler) -> int:
    """Return the blocks of the cache that an engine's sequences hold in the step that is in progress at t."""
    engine, sequence, b = engines.engine, engines.sequence, scheduler.block_tokens
    ended, held = _ended_steps(t, i, engines, scheduler) - engine[i, G_DONE], np.int64(0)
    for place in range(engine[i, G_RUNNING]):
        x = np.uint64(engines.running[i, place])
        decodes = sequence[x, Q_DONE] == sequence[x, Q_PREFILL]
        tokens = sequence[x, Q_PROMPT] + sequence[x, Q_PRODUCED] + ended if decodes else sequence[x, Q_PREFILL]
        held += (tokens + b - 1) // b
    return held


# ---- The queue of an engine: a list in both directions ----


@inline
def _push(x: int, i: int, in_front: bool, sequence: Ints, engine: Ints) -> None:
    at, head, tail = np.uint64(x), engine[i, G_HEAD], engine[i, G_TAIL]
    sequence[at, Q_PLACE] = WAITING
    sequence[at, Q_EARLIER], sequence[at, Q_LATER] = (-1, head) if in_front else (tail, -1)
    if head < 0:
        engine[i, G_HEAD] = engine[i, G_TAIL] = x
    elif in_front:
        sequence[np.uint64(head), Q_EARLIER] = x
        engine[i, G_HEAD] = x
    else:
        sequence[np.uint64(tail), Q_LATER] = x
        engine[i, G_TAIL] = x


@inline
def _take(x: int, i: int, sequence: Ints, engine: Ints) -> None:
    at = np.uint64(x)
    before, after = sequence[at, Q_EARLIER], sequence[at, Q_LATER]
    if before >= 0:
        sequence[np.uint64(before), Q_LATER] = after
    else:
        engine[i, G_HEAD] = after
    if after >= 0:
        sequence[np.uint64(after), Q_EARLIER] = before
    else:
        engine[i, G_TAIL] = before


# ---- Steps ----


@inner
def end_steps(i: int, engines: Engines, prefixes: Prefixes | None, b: int) -> tuple[int, int, int]:
    """Book the steps of an engine up to its next event, which happens now.

    `b`: tokens per block. Return the tokens that they made which are not counted yet, the first of the sequences that
    made their last token, linked by Q_LATER in order of admission (-1: none), and how many made their first: they are
    `listed`.
    """
    engine, sequence, running, first = engines.engine, engines.sequence, engines.running, engines.listed
    n, steps = engine[i, G_RUNNING], engine[i, G_NEXT] - engine[i, G_DONE]
    made = (engine[i, G_NEXT] - engine[i, G_COUNTED]) * n
    leaving, last, kept, n_first = np.int64(-1), np.int64(-1), 0, 0
    for place in range(n):
        x = np.uint64(running[i, place])
        if sequence[x, Q_DONE] < sequence[x, Q_PREFILL]:
            sequence[x, Q_DONE] += sequence[x, Q_CHUNK]
            if sequence[x, Q_DONE] == sequence[x, Q_PREFILL]:
                if prefixes is not None:
                    remember(x, i, sequence[x, Q_PROMPT], prefixes)
                sequence[x, Q_PRODUCED] += 1
                if sequence[x, Q_PRODUCED] == 1:
                    first[n_first] = np.int32(x)
                    n_first += 1
            else:
                made -= 1
        else:
            sequence[x, Q_PRODUCED] += steps
        if sequence[x, Q_PRODUCED] == sequence[x, Q_OUTPUT] and sequence[x, Q_DONE] == sequence[x, Q_PREFILL]:
            engine[i, G_FREE] += sequence[x, Q_BLOCKS]
            engine[i, G_ABORTED] -= np.int64(sequence[x, Q_PLACE] == ABORTED)
            sequence[x, Q_PLACE], sequence[x, Q_LATER] = LEFT, -1
            if leaving < 0:
                leaving = np.int64(x)
            else:
                sequence[np.uint64(last), Q_LATER] = np.int64(x)
            last = np.int64(x)
        else:
            # the blocks that its steps have taken, of which the last had one token less
            taken = (sequence[x, Q_PROMPT] + sequence[x, Q_PRODUCED] + b - 2) // b - sequence[x, Q_BLOCKS]
            if taken > 0:
                sequence[x, Q_BLOCKS] += taken
                engine[i, G_FREE] -= taken
            running[i, kept] = np.int32(x)
            kept += 1
    engine[i, G_RUNNING] = kept
    if kept < n:
        engine[i, G_CHANGED] = 1
    engine[i, G_DONE] = engine[i, G_COUNTED] = engine[i, G_NEXT]
    return made, leaving, n_first


@inner
def start_steps(
    t: float, i: int, engines: Engines, prefixes: Prefixes | None, scheduler: Scheduler
) -> tuple[float, int, int, int]:
    """Decide which sequences an engine's next step has, and start it.

    Return when the engine's next event is (inf: it is idle), the first of the aborted sequences that leave, linked by
    Q_LATER (-1: none), how many are preempted, and how many are admitted: they are `listed`.
    """
    engine, sequence, running, b = engines.engine, engines.sequence, engines.running, scheduler.block_tokens
    admitted = engines.listed
    n, free, leaving, last = engine[i, G_RUNNING], engine[i, G_FREE], np.int64(-1), np.int64(-1)
    changed = engine[i, G_CHANGED] != 0 or engine[i, G_PREFILL] > 0
    if engine[i, G_ABORTED] > 0:
        kept = 0
        for place in range(n):
            x = np.uint64(running[i, place])
            if sequence[x, Q_PLACE] == ABORTED:
                free += sequence[x, Q_BLOCKS]
                sequence[x, Q_PLACE], sequence[x, Q_LATER] = LEFT, -1
                if leaving < 0:
                    leaving = np.int64(x)
                else:
                    sequence[np.uint64(last), Q_LATER] = np.int64(x)
                last = np.int64(x)
            else:
                running[i, kept] = np.int32(x)
                kept += 1
        n, changed = kept, True
        engine[i, G_ABORTED] = 0
    # those that run go on, the latest first to give way
    budget, place, context, prefill, pairs = scheduler.max_step_tokens, 0, np.int64(0), np.int64(0), np.int64(0)
    prompts, preempted, n_admitted, fewest_left = np.int64(0), 0, 0, np.int64(1) << 62
    while place < n:
        x = np.uint64(running[i, place])
        place += 1
        if sequence[x, Q_DONE] == sequence[x, Q_PREFILL]:
            tokens = sequence[x, Q_PROMPT] + sequence[x, Q_PRODUCED]
            missing = np.int64(sequence[x, Q_BLOCKS] * b < tokens)
            while missing > free and place <= n:
                n -= 1
                y = np.uint64(running[i, n])
                free += sequence[y, Q_BLOCKS]
                sequence[y, Q_BLOCKS], sequence[y, Q_DONE] = 0, 0
                sequence[y, Q_PREFILL] = sequence[y, Q_PROMPT] + sequence[y, Q_PRODUCED]
                _push(np.int64(y), i, True, sequence, engine)
                preempted += 1
            if place <= n:
                free -= missing
                sequence[x, Q_BLOCKS] += missing
                budget -= 1
                context += tokens
                fewest_left = min(fewest_left, sequence[x, Q_OUTPUT] - sequence[x, Q_PRODUCED])
        else:
            done = sequence[x, Q_DONE]
            chunk = min(sequence[x, Q_PREFILL] - done, budget)
            sequence[x, Q_CHUNK] = chunk
            budget -= chunk
            prefill += chunk
            prompts += np.int64(chunk > 0)
            pairs += (done + chunk) * (done + chunk) - done * done
    while preempted == 0 and engine[i, G_HEAD] >= 0 and n < scheduler.max_sequences and budget > 0:
        x = np.uint64(engine[i, G_HEAD])
        whole, known, hit = sequence[x, Q_PREFILL], np.int64(0), np.int64(0)
        blocks = (whole + b - 1) // b
        if blocks > free:
            break
        if prefixes is not None:
            known = known_blocks(x, i, sequence[x, Q_PROMPT], prefixes)
            hit = min(known * b, whole - 1)
        if not scheduler.chunked and whole - hit > budget:
            break
        if prefixes is not None:
            use_known(x, i, known, hit, prefixes)
        _take(np.int64(x), i, sequence, engine)
        free -= blocks
        chunk = min(whole - hit, budget)
        sequence[x, Q_BLOCKS], sequence[x, Q_DONE], sequence[x, Q_CHUNK], sequence[x, Q_PLACE] = (
            blocks, hit, chunk, RUNNING,
        )  # fmt: skip
        budget -= chunk
        prefill += chunk
        prompts += 1
        pairs += (hit + chunk) * (hit + chunk) - hit * hit
        running[i, n] = np.int32(x)
        admitted[n_admitted] = np.int32(x)
        n += 1
        n_admitted += 1
    engine[i, G_RUNNING], engine[i, G_FREE], engine[i, G_PREFILL], engine[i, G_CHANGED] = n, free, prefill, 0
    if changed or preempted > 0 or n_admitted > 0:
        engines.segment_s[i] = t
        engine[i, G_CONTEXT], engine[i, G_DONE], engine[i, G_COUNTED] = context, 0, 0
    end = np.inf
    if prefill > 0:
        engine[i, G_NEXT] = 1
        seconds = scheduler.base_s + scheduler.prefill_s * np.float64(prefill)
        seconds = seconds + scheduler.sequence_s * np.float64(n)
        seconds = seconds + scheduler.kv_s * np.float64(context)
        seconds = seconds + scheduler.pair_s * np.float64(pairs)
        end = t + (seconds + scheduler.prompt_s * np.float64(prompts))
    elif n > 0:
        # after a preemption nobody is admitted, so that the next step may differ
        steps = np.int64(1) if preempted > 0 else _steps_that_fit(i, n, free, fewest_left, engines, b)
        engine[i, G_NEXT] = engine[i, G_DONE] + steps
        end = step_end(engine[i, G_NEXT], engines.segment_s[i], n, engine[i, G_CONTEXT], scheduler)
    else:
        engine[i, G_NEXT] = engine[i, G_DONE]
    return end, leaving, preempted, n_admitted


@inner
def _steps_that_fit(i: int, n: int, free: int, most: int, engines: Engines, b: int) -> int:
    """Return how many steps, at most `most`, n decoding sequences can make until they need more than the free blocks.

    The first has its blocks already. A sequence with x tokens in its context needs another block b - (x - 1) mod b
    steps after it, and then one every b steps.
    """
    if n * ((most + b - 2) // b) <= free:
        return most
    sequence, wraps = engines.sequence, engines.wraps
    for r in range(b + 1):
        wraps[r] = 0
    for place in range(n):
        x = np.uint64(engines.running[i, place])
        wraps[b - (sequence[x, Q_PROMPT] + sequence[x, Q_PRODUCED] - 1) % b] += 1
    cycles = free // n
    left, r = free - cycles * n, 1
    while left >= wraps[r]:
        left -= wraps[r]
        r += 1
    return min(most, cycles * b + r)


@inner
def _hasten(t: float, at_end: bool, i: int, engines: Engines, scheduler: Scheduler) -> float:
    """Move an engine's next event to the first end of a step after t, or at t if `at_end`; return its time."""
    engine = engines.engine
    n, context, start_s = engine[i, G_RUNNING], engine[i, G_CONTEXT], engines.segment_s[i]
    step = _ended_steps(t, i, engines, scheduler)
    if not at_end or step == engine[i, G_DONE] or step_end(step, start_s, n, context, scheduler) < t:
        step += 1
    engine[i, G_NEXT] = step
    return step_end(step, start_s, n, context, scheduler)


@inner
def enter_queue(t: float, x: int, i: int, engines: Engines, scheduler: Scheduler) -> float:
    """Let a sequence enter an engine's queue; return when the engine's next event is, -1 if that does not change.

    An engine without a step in progress is to be started.
    """
    engine = engines.engine
    first = engine[i, G_HEAD] < 0
    _push(x, i, False, engines.sequence, engine)
    moved = first and engine[i, G_NEXT] > engine[i, G_DONE] and engine[i, G_PREFILL] == 0
    if moved and engine[i, G_RUNNING] < scheduler.max_sequences:
        return _hasten(t, False, i, engines, scheduler)
    return -1.0


@inner
def abort(t: float, x: int, i: int, engines: Engines, scheduler: Scheduler) -> float:
    """Abort a sequence in an engine; return when the engine's next event is, -1 if that does not change.

    One that waits leaves at once (LEFT), one that runs at the end of its step.
    """
    engine, sequence = engines.engine, engines.sequence
    if sequence[x, Q_PLACE] == RUNNING:
        sequence[x, Q_PLACE] = ABORTED
        engine[i, G_ABORTED] += 1
        asked = True
    else:
        asked = engine[i, G_HEAD] == x and sequence[x, Q_LATER] >= 0
        _take(x, i, sequence, engine)
        sequence[x, Q_PLACE] = LEFT
    if asked and engine[i, G_NEXT] > engine[i, G_DONE] and engine[i, G_PREFILL] == 0:
        return _hasten(t, True, i, engines, scheduler)
    return -1.0


@inner
def fail_engine(i: int, engines: Engines, scheduler: Scheduler) -> int:
    """Empty an engine; return the first of what ran and waited, linked by Q_LATER: those that ran come first."""
    engine, sequence, first = engines.engine, engines.sequence, engines.engine[i, G_HEAD]
    for place in range(engine[i, G_RUNNING] - 1, -1, -1):
        x = np.int64(engines.running[i, place])
        sequence[x, Q_LATER] = first
        first = x
    clear_engine(i, engines, scheduler)
    return first


@inner
def clear_engine(i: int, engines: Engines, scheduler: Scheduler) -> None:
    """Make an engine idle and empty."""
    engine = engines.engine
    for column in range(ENGINE_WIDTH):
        engine[i, column] = 0
    engine[i, G_FREE], engine[i, G_HEAD], engine[i, G_TAIL] = scheduler.blocks, -1, -1


# ---- Requests ----


@inline
def _length(z: np.uint64, request: int, table: Floats, mean: float, by_request: Floats) -> int:
    if by_request.size:
        return np.int64(by_request[request % by_request.size])
    return max(np.int64(min(draw(z, table) * mean + 0.5, LONGEST)), np.int64(1))


@inner
def new_sequence(
    x: int, window: int, offset: np.uint64, request: int, shift: int, seed: np.uint64, scheduler: Scheduler,
    lengths: Lengths, engines: Engines, prefixes: Prefixes | None,
) -> bool:  # fmt: skip
    """Draw the lengths of a request's prompt and output; return whether an engine can hold it.

    `shift` is added to the column of the output, for a later attempt.
    """
    sequence = engines.sequence
    z_prompt = mix(key(seed, PROMPT, window) + offset)
    prompt = _length(z_prompt, request, lengths.prompt_table, lengths.prompt_mean, lengths.prompt_by_request)
    z_output = mix(key(seed, lengths.output_column + shift, window) + offset)
    output = _length(z_output, request, lengths.output_table, lengths.output_mean, lengths.output_by_request)
    for column in range(SEQUENCE_WIDTH):
        sequence[x, column] = 0
    sequence[x, Q_PROMPT], sequence[x, Q_OUTPUT], sequence[x, Q_PREFILL] = prompt, output, prompt
    engines.first_token_s[x], engines.last_token_s[x] = np.nan, np.nan
    if prefixes is not None:
        name_prefix(x, window, offset, request, seed, prefixes)
    whole = prompt + output - 1
    fits = (whole + scheduler.block_tokens - 1) // scheduler.block_tokens <= scheduler.blocks
    return fits and (scheduler.chunked or whole <= scheduler.max_step_tokens)


@inline
def work_of(x: int, scheduler: Scheduler, lengths: Lengths, engines: Engines) -> float:
    """Return how long a request keeps an engine busy that always runs `mean_batch` sequences."""
    prompt, output = np.float64(engines.sequence[x, Q_PROMPT]), np.float64(engines.sequence[x, Q_OUTPUT])
    prefill_s = scheduler.prefill_s * prompt + scheduler.pair_s * (prompt * prompt) + scheduler.prompt_s
    per_step_s = scheduler.base_s / lengths.mean_batch + scheduler.sequence_s
    context = output * prompt + output * (output - 1.0) * 0.5
    return prefill_s + (output * per_step_s + scheduler.kv_s * context)


@inline
def book(own: int, at: int, seconds: float, measure: Measure) -> None:
    """Add a time to the row of window `own`, whose histogram is number `at` of the ring."""
    row = measure.rows[own]
    row[R_REQUESTS] += 1.0
    row[R_LATENCY_SUM] += seconds
    row[R_LATENCY_MIN] = min(row[R_LATENCY_MIN], seconds)
    row[R_LATENCY_MAX] = max(row[R_LATENCY_MAX], seconds)
    measure.open_bucket[at, bucket_of(seconds)] += np.uint32(1)


watch(__name__, _kernel, _prefix_kernel)
