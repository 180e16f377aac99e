"""Captures invocations: buffers their lines, and writes them as files every minute and at the end.

CaptureViews choose a share of the requests, one side or both, of all production variants or of named variants. Only
invocations that the model answered with 2XX are captured; of a streamed answer, its parts together as far as they are
kept, and nothing if the caller left before its end. A file holds the lines of one variant and one UTC hour since
the last flush; its key is that of captures/record.py. Files appear whole: a crash loses the lines since the last flush,
and leaves no torn line.

A file that cannot be written is tried again at the next flush. Lines that do not fit in memory meanwhile are lost and
counted. Neither affects the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

from shadowsim.aws.destinations import parse_destination
from shadowsim.captures.record import CapturedPayload, CaptureRecord, key_of, line_of, payload_of
from shadowsim.errors import ValidationError
from shadowsim.option_defaults import FLUSH_S
from shadowsim.server.data_plane.backends import ANSWERED, CONTENT_TYPE, CUSTOM_ATTRIBUTES, Answer, Call
from shadowsim.server.state.destinations import Sink
from shadowsim.server.state.views import CaptureView

CLOSE_S = 30.0
MAX_BUFFERED_BYTES = 64 * 2**20
FILE_BYTES = 16 * 2**20  # a file of this length is written at once
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """An invocation that may be captured.

    Attributes
    ----------
    endpoint, variant : str
    production : bool
        Whether the variant is a production variant, not a shadow.
    call : Call
    answer : Answer
    arrival_s : float
        Arrival at the variant, in seconds since 1970; the record lies in the folder of that hour.
    inference_id : str
        "" if the caller gave none.
    event_id : str or None
        Event id of its records; None for a new one in each.
    """

    endpoint: str
    variant: str
    production: bool
    call: Call
    answer: Answer
    arrival_s: float
    inference_id: str = ""
    event_id: str | None = None

    @property
    def moment(self) -> datetime:
        """The moment of its arrival, in UTC."""
        return datetime.fromtimestamp(self.arrival_s, UTC)

    def record(self, view: CaptureView) -> CaptureRecord:
        """Return the record that a view captures."""
        attributes = self.call.headers.get(CUSTOM_ATTRIBUTES)
        return CaptureRecord(
            event_id=self.event_id or str(uuid4()),
            inference_id=self.inference_id or None,
            inference_time=self.moment,
            request=_payload("Input", self.call, view),
            response=_payload("Output", self.answer, view),
            custom_attributes=(attributes,) if attributes else (),
        )


@dataclass(slots=True)
class _Buffer:
    """Lines of one file, its place, and the moment of its first line."""

    bucket: str
    prefix: str
    endpoint: str
    variant: str
    began: datetime
    lines: list[bytes] = field(default_factory=list)
    n_bytes: int = 0

    @property
    def key(self) -> str:
        key = key_of(self.endpoint, self.variant, self.began, str(uuid4()))
        return f"{self.prefix}/{key}" if self.prefix else key


class CaptureWriter:
    """Captures the invocations of a server.

    Parameters
    ----------
    sink : Sink
        Destination of the files.
    random : Random
        Generator for the sampling.
    flush_s : float
        Interval between flushes.

    Attributes
    ----------
    n_lost : dict of str to int
        Lines lost, by endpoint.
    """

    def __init__(self, sink: Sink, random: Random, flush_s: float = FLUSH_S):
        self.n_lost: dict[str, int] = {}
        self._sink, self._random, self._flush_s = sink, random, flush_s
        self._buffers: dict[tuple[str, str, str, str], _Buffer] = {}
        self._n_bytes = 0  # in buffers, and on their way to the sink
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly
        self._warned: set[str] = set()
        self._failing = False

    def take(self, views: Sequence[CaptureView], invocation: Invocation) -> int | None:
        """Capture an invocation for each view that wants it.

        Returns
        -------
        int or None
            Bytes of the captured payloads; None if nothing was captured.
        """
        if invocation.answer.outcome != ANSWERED or invocation.answer.is_left:
            return None
        sides = {"Input": len(invocation.call.body), "Output": len(invocation.answer.body)}
        captured: int | None = None
        for view in views:
            if not (invocation.production if view.variants is None else invocation.variant in view.variants):
                continue
            if view.sampling_percentage < 100 and self._random.random() * 100.0 >= view.sampling_percentage:
                continue
            if self._keep(view, invocation):
                captured = (captured or 0) + sum(n for mode, n in sides.items() if mode in view.modes)
        return captured

    async def run(self) -> None:
        """Flush at each interval, until cancelled."""
        while True:
            await asyncio.sleep(self._flush_s)
            await asyncio.shield(self._start(self.flush()))  # a flush that has begun is finished

    async def flush(self) -> None:
        """Write all buffered lines."""
        async with self._writing:
            for key in list(self._buffers):
                buffer = self._buffers.pop(key, None)
                if buffer is not None:
                    await self._write(key, buffer)

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Finish all writes, then write all buffered lines; lines that remain after the time are lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*self._tasks)
                await self.flush()
        for (_, endpoint, _, _), buffer in self._buffers.items():
            self._lose(endpoint, len(buffer.lines), f"{len(buffer.lines)} lines were not written before the end")
        self._buffers.clear()

    def _keep(self, view: CaptureView, invocation: Invocation) -> bool:
        endpoint, variant, moment = invocation.endpoint, invocation.variant, invocation.moment
        record = invocation.record(view)
        line = line_of(record).encode() + b"\n"
        if self._n_bytes + len(line) > MAX_BUFFERED_BYTES:
            self._lose(endpoint, 1, f"more than {MAX_BUFFERED_BYTES} bytes are waiting to be written")
            return False
        key = view.destination, endpoint, variant, f"{moment:%Y%m%d%H}"
        buffer = self._buffers.get(key)
        if buffer is None:
            try:
                bucket, prefix = parse_destination(view.destination)
            except ValidationError as error:
                self._lose(endpoint, 1, str(error))
                return False
            buffer = self._buffers[key] = _Buffer(bucket, prefix, endpoint, variant, moment)
        buffer.lines.append(line)
        buffer.n_bytes += len(line)
        self._n_bytes += len(line)
        if buffer.n_bytes >= FILE_BYTES and not self._failing:
            del self._buffers[key]
            self._start(self._write(key, buffer))
        return True

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, key: tuple[str, str, str, str], buffer: _Buffer) -> None:
        try:
            await asyncio.to_thread(self._sink.write, buffer.bucket, buffer.key, b"".join(buffer.lines))
            self._n_bytes -= buffer.n_bytes
            self._failing = False
        except BaseException as error:  # from the file system or S3's client; or it was cancelled
            younger = self._buffers.get(key)
            if younger is not None:
                buffer.lines += younger.lines
                buffer.n_bytes += younger.n_bytes
            self._buffers[key] = buffer
            if not isinstance(error, Exception):
                raise
            self._failing = True
            self._warn(f"captures for {key[0]} cannot be written, and are kept for another try: {error}")

    def _lose(self, endpoint: str, n: int, why: str) -> None:
        self.n_lost[endpoint] = self.n_lost.get(endpoint, 0) + n
        self._warn(f"captures of {endpoint} are lost: {why}")

    def _warn(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < 1000:
            self._warned.add(text)
            _LOG.warning("%s", text)


def _payload(mode: str, message: Call | Answer, view: CaptureView) -> CapturedPayload | None:
    if mode not in view.modes:
        return None
    types = view.csv_content_types, view.json_content_types
    return payload_of(message.body, message.headers.get(CONTENT_TYPE), *types)
