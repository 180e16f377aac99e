"""Steps one instance of a language model's server: batch, cache and queue.

It is the continuous batcher of scenario/tokens.py, with the rules of the simulator, and gives the same times to the
bit. But it makes every step, where the simulator jumps from event to event: here time passes anyway, and whoever
drives it wants to know each token. It knows no clock. `enter` and `advance` are told the time, which must not go back.

Events of one instant happen in the simulator's order: the end of a step, callers who give up, the start of the next
step, sequences that reach the queue, new requests.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from shadowsim.scenario.tokens import Tokens


@dataclass(slots=True, eq=False)
class TokenSequence:
    """A request on its way through an instance; times are NaN until they are known.

    Attributes
    ----------
    arrival_s, give_up_s : float
        When it came, and when its caller leaves.
    prompt, output : int
        Tokens of its prompt and of its whole answer.
    group : int
        Number of the prompts that begin as its own does.
    produced : int
        Tokens of the answer so far.
    start_s, first_s, last_s : float
        When it was first admitted to the batch, and the ends of the steps of its first and last token.
    work_s : float
        Its share of the instance's time: of each step in the batch, the duration over the number of sequences.
    prefilled : int
        Tokens of its prompt that were computed, again after preemptions.
    cached : int
        Tokens of its prompt that were found in the cache of prefixes when it was last admitted.
    preemptions : int
        How often it gave its blocks back.
    told : callable or None
        Gets the time of each token: the end of the step that produced it.
    """

    arrival_s: float
    prompt: int
    output: int
    group: int = 0
    give_up_s: float = math.inf
    produced: int = 0
    start_s: float = math.nan
    first_s: float = math.nan
    last_s: float = math.nan
    work_s: float = 0.0
    prefilled: int = 0
    cached: int = 0
    preemptions: int = 0
    told: Callable[[float], None] | None = None
    # Of the tokens to prefill, what is done, and what the step in progress does; 0 while it decodes.
    _to_prefill: int = 0
    _done: int = 0
    _chunk: int = 0
    _blocks: int = 0
    _gone: bool = False  # its caller has left: it leaves before the next step

    @property
    def length(self) -> int:
        """Tokens of the prompt, and of the answer so far."""
        return self.prompt + self.produced


class ContinuousBatcher:
    """An instance that serves sequences of tokens in steps.

    Parameters
    ----------
    tokens : Tokens
    queue_limit : int or None
        Requests beyond `max_sequences` that may be present; one more is refused. None for no limit.
    """

    def __init__(self, tokens: Tokens, queue_limit: int | None = None):
        self._tokens, self._queue_limit = tokens, queue_limit
        self._free_blocks = tokens.blocks
        self._running: list[TokenSequence] = []  # in order of admission
        self._queue: deque[TokenSequence] = deque()
        self._entering: deque[tuple[float, TokenSequence]] = deque()  # on their way to the queue
        self._leaving: list[tuple[float, int, TokenSequence]] = []  # a heap: when callers give up
        self._n_entered = 0
        self._step: tuple[float, float] | None = None  # start and end of the step in progress
        # (begin, tokens read in the first step, number of this step) while the same sequences decode
        self._segment: tuple[float, int, int] | None = None
        prefix = tokens.prefix
        self._prefixes: OrderedDict[tuple[int, int], None] = OrderedDict()  # group and block, the last used last
        self._most_prefixes = 0 if prefix is None else prefix.cache_tokens // tokens.block_tokens

    @property
    def next_s(self) -> float:
        """When something will happen next; infinite while the instance is idle."""
        next_s = math.inf if self._step is None else self._step[1]
        if self._entering:
            next_s = min(next_s, self._entering[0][0])
        while self._leaving and not math.isnan(self._leaving[0][2].last_s):
            heapq.heappop(self._leaving)
        return min(next_s, self._leaving[0][0]) if self._leaving else next_s

    @property
    def n_running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def cache_use(self) -> float:
        """Share of the cache's blocks that running sequences hold."""
        return 1.0 - self._free_blocks / self._tokens.blocks

    def enter(self, sequence: TokenSequence) -> bool:
        """Take a sequence at its arrival; return False if there is no room for it. `advance` to its arrival first."""
        n_present = len(self._running) + len(self._queue) + len(self._entering)
        if self._queue_limit is not None and n_present - self._tokens.max_sequences >= self._queue_limit:
            return False
        sequence._to_prefill = sequence.prompt
        if self._tokens.on_timeout == "abort" and sequence.give_up_s < math.inf:
            heapq.heappush(self._leaving, (sequence.give_up_s, self._n_entered, sequence))
        self._n_entered += 1
        if self._tokens.before_s > 0.0:
            self._entering.append((sequence.arrival_s + self._tokens.before_s, sequence))
        else:
            self._queue.append(sequence)
            self._start(sequence.arrival_s)
        return True

    def advance(self, now: float) -> list[TokenSequence]:
        """Let everything happen up to a moment, and return the sequences that have had their last token since."""
        finished: list[TokenSequence] = []
        while (at := self.next_s) <= now:
            if self._step is not None and self._step[1] == at:
                finished += self._finish(*self._step)
            while self._leaving and self._leaving[0][0] == at:
                self._leave(heapq.heappop(self._leaving)[2])
            self._start(at)
            while self._entering and self._entering[0][0] == at:
                self._queue.append(self._entering.popleft()[1])
                self._start(at)
        return finished

    def leave(self, sequence: TokenSequence) -> None:
        """Drop a sequence whose caller has left, as at a time-out; `advance` to now first, and again."""
        if self._tokens.on_timeout == "abort" and math.isnan(sequence.last_s):
            self._leave(sequence)

    def _leave(self, sequence: TokenSequence) -> None:
        """Drop a sequence whose caller has left: at once while it waits, else before the next step."""
        if sequence in self._running:
            sequence._gone = True
        elif sequence in self._queue:
            self._queue.remove(sequence)
        else:
            self._entering = deque(entry for entry in self._entering if entry[1] is not sequence)

    def _finish(self, start: float, end: float) -> list[TokenSequence]:
        self._step = None
        share_s = (end - start) / len(self._running)
        finished = []
        for s in self._running:
            s.work_s += share_s
            s._done += s._chunk
            s.prefilled += s._chunk
            if s._done < s._to_prefill:
                continue
            if s._chunk:
                self._remember(s.group, self._n_keys(s))
                s._chunk = 0
            s.produced += 1
            if s.told is not None:
                s.told(end)
            if s.produced == 1:
                s.first_s = end
            if s.produced == s.output:
                s.last_s = end
                finished.append(s)
        if finished:
            self._remove(finished)
        return finished

    def _remove(self, sequences: list[TokenSequence]) -> None:
        self._running = [s for s in self._running if s not in sequences]
        self._free_blocks += sum(s._blocks for s in sequences)
        self._segment = None

    def _start(self, now: float) -> None:
        """Begin a step, if none is in progress and there is anything to do."""
        if self._step is not None:
            return
        gone = [s for s in self._running if s._gone]
        if gone:
            self._remove(gone)
        budget, preempted = self._go_on()
        if not preempted:
            self._admit(budget, now)
        if self._running:
            self._step = now, self._end_of_step(now)

    def _go_on(self) -> tuple[int, bool]:
        """Give running sequences their part of the step; return the tokens left, and whether any was preempted."""
        block, budget, preempted = self._tokens.block_tokens, self._tokens.max_step_tokens, False
        at = 0
        while at < len(self._running):
            s = self._running[at]
            if s._done == s._to_prefill:
                missing = -(-s.length // block) - s._blocks
                while missing > self._free_blocks and at < len(self._running):
                    self._preempt()
                    preempted = True
                if at == len(self._running):
                    break  # it was the last itself
                s._blocks += missing
                self._free_blocks -= missing
                budget -= 1
            else:
                s._chunk = min(s._to_prefill - s._done, budget)
                budget -= s._chunk
            at += 1
        return budget, preempted

    def _preempt(self) -> None:
        """Put the sequence that was admitted last back to the head of the queue, to be computed again."""
        s = self._running.pop()
        self._free_blocks += s._blocks
        s._to_prefill, s._done, s._chunk, s._blocks = s.length, 0, 0, 0
        s.preemptions += 1
        self._queue.appendleft(s)
        self._segment = None

    def _admit(self, budget: int, now: float) -> None:
        """Take sequences from the queue, in order, while there is room."""
        block = self._tokens.block_tokens
        while self._queue and len(self._running) < self._tokens.max_sequences and budget >= 1:
            s = self._queue[0]
            n_keys = self._hits(s)
            hit = min(n_keys * block, s._to_prefill - 1)
            blocks = -(-s._to_prefill // block)
            if blocks > self._free_blocks or (not self._tokens.chunked and s._to_prefill - hit > budget):
                return
            self._running.append(self._queue.popleft())
            self._remember(s.group, n_keys)
            self._free_blocks -= blocks
            s._done, s._blocks, s.cached = hit, blocks, hit
            s._chunk = min(s._to_prefill - hit, budget)
            budget -= s._chunk
            self._segment = None
            if math.isnan(s.start_s):
                s.start_s = now

    def _end_of_step(self, now: float) -> float:
        step, running = self._tokens.step, self._running
        n = len(running)
        if self._segment is not None:
            begin, read, j = self._segment
            j += 1
        else:
            prefill = sum(s._chunk for s in running)
            read = sum(s.length for s in running if s._done == s._to_prefill)
            if prefill:
                pairs = sum((s._done + s._chunk) ** 2 - s._done**2 for s in running)
                seconds = step.base_s + step.per_prefill_token_s * prefill
                seconds = seconds + step.per_sequence_s * n
                seconds = seconds + step.per_kv_token_s * read
                seconds = seconds + step.per_prefill_pair_s * pairs
                return now + (seconds + step.per_prompt_s * sum(s._chunk > 0 for s in running))
            begin, j = now, 1
        self._segment = begin, read, j
        tokens = j * read + n * (j * (j - 1) // 2)
        return begin + ((step.base_s + step.per_sequence_s * n) * j + step.per_kv_token_s * tokens)

    def _n_keys(self, s: TokenSequence) -> int:
        """Whole blocks of a prompt that others of its group share."""
        prefix = self._tokens.prefix
        return 0 if prefix is None else min(prefix.length, s.prompt) // self._tokens.block_tokens

    def _hits(self, s: TokenSequence) -> int:
        """How many of a prompt's first blocks are in the cache of prefixes."""
        n, n_keys = 0, self._n_keys(s)
        while n < n_keys and (s.group, n) in self._prefixes:
            n += 1
        return n

    def _remember(self, group: int, n_keys: int) -> None:
        """Make a group's first blocks the last used, the first block last of all, and forget those used longest ago."""
        for n in reversed(range(n_keys)):
            self._prefixes[group, n] = None
            self._prefixes.move_to_end((group, n))
            if len(self._prefixes) > self._most_prefixes:
                self._prefixes.popitem(last=False)
