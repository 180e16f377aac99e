"""Runs one process of a server, which the supervisor starts.

    python -m shadowsim.server.processes NAME END BLOCK

NAME is for people. END is the file descriptor of a socket to the supervisor, on which the description of the process
comes first, and BLOCK is that of the shared memory. If the supervisor ends, the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from shadowsim.errors import ShadowsimError
from shadowsim.server.log_format import start_log
from shadowsim.server.own_process import allow_connections, settle_memory
from shadowsim.server.processes.control import ControlProcess
from shadowsim.server.processes.links import Link, Message, link_over
from shadowsim.server.processes.member import CONTROL, MIRROR, ProcessStart
from shadowsim.server.processes.mirror import CopySender
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.processes.supervisor import (
    CERTIFICATE,
    END_PAGES,
    ENDED,
    FAILED,
    FLUSH,
    KILL,
    QUOTAS,
    READY,
    SECRETS,
    START,
    STOP,
    remove_unlocked,
)
from shadowsim.server.processes.worker import Worker
from shadowsim.server.state.quotas import Quotas
from shadowsim.server.state.store import Store

_LOG = logging.getLogger(__name__)


class _Process:
    """A process between its start and its stop."""

    def __init__(self, memory: SharedMemory):
        self._memory = memory
        self._starting: asyncio.Future[ProcessStart] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        self._process: ControlProcess | CopySender | Worker | None = None
        self._store: Store | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder: Path | None = None

    async def run(self, end: socket.socket) -> None:
        link = await link_over(end, partial(Link, self._receive, self._end_at_once))
        start = await self._starting
        self._folder = start.folder
        start_log(start.log_format, start.name)
        allow_connections()
        try:
            process = self._process = self._made(start, link)
            await process.start()
        except (ShadowsimError, OSError) as error:
            link.send((FAILED, pickle.dumps(error)))
            await self._stopping.wait()
            return
        settle_memory()
        link.send((READY, *self._facts()))
        await self._stopping.wait()
        await process.stop()
        lost = (0, 0)
        if isinstance(process, ControlProcess):
            lost = process.n_lost, process.n_left
        if self._store is not None:
            self._store.close()
        link.send((ENDED, *lost))

    def _made(self, start: ProcessStart, link: Link) -> ControlProcess | CopySender | Worker:
        if start.role == CONTROL:
            self._store = Store(**start.store, quotas=start.quotas)
            return ControlProcess(start, self._memory, self._store, lambda name: link.send((KILL, name)))
        return CopySender(start, self._memory) if start.role == MIRROR else Worker(start, self._memory)

    def _facts(self) -> tuple[object, ...]:
        store = self._store
        return () if store is None else (store.account, store.region, store.clock.origin, store.clock.anchor)

    def _receive(self, link: Link, message: Message) -> None:
        kind, process = message[0], self._process
        if kind == START:
            self._starting.set_result(pickle.loads(message[1]))  # from the process that has started this one
        elif kind == STOP:
            self._stopping.set()
        elif process is None:
            return
        elif kind == SECRETS and not isinstance(process, CopySender):
            process.replace_secrets(message[1])
        elif kind == QUOTAS:
            process.replace_quotas(Quotas(message[1]))
        elif kind == CERTIFICATE and isinstance(process, Worker):
            self._read_certificate(process)
        elif kind in (FLUSH, END_PAGES) and isinstance(process, ControlProcess):
            work = process.flush_captures() if kind == FLUSH else process.end_pages()
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)  # a loop holds its tasks weakly
            task.add_done_callback(self._tasks.discard)

    def _end_at_once(self, link: Link) -> None:
        """End without a supervisor: nobody would start or stop this process again, or remove the folder of the run."""
        if self._folder is not None:
            remove_unlocked(self._folder)
        os._exit(1)

    def _read_certificate(self, worker: Worker) -> None:
        if worker.settings.certificate is not None:
            try:
                worker.settings.certificate.read_again()
            except ShadowsimError as error:
                _LOG.error("the certificate in force stays, since the new one cannot be used: %s", error)


async def _run(end: socket.socket, block: int) -> None:
    await _Process(SharedMemory(block)).run(end)


def main(name: str, end: str, block: str) -> None:
    """Run a process by the file descriptors that it has got; its name is in the list of processes."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # the supervisor's, though systemd tells all to stop
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(end)) as supervisor:
        supervisor.setblocking(False)
        asyncio.run(_run(supervisor, int(block)))


if __name__ == "__main__":
    main(*sys.argv[1:])
