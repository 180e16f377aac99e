"""Captures invocations: buffers their lines, and writes them as files every minute and at the end.

CaptureViews choose a share of the requests, one side or both, of all production variants or of named variants. Only
invocations that the model answered with 2XX are captured; of a streamed answer, its parts together as far as they are
kept, and nothing if the caller left before its end. A file holds the lines of one variant and one UTC hour since the
last flush; its key is that of captures/record.py. Files appear whole, without torn lines. With a journal a crash loses
no more than the lines of the last JOURNAL_S, without one those since the last flush.

A file that cannot be written is tried again at the next flush, and with a journal by the next server, too. Lines that
do not fit in memory meanwhile are lost and counted. Neither affects the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Protocol
from uuid import uuid4

from shadowsim.aws.destinations import parse_destination
from shadowsim.captures.record import CapturedPayload, CaptureRecord, key_of, line_of, payload_of
from shadowsim.errors import ValidationError
from shadowsim.option_defaults import FLUSH_S
from shadowsim.server.data_plane.backends import ANSWERED, CONTENT_TYPE, CUSTOM_ATTRIBUTES, Answer, Call
from shadowsim.server.data_plane.capture_journal import CapturedObject, CaptureJournal
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


class InvocationCaptures(Protocol):
    """Who captures invocations."""

    def take(self, views: Sequence[CaptureView], invocation: Invocation) -> int | None:
        """Capture an invocation for each view that wants it; return the bytes captured, None if it was not."""
        ...


def captured_lines(
    views: Sequence[CaptureView], invocation: Invocation, random: Random
) -> Iterator[tuple[CaptureView, bytes, int]]:
    """Yield each view that captures an invocation, the line of its file, and the bytes of the payloads in it."""
    if invocation.answer.outcome != ANSWERED or invocation.answer.is_left:
        return
    sides = {"Input": len(invocation.call.body), "Output": len(invocation.answer.body)}
    for view in views:
        if not (invocation.production if view.variants is None else invocation.variant in view.variants):
            continue
        if view.sampling_percentage < 100 and random.random() * 100.0 >= view.sampling_percentage:
            continue
        line = line_of(invocation.record(view)).encode() + b"\n"
        yield view, line, sum(n for mode, n in sides.items() if mode in view.modes)


@dataclass(slots=True)
class _Buffer:
    """Lines of one file, and how many of them are in the journal, whose file has so many bytes."""

    file: CapturedObject
    lines: list[bytes] = field(default_factory=list)
    n_bytes: int = 0
    n_journalled: int = 0
    journal_bytes: int = 0

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.file.destination, self.file.endpoint, self.file.variant, self.file.hour


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
    journal : CaptureJournal, optional
        Keeps lines that are not yet written. What it has from an earlier server is written first.

    Attributes
    ----------
    n_lost : dict of str to int
        Lines lost, by endpoint.
    n_left : int
        Lines that the journal keeps for the next server, once this writer is closed.
    """

    def __init__(self, sink: Sink, random: Random, flush_s: float = FLUSH_S, journal: CaptureJournal | None = None):
        self.n_lost: dict[str, int] = {}
        self.n_left = 0
        self._sink, self._random, self._flush_s, self._journal = sink, random, flush_s, journal
        self._buffers: dict[tuple[str, str, str, str], _Buffer] = {}
        self._n_bytes = 0  # in buffers, and on their way to the sink
        self._writing, self._journalling = asyncio.Lock(), asyncio.Lock()
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
        captured: int | None = None
        for view, line, n_bytes in captured_lines(views, invocation, self._random):
            if self.keep(view.destination, invocation.endpoint, invocation.variant, invocation.moment, line):
                captured = (captured or 0) + n_bytes
        return captured

    def keep(self, destination: str, endpoint: str, variant: str, moment: datetime, line: bytes) -> bool:
        """Keep a line for its file, and return whether there was room; one that is not kept is counted as lost."""
        if self._n_bytes + len(line) > MAX_BUFFERED_BYTES:
            self.lose(endpoint, 1, f"more than {MAX_BUFFERED_BYTES} bytes are waiting to be written")
            return False
        place = destination, endpoint, variant, f"{moment:%Y%m%d%H}"
        buffer = self._buffers.get(place)
        if buffer is None:
            try:
                bucket, prefix = parse_destination(destination)
            except ValidationError as error:
                self.lose(endpoint, 1, str(error))
                return False
            key = key_of(endpoint, variant, moment, str(uuid4()))
            file = CapturedObject(destination, bucket, f"{prefix}/{key}" if prefix else key, *place[1:])
            buffer = self._buffers[place] = _Buffer(file)
        buffer.lines.append(line)
        buffer.n_bytes += len(line)
        self._n_bytes += len(line)
        if buffer.n_bytes >= FILE_BYTES and not self._failing:
            del self._buffers[place]
            self._start(self._write(buffer))
        return True

    async def run(self) -> None:
        """Write what an earlier server has left, then flush at each interval, until cancelled."""
        await asyncio.shield(self._start(self._write_left()))
        while True:
            await asyncio.sleep(self._flush_s)
            await asyncio.shield(self._start(self.flush()))  # a flush that has begun is finished

    async def flush(self) -> None:
        """Write all buffered lines."""
        async with self._writing:
            for place in list(self._buffers):
                buffer = self._buffers.pop(place, None)
                if buffer is not None:
                    await self._write(buffer)

    async def journal(self) -> None:
        """Append to the journal what has been captured since the last time."""
        async with self._journalling:
            for buffer in list(self._buffers.values()):
                await self._journal_lines(buffer)

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Finish all writes, then write all buffered lines; lines that remain after the time are left in the journal.

        Without a journal they are lost.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.gather(*self._tasks)
                await self.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.journal()
        for (_, endpoint, _, _), buffer in self._buffers.items():
            n_lost = len(buffer.lines) - buffer.n_journalled
            self.n_left += buffer.n_journalled
            if n_lost:
                self.lose(endpoint, n_lost, f"{n_lost} lines were not written before the end")
        self._buffers.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write_left(self) -> None:
        """Write what an earlier server has left in the journal."""
        if self._journal is None:
            return
        try:
            left = await asyncio.to_thread(lambda journal: list(journal.read()), self._journal)
        except OSError as error:
            self._warn(f"the journal of captures cannot be read: {error}")
            return
        if left:
            n = sum(len(lines) for _, lines, _ in left)
            _LOG.info("%d captured lines that an earlier server has left are written now", n)
        for file, lines, journal_bytes in left:
            buffer = _Buffer(file, lines, sum(map(len, lines)), len(lines), journal_bytes)
            self._n_bytes += buffer.n_bytes
            await self._write(buffer)

    async def _journal_lines(self, buffer: _Buffer) -> None:
        """Append a buffer's new lines to the journal; what cannot be written is tried again."""
        new = buffer.lines[buffer.n_journalled :]
        if self._journal is None or not new:
            return
        try:
            at_bytes = buffer.journal_bytes
            buffer.journal_bytes = await asyncio.to_thread(self._journal.append, buffer.file, at_bytes, new)
            buffer.n_journalled += len(new)
        except OSError as error:
            self._warn(f"the journal of captures cannot be written, and does not have the latest: {error}")

    async def _write(self, buffer: _Buffer) -> None:
        try:
            async with self._journalling:  # the journal must not have less than the object that it would write again
                await self._journal_lines(buffer)
            if buffer.lines:
                await asyncio.to_thread(self._sink.write, buffer.file.bucket, buffer.file.key, b"".join(buffer.lines))
        except BaseException as error:  # from the file system or S3's client; or it was cancelled
            younger = self._buffers.get(buffer.place)
            if younger is not None:
                buffer.lines += younger.lines
                buffer.n_bytes += younger.n_bytes
            self._buffers[buffer.place] = buffer
            if not isinstance(error, Exception):
                raise
            self._failing = True
            self._warn(
                f"captures for {buffer.file.destination} cannot be written, and are kept for another try: {error}"
            )
            if younger is not None:
                async with self._journalling:
                    await self._journal_lines(buffer)
                await self._forget(younger)
        else:
            self._n_bytes -= buffer.n_bytes
            self._failing = False
            await self._forget(buffer)

    async def _forget(self, buffer: _Buffer) -> None:
        """Remove a buffer's file from the journal: its lines are written, or in another file."""
        if self._journal is not None and buffer.journal_bytes:
            try:
                await asyncio.to_thread(self._journal.remove, buffer.file)
            except OSError as error:
                self._warn(f"the journal of captures keeps what is written, and writes it again: {error}")

    def lose(self, endpoint: str, n: int, why: str) -> None:
        """Count lines of an endpoint as lost, and tell why in the log."""
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
