"""Services for load runs to measure, and short runs of a generator against them."""

import asyncio
import struct
from binascii import crc32
from contextlib import contextmanager
from time import monotonic

import numpy as np
from serving import Container, Loop, answer

from shadowsim.measuring.generator.bodies import Bodies
from shadowsim.measuring.generator.load_records import STATUSES
from shadowsim.measuring.generator.sender import Control, Generator, LoadJob
from shadowsim.measuring.generator.targets import HTTP, Target

TIMEOUT_S = 20.0


@contextmanager
def service(behave=None):
    """Run a service in a thread with a loop of its own; `behave(writer, request)` answers, by default with the body."""
    loop, container = Loop(), Container(behave)
    loop(container.start())
    try:
        yield container
    finally:
        loop(container.stop())
        loop.close()


def answering(status=200, body=b"{}", after_s=0.0, **headers):
    """Return a behaviour: one answer, after a time."""

    async def behave(writer, request):
        if after_s:
            await asyncio.sleep(after_s)
        writer.write(answer(status, body, **headers))

    return behave


def stalling(begin_s, for_s):
    """Return a behaviour that answers at once, but not for a while; times are from the first request on."""
    first = []

    async def behave(writer, request):
        first.append(monotonic()) if not first else None
        since = monotonic() - first[0] - begin_s
        if 0.0 <= since < for_s:
            await asyncio.sleep(for_s - since)
        writer.write(answer(200, b"{}"))

    return behave


def job(url, due_s, **options):
    due = np.asarray(due_s, np.float64)
    bodies = options.pop("bodies", Bodies((b"abc",), ("text/plain",)))
    target = options.pop("target", None) or Target(HTTP, f"{url}/invocations")
    everything = {"number": np.arange(due.size), "stage": np.full(due.size, -1), "timeout_s": TIMEOUT_S} | options
    return LoadJob(target, bodies, due, **everything)


def sent(planned, control=None, during=None, late_s=-0.05):
    """Run a job in an event loop of its own, and return what became of it. It begins 50 ms from now."""

    async def run():
        own = control or Control()
        generator = Generator(planned, own)
        generator.get_ready()
        also = asyncio.create_task(during(own, generator)) if during else None
        async with asyncio.timeout(4 * TIMEOUT_S):
            result = await generator.run(monotonic() - late_s)
        if also is not None:
            await also
        return result

    return asyncio.run(run())


def frame(payload, **headers):
    """Return a frame of AWS's event stream; all its headers are strings (type 7)."""
    pairs = {":" + name.replace("_", "-"): value for name, value in headers.items()}
    head = b"".join(
        struct.pack(">B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in pairs.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack(">I", crc32(body))


def part(payload):
    return frame(payload, message_type="event", event_type="PayloadPart")


def causes(table):
    """Return how often each pair of status and cause came."""
    names = ["", *table.causes]
    pairs = zip(table["status"].tolist(), table["cause"].tolist(), strict=True)
    counts: dict[tuple[str, str], int] = {}
    for status, cause in pairs:
        key = STATUSES[status], names[cause + 1]
        counts[key] = counts.get(key, 0) + 1
    return counts
