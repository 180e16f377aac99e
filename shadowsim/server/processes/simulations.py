"""Lets all processes invoke simulated instances, whose queues live in the control process alone.

So a simulated queue holds the requests of all workers, and an instance is chosen there, by all its unanswered requests.
A call travels without its body, which a simulated answer echoes at most, and a streamed answer comes in messages, of
which WINDOW may be on the way. If the control process is started again, its queues are empty, and calls that have not
begun to be answered are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from random import Random
from typing import Any

from shadowsim.server.data_plane.backends import BROKEN, TIMED_OUT, Answer, Backend, Call, Receiver
from shadowsim.server.data_plane.live import BackendSources, LiveEndpoints
from shadowsim.server.data_plane.pools import VariantPool
from shadowsim.server.data_plane.streamed_bodies import TokenFigures
from shadowsim.server.http.streamed_replies import CallerGoneError
from shadowsim.server.processes.copies import call_of, in_step
from shadowsim.server.processes.links import Link, Message
from shadowsim.server.state.views import EndpointView, VariantView

ASK, BEGIN, PART, PARTS_TAKEN, GONE, ANSWER = "ask", "begin", "part", "parts_taken", "gone", "answer"
WINDOW = 32
_LATE_S = 5.0  # after the time limit of a call, for an answer from the control process
_ECHO = bytes(bytearray(b"the body of the call"))  # stands for it; told apart by identity
_AWAY = "the process that simulates it has ended, and is being started again"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSources(BackendSources):
    """Makes pools whose simulated instances are the control process's."""

    simulations: Simulations = field(compare=False)

    def pool(
        self, view: EndpointView, variant: VariantView, routing: str, random: Random, *, copies: bool
    ) -> VariantPool:
        """Return a pool for a variant of an endpoint."""
        containers = self.containers.get(variant.model_name)
        if containers is None:
            backend = _Nowhere(self.overhead_s)
            return _RemotePool(view.name, variant, routing, random, backend, self.simulations, copies)
        return VariantPool(variant, routing, containers.copies if copies else containers.callers, random, copies)


class _Nowhere:
    """The backend of a pool whose instances are elsewhere."""

    n_workers = None

    def __init__(self, overhead_s: float):
        self.overhead_s = overhead_s

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        raise AssertionError("a remote pool asks the control process")

    def batches(self) -> tuple[tuple[int, float], ...]:
        return ()

    def add_instance(self, instance: int) -> None:
        pass

    def remove_instance(self, instance: int) -> None:
        pass


class _RemotePool(VariantPool):
    def __init__(
        self,
        endpoint: str,
        variant: VariantView,
        routing: str,
        random: Random,
        backend: Backend,
        simulations: Simulations,
        copies: bool,
    ):
        super().__init__(variant, routing, backend, random, copies)
        self._endpoint, self._simulations = endpoint, simulations

    async def invoke(self, call: Call, timeout_s: float, receiver: Receiver | None = None) -> tuple[int, Answer]:
        """Answer a call by an instance that the control process chooses."""
        return await self._simulations.invoke(
            self._endpoint, self.variant.name, call, timeout_s, receiver, copies=self.copies
        )


class Simulations:
    """The simulated instances of the control process, as another process invokes them.

    Parameters
    ----------
    endpoints : LiveEndpoints, set once there are
        For the versions that this process has seen.

    Attributes
    ----------
    link : Link or None
        To the control process, while there is one.
    """

    endpoints: LiveEndpoints

    def __init__(self) -> None:
        self.link: Link | None = None
        self._waiting: dict[int, asyncio.Queue[Message]] = {}
        self._asked: dict[int, Message] = {}  # not begun to be answered
        self._begun: set[int] = set()
        self._number = 0

    def begin(self, link: Link) -> None:
        """Ask over a new link, beginning with what was asked and not answered."""
        self.link = link
        for message in self._asked.values():
            link.send(message)
        for number in self._begun:
            self._waiting[number].put_nowait((ANSWER, number, None))
        self._begun.clear()

    def take(self, message: Message) -> None:
        """Take a message about a call."""
        queue = self._waiting.get(message[1])
        if queue is not None:
            queue.put_nowait(message)

    async def invoke(
        self,
        endpoint: str,
        variant: str,
        call: Call,
        timeout_s: float,
        receiver: Receiver | None,
        *,
        copies: bool,
    ) -> tuple[int, Answer]:
        """Return the instance and the answer of a call, streamed if there is a receiver."""
        self._number += 1
        number = self._number
        completion = None if call.completion is None else astuple(call.completion)
        version = self.endpoints.by_name[endpoint].view.version
        place = endpoint, variant, version, copies
        within_s = None if receiver is None else receiver.within_s
        message = (ASK, number, *place, dict(call.headers), call.path, completion, timeout_s, within_s)
        queue = self._waiting[number] = asyncio.Queue[Message]()
        self._asked[number] = message
        if self.link is not None:
            self.link.send(message)
        limit_s = timeout_s if within_s is None else max(timeout_s, within_s)
        try:
            async with asyncio.timeout(limit_s + _LATE_S):
                return await self._answer(queue, number, call, receiver)
        except TimeoutError:
            return 0, Answer(TIMED_OUT, limit_s, failure=_AWAY)
        finally:
            del self._waiting[number]
            self._asked.pop(number, None)
            self._begun.discard(number)

    async def _answer(
        self, queue: asyncio.Queue[Message], number: int, call: Call, receiver: Receiver | None
    ) -> tuple[int, Answer]:
        is_gone = False
        while True:
            kind, _, *rest = await queue.get()
            self._asked.pop(number, None)
            if kind == ANSWER:
                fields = rest[0]
                if fields is None:
                    return 0, Answer(BROKEN, 0.0, failure=_AWAY)
                return fields[0], _answer_of(fields[1:], call, is_left=is_gone)
            self._begun.add(number)
            if is_gone or receiver is None:
                continue
            try:
                if kind == BEGIN:
                    await receiver.begin(rest[0])
                else:
                    await receiver.part(call.body if rest[0] is None else rest[0])
                    if self.link is not None:
                        self.link.send((PARTS_TAKEN, number))
            except CallerGoneError:
                is_gone = True
                if self.link is not None:
                    self.link.send((GONE, number))


