"""Sends the copies of all workers, in a process at nice 10 that so gives way to callers."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from random import Random
from time import perf_counter
from typing import cast

from shadowsim.frames import SERVER_CRASH, SERVER_LAG
from shadowsim.server.app import live_endpoints, open_containers
from shadowsim.server.data_plane.backends import Answer, Unread
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.invoke import InFlight, Runtime
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.data_plane.pools import VariantPool
from shadowsim.server.data_plane.spare_time import SpareTime
from shadowsim.server.processes.copies import COPY, TAKEN, TOLD_BYTES, TOLD_COPIES, call_of, in_step
from shadowsim.server.processes.links import Link, Message, serve_links
from shadowsim.server.processes.member import HELLO, MIRROR, Member, ProcessStart
from shadowsim.server.processes.reports import COPY_ENDED, LineReporter, Outbox, lost_count
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.processes.simulations import RemoteSources
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store
from shadowsim.server.state.views import EndpointView

NICENESS = 10
_KEPT_VERSIONS = 4  # of an endpoint, for copies that were chosen before a change
_MOST_WAITING = 1_000  # copies of versions that this process has not seen
_REPORT_S = 5.0


class CopySendingRuntime(Runtime):
    """SageMaker's runtime in the mirror process: it sends the copies that workers have chosen.

    Attributes
    ----------
    outbox : Outbox
    """

    outbox: Outbox

    def send_chosen(self, copy: InFlight, receiver: Unread | None, origin: tuple[str, int]) -> None:
        """Send a copy, and report its end together with its count; `origin` is its worker and number."""
        ended = (COPY_ENDED, *origin)

        def done(instance: int, answer: Answer, ended_s: float) -> None:
            self.outbox.add(ended)
            self.record(copy, instance, answer, ended_s)

        def lost(cause: str) -> None:
            self.outbox.add(ended)
            copy.live.lose(copy.logbook, copy.pool.variant.name, copy.arrival_s, cause)

        copy.live.mirror.copy(copy.pool, copy.call, done, lost, receiver)


class CopySender:
    """The mirror process.

    Parameters
    ----------
    start : ProcessStart
    memory : SharedMemory
    """

    def __init__(self, start: ProcessStart, memory: SharedMemory):
        self._start, self._memory = start, memory
        self._loop_clock = LoopClock()
        self._member = Member(start, memory, self._loop_clock)
        self._served: dict[str, dict[int, tuple[EndpointView, VariantPool]]] = {}  # by endpoint and version
        self._logbooks: dict[tuple[str, str, float | None], Logbook] = {}
        self._read: dict[Link, list[int]] = {}  # copies and bytes since the last word to a worker
        self._waiting: set[asyncio.Task[None]] = set()
        self._n_waiting_bytes = 0

    async def start(self) -> None:
        """Wait for the account, then take copies."""
        os.nice(NICENESS)
        s, member = self._start.settings, self._member
        self._loop_clock.start()
        await member.join()
        self._sessions, containers = open_containers(s, self._loop_clock)
        sources = RemoteSources(containers, simulations=member.simulations, seed=s.seed, overhead_s=s.overhead_s)
        world = cast(Store, member.world)
        self._endpoints = live_endpoints(s, world, sources, SpareTime(), **member.options)
        member.serve(self._endpoints)
        shared = world.world.choices.event_id == "shared"
        captures = LineReporter(member.outbox, Random(s.seed))
        self._runtime = CopySendingRuntime(self._endpoints, captures, s.limits, Random(s.seed), shared)
        self._runtime.outbox = member.outbox
        make = partial(Link, self._receive, self._end, self._tell)
        self._server = await serve_links(self._start.socket(MIRROR), make)

    async def stop(self) -> None:
        """Finish copies within the time of grace, and report them."""
        began, grace_s = perf_counter(), self._start.settings.grace_s
        self._server.close()
        while self._waiting and perf_counter() < began + grace_s:
            await asyncio.sleep(0.01)
        left_s = max(grace_s - (perf_counter() - began), 0.0)
        await asyncio.gather(*(live.mirror.drain(left_s) for live in self._endpoints.by_name.values()))
        await self._member.leave(_REPORT_S)
        self._loop_clock.stop()
        for session in self._sessions:
            await session.close()

    def replace_quotas(self, quotas: Quotas) -> None:
        """Do nothing: copies have no quota."""

    def _end(self, link: Link) -> None:
        self._read.pop(link, None)

    def _tell(self, link: Link) -> None:
        """Tell a worker what was taken of its channel, if it is much."""
        taken = self._read.get(link)
        if taken is not None and (taken[0] >= TOLD_COPIES or taken[1] >= TOLD_BYTES):
            link.send((TAKEN, *taken))
            taken[:] = 0, 0

    def _receive(self, link: Link, message: Message) -> None:
        if message[0] == HELLO:
            link.peer = f"{message[1]}/{message[2]}"
            self._read[link] = [0, 0]
            link.send((HELLO, self._start.generation))
        elif message[0] == COPY:
            taken = self._read[link]
            taken[0] += 1
            taken[1] += len(message[7])
            name, version = message[3], message[2]
            live = self._endpoints.by_name.get(name)
            if live is not None and live.view.version == version and live.shadow is not None:
                self._send(live, link.peer, message)
            elif len(self._waiting) >= _MOST_WAITING or not self._has_room(len(message[7])):
                self._lose(link.peer, message, SERVER_LAG)
            else:
                self._n_waiting_bytes += len(message[7])
                task = asyncio.get_running_loop().create_task(self._send_in_step(link.peer, message))
                self._waiting.add(task)  # a loop holds its tasks weakly
                task.add_done_callback(self._waiting.discard)

    async def _send_in_step(self, worker: str, message: Message) -> None:
        """Send a copy of a version that this process has not seen yet, or that has passed."""
        live = await in_step(self._endpoints, message[3], message[2])
        self._n_waiting_bytes -= len(message[7])
        self._send(live, worker, message)

    def _has_room(self, n_bytes: int) -> bool:
        return self._n_waiting_bytes + n_bytes <= self._start.settings.copy_limits.max_copies_bytes

    def _send(self, live: LiveEndpoint | None, worker: str, message: Message) -> None:
        _, number, version, name, variant, experiment, created_s, body, headers, path, completion, *rest = message
        inference_id, event_id, request, at_s, began, within_s = rest
        served = self._view_and_pool(live, name, version, variant)
        if live is None or served is None:  # this process is newer than the change
            self._lose(worker, message, SERVER_CRASH)
            return
        view, pool = served
        copy = InFlight(
            live=live,
            view=view,
            pool=pool,
            call=call_of(body, headers, path, completion),
            inference_id=inference_id,
            logbook=None if experiment is None else self._logbook(name, experiment, created_s, variant),
            number=request,
            arrival_s=at_s,
            began=began,
            event_id=event_id,
        )
        self._runtime.send_chosen(copy, None if within_s is None else Unread(within_s), (worker, number))

    def _lose(self, worker: str, message: Message, cause: str) -> None:
        """Report a copy that is not sent."""
        number, name, variant, experiment, created_s, at_s = message[1], *message[3:7], message[14]
        logbook = None if experiment is None else self._logbook(name, experiment, created_s, variant)
        self._member.outbox.add((COPY_ENDED, worker, number), lost_count(name, variant, logbook, at_s, cause))

    def _view_and_pool(
        self, live: LiveEndpoint | None, name: str, version: int, variant: str
    ) -> tuple[EndpointView, VariantPool] | None:
        """Return what served a version of an endpoint, or the nearest that is known."""
        if name not in self._served:  # none that was deleted is kept for ever
            self._served = {known: of for known, of in self._served.items() if known in self._endpoints.by_name}
        versions = self._served.setdefault(name, {})
        if live is not None and live.shadow is not None and live.shadow.variant.name == variant:
            versions[live.view.version] = live.view, live.shadow  # a version may have turned out to mean something else
        while len(versions) > _KEPT_VERSIONS:
            del versions[next(iter(versions))]
        found = versions.get(version)
        if found is None:
            of_variant = [served for served in versions.values() if served[1].variant.name == variant]
            found = of_variant[-1] if of_variant else None
        return found

    def _logbook(self, name: str, experiment: str, created_s: float | None, variant: str) -> Logbook:
        """Return what names an experiment in reports."""
        key = name, experiment, created_s
        if key not in self._logbooks:
            if len(self._logbooks) > 1_000:
                self._logbooks.clear()
            names = (variant, variant)
            self._logbooks[key] = Logbook(experiment, name, names, 0.0, created_s=created_s)
        return self._logbooks[key]
