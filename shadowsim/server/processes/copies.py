"""Hands copies from workers to the mirror process over a bounded channel; a full one sheds copies.

A worker chooses which requests are copied, and knows the limit of bodies. All other limits of copies are the mirror
process's: it is one, so they hold for all workers together. A copy is handed over when the worker has nothing else to
do (spare_time.py). One that would wait for too long, or that the channel has no room for, is lost to `server_lag`, for
the worker or the mirror process is behind; without a mirror process it is lost to `server_crash`.
"""

from __future__ import annotations

import asyncio
from dataclasses import astuple
from functools import partial
from time import perf_counter

from shadowsim.errors import ShadowsimError
from shadowsim.frames import SERVER_CRASH, SERVER_LAG
from shadowsim.server.data_plane.backends import Call, Unread
from shadowsim.server.data_plane.completions import CompletionRequest
from shadowsim.server.data_plane.invoke import InFlight, Runtime
from shadowsim.server.data_plane.live import LiveEndpoint, LiveEndpoints
from shadowsim.server.data_plane.spare_time import SpareTime
from shadowsim.server.processes.links import Link
from shadowsim.server.processes.reports import COPIED, Outbox, identity_of, lost_count

MAX_CHANNEL_COPIES, MAX_CHANNEL_BYTES = 1_000, 16 * 2**20  # of a worker, that the mirror process has not taken
# The mirror process tells what it has taken when it is so much: told of each copy, a worker would wake up for each.
TOLD_COPIES, TOLD_BYTES = MAX_CHANNEL_COPIES // 10, MAX_CHANNEL_BYTES // 10
COPY, TAKEN = "copy", "taken"
IN_STEP_S = 5.0  # for which a process may be behind another
_STEP_S = 0.002


class CopyingRuntime(Runtime):
    """SageMaker's runtime in a worker: its copies are sent by the mirror process.

    Attributes
    ----------
    copies : CopyChannel
    """

    copies: CopyChannel

    def send_copy(self, copy: InFlight, receiver: Unread | None) -> None:
        """Hand a copy to the mirror process, or count it as lost."""
        self.copies.send(copy, receiver)


class CopyChannel:
    """The channel from a worker to the mirror process.

    Parameters
    ----------
    outbox : Outbox
        Gets the reports of copies that were handed over, or shed.
    spare_time : SpareTime
        Of the worker's event loop.

    Attributes
    ----------
    link : Link or None
        To the mirror process, while there is one.
    mirror_generation : int
        Of the mirror process at the other end.
    begun : asyncio.Event
        Set once there was a mirror process.
    """

    def __init__(self, outbox: Outbox, spare_time: SpareTime):
        self.link: Link | None = None
        self.mirror_generation, self.begun = 0, asyncio.Event()
        self._outbox, self._spare_time = outbox, spare_time
        self._number = self._n_copies = self._n_bytes = 0
        self._n_waiting = self._n_waiting_bytes = 0  # for the worker to have time

    def begin(self, link: Link, mirror_generation: int) -> None:
        """Use a new link; what the last one had is counted by the ledger."""
        self.link, self.mirror_generation = link, mirror_generation
        self._n_copies = self._n_bytes = 0
        self.begun.set()

    def taken(self, n_copies: int, n_bytes: int) -> None:
        """Note that the mirror process has taken copies from the channel."""
        self._n_copies -= n_copies
        self._n_bytes -= n_bytes

    def send(self, copy: InFlight, receiver: Unread | None) -> None:
        """Send a copy when there is time, or count it as lost."""
        cause = self._limit_reached(copy)
        if cause:
            self._lose(copy, cause)
            return
        self._n_waiting += 1
        self._n_waiting_bytes += len(copy.call.body)
        start, shed = partial(self._hand_over, copy, receiver), partial(self._shed, copy)
        self._spare_time.wait(start, shed, copy.live.mirror.limits.max_wait_s)

    def _lose(self, copy: InFlight, cause: str) -> None:
        self._outbox.add(lost_count(copy.view.name, copy.pool.variant.name, copy.logbook, copy.arrival_s, cause))

    def _forget(self, copy: InFlight) -> None:
        self._n_waiting -= 1
        self._n_waiting_bytes -= len(copy.call.body)

    def _shed(self, copy: InFlight) -> None:
        self._forget(copy)
        self._lose(copy, SERVER_LAG)

    def _hand_over(self, copy: InFlight, receiver: Unread | None) -> None:
        self._forget(copy)
        if self.link is None or not self.link.is_open:
            self._lose(copy, SERVER_CRASH)
            return
        self._number += 1
        self._n_copies += 1
        self._n_bytes += len(copy.call.body)
        identity = copy.view.name, copy.pool.variant.name, *identity_of(copy.logbook)
        self._outbox.add((COPIED, *identity, copy.arrival_s, self.mirror_generation, self._number))
        call = copy.call
        message = (
            *(COPY, self._number, copy.view.version, *identity, call.body, dict(call.headers), call.path),
            *(None if call.completion is None else astuple(call.completion), copy.inference_id, copy.event_id),
            *(copy.number, copy.arrival_s, copy.began, None if receiver is None else receiver.within_s),
        )
        self.link.send(message)

    def _limit_reached(self, copy: InFlight) -> str:
        n_bytes, mirror = len(copy.call.body), copy.live.mirror
        most = mirror.mirroring.max_body_bytes
        if most is not None and n_bytes > most:
            return "max_body_bytes"
        if self.link is None or not self.link.is_open:
            return SERVER_CRASH
        if n_bytes > mirror.limits.max_copies_bytes:
            return "max_in_flight"
        n_before = self._n_bytes + self._n_waiting_bytes
        is_full = self._n_copies + self._n_waiting >= MAX_CHANNEL_COPIES
        # what is less than is told of may have been taken, so that a long body would go alone
        is_full |= n_before >= TOLD_BYTES and n_before + n_bytes > MAX_CHANNEL_BYTES
        return SERVER_LAG if is_full else ""


def call_of(body: bytes, headers: dict[str, str], path: str, completion: tuple[object, ...] | None) -> Call:
    """Return the call that a message has in parts."""
    return Call(body, headers, path, None if completion is None else CompletionRequest(*completion))  # type: ignore[arg-type]


async def in_step(endpoints: LiveEndpoints, name: str, version: int) -> LiveEndpoint | None:
    """Return an endpoint once this process has seen a version of it that another has seen; None if it is gone."""
    end_s = perf_counter() + IN_STEP_S
    while True:
        live = endpoints.by_name.get(name)
        if live is not None and live.view.version >= version and live.pools:
            return live
        if live is not None:
            live.fresh_until_s = 0.0
        try:
            live = endpoints.endpoint(name)
        except ShadowsimError:
            live = None
        if (live is not None and live.view.version >= version) or perf_counter() > end_s:
            return live
        await asyncio.sleep(_STEP_S)
