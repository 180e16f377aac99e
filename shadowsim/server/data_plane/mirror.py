"""The copies: which requests are copied, when, what keeps a copy from being made, and what becomes of it.

The rule, the instant and the caps are the simulator's (design, section 6): `coin`, `counter` or `hash`; at the
request's `arrival` or its `response`; lost to `max_body_bytes`, `max_in_flight` or `max_per_s`. The share is asked for
at each request, so that it can be changed while the experiment runs.

Nothing of this may reach the caller. A copy is a task of its own, started when the source's request is on its way; it
has its own connections and its own time-out; whatever happens to it is an entry in the shadow's figures. Copies that
are unanswered are bounded in number and in bytes, and so is what is read of their answers (intake.py): what is above
that is lost at once, and counted as `max_in_flight`, which it is a case of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from time import perf_counter

from asyncio_throttle.throttler import Throttler

from shadowsim.scenario.scenario import Scenario
from shadowsim.server.data_plane.backends import BROKEN, GIVEN_UP, Answer, Call
from shadowsim.server.data_plane.pools import InstancePool

RESPONSE = "response"
MAX_COPIES, MAX_COPIES_BYTES = 1_000, 64 * 2**20
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mirroring:
    """Settings of the copies.

    Attributes
    ----------
    rule, instant : str
        "coin", "counter" or "hash"; "arrival" or "response".
    max_body_bytes, max_in_flight, max_per_s : int or None
        What a copy can be lost to; None for no limit.
    max_copies, max_copies_bytes : int
        The server's own bounds on unanswered copies.
    timeout_s : float
        How long a copy may take.
    """

    rule: str = "coin"
    instant: str = "arrival"
    max_body_bytes: float | None = None
    max_in_flight: int | None = None
    max_per_s: int | None = None
    max_copies: int = MAX_COPIES
    max_copies_bytes: int = MAX_COPIES_BYTES
    timeout_s: float = 60.0

    @classmethod
    def of(cls, scenario: Scenario) -> Mirroring:
        """Return the settings of a scenario."""
        return cls(
            scenario.mirror_rule,
            scenario.mirror_instant,
            scenario.max_body_bytes,
            scenario.max_in_flight,
            scenario.max_per_s,
            timeout_s=scenario.timeout_s,
        )


class RequestMirror:
    """The copies of one endpoint.

    Attributes
    ----------
    n_unanswered, n_unanswered_bytes : int
        Copies that are on their way, and their bodies.
    """

    def __init__(self, settings: Mirroring, random: Random):
        self.settings = settings
        self.n_unanswered = self.n_unanswered_bytes = 0
        self._random = random
        self._owed = 0.0  # of the counter rule, in hundredths of a copy
        per_s = settings.max_per_s
        # nothing ever waits for it, so that how often it would look again does not matter
        self._throttle = None if per_s is None else Throttler(rate_limit=per_s, retry_interval=0)
        self._tasks: set[asyncio.Task[None]] = set()

    def restart(self) -> None:
        """Begin to count anew: an experiment has begun."""
        self._owed = 0.0

    def chooses(self, sampling_percentage: float, session: str) -> bool:
        """Return whether the request that has just come is to be copied.

        Parameters
        ----------
        sampling_percentage : float
            0..100.
        session : str
            What the hash rule goes by; a request without one falls to a coin.
        """
        rule = self.settings.rule
        if rule == "counter":  # floor(n share) > floor((n - 1) share), for a share that may change
            self._owed += sampling_percentage
            if self._owed >= 100.0:
                self._owed -= 100.0
                return True
            return False
        if rule == "hash" and session:
            z = int.from_bytes(blake2b(session.encode("utf-8", "surrogateescape"), digest_size=4).digest())
        else:
            z = self._random.getrandbits(32)
        return z < round(sampling_percentage / 100.0 * 2**32)

    def copy(
        self,
        pool: InstancePool,
        call: Call,
        done: Callable[[int, Answer, float], None],
        lost: Callable[[str], None],
    ) -> None:
        """Send a copy, or say what it is lost to.

        Parameters
        ----------
        pool : InstancePool
            The shadow's.
        call : Call
        done : callable
            Gets the instance, the answer, and when the copy was done with (`perf_counter`).
        lost : callable
            Gets the cause.
        """
        cause = self._cause(len(call.body))
        if cause:
            lost(cause)
            return
        self.n_unanswered += 1
        self.n_unanswered_bytes += len(call.body)
        task = asyncio.get_running_loop().create_task(self._run(pool, call, done, lost))
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the copies that are on their way, and give up those that take longer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cause(self, n_bytes: int) -> str:
        s = self.settings
        if s.max_body_bytes is not None and n_bytes > s.max_body_bytes:
            return "max_body_bytes"
        most = s.max_copies if s.max_in_flight is None else min(s.max_in_flight, s.max_copies)
        if self.n_unanswered >= most or self.n_unanswered_bytes + n_bytes > s.max_copies_bytes:
            return "max_in_flight"
        return "" if self._throttle is None or _at_once(self._throttle) else "max_per_s"

    async def _run(
        self, pool: InstancePool, call: Call, done: Callable[[int, Answer, float], None], lost: Callable[[str], None]
    ) -> None:
        await asyncio.sleep(0)  # the source's request goes first: it may wait for its turn to be written
        began = perf_counter()
        try:
            instance, answer = await pool.invoke(call, self.settings.timeout_s)
        except Exception as error:  # a defect; it must not become the caller's
            _LOG.exception("a copy failed inside the server")
            instance, answer = 0, Answer(BROKEN, perf_counter() - began, failure=repr(error))
        finally:
            self.n_unanswered -= 1
            self.n_unanswered_bytes -= len(call.body)
        if answer.outcome == GIVEN_UP:
            lost("max_in_flight")
        else:
            done(instance, answer, perf_counter())


def _at_once(throttle: Throttler) -> bool:
    """Take one of the second's places, if there is one: a copy is lost rather than late, as in the simulator."""
    if throttle.rate_limit == 0:
        return False
    waiting = throttle.acquire()  # type: ignore[no-untyped-call]
    try:
        waiting.send(None)
    except StopIteration:
        return True
    waiting.close()  # it was about to sleep
    return False
