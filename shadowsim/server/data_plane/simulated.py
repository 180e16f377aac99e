"""Simulates the instances of a service model in real time, in place of containers.

A simulated instance follows the simulator. Its times are those of the model: a timer that fires late, by up to a
millisecond on an idle machine, neither adds up in a queue nor counts as latency, but as OverheadLatency.

Without batching an instance knows when each of its workers is free, so it gives an arriving request its start and its
end at once. An instance that batches is told of the time by arrivals and by one timer, set to what happens next.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Generic, Protocol, TypeVar

import numpy as np

from shadowsim.errors import InputError
from shadowsim.scenario.laws import Law
from shadowsim.scenario.service import Service
from shadowsim.scenario.token_times import Requests, work_s
from shadowsim.scenario.tokens import Tokens
from shadowsim.server.data_plane.backends import (
    ANSWERED,
    CONTENT_TYPE,
    ERROR_4XX,
    ERROR_5XX,
    REFUSED,
    TIMED_OUT,
    Answer,
    Backend,
    Call,
    Receiver,
)
from shadowsim.server.data_plane.continuous_batcher import ContinuousBatcher, TokenSequence
from shadowsim.server.data_plane.dynamic_batcher import BatchedRequest, DynamicBatcher
from shadowsim.server.data_plane.streamed_bodies import TokenFigures

_DRAWS_AT_ONCE = 256  # some laws take a microsecond per draw, during which the event loop stands still
_REFUSED = Answer(REFUSED, 0.0, 503, b"the queue is full")
_LONGEST = 2.0**31  # as the simulator cuts lengths
T = TypeVar("T")


def check_simulable(service: Service, path: str) -> None:
    """Raise `InputError` for a service that cannot be simulated in real time; `path` is where it stands."""
    for key in ("scaling", "outages"):
        if getattr(service, key) is not None:
            raise InputError(f"{path}.{key}", "is not simulated by a server: leave it out for `serve`")
    tokens = service.tokens
    if tokens is None:
        if service.time.kind == "linear":
            what = "must not be linear: a server has no trace with the columns that a linear law needs"
            raise InputError(f"{path}.time", what)
        return
    for key in ("prompt", "output"):
        if getattr(tokens, key).kind == "linear":
            what = "must be a number or a law: a server has no trace with columns"
            raise InputError(f"{path}.tokens.{key}", what)
    if tokens.prefix is not None and tokens.prefix.groups is None:
        what = "must have `groups`: a server has no trace with columns"
        raise InputError(f"{path}.tokens.prefix", what)


def simulated(service: Service, n_instances: int, n_workers: int, seed: int) -> Backend:
    """Return simulated instances of a service model; answers echo the call's body.

    Parameters
    ----------
    service : Service
    n_instances, n_workers : int
        Instances, and workers per instance; a service in tokens has none.
    seed : int

    Raises
    ------
    InputError
        For a service that `check_simulable` refuses.
    """
    check_simulable(service, "services")
    if service.tokens is not None:
        return _InTokens(service, service.tokens, n_instances, seed)
    if service.batching is not None:
        return _InBatches(service, n_instances, n_workers, seed)
    return _OneByOne(service, n_instances, n_workers, seed)


class _Outcomes:
    """Answers of simulated instances, some of which are errors."""

    def __init__(self, service: Service, seed: int):
        self._service, self._coin = service, Random(seed)

    def draw(self) -> float:
        """Return the draw that makes a call an error."""
        return self._coin.random()

    def answer(self, call: Call, draw: float, answer: Answer) -> Answer:
        """Return a timely answer with its status and body."""
        if draw < self._service.error_4xx:
            return replace(answer, outcome=ERROR_4XX, status=400, body=b"a simulated error")
        if draw < self._service.error_4xx + self._service.error_5xx:
            return replace(answer, outcome=ERROR_5XX, status=500, body=b"a simulated error")
        headers = {CONTENT_TYPE: call.headers[CONTENT_TYPE]} if CONTENT_TYPE in call.headers else {}
        return replace(answer, status=200, body=call.body, headers=headers)


class _OneByOne:
    """Instances whose workers take one request at a time."""

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int):
        self.n_workers = n_workers
        self._queues = [SimulatedQueue(n_workers, service.queue_limit, service.slowdown) for _ in range(n_instances)]
        self._outcomes = _Outcomes(service, seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Hold a worker of an instance for a drawn time, after the requests that came before."""
        loop = asyncio.get_running_loop()
        arrival = loop.time()
        service = self._queues[instance].enter(arrival, next(self._times))
        draw = self._outcomes.draw()
        if service is None:
            return _REFUSED
        start, end = service
        await _until(loop, min(end, arrival + timeout_s))
        late = end - arrival > timeout_s  # the worker stays busy until the end
        answer = Answer(
            outcome=TIMED_OUT if late else ANSWERED,
            latency_s=timeout_s if late else end - arrival,  # without the timer's delay, which is overhead
            wait_s=start - arrival,
            service_s=end - start,
            work_s=end - start,
            offered_s=end - start,
        )
        return answer if late else self._outcomes.answer(call, draw, answer)

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: its workers have no batches of tokens."""
        return ()


class _InBatches:
    """Instances with a dynamic batcher."""

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int):
        assert service.batching is not None
        self.n_workers = n_workers
        self._offered = service.saturated_factor
        self._instances = [
            _RealTime[BatchedRequest](
                DynamicBatcher(service.batching, n_workers, service.queue_limit, service.slowdown)
            )
            for _ in range(n_instances)
        ]
        self._outcomes = _Outcomes(service, seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Wait for the batch of a request, and until its end."""
        loop = asyncio.get_running_loop()
        request = BatchedRequest(loop.time(), next(self._times))
        arrival, give_up = request.arrival_s, request.arrival_s + timeout_s
        draw = self._outcomes.draw()
        if not await self._instances[instance].serve(request, arrival, give_up):
            return _REFUSED
        offered_s = request.drawn_s * self._offered
        if request.size == 0:
            return Answer(TIMED_OUT, timeout_s, offered_s=offered_s)
        await _until(loop, min(request.end_s, give_up))
        late, service_s = request.end_s - arrival > timeout_s, request.end_s - request.start_s
        answer = Answer(
            outcome=TIMED_OUT if late else ANSWERED,
            latency_s=timeout_s if late else request.end_s - arrival,
            wait_s=request.start_s - arrival,
            service_s=service_s,
            work_s=service_s / request.size,
            offered_s=offered_s,
        )
        return answer if late else self._outcomes.answer(call, draw, answer)

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: its workers have no batches of tokens."""
        return ()


class _InTokens:
    """Instances with a continuous batcher."""

    def __init__(self, service: Service, tokens: Tokens, n_instances: int, seed: int):
        self.n_workers = 1  # the whole instance works on a step
        self._tokens = tokens
        self._batchers = [ContinuousBatcher(tokens, service.queue_limit) for _ in range(n_instances)]
        self._instances = [_RealTime[TokenSequence](batcher) for batcher in self._batchers]
        self._outcomes = _Outcomes(service, seed)
        self._requests = _token_draws(tokens, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Have a drawn prompt prefilled and a drawn number of tokens produced."""
        loop, tokens = asyncio.get_running_loop(), self._tokens
        prompt, output, group, offered_s = next(self._requests)
        arrival, draw = loop.time(), self._outcomes.draw()
        if not tokens.fits(prompt, output):
            text = f"{prompt} tokens of the prompt and {output} of the answer do not fit into the cache or a step"
            return Answer(ERROR_4XX, 0.0, 400, text.encode())
        sequence = TokenSequence(arrival, prompt, output, group, give_up_s=arrival + timeout_s)
        if not await self._instances[instance].serve(sequence, arrival, sequence.give_up_s):
            return _REFUSED
        end = sequence.last_s + tokens.after_s  # NaN while the last token has not come
        await _until(loop, min(end, sequence.give_up_s) if end == end else sequence.give_up_s)
        timely = end - arrival <= timeout_s
        answer = Answer(
            outcome=ANSWERED if timely else TIMED_OUT,
            latency_s=end - arrival if timely else timeout_s,
            wait_s=sequence.start_s - arrival,
            service_s=end - sequence.start_s,
            work_s=sequence.work_s,
            offered_s=offered_s,
            tokens=self._figures(sequence, timeout_s, timely),
        )
        return self._outcomes.answer(call, draw, answer) if timely else answer

    def _figures(self, sequence: TokenSequence, timeout_s: float, timely: bool) -> TokenFigures:
        first_token_s = sequence.first_s + self._tokens.after_s - sequence.arrival_s
        more = sequence.output - 1
        return TokenFigures(
            first_token_s=first_token_s if first_token_s <= timeout_s else math.nan,
            per_token_s=(sequence.last_s - sequence.first_s) / more if timely and more else math.nan,
            prompt=sequence.prompt,
            output=sequence.output,
            produced=sequence.produced,
            prefilled=sequence.prefilled,
            preemptions=sequence.preemptions,
        )

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return running sequences and cache use of each instance, now."""
        now = asyncio.get_running_loop().time()
        for instance in self._instances:
            instance.advance(now)
        return [(batcher.n_running, batcher.cache_use) for batcher in self._batchers]


class _Machine(Protocol[T]):
    """An instance that is told the time: `enter` takes a request, `advance` returns those whose end is now known."""

    @property
    def next_s(self) -> float: ...

    def enter(self, request: T, /) -> bool: ...

    def advance(self, now: float) -> list[T]: ...


class _RealTime(Generic[T]):
    """Tells an instance that batches what time it is, by one timer of the event loop."""

    def __init__(self, machine: _Machine[T]):
        self._machine = machine
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by identity of a request
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, request: T, arrival: float, give_up: float) -> bool:
        """Wait until the end of a request is known, or its caller gives up; return False if there is no room for it."""
        self.advance(arrival)
        if not self._machine.enter(request):
            return False
        loop = asyncio.get_running_loop()
        decided = self._waiting[id(request)] = loop.create_future()
        self.advance(arrival)
        timer = loop.call_at(give_up, _set, decided)
        try:
            await decided
        finally:
            timer.cancel()
            del self._waiting[id(request)]
        self.advance(loop.time())  # the timer of the caller may have fired before that of the instance
        return True

    def advance(self, now: float) -> None:
        """Let everything happen up to a moment, and set the timer to what happens next."""
        for request in self._machine.advance(now):
            if (decided := self._waiting.get(id(request))) is not None:
                _set(decided)
        next_s = self._machine.next_s
        if self._timer is not None:
            if self._timer.when() == next_s and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if next_s < math.inf:
            self._timer = asyncio.get_running_loop().call_at(next_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.advance(asyncio.get_running_loop().time())


class SimulatedQueue:
    """One simulated instance: the times at which its workers are free, and at which waiting requests start."""

    def __init__(self, n_workers: int, limit: int | None, slowdown: tuple[float, ...]):
        self._free_s = [0.0] * n_workers  # a heap
        self._starts_s: deque[float] = deque()  # of waiting requests, ascending
        self._limit, self._slowdown = limit, slowdown

    def enter(self, arrival: float, work_s: float) -> tuple[float, float] | None:
        """Return start and end of a request's service, None if the queue is full."""
        while self._starts_s and self._starts_s[0] <= arrival:
            self._starts_s.popleft()
        start = max(arrival, self._free_s[0])
        if start > arrival:
            if self._limit is not None and len(self._starts_s) >= self._limit:
                return None
            self._starts_s.append(start)
        if self._slowdown:
            busy = 1 + sum(free > start for free in self._free_s)
            work_s *= self._slowdown[min(busy, len(self._slowdown)) - 1]
        heapq.heapreplace(self._free_s, start + work_s)
        return start, start + work_s


