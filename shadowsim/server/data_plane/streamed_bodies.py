"""Measures a streamed answer while it passes: its bytes, the time to its first part, and its tokens.

Tokens are those of server-sent events, one for each event that carries text; the `usage` that a server may send last
replaces their number. Other streams have no tokens that could be counted. Counting has limits, since each event takes
some microseconds of the event loop: of an answer with more than MAX_EVENT_BYTES of events, or with a part above
MAX_COUNTED_PART, the tokens are unknown. No language model writes that much at once, so the times of such parts would
not be the model's.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from time import perf_counter, thread_time

from shadowsim.measuring.generator.answer_streams import EventLines
from shadowsim.server.data_plane.connections import AllowanceExceededError, ReadAllowance

MAX_COUNTED_PART, MAX_EVENT_BYTES, MAX_LINE_BYTES = 16 * 2**10, 32 * 2**20, 32 * 2**10


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """What a language model did for a call.

    Attributes
    ----------
    first_token_s, per_token_s : float
        Time from arrival to the first token (for a container: to the first part of its streamed answer), and mean time
        per token after it; NaN where they did not come in time.
    prompt, output : int
        Tokens of the prompt, and of a whole answer; -1 if unknown.
    produced, prefilled : int
        Tokens that were produced, and tokens of prompts that were computed, until the caller had its answer; 0 if
        unknown.
    preemptions : int
        How often the call's sequence gave its blocks back.
    """

    first_token_s: float
    per_token_s: float
    prompt: int
    output: int
    produced: int
    prefilled: int
    preemptions: int


class KeptParts:
    """The first bytes of a body that comes in parts.

    Parameters
    ----------
    most_bytes : int
        Bytes that are kept.

    Attributes
    ----------
    cut_bytes : int
        Bytes that were not kept.
    """

    def __init__(self, most_bytes: int):
        self.cut_bytes = 0
        self._room, self._parts = most_bytes, list[bytes]()

    def add(self, part: bytes) -> None:
        """Keep as much of a part as there is room for."""
        n = min(len(part), self._room)
        if n:
            self._parts.append(part[:n])
        self._room -= n
        self.cut_bytes += len(part) - n

    def joined(self) -> bytes:
        """Return what was kept."""
        return b"".join(self._parts)


class StreamedBody:
    """The body of a streamed answer.

    Parameters
    ----------
    began : float
        Moment of the request, by `perf_counter`.
    most_bytes : int
        Bytes that are kept.
    has_events : bool
        Whether the body is of server-sent events.
    allowance : ReadAllowance or None
        Pays for the time of counting.

    Attributes
    ----------
    first_part_s : float
        Time to the first part; NaN before it.
    lasted_s : float
        Time to the last part or the end, without that for which the receiver held the parts up.
    kept : KeptParts
    """

    def __init__(self, began: float, most_bytes: int, has_events: bool, allowance: ReadAllowance | None = None):
        self.first_part_s, self.lasted_s = math.nan, 0.0
        self.kept = KeptParts(most_bytes)
        self._began, self._allowance = began, allowance
        self._n_events_bytes = 0
        self._waited_s = 0.0
        self._events = EventLines(most_line_bytes=MAX_LINE_BYTES) if has_events else None

    @property
    def elapsed_s(self) -> float:
        """Time until now, without that for which the receiver held the parts up."""
        return perf_counter() - self._began - self._waited_s

    async def hand_over(self, handing: Awaitable[None]) -> None:
        """Wait until the receiver has taken something."""
        began = perf_counter()
        await handing
        self._waited_s += perf_counter() - began

    def add(self, part: bytes) -> None:
        """Measure a part that has just come, or b"" for the end.

        Raises
        ------
        AllowanceExceededError
        """
        self.lasted_s = self.elapsed_s
        if not part:
            return
        if math.isnan(self.first_part_s):
            self.first_part_s = self.lasted_s
        self.kept.add(part)
        if self._events is not None:
            self._count(self._events, part)

    def _count(self, events: EventLines, part: bytes) -> None:
        self._n_events_bytes += len(part)
        if len(part) > MAX_COUNTED_PART or self._n_events_bytes > MAX_EVENT_BYTES:
            self._events = None
            return
        began = thread_time()
        events.feed(part, self.lasted_s)
        if self._allowance is not None and not self._allowance.spend(0, thread_time() - began):
            raise AllowanceExceededError

    def figures(self) -> TokenFigures:
        """Return the tokens and their times, once the answer has ended."""
        n, prompt, output, per_token_s = 0, -1, -1, math.nan
        if (events := self._events) is not None:
            n = events.output_tokens
            events.close()
            prompt, output = events.prompt_tokens, events.output_tokens
            if output > 1:
                per_token_s = (events.last_token - events.first_token) / (output - 1)
        return TokenFigures(
            first_token_s=self.first_part_s,
            per_token_s=per_token_s,
            prompt=prompt,
            output=output,
            produced=max(output, n),
            prefilled=0,
            preemptions=0,
        )
