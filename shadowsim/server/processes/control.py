"""Owns the account, the counts, the capture files and the simulated queues of a server in processes.

An action is answered once every worker that serves has heard of its event. One that does not say so within HEARD_S is
killed and started again, so that no caller is served by what was true before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from shadowsim.server.app import App, every, live_endpoints
from shadowsim.server.data_plane.capture_journal import JOURNAL_S
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.invoke import Reply, Runtime
from shadowsim.server.data_plane.live import BackendSources
from shadowsim.server.metrics.prometheus import family_text
from shadowsim.server.processes.followed_world import EVENT, greeting, world_message
from shadowsim.server.processes.ledger import Ledger
from shadowsim.server.processes.links import Link, Message, serve_links
from shadowsim.server.processes.member import ASK_AGAIN, CONTROL, HEARD, HELLO, STATE, ProcessStart
from shadowsim.server.processes.reports import BATCH, RECEIVED, left_batches
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.processes.simulations import SimulationDesk
from shadowsim.server.state.store import Store

HEARD_S = 5.0  # for a worker to put an event in force
_DUE_S, _STEP_S = 0.05, 0.02
_UNKNOWN = "unknown"  # endpoint of lines that were lost with this process


@dataclass(slots=True)
class _Peer:
    """A process that is linked: the last event that it has heard of, and its state."""

    link: Link
    row: int
    heard: int = -1
    unanswered: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    lag_s: float = 0.0
    n_held: int = 0


class ControlProcess(App):
    """The part of a server that there is once: all but invocations and copies.

    Parameters
    ----------
    start : ProcessStart
    memory : SharedMemory
    store : Store
    kill : callable
        Has a process killed and started again, by its name.
    """

    def __init__(self, start: ProcessStart, memory: SharedMemory, store: Store, kill: Callable[[str], None]):
        super().__init__(start.settings, store, memory)
        self.token = start.page_token()
        self._start, self._memory, self._kill = start, memory, kill
        self._row = memory.row(start.row)
        self._peers: dict[str, _Peer] = {}
        self._news = asyncio.Event()
        store.tell = self._tell

    def _open_data_plane(self) -> None:
        s = self.settings
        self.captures = CaptureWriter(s.sink, Random(s.seed), s.flush_s, s.journal)
        self._ledger = Ledger(self._start.folder, self.captures)
        sources = BackendSources(self._containers, s.services, s.seed, s.overhead_s)
        options = {"make": self._ledger.make, "open_logbook": self._ledger.open_logbook}
        self.endpoints = live_endpoints(s, self._store, sources, self.spare_time, **options)
        self._runtime = Runtime(self.endpoints, self.captures, s.limits, Random(s.seed))
        self._desk = SimulationDesk(self.endpoints)
        self._ledger.begin(self.endpoints)
        n_lost = self._row.n_taken - self._row.n_kept
        if n_lost > 0:
            why = f"the process that writes them was killed within {JOURNAL_S:g} s after it had them"
            self._ledger.lose_lines(_UNKNOWN, n_lost, why)
            self._row.n_kept = self._row.n_taken

    async def _listen(self, runner: web.ServerRunner) -> None:
        await self._refresh()
        self.url = self._start.url
        make = partial(Link, self._receive, self._end)
        self._links = await serve_links(self._start.socket(CONTROL), make)
        await web.UnixSite(runner, self._start.pages).start()

    def _periodic(self) -> Iterable[Coroutine[Any, Any, None]]:
        of_app = super()._periodic()
        return *of_app, every(_DUE_S, self._follow_clock)

    async def _follow_clock(self) -> None:
        """Bring endpoints in step with what has just fallen due, so that an experiment's counts begin with it."""
        store = self._store
        if store.clock.now() >= store.world.due_s:
            await self._refresh()

    async def _journal(self) -> None:
        n_taken = self._row.n_taken
        await self.captures.journal()
        self._row.n_kept = n_taken

    async def end_pages(self) -> None:
        """End the streams of pages that are open."""
        await self._site.close()

    async def _close_data_plane(self, left_s: float) -> None:
        self._links.close()
        await super()._close_data_plane(left_s)
        self._row.n_kept = self._row.n_taken
        self._ledger.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await super()._answer(request)
        if request.method == "POST":
            await self._in_force(self._store.n_events())
        return response

    async def _in_force(self, number: int) -> None:
        """Wait until every process that serves has heard of an event."""
        end_s = perf_counter() + HEARD_S
        while late := [name for name, peer_row in self._rows() if not self._has_heard(name, peer_row, number)]:
            if perf_counter() > end_s:
                for name in late:
                    self._kill(name)
                end_s = perf_counter() + HEARD_S
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), _STEP_S)
            except TimeoutError:
                continue

    def _rows(self) -> Iterator[tuple[str, int]]:
        """Yield name and row of the processes that serve by the account."""
        for name, row in self._start.members:
            if self._memory.row(row).is_serving:
                yield name, row

    def _has_heard(self, name: str, row: int, number: int) -> bool:
        peer = self._peers.get(name)
        return (peer is not None and peer.heard >= number) or not self._memory.row(row).is_serving

    def _tell(self, number: int, at_s: float, kind: str, text: str) -> None:
        for peer in self._peers.values():
            peer.link.send((EVENT, number, at_s, kind, text))

    def _receive(self, link: Link, message: Message) -> None:
        kind = message[0]
        if kind == HELLO:
            _, link.peer, row, generation, checksum = message
            if self._ledger.is_new(link.peer, generation):
                for _, number, counts, lines in left_batches(self._start.folder, link.peer, generation):
                    self._take(link.peer, number, counts, lines)
            self._ledger.start(link.peer, generation, self._memory.row(row).n_reported)
            self._peers[link.peer] = _Peer(link, row)
            link.send(greeting(self._store, checksum))
        elif kind == BATCH:
            peer = self._peers.get(link.peer)
            if peer is not None and peer.link is link:  # else it was killed, and what it had sent was in its file
                self._take(link.peer, *message[1:])
                link.send((RECEIVED, message[1]))
        elif kind == HEARD:
            peer = self._peers.get(link.peer)
            if peer is not None and peer.link is link:
                peer.heard = message[1]
                self._news.set()
        elif kind == ASK_AGAIN:
            link.send(world_message(self._store))
        elif kind == STATE:
            self._take_state(link.peer, *message[1:])
        else:
            self._desk.take(link, message)

    def _take(self, process: str, number: int, counts: list[Any], lines: list[Any]) -> None:
        """Take a batch of a process, once."""
        if self._ledger.take(process, number, counts):
            self._row.n_taken += len(lines)
            for destination, endpoint, variant, arrival_s, line in lines:
                moment = datetime.fromtimestamp(arrival_s, UTC)
                self.captures.keep(destination, endpoint, variant, moment, line)

    def _take_state(self, name: str, unanswered: dict[tuple[str, str], list[int]], lag_s: float, n_held: int) -> None:
        peer = self._peers.get(name)
        if peer is not None:
            before, peer.unanswered, peer.lag_s, peer.n_held = peer.unanswered, unanswered, lag_s, n_held
            self._add_up({*before, *unanswered})

    def _add_up(self, places: set[tuple[str, str]]) -> None:
        """Let pools of containers show the unanswered requests of all processes."""
        for endpoint, variant in places:
            live = self.endpoints.by_name.get(endpoint)
            for pool in live.serving() if live else ():
                if pool.variant.name == variant and pool.variant.model_name in self._containers:
                    n = len(pool.outstanding)
                    of_peers = [p.unanswered.get((endpoint, variant), []) for p in self._peers.values()]
                    whole = [[0] * n, *(counts for counts in of_peers if len(counts) == n)]
                    pool.outstanding[:] = map(sum, zip(*whole, strict=True))

    def _end(self, link: Link) -> None:
        peer = self._peers.get(link.peer)
        if peer is not None and peer.link is link:
            del self._peers[link.peer]
            self._add_up(set(peer.unanswered))
            self._news.set()
        self._desk.end(link)

    async def _page(self, path: str) -> Reply:
        reply = await super()._page(path)
        if path != "/metrics":
            return reply
        parts: Any = reply.body
        body: Any = _followed_by(parts, self._families)
        return replace(reply, body=body)

    def _families(self) -> bytes:
        """Return the metrics that a server in one process does not have."""
        up = GaugeMetricFamily("shadowsim_process_up", "1 while the process reports its counts", labels=("process",))
        starts = CounterMetricFamily("shadowsim_process_starts", "Starts of processes", labels=("process",))
        lost = CounterMetricFamily(
            "shadowsim_counts_lost", "Requests and copies whose counts were lost with a process", labels=("process",)
        )
        lag = GaugeMetricFamily(
            "shadowsim_process_lag_seconds", "Time for which the process's event loop was late", labels=("process",)
        )
        held = GaugeMetricFamily(
            "shadowsim_process_held_bytes", "Bytes of streamed parts that wait for slow callers", labels=("process",)
        )
        up.add_metric((CONTROL,), 1)
        starts.add_metric((CONTROL,), self._row.generation)
        for name, row in self._start.members:
            peer, known = self._peers.get(name), self._ledger.reports.get(name)
            up.add_metric((name,), peer is not None)
            starts.add_metric((name,), self._memory.row(row).generation)
            lost.add_metric((name,), known.n_lost if known else 0)
            lag.add_metric((name,), peer.lag_s if peer else 0.0)
            held.add_metric((name,), peer.n_held if peer else 0)
        return b"".join(map(family_text, (up, starts, lost, lag, held)))


async def _followed_by(parts: AsyncIterator[bytes], last: Callable[[], bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part
    yield last()
