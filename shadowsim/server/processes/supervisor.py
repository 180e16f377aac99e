"""Starts the processes of a server, starts those again that end, and stops all.

It reserves the port by a socket that is bound and does not listen, so that the workers, which come and go, can share
it and nobody else can have it. A process that ends is started again at once; one that ends soon after that, after a
time that doubles up to RETRY_S. Each process has a socket to the supervisor, over which it hears what to do, and by
whose end it notices that there is no supervisor any more.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import math
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

from shadowsim.errors import InputError
from shadowsim.server.data_plane.capture_journal import CaptureJournal
from shadowsim.server.http.access import Token, url_of
from shadowsim.server.processes.links import Link, Message, link_over
from shadowsim.server.processes.member import CONTROL, MIRROR, WORKER, ProcessStart
from shadowsim.server.processes.shared_memory import SharedMemory, make_block
from shadowsim.server.settings import Settings
from shadowsim.server.state.clock import Clock
from shadowsim.server.state.database import IN_MEMORY
from shadowsim.server.state.quotas import Quotas

START, END_PAGES, STOP = "start", "end_pages", "stop"
SECRETS, QUOTAS, CERTIFICATE, FLUSH = "secrets", "quotas", "certificate", "flush"
READY, FAILED, ENDED, KILL = "ready", "failed", "ended", "kill"
START_S, STOP_S = 120.0, 20.0  # for a process to be ready, and to end beyond its time of grace
RETRY_S, FIRST_RETRY_S, STEADY_S = 5.0, 0.1, 1.0
_MOST_PATH_BYTES = 107  # of a Unix socket
_NO_SHARING = (
    "--processes: this system does not balance callers among processes on one port, so all runs in one process"
)
_LOG = logging.getLogger(__name__)


def n_processes(wanted: int) -> int:
    """Return the number of workers to start: 1, with a warning, where they cannot share a port."""
    if wanted > 1 and not (sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")):
        _LOG.warning(_NO_SHARING)
        return 1
    return wanted


@dataclass(slots=True)
class _Child:
    """A process, its row of the shared memory, and what it has told."""

    role: str
    name: str
    row: int
    process: asyncio.subprocess.Process | None = None
    link: Link | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ready_s: float = math.inf  # when it was, by `perf_counter`
    facts: Message = ()
    error: Exception | None = None
    lost: tuple[int, int] = (0, 0)
    watching: asyncio.Task[None] | None = None


class Supervisor:
    """A server in processes.

    Parameters
    ----------
    settings : Settings
        Without sinks' journals: `store` tells where the state is kept.
    store : dict of str to object
        Arguments of `Store`, with `path`.
    quotas : Quotas
    n_workers : int
        At least 2.
    log_format : str

    Attributes
    ----------
    url : str
        URL of the server once it has started.
    token : Token or None
        Token of pages if signatures are verified.
    settings : Settings
        What a process that is started now gets.
    n_lost, n_left : int
        Captured lines that were lost, and that wait for the next server, once all has stopped.
    """

    def __init__(self, settings: Settings, store: dict[str, Any], quotas: Quotas, n_workers: int, log_format: str):
        self.settings, self.url = settings, ""
        self.token = None if settings.secrets is None else Token()
        self.n_lost = self.n_left = 0
        self._is_kept, self._quotas, self._log_format = store["path"] != IN_MEMORY, quotas, log_format
        self._folder = Path(tempfile.mkdtemp(prefix="shadowsim-"))
        self._lock = lock_folder(self._folder)
        if not self._is_kept:
            store = {**store, "path": str(self._folder / "state.db")}
        self._store = store
        self._block = make_block()
        self._memory = SharedMemory(self._block)
        self._control, self._mirror = _Child(CONTROL, CONTROL, 0), _Child(MIRROR, MIRROR, 1)
        self._workers = [_Child(WORKER, f"{WORKER}-{i}", 2 + i) for i in range(n_workers)]
        self._port: list[socket.socket] = []
        self._is_stopping = False

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of the processes that run."""
        children = (self._control, self._mirror, *self._workers)
        return {c.name: c.process.pid for c in children if c.process is not None and c.process.returncode is None}

    async def start(self) -> None:
        """Reserve the port and start all processes; return when they serve.

        Raises
        ------
        OSError
            The address cannot be bound.
        ShadowsimError
            The state cannot be used.
        """
        s = self.settings
        try:
            self._check_folder()
            address, port = self._reserve(s.host, s.port)
            self.settings = s = replace(s, port=port, journal=CaptureJournal(Path(f"{self._store['path']}-captures")))
            self.url = url_of(address, port, "https" if s.certificate else "http")
            await self._begin(self._control)
            account, region, origin, anchor = self._control.facts
            limits = replace(s.limits, account=account, region=region)
            self.settings = replace(self.settings, limits=limits)
            self.store = StoreFacts(
                path=str(self._store["path"]),
                is_kept=self._is_kept,
                region=region,
                clock=Clock.alongside(origin, anchor),
            )
            await asyncio.gather(*map(self._begin, (self._mirror, *self._workers)))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop workers, then the mirror process, then the control process; each may finish what it has begun."""
        self._is_stopping = True
        if self._control.link is not None:
            self._control.link.send((END_PAGES,))  # workers pass them on, and would wait for their ends
        await asyncio.gather(*map(self._end, self._workers))
        await self._end(self._mirror)
        await self._end(self._control)
        self.n_lost, self.n_left = self._control.lost
        for port in self._port:
            port.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def abandon(self) -> None:
        """End all processes at once, as by kill -9."""
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def replace_secrets(self, secrets: Mapping[str, str]) -> None:
        """Verify signatures with other keys from now on, if the server verifies any."""
        if self.settings.secrets is not None:
            self.settings = replace(self.settings, secrets=dict(secrets))
            self._tell_all((SECRETS, dict(secrets)))

    def replace_quotas(self, quotas: Quotas) -> None:
        """Enforce other quotas from now on."""
        self._quotas = quotas
        self._tell_all((QUOTAS, dict(quotas.limits)))

    def read_certificate(self) -> None:
        """Use what the files of the certificate hold now; raise InputError if they cannot be used."""
        if self.settings.certificate is not None:
            self.settings.certificate.read_again()
            self._tell_all((CERTIFICATE,))

    async def flush_captures(self) -> None:
        """Have the captures written that there are."""
        if self._control.link is not None:
            self._control.link.send((FLUSH,))

    def _tell_all(self, message: Message) -> None:
        for child in (self._control, self._mirror, *self._workers):
            if child.link is not None:
                child.link.send(message)

    def _check_folder(self) -> None:
        """Refuse a folder in which sockets cannot be."""
        longest = max(len(os.fsencode(self._folder / f"{role}-links")) for role in (CONTROL, MIRROR))
        if longest > _MOST_PATH_BYTES:
            most = _MOST_PATH_BYTES - (longest - len(os.fsencode(self._folder.parent)))
            what = f"must be a folder whose path has at most {most} bytes, for the sockets of --processes"
            raise InputError("TMPDIR", what, str(self._folder.parent))

    def _reserve(self, host: str, port: int) -> tuple[str, int]:
        """Bind all addresses of a host, without listening; return the first one and the port."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in dict.fromkeys(found):
            address, _, *rest = place
            with socket.socket(family, kind, protocol) as alone:  # others who share their port would let us in
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((address, port, *rest))
                port = int(alone.getsockname()[1])
            shared = socket.socket(family, kind, protocol)
            self._port.append(shared)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                shared.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6:
                shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            shared.bind((address, port, *rest))
        first: str = self._port[0].getsockname()[0]
        return first, port

    async def _begin(self, child: _Child) -> None:
        """Start a process for the first time, and wait until it is ready."""
        child.watching = asyncio.get_running_loop().create_task(self._keep(child))
        ready = asyncio.get_running_loop().create_task(child.ready.wait())
        await asyncio.wait((ready, child.watching), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if child.error is not None:
            raise child.error
        if not child.ready.is_set():
            raise InputError("--processes", f"the {child.name} process has not started; see the log")

    async def _keep(self, child: _Child) -> None:
        """Run a process again and again, until the server stops or its first start fails."""
        retry_s = FIRST_RETRY_S
        while not self._is_stopping:
            child.ready_s = math.inf
            try:
                await self._run(child)
            except OSError as error:
                _LOG.error("the %s process cannot be started: %s", child.name, error)
            self._memory.row(child.row).is_serving = 0
            if self._is_stopping or not child.ready.is_set():  # its first start has failed
                return
            status = child.process.returncode if child.process else None
            how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
            _LOG.error("the %s process has ended %s, and is started again", child.name, how)
            if perf_counter() - child.ready_s > STEADY_S:
                retry_s = FIRST_RETRY_S
            else:
                await asyncio.sleep(retry_s)
                retry_s = min(2.0 * retry_s, RETRY_S)

    async def _run(self, child: _Child) -> None:
        """Run a process until it ends."""
        row = self._memory.row(child.row)
        row.generation += 1
        ours, theirs = socket.socketpair()
        with theirs:
            places = str(theirs.fileno()), str(self._block)
            command = [sys.executable, "-P", "-m", "shadowsim.server.processes", child.name, *places]
            child.process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},  # the same modules
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._block),
                start_new_session=True,  # a terminal's signals are the supervisor's
            )
        ours.setblocking(False)
        child.link = await link_over(ours, partial(Link, partial(self._receive, child)))
        child.link.send((START, pickle.dumps(self._start_of(child, row.generation))))
        if self._is_stopping:
            child.link.send((STOP,))
        await child.process.wait()
        child.link.abort()
        child.link = None

    def _start_of(self, child: _Child, generation: int) -> ProcessStart:
        settings = self.settings
        if child is not self._control:
            seed = crc32(f"{settings.seed} {child.name} {generation}".encode())  # other draws in each process
            settings = replace(settings, seed=seed, sink=_NO_SINK, journal=None)
        return ProcessStart(
            role=child.role,
            name=child.name,
            row=child.row,
            generation=generation,
            folder=self._folder,
            settings=settings,
            quotas=self._quotas,
            store=self._store if child is self._control else {},
            n_workers=len(self._workers),
            url=self.url,
            token=None if self.token is None else self.token.text,
            log_format=self._log_format,
            members=tuple((c.name, c.row) for c in (self._mirror, *self._workers)),
        )

    def _receive(self, child: _Child, link: Link, message: Message) -> None:
        kind = message[0]
        if kind == READY:
            child.facts, child.error, child.ready_s = message[1:], None, perf_counter()
            child.ready.set()
        elif kind == FAILED:
            child.error = pickle.loads(message[1])  # from a process that this one has started
            if child.ready.is_set():
                _LOG.error("the %s process cannot be started again: %s", child.name, child.error)
            if child.process is not None:
                child.process.kill()
        elif kind == ENDED:
            child.lost = message[1], message[2]
        elif kind == KILL:
            self._kill_late(message[1])

    def _kill_late(self, name: str) -> None:
        """Kill a process that has not put an event in force."""
        for child in (self._mirror, *self._workers):
            if child.name == name and child.process is not None and child.process.returncode is None:
                _LOG.error("the %s process does not answer, and is killed", name)
                child.process.kill()

    async def _end(self, child: _Child) -> None:
        """Have a process stop; one that takes too long is killed."""
        if child.link is not None:
            child.link.send((STOP,))
        if child.watching is not None:
            _, late = await asyncio.wait((child.watching,), timeout=2.0 * self.settings.grace_s + STOP_S)
            if late and child.process is not None and child.process.returncode is None:
                _LOG.error("the %s process does not stop, and is killed", child.name)
                child.process.kill()
            await child.watching


def lock_folder(folder: Path) -> int:
    """Lock a folder for as long as this process lives; return the file descriptor that holds the lock.

    systemd removes what is old from the system's folder for temporary files, but nothing of a locked folder.
    """
    place = os.open(folder, os.O_RDONLY)
    fcntl.flock(place, fcntl.LOCK_EX)
    return place


def remove_unlocked(folder: Path) -> None:
    """Remove the folder of a supervisor that was killed, whose lock has ended with it."""
    try:
        place = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # another process was faster
    try:
        # Shared: several that end try at once, and only the last one finds all files made.
        fcntl.flock(place, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return
    finally:
        os.close(place)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What is told at the start of where and how the state is kept."""

    path: str
    is_kept: bool
    region: str
    clock: Clock


class _NoSink:
    """Takes no captures: only the control process writes them."""

    def write(self, bucket: str, key: str, data: bytes) -> None:
        raise OSError(errno.EPERM, "only the control process writes captures")


_NO_SINK = _NoSink()
