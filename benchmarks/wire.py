"""A lean HTTP server and a lean load generator, as processes, so that neither is what a benchmark measures.

    python wire.py serve DELAY_S               prints its port; answers with a POST's body, after a delay
    python wire.py load URL CONNECTIONS SECONDS [RATE_PER_S]

The generator prints JSON: seconds of each answer, what was wrong with up to a hundred, and its own processor time.
Without a rate each connection asks again as soon as it is answered; with one, requests come as a Poisson process
whatever is answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from random import Random
from time import perf_counter, process_time
from urllib.parse import urlsplit

BODY = b"x" * 512


class _Messages(asyncio.Protocol, ABC):
    """Calls `message(head, body)` for each that came."""

    transport: asyncio.Transport
    _buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            n = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + n:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + n], self._buffer[end + 4 + n :]
            self.message(head, body)

    @abstractmethod
    def message(self, head: bytes, body: bytes) -> None:
        """Take a message, its head in lower case."""


class _Backend(_Messages):
    def __init__(self, delay_s: float):
        self._delay_s = delay_s

    def message(self, head: bytes, body: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        if self._delay_s and head.startswith(b"post"):  # and not /ping
            asyncio.get_running_loop().call_later(self._delay_s, self.transport.write, answer)
        else:
            self.transport.write(answer)


class _Caller(_Messages):
    _answered: asyncio.Future[str]

    def ask(self, request: bytes) -> asyncio.Future[str]:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def message(self, head: bytes, body: bytes) -> None:
        right = head.startswith(b"http/1.1 200") and body == BODY
        self._answered.set_result("" if right else (head + b" " + body[:500]).decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_answered") and not self._answered.done():
            self._answered.set_result(f"the connection was lost: {exc!r}")


async def serve(delay_s: float) -> None:
    """Answer until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: _Backend(delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def load(url: str, n_connections: int, seconds: float, rate_per_s: float) -> dict[str, object]:
    """Ask for some seconds."""
    place = urlsplit(url)
    head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: a/b\r\nContent-Length: {len(BODY)}\r\n"
    request = head.encode() + b"X-Amzn-SageMaker-Inference-Id: an-inference-id\r\n\r\n" + BODY
    loop, end = asyncio.get_running_loop(), perf_counter() + seconds
    took_s: list[float] = []
    bad: list[str] = []

    async def connect() -> _Caller:
        return (await loop.create_connection(_Caller, place.hostname, place.port))[1]

    async def ask(caller: _Caller) -> None:
        began = perf_counter()
        wrong = await caller.ask(request)
        if wrong:
            bad.append(wrong)
        took_s.append(perf_counter() - began)

    async def closed() -> None:
        caller = await connect()
        while perf_counter() < end:
            await ask(caller)

    async def opened() -> None:
        idle, random, due, asking = [await connect() for _ in range(8)], Random(1), perf_counter(), set()

        async def one() -> None:
            caller = idle.pop() if idle else await connect()
            if caller.transport.is_closing():  # it was idle for long
                caller = await connect()
            await ask(caller)
            idle.append(caller)

        while (due := due + random.expovariate(rate_per_s)) < end:
            await asyncio.sleep(max(due - perf_counter(), 0.0))
            task = loop.create_task(one())
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)

    began = perf_counter()
    await (opened() if rate_per_s else asyncio.gather(*(closed() for _ in range(n_connections))))
    return {"took_s": took_s, "bad": bad[:100], "elapsed_s": perf_counter() - began, "cpu_s": process_time()}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(float(sys.argv[2])))
    else:
        rate = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
        print(json.dumps(asyncio.run(load(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), rate))))
