"""Runs a load job in this process or shares it among several, and puts what they measured together.

The schedule is dealt out: request i goes to process i modulo their number, so that each sends a thinned version of the
same traffic, and rows are put together by the requests' numbers. All processes start at one moment of the monotonic
clock, which they share. They are programs of their own that talk over pipes: nothing of the caller's is imported in
them, and they end when their pipe does. A signal of the terminal reaches the caller alone, which tells them to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import struct
import subprocess
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from time import monotonic
from typing import Any, BinaryIO

from shadowsim.errors import ShadowsimError
from shadowsim.measuring.generator.load_records import LiveCounts
from shadowsim.measuring.generator.sender import Control, Generator, LoadJob, Sent

LEAD_S = 0.1  # from readiness to the start
_READY_S = 120.0
_LENGTH = struct.Struct(">Q")
_COMMAND = (sys.executable, "-c", "from shadowsim.measuring.generator.load_processes import work; work()")


class LoadProcessError(ShadowsimError, RuntimeError):
    """A process of a load run has ended before its time."""


async def run_job(job: LoadJob, control: Control, on_counts: Callable[[LiveCounts], None] | None = None) -> list[Sent]:
    """Run a job in this process; `on_counts` is given the counts once a second."""
    generator = Generator(job, control, on_counts)
    generator.get_ready()
    return [await generator.run(monotonic() + LEAD_S)]


async def run_jobs(
    jobs: Sequence[LoadJob], control: Control, on_counts: Callable[[LiveCounts], None] | None = None
) -> list[Sent]:
    """Run each job in a process of its own, all at once; `on_counts` is given the sums of their counts.

    Raises
    ------
    LoadProcessError
        A process has died.
    """
    loop = asyncio.get_running_loop()
    workers = [_Worker(job, loop) for job in jobs]
    relay = loop.create_task(_relay(control, workers))
    teller = loop.create_task(_tell(workers, on_counts))
    try:
        async with asyncio.timeout(_READY_S):
            await asyncio.gather(*(worker.ready for worker in workers))
        start_s = monotonic() + LEAD_S
        for worker in workers:
            worker.send(("start", start_s))
        return list(await asyncio.gather(*(worker.sent for worker in workers)))
    except TimeoutError:
        raise LoadProcessError(f"a load process was not ready within {_READY_S:g} s") from None
    finally:
        relay.cancel()
        teller.cancel()
        for worker in workers:
            worker.close()


def shares(job: LoadJob, n: int) -> list[LoadJob]:
    """Return a job's shares for n processes; caps and ceilings are shared, too."""
    cap, rate = job.max_in_flight, job.max_rate_per_s
    return [
        replace(
            job,
            due_s=job.due_s[i::n],
            number=job.number[i::n],
            stage=job.stage[i::n],
            max_in_flight=None if cap is None else cap // n + (i < cap % n),
            max_rate_per_s=None if rate is None else rate / n,
        )
        for i in range(n)
    ]


async def _relay(control: Control, workers: Sequence[_Worker]) -> None:
    for event in (control.stopped, control.cut):
        await event.wait()
        for worker in workers:
            worker.send(("stop",))


async def _tell(workers: Sequence[_Worker], on_counts: Callable[[LiveCounts], None] | None) -> None:
    while on_counts is not None:
        await asyncio.sleep(1.0)
        on_counts(reduce(LiveCounts.plus, (worker.counts for worker in workers)))


class _Worker:
    """A process that runs a job, as its parent sees it."""

    def __init__(self, job: LoadJob, loop: AbstractEventLoop):
        self.counts = LiveCounts()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.sent: asyncio.Future[Sent] = loop.create_future()
        self._loop = loop
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        # a thread writes, too: a job with its bodies may be larger than a pipe
        threading.Thread(target=self._talk, args=(job,), daemon=True).start()

    def send(self, message: tuple[Any, ...]) -> None:
        """Tell the process something; one that has ended hears nothing."""
        with contextlib.suppress(OSError, ValueError):
            _write(self._process.stdin, message)

    def close(self) -> None:
        """End the process, if it has not ended by itself."""
        for future in (self.ready, self.sent):
            if future.done() and not future.cancelled():
                future.exception()  # seen
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _talk(self, job: LoadJob) -> None:
        try:
            _write(self._process.stdin, job)
            while True:
                self._loop.call_soon_threadsafe(self._hear, *_read(self._process.stdout))
        except (EOFError, OSError, ValueError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5.0)
            code = self._process.returncode
            error = LoadProcessError(f"a load process has ended before its time (exit status {code})")
            with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
                self._loop.call_soon_threadsafe(self._hear, "error", error)

    def _hear(self, kind: str, value: Any) -> None:
        if kind == "counts":
            self.counts = value
        elif kind == "ready" and not self.ready.done():
            self.ready.set_result(None)
        elif kind == "sent" and not self.sent.done():
            self.sent.set_result(value)
        elif kind == "error":
            for future in (self.ready, self.sent):
                if not future.done():
                    future.set_exception(value)


def work() -> None:
    """Run the job that comes through standard input, and write what was measured to standard output."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what anything prints must not get among the messages
    job: LoadJob = _read(source)
    with runner() as run:
        run.run(_work(job, source, sink))


async def _work(job: LoadJob, source: BinaryIO, sink: BinaryIO) -> None:
    loop, control = asyncio.get_running_loop(), Control()
    start: asyncio.Future[float] = loop.create_future()

    def hear(message: tuple[Any, ...]) -> None:
        if message[0] == "start":
            start.set_result(message[1])
        else:
            control.stop()

    def listen() -> None:
        try:
            while True:
                loop.call_soon_threadsafe(hear, _read(source))
        except (EOFError, OSError, RuntimeError):
            pass
        try:  # the parent is gone, or has read the result
            loop.call_soon_threadsafe(control.stop)
            loop.call_soon_threadsafe(control.stop)
            loop.call_soon_threadsafe(lambda: start.done() or start.cancel())
        except RuntimeError:
            pass

    threading.Thread(target=listen, daemon=True).start()
    try:
        generator = Generator(job, control, lambda counts: _write(sink, ("counts", counts)))
        generator.get_ready()
        _write(sink, ("ready", None))
        _write(sink, ("sent", await generator.run(await start)))
    except ShadowsimError as error:
        _write(sink, ("error", error))
    except (asyncio.CancelledError, OSError):  # the parent is gone
        pass


def runner() -> asyncio.Runner:
    """Return a runner of coroutines, with uvloop's event loop where that is installed."""
    try:
        import uvloop  # type: ignore[import-not-found]
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _write(pipe: Any, message: object) -> None:
    data = pickle.dumps(message, protocol=5)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _read(pipe: Any) -> Any:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    length = _LENGTH.unpack(head)[0]
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)
