"""Hands copies from workers to the mirror process over a bounded channel; a full one sheds copies.

A worker chooses which requests are copied, and knows the limit of bodies. All other limits of copies are the mirror
process's: it is one, so they hold for all workers together. A copy that the channel has no room for is lost to
`server_lag`, for the mirror process is behind; without a mirror process it is lost to `server_crash`.
"""

from __future__ import annotations

import asyncio
from dataclasses import astuple
from time import perf_counter

from shadowsim.errors import ShadowsimError
from shadowsim.frames import SERVER_CRASH, SERVER_LAG
from shadowsim.server.data_plane.backends import Call, Unread
from shadowsim.server.data_plane.completions import CompletionRequest
from shadowsim.server.data_plane.invoke import InFlight, Runtime
from shadowsim.server.data_plane.live import LiveEndpoint, LiveEndpoints
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.processes.links import Link
from shadowsim.server.processes.reports import COPIED, Outbox, identity_of, lost_count

MAX_CHANNEL_COPIES, MAX_CHANNEL_BYTES = 1_000, 16 * 2**20  # of a worker, that the mirror process has not taken
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
    loop_clock : LoopClock
        A late worker sheds copies, too.

    Attributes
    ----------
    link : Link or None
        To the mirror process, while there is one.
    mirror_generation : int
        Of the mirror process at the other end.
    begun : asyncio.Event
        Set once there was a mirror process.
    """

    def __init__(self, outbox: Outbox, loop_clock: LoopClock):
        self.link: Link | None = None
        self.mirror_generation, self.begun = 0, asyncio.Event()
        self._outbox, self._loop_clock = outbox, loop_clock
        self._number = self._n_copies = self._n_bytes = 0

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
        """Send a copy after the request itself, or count it as lost."""
        view, variant = copy.view, copy.pool.variant.name
        cause = self._limit_reached(copy)
        if cause or self.link is None:
            self._outbox.add(lost_count(view.name, variant, copy.logbook, copy.arrival_s, cause))
            return
        self._number += 1
        self._n_copies += 1
        self._n_bytes += len(copy.call.body)
        identity = view.name, variant, *identity_of(copy.logbook)
        self._outbox.add((COPIED, *identity, copy.arrival_s, self.mirror_generation, self._number))
        call = copy.call
        message = (
            *(COPY, self._number, view.version, *identity, call.body, dict(call.headers), call.path),
            *(None if call.completion is None else astuple(call.completion), copy.inference_id, copy.event_id),
            *(copy.number, copy.arrival_s, copy.began, None if receiver is None else receiver.within_s),
        )
        asyncio.get_running_loop().call_soon(self.link.send, message)  # lets the source's request be written first

    def _limit_reached(self, copy: InFlight) -> str:
        n_bytes, mirror = len(copy.call.body), copy.live.mirror
        most = mirror.mirroring.max_body_bytes
        if most is not None and n_bytes > most:
            return "max_body_bytes"
        if self.link is None or not self.link.is_open:
            return SERVER_CRASH
        if n_bytes > mirror.limits.max_copies_bytes:
            return "max_in_flight"
        if self._n_copies >= MAX_CHANNEL_COPIES or (self._n_bytes and self._n_bytes + n_bytes > MAX_CHANNEL_BYTES):
            return SERVER_LAG
        return SERVER_LAG if self._loop_clock.mean_s > mirror.limits.max_lag_s else ""


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
