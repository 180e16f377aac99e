"""Reports counts and captured lines to the process that owns them, in batches, without ever waiting.

A batch leaves every FLUSH_S, and is kept until its owner has acknowledged it: after a break of the link all such
batches are sent again, and the owner leaves out what it has. They are also in a file, from which the owner takes those
of a reporter that was killed, once the next one of its name is linked. So a killed owner loses no counts, and a killed
reporter those of its last FLUSH_S, whether the other is there or not. How many these are is known by a number in shared
memory, which grows before a caller is answered. What does not fit into MAX_WAITING_BYTES while the owner is slow or
away is left out, and reported as a number later.

A count is a tuple of plain values: its kind and what the ledger must know to repeat `LiveEndpoint.record` and `lose`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from random import Random
from typing import Any

from shadowsim.server.data_plane.backends import Answer
from shadowsim.server.data_plane.captures import Invocation, captured_lines
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.mirror import RequestMirror
from shadowsim.server.data_plane.streamed_bodies import TokenFigures
from shadowsim.server.processes.links import Link, Message, append_framed, encoded, unframed
from shadowsim.server.processes.shared_memory import ProcessRow, SharedMemory, key_of
from shadowsim.server.state.views import CaptureView, EndpointView

FLUSH_S = 0.1  # a batch costs three processes some tenths of a millisecond, however little is in it
MAX_WAITING_BYTES = 32 * 2**20
_COUNT_BYTES = 200  # of one count, roughly
BATCH, RECEIVED = "batch", "received"
SERVED, LOST, COPIED, COPY_ENDED, LEFT_OUT, LINES_LOST = range(6)
COUNTED = (SERVED, LOST)  # of requests and copies; the others are about these
Count = tuple[Any, ...]


def served_count(endpoint: str, variant: str, logbook: Logbook | None, served: ServedRequest) -> Count:
    """Return the count of a request that a variant has served."""
    answer = served.answer
    return (
        SERVED,
        endpoint,
        variant,
        *identity_of(logbook),
        served.request,
        served.inference_id,
        served.arrival_s,
        served.instance,
        served.n_instances,
        served.overhead_s,
        served.request_bytes,
        served.first_part_s,
        served.captured_bytes,
        served.is_copy,
        answer.outcome,
        answer.latency_s,
        answer.status,
        len(answer.body) + answer.cut_bytes,
        answer.wait_s,
        answer.service_s,
        answer.work_s,
        answer.offered_s,
        answer.first_part_s,
        None if answer.tokens is None else astuple(answer.tokens),
    )


def served_request(count: Count) -> ServedRequest:
    """Return the request of a count; its answer has only the length of its body."""
    request, inference_id, arrival_s, instance, n_instances, overhead_s, request_bytes, first_part_s = count[5:13]
    captured_bytes, is_copy, outcome, latency_s, status, n_bytes, wait_s, service_s, work_s, offered_s = count[13:23]
    answer_first_part_s, tokens = count[23:]
    answer = Answer(
        outcome=outcome,
        latency_s=latency_s,
        status=status,
        wait_s=wait_s,
        service_s=service_s,
        work_s=work_s,
        offered_s=offered_s,
        tokens=None if tokens is None else TokenFigures(*tokens),
        first_part_s=answer_first_part_s,
        cut_bytes=n_bytes,
    )
    return ServedRequest(
        request=request,
        inference_id=inference_id,
        arrival_s=arrival_s,
        instance=instance,
        n_instances=n_instances,
        answer=answer,
        overhead_s=overhead_s,
        request_bytes=request_bytes,
        first_part_s=first_part_s,
        captured_bytes=captured_bytes,
        is_copy=is_copy,
    )


def lost_count(endpoint: str, variant: str, logbook: Logbook | None, arrival_s: float, cause: str) -> Count:
    """Return the count of a lost copy."""
    return LOST, endpoint, variant, *identity_of(logbook), arrival_s, cause


def identity_of(logbook: Logbook | None) -> tuple[str | None, float | None]:
    """Return the name and the creation time of a logbook's experiment."""
    return (None, None) if logbook is None else (logbook.experiment, logbook.created_s)


