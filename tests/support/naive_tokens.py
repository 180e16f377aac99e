"""A slow, obvious simulator of pools of continuous batchers, which the engine must equal: it makes every step.

Routing, scaling, outages, retries, time-outs and the mirror are those of `naive_events`; here stands what an instance
does with its requests. The end of a step inside a segment is the closed form, never a sum of steps.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from functools import partial

import naive
import naive_events as events
import numpy as np

from shadowsim.engine import _kernel as k
from shadowsim.engine.law_tables import law_table
from shadowsim.scenario.tokens import full_batch, prefix_names, token_lengths

# The columns of draws. Attempt a of a request uses the columns of outputs + 64 a.
PROMPT, SOURCE_OUTPUT, SHADOW_OUTPUT, PREFIX = 24, 25, 26, 27
LONGEST = 2.0**31


class DoesNotFitError(Exception):
    """A request that no instance can ever serve; its argument is the request's number in the run."""


@dataclass
class Lengths:
    """Drawn: floor(draw x mean + 0.5), at least 1; or by request, as a trace has them."""

    table: np.ndarray = field(default_factory=lambda: np.empty(0))
    mean: float = 0.0
    by_request: np.ndarray = field(default_factory=lambda: np.empty(0))

    def of(self, z, request):
        if self.by_request.size:
            return int(self.by_request[request % self.by_request.size])
        return max(1, int(min(np.floor(k.draw(z, self.table) * self.mean + 0.5), LONGEST)))


