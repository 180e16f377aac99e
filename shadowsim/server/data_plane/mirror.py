"""Mirrors requests to the shadow: chooses which are copied, sends the copies, and bounds their cost.

The rule, the instant and the limits are the simulator's: `coin`, `counter` or `hash`; at the request's `arrival` or its
`response`; a copy is lost to `max_body_bytes`, `max_in_flight` or `max_per_s`. The sampling percentage is an argument
of each choice, so that it can change while the experiment runs.

No copy may affect the caller. Each one is a task of its own, which starts when the event loop has nothing else to do
(spare_time.py), and has its own connections and its own time-out; its failures count in the shadow's metrics only. A
copy that would wait for longer than `max_wait_s` is lost to `server_lag`. Unanswered copies, with those that wait, are
bounded in number and in bytes, and so is what is read of their answers (connections.py). A copy above these bounds is
lost at once and counted as `max_in_flight`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from random import Random
from time import perf_counter
from typing import Any

from asyncio_throttle.throttler import Throttler

from shadowsim.frames import SERVER_LAG
from shadowsim.scenario.reading import Mirroring
from shadowsim.server.data_plane.backends import BROKEN, GIVEN_UP, Answer, Call, Receiver
from shadowsim.server.data_plane.pools import VariantPool
from shadowsim.server.data_plane.spare_time import SpareTime

RESPONSE = "response"
MAX_COPIES, MAX_COPIES_BYTES, MAX_WAIT_S = 1_000, 64 * 2**20, 0.1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """The server's own limits on the copies of one endpoint.

    Attributes
    ----------
    max_copies, max_copies_bytes : int
        Unanswered copies, and bytes of their bodies.
    timeout_s : float
        Time within which a copy must be answered.
    max_wait_s : float
        Time for which a copy waits until the event loop has nothing else to do.
    """

    max_copies: int = MAX_COPIES
    max_copies_bytes: int = MAX_COPIES_BYTES
    timeout_s: float = 60.0
    max_wait_s: float = MAX_WAIT_S


class _RateLimit:
    """A limit on the copies that start within any second.

    asyncio-throttle keeps the moments of the last second's copies, which is the simulator's rule. Its public face only
    waits, but a copy beyond the limit must be lost at once, not sent late. So its coroutine is stepped once: it either
    returns, and has counted the copy, or is about to sleep, and is closed.
    """

    def __init__(self, per_s: int):
        # asyncio.sleep(0) sets no timer, so that a closed coroutine leaves nothing behind
        self._throttler = Throttler(rate_limit=per_s, retry_interval=0)

    def admits(self) -> bool:
        """Count a copy if there is room for it, and return whether there was."""
        acquiring = self._throttler.acquire()  # type: ignore[no-untyped-call]
        try:
            acquiring.send(None)
        except StopIteration:
            return True
        acquiring.close()
        return False


class RequestMirror:
    """Copies the requests of one endpoint.

    Attributes
    ----------
    mirroring : Mirroring
    limits : CopyLimits
    spare_time : SpareTime
        Of the event loop.
    n_unanswered, n_unanswered_bytes : int
        Unanswered copies, and bytes of their bodies.
    """

    def __init__(self, mirroring: Mirroring, limits: CopyLimits, random: Random, spare_time: SpareTime | None = None):
        self.mirroring, self.limits = mirroring, limits
        self.spare_time = spare_time or SpareTime()
        self.n_unanswered = self.n_unanswered_bytes = 0
        self._random = random
        self._owed_pct = 0.0  # the counter rule's progress to its next copy
        self._rate_limit = None if mirroring.max_per_s is None else _RateLimit(mirroring.max_per_s)
        self._tasks: set[asyncio.Task[None]] = set()

    def restart(self) -> None:
        """Reset the counter rule, for an experiment that has begun."""
        self._owed_pct = 0.0

    def chooses(self, sampling_percentage: float, session: str) -> bool:
        """Return whether to copy a request; called once for each request, in order.

        Parameters
        ----------
        sampling_percentage : float
            0..100.
        session : str
            Key of the hash rule. A request without one ("") is copied with the probability of the coin rule.
        """
        rule = self.mirroring.rule
        if rule == "counter":  # floor(n share) > floor((n - 1) share), for a share that may change
            self._owed_pct += sampling_percentage
            if self._owed_pct >= 100.0:
                self._owed_pct -= 100.0
                return True
            return False
        if rule == "hash" and session:
            z = int.from_bytes(blake2b(session.encode("utf-8", "surrogateescape"), digest_size=4).digest())
        else:
            z = self._random.getrandbits(32)
        return z < round(sampling_percentage / 100.0 * 2**32)

    def copy(
        self,
        pool: VariantPool,
        call: Call,
        done: Callable[[int, Answer, float], None],
        lost: Callable[[str], None],
        receiver: Receiver | None = None,
    ) -> None:
        """Send a copy, or report the limit that forbids it.

        Parameters
        ----------
        pool : VariantPool
            Instances of the shadow.
        call : Call
        done : callable
            Gets the instance, the answer, and the moment of the answer (by `perf_counter`).
        lost : callable
            Gets the limit's name, for a copy that is not made; at once, or once it has waited for too long.
        receiver : Receiver, optional
            Takes the parts of an answer that is streamed, as the source's is.
        """
        cause = self._limit_reached(len(call.body))
        if cause:
            lost(cause)
            return
        self.n_unanswered += 1
        self.n_unanswered_bytes += len(call.body)
        start = partial(self._start, pool, call, done, lost, receiver)
        self.spare_time.wait(start, partial(self._shed, call, lost), self.limits.max_wait_s)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the unanswered copies, and cancel those that take longer."""
        began = perf_counter()
        await self.spare_time.drain(timeout_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(timeout_s - (perf_counter() - began), 0.0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _limit_reached(self, n_bytes: int) -> str:
        """Return the name of the limit that forbids a copy of some bytes, "" if none does."""
        rules, limits = self.mirroring, self.limits
        if rules.max_body_bytes is not None and n_bytes > rules.max_body_bytes:
            return "max_body_bytes"
        most = limits.max_copies if rules.max_in_flight is None else min(rules.max_in_flight, limits.max_copies)
        if self.n_unanswered >= most or self.n_unanswered_bytes + n_bytes > limits.max_copies_bytes:
            return "max_in_flight"
        if self.spare_time.is_busy:
            return SERVER_LAG
        return "" if self._rate_limit is None or self._rate_limit.admits() else "max_per_s"

    def _start(self, *copy: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._run(*copy))
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    def _shed(self, call: Call, lost: Callable[[str], None]) -> None:
        self._forget(call)
        lost(SERVER_LAG)

    def _forget(self, call: Call) -> None:
        self.n_unanswered -= 1
        self.n_unanswered_bytes -= len(call.body)

    async def _run(
        self,
        pool: VariantPool,
        call: Call,
        done: Callable[[int, Answer, float], None],
        lost: Callable[[str], None],
        receiver: Receiver | None,
    ) -> None:
        began = perf_counter()
        try:
            instance, answer = await pool.invoke(call, self.limits.timeout_s, receiver)
        except Exception as error:  # a defect of the server, which must not reach the caller
            _LOG.exception("a copy failed inside the server")
            instance, answer = 0, Answer(BROKEN, perf_counter() - began, failure=repr(error))
        finally:
            self._forget(call)
        if answer.outcome == GIVEN_UP:
            lost("max_in_flight")
        else:
            done(instance, answer, perf_counter())
