"""Simulates the instances of a service model in real time, in place of containers.

A simulated instance follows the simulator. Its times are those of the model: a timer that fires late, by up to a
millisecond on an idle machine, neither adds up in a queue nor counts as latency, but as OverheadLatency.

Without batching an instance knows when each of its workers is free, so it gives an arriving request its start and its
end at once. An instance that batches is told of the time by arrivals and by one timer, set to what happens next.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence

import numpy as np

from shadowsim.errors import InputError
from shadowsim.scenario.service import Service
from shadowsim.server.data_plane.backends import ANSWERED, TIMED_OUT, Answer, Backend, Call, Receiver
from shadowsim.server.data_plane.dynamic_batcher import BatchedRequest, DynamicBatcher
from shadowsim.server.data_plane.real_time import RealTime, until
from shadowsim.server.data_plane.simulated_answers import FULL, Outcomes, draws, handed_over
from shadowsim.server.data_plane.simulated_tokens import InTokens


def check_simulable(service: Service, path: str) -> None:
    """Raise `InputError` for a service that cannot be simulated in real time; `path` is where it stands."""
    if service.outages is not None:
        raise InputError(f"{path}.outages", "is not simulated by a server: leave it out for `serve`")
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


def simulated(service: Service, n_instances: int, n_workers: int, seed: int, overhead_s: float = 0.0) -> Backend:
    """Return simulated instances of a service model; answers echo the call's body, or are completions.

    Parameters
    ----------
    service : Service
    n_instances, n_workers : int
        Instances, and workers per instance; a service in tokens has none.
    seed : int
    overhead_s : float
        What answers take beyond the model's latency.

    Raises
    ------
    InputError
        For a service that `check_simulable` refuses.
    """
    check_simulable(service, "services")
    if service.tokens is not None:
        return InTokens(service, service.tokens, n_instances, seed, overhead_s)
    if service.batching is not None:
        return _InBatches(service, n_instances, n_workers, seed, overhead_s)
    return _OneByOne(service, n_instances, n_workers, seed, overhead_s)


class _OneByOne:
    """Instances whose workers take one request at a time."""

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int, overhead_s: float):
        self.n_workers, self.overhead_s, self._service = n_workers, overhead_s, service
        self._queues: dict[int, SimulatedQueue] = {}
        for instance in range(n_instances):
            self.add_instance(instance)
        self._outcomes = Outcomes(service, seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Hold a worker of an instance for a drawn time, after the requests that came before."""
        loop = asyncio.get_running_loop()
        arrival = loop.time()
        service = self._queues[instance].enter(arrival, next(self._times))
        draw = self._outcomes.draw()
        if service is None:
            return FULL
        start, end = service
        await until(loop, min(end, arrival + timeout_s))
        answer = _of_times(arrival, start, end, timeout_s, work_s=end - start, offered_s=end - start)
        if answer.outcome == TIMED_OUT:
            return answer
        if receiver is not None:
            await until(loop, arrival + answer.latency_s + self.overhead_s)
        return await handed_over(self._outcomes.answer(call, draw, answer), receiver)

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: its workers have no batches of tokens."""
        return ()

    def add_instance(self, instance: int) -> None:
        """Make a further instance, idle."""
        self._queues[instance] = SimulatedQueue(self.n_workers, self._service)

    def remove_instance(self, instance: int) -> None:
        """Forget an instance."""
        del self._queues[instance]


class _InBatches:
    """Instances with a dynamic batcher."""

    def __init__(self, service: Service, n_instances: int, n_workers: int, seed: int, overhead_s: float):
        assert service.batching is not None
        self.n_workers, self.overhead_s, self._service = n_workers, overhead_s, service
        self._offered = service.saturated_factor
        self._instances: dict[int, RealTime[BatchedRequest]] = {}
        for instance in range(n_instances):
            self.add_instance(instance)
        self._outcomes = Outcomes(service, seed)
        self._times = draws(service.time, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Wait for the batch of a request, and until its end."""
        loop = asyncio.get_running_loop()
        request = BatchedRequest(loop.time(), next(self._times))
        arrival, give_up = request.arrival_s, request.arrival_s + timeout_s
        draw = self._outcomes.draw()
        if not await self._instances[instance].serve(request, arrival, give_up):
            return FULL
        offered_s = request.drawn_s * self._offered
        if request.size == 0:
            return Answer(TIMED_OUT, timeout_s, offered_s=offered_s)
        await until(loop, min(request.end_s, give_up))
        work_s = (request.end_s - request.start_s) / request.size
        answer = _of_times(arrival, request.start_s, request.end_s, timeout_s, work_s=work_s, offered_s=offered_s)
        if answer.outcome == TIMED_OUT:
            return answer
        if receiver is not None:
            await until(loop, arrival + answer.latency_s + self.overhead_s)
        return await handed_over(self._outcomes.answer(call, draw, answer), receiver)

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return nothing: its workers have no batches of tokens."""
        return ()

    def add_instance(self, instance: int) -> None:
        """Make a further instance, idle."""
        service = self._service
        assert service.batching is not None
        batcher = DynamicBatcher(service.batching, self.n_workers, service.queue_limit, service.slowdown)
        self._instances[instance] = RealTime[BatchedRequest](batcher)

    def remove_instance(self, instance: int) -> None:
        """Forget an instance."""
        del self._instances[instance]


def _of_times(arrival: float, start: float, end: float, timeout_s: float, *, work_s: float, offered_s: float) -> Answer:
    """Return the answer of a service from start to end; the worker goes on to the end when the caller's time is out.

    The delay of the timer that wakes the caller is not in it: it is overhead.
    """
    late = end - arrival > timeout_s
    return Answer(
        outcome=TIMED_OUT if late else ANSWERED,
        latency_s=timeout_s if late else end - arrival,
        wait_s=start - arrival,
        service_s=end - start,
        work_s=work_s,
        offered_s=offered_s,
    )


class SimulatedQueue:
    """One simulated instance: the times at which its workers are free, and at which waiting requests start."""

    def __init__(self, n_workers: int, service: Service):
        self._free_s = [0.0] * n_workers  # a heap
        self._starts_s: deque[float] = deque()  # of waiting requests, ascending
        self._limit, self._slowdown, self._wake = service.queue_limit, service.slowdown, service.wake

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
        if self._wake is not None and (idle_s := arrival - max(self._free_s)) > 0.0:
            work_s += self._wake.most_s * (idle_s / (idle_s + self._wake.half_s))
        heapq.heapreplace(self._free_s, start + work_s)
        return start, start + work_s