@dataclass
class Server:
    """The numbers of a continuous batcher: those of `scenario.tokens.Tokens`."""

    prompt: Lengths
    output: Lengths
    max_sequences: int
    max_step_tokens: int
    kv_tokens: int
    block_tokens: int
    base_s: float
    per_prefill_token_s: float
    per_sequence_s: float
    per_kv_token_s: float
    per_prefill_pair_s: float
    per_prompt_s: float = 0.0
    before_s: float = 0.0
    after_s: float = 0.0
    chunked: bool = True
    abort: bool = False
    full_batch: float = 1.0
    prefix_length: int = 0
    prefix_groups: int = 0
    prefix_by_request: np.ndarray = field(default_factory=lambda: np.empty(0))
    prefix_hashes: list = field(default_factory=list)  # by request: hashes, each of all tokens up to its end
    hash_tokens: int = 0  # by which each has more than the one before
    cache_tokens: int = 0

    @property
    def blocks(self):
        return self.kv_tokens // self.block_tokens

    def blocks_for(self, tokens):
        return -(-tokens // self.block_tokens)

    def fits(self, prompt, output):
        """A sequence's last token is never in the cache."""
        tokens = prompt + output - 1
        return self.blocks_for(tokens) <= self.blocks and (self.chunked or tokens <= self.max_step_tokens)

    def work_s(self, prompt, output):
        """What a request brings to the offered load."""
        read = output * prompt + output * (output - 1) // 2
        prefill_s = self.per_prefill_token_s * float(prompt) + self.per_prefill_pair_s * float(prompt * prompt)
        prefill_s += self.per_prompt_s
        each_s = self.base_s / self.full_batch + self.per_sequence_s
        return prefill_s + (float(output) * each_s + self.per_kv_token_s * float(read))

    def mixed_step_end(self, now, prefill, n, read, pairs, prompts):
        """The end of a step with `prefill` tokens of `prompts`; `read` tokens belong to those that decode."""
        seconds = self.base_s + self.per_prefill_token_s * float(prefill)
        seconds += self.per_sequence_s * float(n)
        seconds += self.per_kv_token_s * float(read)
        seconds += self.per_prefill_pair_s * float(pairs)
        seconds += self.per_prompt_s * float(prompts)
        return now + seconds

    def segment_step_end(self, begin, n, read, j):
        """The end of step j = 1, 2, ... of a segment in which n sequences decode; they read `read` tokens in step 1."""
        tokens = j * read + n * (j * (j - 1) // 2)
        return begin + ((self.base_s + self.per_sequence_s * float(n)) * float(j) + self.per_kv_token_s * float(tokens))


def server_of(tokens, trace=None):
    """The server of a scenario's `Tokens`."""
    columns = {} if trace is None else trace.columns

    def lengths(key):
        law, by_request = getattr(tokens, key), token_lengths(tokens, key, trace)
        return Lengths(by_request=by_request) if by_request.size else Lengths(law_table(law), law.mean)

    prefix = {}
    if tokens.prefix is not None:
        prefix = {"prefix_length": tokens.prefix.length, "cache_tokens": tokens.prefix.cache_tokens}
        prefix["prefix_groups"] = tokens.prefix.groups or 0
        if tokens.prefix.session:
            prefix["prefix_by_request"] = trace.whole_numbers(tokens.prefix.session, "session")
        if tokens.prefix.hashes:
            prefix["prefix_hashes"] = [[n for n in row if n >= 0] for row in prefix_names(tokens, trace).tolist()]
            prefix["hash_tokens"] = tokens.prefix.hash_tokens
    return Server(
        lengths("prompt"),
        lengths("output"),
        tokens.max_sequences,
        tokens.max_step_tokens,
        tokens.kv_tokens,
        tokens.block_tokens,
        **{f.name: getattr(tokens.step, f.name) for f in fields(tokens.step)},
        before_s=tokens.before_s,
        after_s=tokens.after_s,
        chunked=tokens.chunked,
        abort=tokens.on_timeout == "abort",
        full_batch=full_batch(tokens, columns),
        **prefix,
    )


@dataclass(eq=False)
class Sequence:
    """An attempt's prompt and output in its instance."""

    attempt: events.Attempt
    prompt: int
    output: int
    group: int
    hashes: list
    produced: int = 0  # tokens
    to_prefill: int = 0
    done: int = 0  # of those to prefill; all of them while it decodes
    chunk: int = 0  # of those to prefill in the step in progress; 0 while it decodes
    blocks: int = 0
    aborted: bool = False  # its time is out while it runs: it is removed before the next step
    preemptions: int = 0
    cached: float = np.nan  # tokens of the prompt that were in the prefix cache at its first admission
    first: float = np.nan  # the end of the step of its first token, and of its last
    last: float = np.nan
    first_token_s: float = np.nan  # as it is booked, and the time per token
    per_token_s: float = np.nan

    @property
    def length(self):
        return self.prompt + self.produced

    @property
    def decodes(self):
        return self.done == self.to_prefill

    def begin(self):
        """It will prefill its prompt and the tokens that it has produced."""
        self.to_prefill, self.done, self.chunk, self.blocks = self.length, 0, 0, 0

    def is_good(self, ttft_s, tpot_s):
        return (
            self.attempt.status == "answered"
            and self.first_token_s <= ttft_s
            and (self.output == 1 or self.per_token_s <= tpot_s)
        )


@dataclass(eq=False)
class Step:
    running: list
    start: float
    end: float
    mixed: bool
    begin: float  # of its segment, with the tokens that are read in the first step, and its number in it
    read: int
    j: int
    stopped: bool = False  # by an outage


@dataclass
class TokenInstance(events.Instance):
    running: list = field(default_factory=list)  # in order of admission to the batch
    entering: list = field(default_factory=list)  # before the queue, in order of arrival
    step: Step | None = None
    previous: Step | None = None  # that has ended at this instant
    prefixes: OrderedDict = field(default_factory=OrderedDict)  # keys (group, block), the most recent last

    @property
    def sequences(self):
        return [*self.running, *self.queue, *self.entering]

    @property
    def present(self):
        return [s.attempt for s in self.sequences]

    @property
    def used(self):
        return sum(s.blocks for s in self.running)


@dataclass
class TokenHistory(events.History):
    """Lists by window have one more element, of what comes after the horizon."""

    sequences: dict  # by (number of the request, attempt): of attempts that reached the pool
    tokens_by_window: list
    prefill_by_window: list
    preemptions_by_window: list
    queried_by_window: list  # tokens of prompts that were looked up in prefix caches, and those found
    hit_by_window: list
    batches_sampled: dict  # by window: [(running sequences, used blocks)] of each tick and instance


class TokenVariant(events.Variant):
    """One variant's pool of continuous batchers."""

    kind_of_instance = TokenInstance

    def __init__(self, server, output_column, c, pool, dynamics, first_attempts, callers):
        self.server, self.output_column = server, output_column
        self.sequences, self.sampled = {}, {}
        self.n_answers = self.n_answering = 0
        self.produced_at, self.prefilled_at, self.preempted_at = [], [], []
        self.queried_at, self.hit_at = [], []
        super().__init__(c, pool, dynamics, first_attempts, callers)

    def handlers(self):
        return super().handlers() | {events.ANSWER: self.answer_late, events.ENTRY: self.enter}

    def is_empty(self):
        return super().is_empty() and self.n_answering == 0

    # ---- Requests ----

    def work_of(self, a):
        server = self.server
        prompt = server.prompt.of(naive.z(self.c, PROMPT, a.window, a.in_window), a.number)
        output = server.output.of(self.z(self.output_column, a), a.number)
        if not server.fits(prompt, output):
            raise DoesNotFitError(a.number)
        group = int(naive.z(self.c, PREFIX, a.window, a.in_window) >> np.uint64(32)) * server.prefix_groups >> 32
        if server.prefix_by_request.size:
            group = int(server.prefix_by_request[a.number % server.prefix_by_request.size])
        hashes = server.prefix_hashes[a.number % len(server.prefix_hashes)] if server.prefix_hashes else []
        s = Sequence(a, prompt, output, group, hashes)
        s.begin()
        self.sequences[a.number, a.attempt] = s
        return server.work_s(prompt, output)

    def is_full(self, instance):
        return 0 <= self.pool.queue_limit <= len(instance.present) - self.server.max_sequences

    def take(self, instance, a, now):
        s = self.sequences[a.number, a.attempt]
        instance.entering.append(s)
        if self.server.before_s > 0.0:
            self.at(now + self.server.before_s, events.ENTRY, a.admission, s)
        else:
            self.enter(s, now)

    def enter(self, s, now):
        instance = self.instances[s.attempt.instance]
        if s in instance.entering:
            instance.entering.remove(s)
            instance.queue.append(s)
            self.start(instance, now)

    def time_out(self, a, now):
        super().time_out(a, now)
        instance, s = self.instances[a.instance], self.sequences[a.number, a.attempt]
        if not self.server.abort:
            return
        if s in instance.running:
            s.aborted = True
        elif s in instance.queue:
            instance.queue.remove(s)
        elif s in instance.entering:
            instance.entering.remove(s)
        self.leave_if_drained(instance, now)

    def leave_if_drained(self, instance, now):
        if instance.state == "draining" and not instance.present:
            instance.history.append((now, "gone"))

    def stop(self, instance, now):
        """An outage: the step in progress was for nothing."""
        if instance.step is not None:
            instance.step.stopped = True
            self.held.append((instance.step.start, now))
        instance.step = instance.previous = None
        for sequences in (instance.running, instance.queue, instance.entering, instance.prefixes):
            sequences.clear()

    # ---- The start of a step ----

    def start(self, instance, now):
        if instance.step is not None or not instance.up:
            return
        previous, instance.previous = instance.previous, None
        instance.running = [s for s in instance.running if not s.aborted]
        self.leave_if_drained(instance, now)
        budget, preempted = self.go_on(instance, now)
        if not preempted:
            self.admit(instance, budget, now)
        if instance.running:
            self.make_step(instance, previous, now)

    def go_on(self, instance, now):
        """What running sequences do in this step; returns what is left of its tokens, and whether any was preempted."""
        server, running = self.server, instance.running
        budget, preempted = server.max_step_tokens, False
        at = 0
        while at < len(running):
            s = running[at]
            if s.decodes:
                missing = server.blocks_for(s.length) - s.blocks
                while missing > server.blocks - instance.used and at < len(running):
                    self.preempt(instance, now)
                    preempted = True
                if at == len(running):
                    break  # it was the last itself
                s.blocks += missing
                s.chunk = 0
                budget -= 1
            else:
                s.chunk = min(s.to_prefill - s.done, budget)
                budget -= s.chunk
            at += 1
        assert budget >= 0
        return budget, preempted

    def preempt(self, instance, now):
        """The sequence that was admitted last gives its blocks back, and will be computed again."""
        s = instance.running.pop()
        s.begin()
        s.preemptions += 1
        instance.queue.appendleft(s)
        self.preempted_at.append(now)

    def admit(self, instance, budget, now):
        """Take sequences from the queue, in order, while there is room."""
        server = self.server
        while instance.queue and len(instance.running) < server.max_sequences and budget >= 1:
            s = instance.queue[0]
            n_keys = self.hits(instance, s)
            hit = min(n_keys * server.block_tokens, s.to_prefill - 1)
            if server.blocks_for(s.to_prefill) > server.blocks - instance.used:
                return
            if not server.chunked and s.to_prefill - hit > budget:
                return
            instance.running.append(instance.queue.popleft())
            self.remember(instance, s, n_keys)
            s.done, s.blocks = hit, server.blocks_for(s.to_prefill)
            s.chunk = min(s.to_prefill - hit, budget)
            budget -= s.chunk
            if np.isnan(s.attempt.start):
                s.attempt.start = now
                if server.cache_tokens:
                    s.cached = hit
                    self.queried_at.append((now, s.prompt))
                    self.hit_at.append((now, hit))

    def make_step(self, instance, previous, now):
        server, running = self.server, list(instance.running)
        assert instance.used <= server.blocks
        assert all(s.blocks == server.blocks_for(s.length) for s in running)
        prefill = sum(s.chunk for s in running)
        read = sum(s.length for s in running if s.decodes)
        pairs = sum((s.done + s.chunk) ** 2 - s.done**2 for s in running)
        begin, first_read, j = now, read, 1
        if previous is not None and not previous.mixed and previous.running == running:
            begin, first_read, j = previous.begin, previous.read, previous.j + 1
        if prefill:
            prompts = sum(s.chunk > 0 for s in running)
            end = server.mixed_step_end(now, prefill, len(running), read, pairs, prompts)
        else:
            end = server.segment_step_end(begin, len(running), first_read, j)
        instance.step = Step(running, now, float(end), prefill > 0, begin, first_read, j)
        self.at(instance.step.end, events.FINISH, (instance.number, 0), (instance, instance.step))

    # ---- The end of a step ----

    def finish(self, subject, now):
        instance, step = subject
        if step.stopped:
            return
        instance.step, instance.previous = None, step
        self.held.append((step.start, now))
        leaving = []
        for s in step.running:
            s.done += s.chunk
            self.prefilled_at.append((now, s.chunk))
            if s.decodes:
                if s.chunk:
                    self.remember(instance, s, self.n_keys(s))
                s.chunk = 0
                self.produce(s, now)
                if s.produced == s.output:
                    leaving.append(s)
        instance.running = [s for s in step.running if s not in leaving]
        self.leave_if_drained(instance, now)
        self.at(now, events.START, instance.number, instance)
        for s in leaving:
            s.last, s.blocks = now, 0
            s.attempt.service = (now + self.server.after_s) - s.attempt.start
            if self.server.after_s > 0.0:
                self.n_answers += 1
                self.n_answering += 1
                self.at(now + self.server.after_s, events.ANSWER, self.n_answers, s)
            else:
                self.answer_sequence(s, now)

    def produce(self, s, now):
        s.produced += 1
        self.produced_at.append(now)
        if s.produced == 1:
            a, seen = s.attempt, now + self.server.after_s
            s.first = now
            if not a.over and seen <= a.arrival + self.pool.timeout_s:
                s.first_token_s = seen - a.arrival

    def answer_late(self, s, now):
        self.n_answering -= 1
        self.answer_sequence(s, now)

    def answer_sequence(self, s, now):
        a = s.attempt
        if a.over:
            return
        a.latency = min(now - a.arrival, self.pool.timeout_s)
        if s.output >= 2:
            s.per_token_s = (s.last - s.first) / float(s.output - 1)
        status = self.answer(a)
        self.end(a, status, now, events.SUCCESS if status == "answered" else events.e.ON_MODEL_ERROR)

    # ---- The prefix cache: a group's first block is the most recent of its blocks ----

    def n_keys(self, s):
        length = len(s.hashes) * self.server.hash_tokens if self.server.prefix_hashes else self.server.prefix_length
        return min(length, s.prompt) // self.server.block_tokens

    def block_key(self, s, n):
        """Block n, counted from 0, belongs to a group, or to the hash that covers its last token."""
        last_token = (n + 1) * self.server.block_tokens - 1
        return (s.hashes[last_token // self.server.hash_tokens] if self.server.prefix_hashes else s.group), n

    def hits(self, instance, s):
        """How many of a sequence's first blocks are there."""
        n = 0
        while n < self.n_keys(s) and self.block_key(s, n) in instance.prefixes:
            n += 1
        return n

    def remember(self, instance, s, n_keys):
        for n in reversed(range(n_keys)):
            instance.prefixes[self.block_key(s, n)] = True
            instance.prefixes.move_to_end(self.block_key(s, n))
            if len(instance.prefixes) > self.server.cache_tokens // self.server.block_tokens:
                instance.prefixes.popitem(last=False)

    # ---- Books ----

    def tick(self, m, now):
        sample = self.sampled.setdefault(naive.window_of(self.c, now), [])
        sample += [(len(i.running), i.used) for i in self.in_state("serving", "draining")]
        super().tick(m, now)

    def history(self):
        history = super().history()
        return TokenHistory(
            **{f.name: getattr(history, f.name) for f in fields(history)},
            sequences=self.sequences,
            tokens_by_window=self.counted((now, 1) for now in self.produced_at),
            prefill_by_window=self.counted(self.prefilled_at),
            preemptions_by_window=self.counted((now, 1) for now in self.preempted_at),
            queried_by_window=self.counted(self.queried_at),
            hit_by_window=self.counted(self.hit_at),
            batches_sampled=self.sampled,
        )

    def counted(self, counts):
        total = [0] * (self.c.n_windows + 1)
        for now, n in counts:
            total[naive.window_of(self.c, now) if now < self.c.horizon_s else self.c.n_windows] += n
        return total


def simulate(c, all_streams, source=None, shadow=None):
    """As `naive_events.simulate`, with a `Server` for a variant in tokens, and None for another."""

    def kind(server, output_column):
        return events.Variant if server is None else partial(TokenVariant, server, output_column)

    return events.simulate(c, all_streams, kind(source, SOURCE_OUTPUT), kind(shadow, SHADOW_OUTPUT))