class SimulationDesk:
    """Serves calls of other processes by simulated instances.

    Parameters
    ----------
    endpoints : LiveEndpoints
    """

    def __init__(self, endpoints: LiveEndpoints):
        self._endpoints = endpoints
        self._pools: dict[tuple[str, str, bool], VariantPool] = {}  # the last ones, also of what serves no more
        self._receivers: dict[tuple[Link, int], _RemoteReceiver] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, link: Link, message: Message) -> None:
        """Take a message of another process."""
        kind, number = message[:2]
        if kind == ASK:
            task = asyncio.get_running_loop().create_task(self._serve(link, message))
            self._tasks.add(task)  # a loop holds its tasks weakly
            task.add_done_callback(self._tasks.discard)
        elif (receiver := self._receivers.get((link, number))) is not None:
            receiver.hear(is_gone=kind == GONE)

    def end(self, link: Link) -> None:
        """Note that nobody is at the other end of a link any more."""
        for (of, _), receiver in self._receivers.items():
            if of is link:
                receiver.hear(is_gone=True)

    async def _serve(self, link: Link, message: Message) -> None:
        _, number, endpoint, variant, version, copies, headers, path, completion, timeout_s, within_s = message
        live = await in_step(self._endpoints, endpoint, version)
        pool = None
        if live is not None:
            pool = live.shadow if copies else live.pools.get(variant)
        key = endpoint, variant, copies
        if pool is not None and pool.variant.name == variant:
            self._pools[key] = pool
        else:
            pool = self._pools.get(key)
        if pool is None:
            link.send((ANSWER, number, (0, *_fields(Answer(BROKEN, 0.0, failure="it serves no more")))))
            return
        receiver = None
        if within_s is not None:
            receiver = self._receivers[link, number] = _RemoteReceiver(link, number, within_s)
        try:
            instance, answer = await pool.invoke(call_of(_ECHO, headers, path, completion), timeout_s, receiver)
        finally:
            self._receivers.pop((link, number), None)
        link.send((ANSWER, number, (instance, *_fields(answer))))


class _RemoteReceiver:
    """Sends the parts of an answer to another process."""

    def __init__(self, link: Link, number: int, within_s: float):
        self.within_s = within_s
        self._link, self._number = link, number
        self._n_on_the_way, self._is_gone = 0, False
        self._room = asyncio.Event()

    def hear(self, *, is_gone: bool) -> None:
        """Note that a part was taken, or that the caller has left."""
        self._n_on_the_way -= 1
        self._is_gone = self._is_gone or is_gone
        self._room.set()

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._check()
        self._link.send((BEGIN, self._number, dict(headers)))

    async def part(self, part: bytes) -> None:
        self._check()
        self._link.send((PART, self._number, None if part is _ECHO else part))
        self._n_on_the_way += 1
        while self._n_on_the_way >= WINDOW and not self._is_gone:
            self._room.clear()
            await self._room.wait()
        self._check()

    def _check(self) -> None:
        if self._is_gone or not self._link.is_open:
            raise CallerGoneError


def _fields(answer: Answer) -> tuple[Any, ...]:
    body = None if answer.body is _ECHO else answer.body
    tokens = None if answer.tokens is None else astuple(answer.tokens)
    values = (
        *(answer.outcome, answer.latency_s, answer.status, body, dict(answer.headers), answer.wait_s),
        *(answer.service_s, answer.failure, answer.work_s, answer.offered_s, tokens, answer.first_part_s),
        *(answer.cut_bytes, answer.is_left),
    )
    return values


def _answer_of(fields: tuple[Any, ...], call: Call, *, is_left: bool) -> Answer:
    outcome, latency_s, status, body, headers, wait_s, service_s, failure, work_s, offered_s, tokens, *rest = fields
    answer = Answer(
        outcome,
        latency_s,
        status,
        call.body if body is None else body,
        headers,
        wait_s,
        service_s,
        failure,
        work_s,
        offered_s,
        None if tokens is None else TokenFigures(*tokens),
        *rest,
    )
    return replace(answer, is_left=True) if is_left else answer