def draws(law: Law, random: np.random.Generator) -> Iterator[float]:
    """Yield draws of a law without end, by inversion from both tails."""
    while True:
        v = 0.5 - 0.5 * random.random(_DRAWS_AT_ONCE)  # in (0, 0.5]
        lower, upper = law.tails(v)
        yield from np.where(random.random(_DRAWS_AT_ONCE) < 0.5, lower, upper).tolist()


def _token_draws(tokens: Tokens, random: np.random.Generator) -> Iterator[tuple[int, int, int, float]]:
    """Yield without end tokens of a prompt and an answer, the prompt's group, and seconds in a full batch."""
    laws = draws(tokens.prompt, random), draws(tokens.output, random)
    groups = 1 if tokens.prefix is None else tokens.prefix.groups or 1
    while True:
        drawn = ([next(law) for law in laws] for _ in range(_DRAWS_AT_ONCE))
        prompt, output = np.clip(np.floor(np.array(list(drawn)).T + 0.5), 1.0, _LONGEST)
        offered_s = work_s(tokens, Requests(prompt, output, np.zeros_like(prompt)), {})
        group = random.integers(groups, size=_DRAWS_AT_ONCE)
        columns = prompt.astype(np.int64), output.astype(np.int64), group, offered_s
        yield from zip(*(column.tolist() for column in columns), strict=True)


async def _until(loop: asyncio.AbstractEventLoop, moment: float) -> None:
    """Sleep until a moment of the loop's clock."""
    if moment > loop.time():
        done = loop.create_future()
        timer = loop.call_at(moment, _set, done)
        try:
            await done
        finally:
            timer.cancel()


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
