"""Joins a worker or the mirror process to the control process.

A member greets with its name and generation, gets the account and then its events, and says of each that it is in force
here. It reports every FLUSH_S, sends its state every STATE_S, and forgets deleted endpoints every FORGET_S. While the
control process is away it goes on with what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shadowsim.server.app import every
from shadowsim.server.data_plane.live import LiveEndpoints
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.http.access import Token
from shadowsim.server.processes.followed_world import EVENT, SAME, WORLD, FollowedWorld, SharedThrottle
from shadowsim.server.processes.links import Link, Message, keep_linked
from shadowsim.server.processes.reports import (
    FLUSH_S,
    RECEIVED,
    NumberingLogbook,
    Outbox,
    ReportingEndpoint,
    spool_file,
)
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.processes.simulations import Simulations
from shadowsim.server.settings import Settings
from shadowsim.server.state.quotas import Quotas

CONTROL, MIRROR, WORKER = "control", "mirror", "worker"  # roles
HELLO, HEARD, ASK_AGAIN, STATE = "hello", "heard", "ask_again", "state"
STATE_S, FORGET_S = 0.25, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStart:
    """What a process is told when it is started.

    Attributes
    ----------
    role, name : str
    row : int
        Of the shared memory.
    generation : int
        How often a process of this name was started.
    folder : Path
        Of the sockets and the counts.
    settings : Settings
    quotas : Quotas
    store : dict of str to object
        Arguments of the control process's store.
    n_workers : int
    url : str
        Of the port.
    token : str or None
        Token of pages.
    members : tuple of (str, int)
        Names and rows of the workers and the mirror process.
    log_format : str
    """

    role: str
    name: str
    row: int
    generation: int
    folder: Path
    settings: Settings
    quotas: Quotas
    store: dict[str, Any]
    n_workers: int
    url: str
    token: str | None
    log_format: str
    members: tuple[tuple[str, int], ...] = ()

    def socket(self, role: str) -> str:
        """Return the path at which a role accepts links."""
        return str(self.folder / f"{role}-links")

    @property
    def pages(self) -> str:
        """The path at which the control process accepts HTTP."""
        return str(self.folder / "pages")

    def page_token(self) -> Token | None:
        """Return the token of pages, None if requests are not signed."""
        if self.token is None:
            return None
        token = Token()
        token.text = self.token
        return token


class Member:
    """What a process needs of the control process.

    Parameters
    ----------
    start : ProcessStart
    memory : SharedMemory
    loop_clock : LoopClock
    n_held : callable
        Returns the bytes of streams that wait for callers.

    Attributes
    ----------
    world : FollowedWorld
    outbox : Outbox
    simulations : Simulations
    row : ProcessRow
    """

    def __init__(
        self, start: ProcessStart, memory: SharedMemory, loop_clock: LoopClock, n_held: Callable[[], int] = lambda: 0
    ):
        self.start, self.memory, self.row = start, memory, memory.row(start.row)
        self.world = FollowedWorld(SharedThrottle(memory, start.quotas))
        file = spool_file(start.folder, start.name, start.generation)
        self.outbox, self.simulations = Outbox(self.row, file), Simulations()
        self.loop_clock, self._n_held = loop_clock, n_held
        self._endpoints: LiveEndpoints | None = None
        self._has_world = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def options(self) -> dict[str, Any]:
        """Options of `LiveEndpoints` that report what is counted and number requests in all processes alike."""
        return {
            "make": partial(ReportingEndpoint, outbox=self.outbox),
            "open_logbook": partial(NumberingLogbook, self.memory),
        }

    async def join(self) -> None:
        """Wait for the account; it is followed from then on."""
        make = partial(Link, self._receive, self._ended)
        work = (
            keep_linked(self.start.socket(CONTROL), make, self._greet),
            every(FLUSH_S, self.outbox.flush),
            every(STATE_S, self._send_state),
        )
        self._tasks = [asyncio.create_task(w) for w in work]
        await self._has_world.wait()

    def serve(self, endpoints: LiveEndpoints) -> None:
        """Keep endpoints in step with the account."""
        self._endpoints = self.simulations.endpoints = endpoints
        self._tasks.append(asyncio.create_task(every(FORGET_S, endpoints.forget_deleted)))

    def count(self) -> None:
        """From now on every action waits until this process has heard of it."""
        self.row.is_serving = 1

    async def leave(self, within_s: float) -> None:
        """Report what was counted, within a time, and leave."""
        self.row.is_serving = 0
        self._send_state()
        await self.outbox.empty(within_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.outbox.close()

    def _greet(self, link: Link) -> None:
        link.send((HELLO, self.start.name, self.start.row, self.start.generation, self.world.checksum))

    def _ended(self, link: Link) -> None:
        self.outbox.link = self.simulations.link = None

    def _receive(self, link: Link, message: Message) -> None:
        kind = message[0]
        if kind == RECEIVED:
            self.outbox.received(message[1])
        elif kind in (WORLD, SAME, EVENT):
            n_revised = self.world.n_revised
            if not self.world.take(message):
                link.send((ASK_AGAIN,))
                return
            if self._endpoints is not None:
                self._endpoints.expire(is_revised=self.world.n_revised > n_revised)
            link.send((HEARD, self.world.number))
            if kind != EVENT and self.outbox.link is not link:
                self.outbox.begin(link)
                self.simulations.begin(link)
                self._has_world.set()
        else:
            self.simulations.take(message)

    def _send_state(self) -> None:
        link = self.outbox.link
        if link is None or self._endpoints is None:
            return
        unanswered = {
            (name, pool.variant.name): list(pool.outstanding)
            for name, live in self._endpoints.by_name.items()
            for pool in live.serving()
            if any(pool.outstanding)
        }
        link.send((STATE, unanswered, self.loop_clock.total_s, self._n_held()))