class Outbox:
    """The counts and lines of one process that their owner does not have yet.

    Parameters
    ----------
    row : ProcessRow
        Of this process.
    file : Path
        Keeps what was not acknowledged; of this process alone.

    Attributes
    ----------
    link : Link or None
        To the owner, while there is one.
    """

    def __init__(self, row: ProcessRow, file: Path):
        self.link: Link | None = None
        self._row, self._spool = row, Spool(file)
        self._counts: list[Count] = []
        self._lines: list[tuple[Any, ...]] = []
        self._n_bytes = 0  # of these
        self._sent: deque[tuple[int, bytes]] = deque()  # not acknowledged
        self._n_sent_bytes = 0
        self._number = 0
        self._n_left_out = self._n_announced = 0
        self._lines_lost: dict[str, int] = {}

    def announce(self) -> None:
        """Note that a request is about to be answered whose count follows, so that a kill in between is known, too."""
        self._row.n_reported += 1
        self._n_announced += 1

    def add(self, *counts: Count) -> None:
        """Report counts, which come to their owner all together or not at all."""
        n_known = min(sum(count[0] == SERVED for count in counts), self._n_announced)
        self._n_announced -= n_known
        self._row.n_reported += sum(count[0] in COUNTED for count in counts) - n_known
        if not self._has_room(len(counts) * _COUNT_BYTES):
            self._n_left_out += sum(count[0] in COUNTED for count in counts)
            return
        self._counts += counts

    def add_line(self, view: CaptureView, invocation: Invocation, line: bytes) -> bool:
        """Report a captured line, and return whether there was room for it."""
        if not self._has_room(len(line)):
            self._lines_lost[invocation.endpoint] = self._lines_lost.get(invocation.endpoint, 0) + 1
            return False
        self._lines.append((view.destination, invocation.endpoint, invocation.variant, invocation.arrival_s, line))
        return True

    def _has_room(self, n_bytes: int) -> bool:
        if self._n_bytes + self._n_sent_bytes + n_bytes > MAX_WAITING_BYTES:
            return False
        self._n_bytes += n_bytes
        return True

    def flush(self) -> None:
        """Send what was reported since the last time."""
        if not (self._counts or self._lines) and not ((self._n_left_out or self._lines_lost) and self._has_room(0)):
            return
        if self._n_left_out:
            self._counts.append((LEFT_OUT, self._n_left_out))
        self._counts += [(LINES_LOST, endpoint, n) for endpoint, n in self._lines_lost.items()]
        self._number += 1
        data = encoded((BATCH, self._number, self._counts, self._lines))
        self._counts, self._lines, self._n_bytes = [], [], 0
        self._n_left_out, self._lines_lost = 0, {}
        self._sent.append((self._number, data))
        self._n_sent_bytes += len(data)
        self._spool.add(data)
        if self.link is not None:
            self.link.send_encoded(data)

    def begin(self, link: Link) -> None:
        """Report over a new link, beginning with what was not acknowledged."""
        self.link = link
        for _, data in self._sent:
            link.send_encoded(data)

    def received(self, number: int) -> None:
        """Forget the batches up to a number: their owner has them."""
        while self._sent and self._sent[0][0] <= number:
            self._n_sent_bytes -= len(self._sent.popleft()[1])
        if not self._sent:
            self._spool.empty()
        elif self._spool.n_bytes > 2 * MAX_WAITING_BYTES:
            self._spool.empty()
            for _, data in self._sent:
                self._spool.add(data)

    def close(self) -> None:
        """Report nothing more."""
        self._spool.close()

    async def empty(self, within_s: float) -> None:
        """Flush, and wait until the owner has all, at most for a time."""
        end_s = asyncio.get_running_loop().time() + within_s
        self.flush()
        while self._sent and asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(FLUSH_S / 2)


class Spool:
    """A file of encoded batches, for whoever comes after a kill.

    Parameters
    ----------
    file : Path

    Attributes
    ----------
    n_bytes : int
    """

    def __init__(self, file: Path):
        self.n_bytes = 0
        self._stream = file.open("wb", buffering=0)

    def add(self, data: bytes) -> None:
        """Append a batch; one that cannot be written is only in memory."""
        with suppress(OSError):
            self.n_bytes = append_framed(self._stream, data, self.n_bytes)

    def empty(self) -> None:
        """Forget all batches."""
        if self.n_bytes:
            self._stream.seek(0)
            self._stream.truncate()
            self.n_bytes = 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def spool_file(folder: Path, process: str, generation: int) -> Path:
    """Return the file of a process's batches."""
    return folder / f"reports-{process}-{generation}"


def left_batches(folder: Path, process: str, generation: int) -> Iterator[Message]:
    """Yield the batches that earlier generations of a process have left, and remove their files."""
    for file in sorted(folder.glob(f"reports-{process}-*"), key=lambda file: int(file.name.rpartition("-")[2])):
        if int(file.name.rpartition("-")[2]) < generation:
            yield from unframed(file.read_bytes())
            file.unlink()


class LineReporter:
    """Captures invocations by reporting their lines.

    Parameters
    ----------
    outbox : Outbox
    random : Random
        Generator for the sampling.
    """

    def __init__(self, outbox: Outbox, random: Random):
        self._outbox, self._random = outbox, random

    def take(self, views: Sequence[CaptureView], invocation: Invocation) -> int | None:
        """Capture an invocation for each view that wants it; return the bytes captured, None if it was not."""
        captured: int | None = None
        for view, line, n_bytes in captured_lines(views, invocation, self._random):
            if self._outbox.add_line(view, invocation, line):
                captured = (captured or 0) + n_bytes
        return captured


class ReportingEndpoint(LiveEndpoint):
    """A live endpoint whose counts are those of another process.

    Parameters
    ----------
    view : EndpointView
    mirror : RequestMirror
    outbox : Outbox
    """

    __slots__ = ("_outbox",)

    def __init__(self, view: EndpointView, mirror: RequestMirror, outbox: Outbox):
        super().__init__(view, mirror)
        self._outbox = outbox

    def announce(self) -> None:
        """Note that a request is about to be answered."""
        self._outbox.announce()

    def record(self, logbook: Logbook | None, variant: str, served: ServedRequest) -> None:
        """Report a request."""
        self._outbox.add(served_count(self.view.name, variant, logbook, served))

    def lose(self, logbook: Logbook | None, variant: str, arrival_s: float, cause: str) -> None:
        """Report a lost copy."""
        self._outbox.add(lost_count(self.view.name, variant, logbook, arrival_s, cause))


class NumberingLogbook(Logbook):
    """A logbook that only numbers requests, in the order of their arrival at all processes."""

    __slots__ = ("_key", "_memory")

    def __init__(self, memory: SharedMemory, **fields: Any):
        super().__init__(**fields)
        self._memory, self._key = memory, key_of(self.experiment, self.created_s)

    def number(self) -> int:
        """Return the number of a new request of the source."""
        return self._memory.next_number(self._key)
