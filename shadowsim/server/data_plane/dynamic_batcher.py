"""Batches the requests of one simulated instance: one queue for all workers, as Triton has it.

It is the batcher of scenario/batching.py. Like the continuous batcher it knows no clock, and is told the time. The end
of a batch is known when it starts.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from shadowsim.scenario.batching import Batcher


@dataclass(slots=True, eq=False)
class BatchedRequest:
    """A request on its way through an instance; times are NaN until its batch starts.

    Attributes
    ----------
    arrival_s : float
    drawn_s : float
        Time that it would take alone.
    start_s, end_s : float
        Start and end of its batch.
    size : int
        Requests in its batch.
    """

    arrival_s: float
    drawn_s: float
    start_s: float = math.nan
    end_s: float = math.nan
    size: int = 0


class DynamicBatcher:
    """An instance whose workers take waiting requests in batches.

    Parameters
    ----------
    batching : Batcher
    n_workers : int
    queue_limit : int or None
        Requests that may wait while no worker is free; one more is refused.
    slowdown : tuple of float
        Factors by busy workers, as of `scenario.service.Service`.
    """

    def __init__(
        self, batching: Batcher, n_workers: int, queue_limit: int | None = None, slowdown: tuple[float, ...] = ()
    ):
        self._batching, self._n_workers = batching, n_workers
        self._queue_limit, self._slowdown = queue_limit, slowdown
        self._queue: deque[BatchedRequest] = deque()
        self._ends: list[float] = []  # a heap: of the batches in progress
        self._started: list[BatchedRequest] = []  # since `advance` last told

    @property
    def next_s(self) -> float:
        """When something will happen next: a worker becomes free, or the oldest request is due; infinite if never."""
        if len(self._ends) == self._n_workers or not self._queue:
            return self._ends[0] if self._ends else math.inf
        due = self._queue[0].arrival_s + self._batching.max_delay_s
        return min(due, self._ends[0]) if self._ends else due

    def enter(self, request: BatchedRequest) -> bool:
        """Take a request at its arrival; return False if there is no room for it. `advance` to its arrival first."""
        busy = len(self._ends) == self._n_workers
        if busy and self._queue_limit is not None and len(self._queue) >= self._queue_limit:
            return False
        self._queue.append(request)
        self._start(request.arrival_s)
        return True

    def advance(self, now: float) -> list[BatchedRequest]:
        """Let everything happen up to a moment, and return the requests whose batches have started since."""
        while (at := self.next_s) <= now:
            while self._ends and self._ends[0] == at:
                heapq.heappop(self._ends)
            self._start(at)
        started, self._started = self._started, []
        return started

    def _start(self, now: float) -> None:
        batching, queue = self._batching, self._queue
        while queue and len(self._ends) < self._n_workers:
            if len(queue) < batching.max_size and now < queue[0].arrival_s + batching.max_delay_s:
                break
            members = [queue.popleft() for _ in range(min(len(queue), batching.max_size))]
            service_s = members[0].drawn_s
            if self._slowdown:
                service_s *= self._slowdown[min(len(self._ends) + 1, len(self._slowdown)) - 1]
            service_s *= batching.factors[len(members) - 1]
            end = now + service_s
            heapq.heappush(self._ends, end)
            for request in members:
                request.start_s, request.end_s, request.size = now, end, len(members)
            self._started += members
