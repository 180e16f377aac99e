"""A lean HTTP server and a lean load generator, as processes, so that neither dominates a benchmark.

    python wire.py serve MODE                    prints its port; answers POSTs with their bodies after MODE seconds, or
                                                 with "garbage" or an "endless" body, or it "slams" or "closes" the
                                                 connection, or sends what ANSWERS or, without end, what FLOODS names
    python wire.py load SECONDS CONNECTIONS URL  each connection sends its next request as soon as it is answered
    python wire.py race SECONDS RATE_PER_S URL...
        a Poisson process of requests to all URLs, regardless of answers; every n requests in a row go to the n URLs in
        random order, so that all URLs meet the same moments of the machine
    python wire.py overload SECONDS RATE_PER_S CONNECTIONS URL
        a Poisson process of requests to one URL; what is due while no connection is free is given up

The generators print JSON: by URL the latencies in seconds in order of the requests; the errors of up to a hundred
requests; their own processor time; and how many requests were given up.
"""

from __future__ import annotations

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from gzip import compress
from random import Random
from time import perf_counter, process_time
from urllib.parse import urlsplit

BODY = b"x" * 512
TICK_S = 0.002  # in which an overloading generator looks for what is due
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# what is sent first, what again and again, and the seconds between
FLOODS: dict[str, tuple[bytes, bytes, float]] = {
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400, 0.0),
    "headers": (OK, b"X-Header: value\r\n" * 600, 0.0),
    "extensions": (CHUNKED + b"1;", b"e" * 10_000, 0.0),
    "trailers": (CHUNKED + b"0\r\n", b"X-Trailer: value\r\n" * 600, 0.0),
    "chunks": (CHUNKED, b"1\r\nx\r\n" * 2_000, 0.0),
    "trickle": (CHUNKED, b"1\r\nx\r\n", 0.001),
    "answers": (OK + b"Content-Length: 1\r\n\r\nx", (OK + b"Content-Length: 1\r\n\r\nx") * 200, 0.0),
}
_BOMB = compress(bytes(100 * 2**20))
# what is sent once, and whether the connection is closed then
ANSWERS: dict[str, tuple[bytes, bool]] = {
    "unavailable": (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nbusy", False),
    "bomb": (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(_BOMB), _BOMB), False),
    "cut": (OK + b"Content-Length: 1000\r\n\r\nx", True),
}


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
    _paused = False

    def __init__(self, mode: str):
        self._mode = mode

    def message(self, head: bytes, body: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        if head.startswith(b"get"):  # /ping
            self.transport.write(answer)
        elif self._mode == "garbage":
            self.transport.write(b"\x00\xff" * 512 + b"\r\n\r\n")
            self.transport.close()
        elif self._mode in ANSWERS or self._mode == "closes":
            once, is_last = ANSWERS.get(self._mode, (b"", True))
            self.transport.write(once)
            if is_last:
                self.transport.close()
        elif self._mode == "slams":
            self.transport.abort()
        elif self._mode == "endless":
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._send_chunk()
        elif self._mode in FLOODS:
            first, *again = FLOODS[self._mode]
            self.transport.write(first)
            self._send_again(*again)
        elif delay_s := float(self._mode):
            asyncio.get_running_loop().call_later(delay_s, self.transport.write, answer)
        else:
            self.transport.write(answer)

    def _send_chunk(self) -> None:
        # Slower than possible, to leave the few processors of the machine to the server.
        if not self.transport.is_closing():
            if not self._paused:
                self.transport.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            asyncio.get_running_loop().call_later(0.01, self._send_chunk)

    def _send_again(self, part: bytes, pause_s: float) -> None:
        if not self.transport.is_closing():
            if not self._paused:
                self.transport.write(part)
            asyncio.get_running_loop().call_later(pause_s, self._send_again, part, pause_s)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False


class _Caller(_Messages):
    _answered: asyncio.Future[str]

    def ask(self, request: bytes) -> asyncio.Future[str]:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def message(self, head: bytes, body: bytes) -> None:
        is_right = head.startswith(b"http/1.1 200") and body == BODY
        self._answered.set_result("" if is_right else (head + b" " + body[:500]).decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_answered") and not self._answered.done():
            self._answered.set_result(f"the connection was lost: {exc!r}")


async def serve(mode: str) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: _Backend(mode), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Generator:
    """Sends requests to URLs, and records their latencies and errors."""

    def __init__(self, urls: list[str]):
        self.took_s: dict[str, list[float]] = {url: [] for url in urls}
        self.bad: list[str] = []
        self.n_given_up = 0
        self._places = {url: urlsplit(url) for url in urls}

    async def connect(self, url: str) -> _Caller:
        place = self._places[url]
        return (await asyncio.get_running_loop().create_connection(_Caller, place.hostname, place.port))[1]

    def request(self, url: str) -> bytes:
        place = self._places[url]
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: a/b\r\n"
        head += f"Content-Length: {len(BODY)}\r\nX-Amzn-SageMaker-Inference-Id: an-inference-id\r\n\r\n"
        return head.encode() + BODY

    async def ask(self, caller: _Caller, request: bytes) -> float:
        """Send a request and return its latency in seconds."""
        began = perf_counter()
        error = await caller.ask(request)
        if error:
            self.bad.append(error)
        return perf_counter() - began

    def report(self, began: float) -> dict[str, object]:
        elapsed_s = perf_counter() - began
        counts = {"elapsed_s": elapsed_s, "cpu_s": process_time(), "n_given_up": self.n_given_up}
        return {"took_s": self.took_s, "bad": self.bad[:100], **counts}


async def load(url: str, n_connections: int, seconds: float) -> dict[str, object]:
    """Send requests for some seconds, on each connection as soon as the last one is answered."""
    generator, began = _Generator([url]), perf_counter()
    request, took_s = generator.request(url), generator.took_s[url]

    async def run_connection() -> None:
        caller = await generator.connect(url)
        while perf_counter() < began + seconds:
            took_s.append(await generator.ask(caller, request))

    await asyncio.gather(*(run_connection() for _ in range(n_connections)))
    return generator.report(began)


async def race(urls: list[str], seconds: float, rate_per_s: float) -> dict[str, object]:
    """Send requests to all URLs for some seconds, to each at a rate."""
    generator, random, loop = _Generator(urls), Random(1), asyncio.get_running_loop()
    requests = {url: generator.request(url) for url in urls}
    idle = {url: [await generator.connect(url) for _ in range(8)] for url in urls}
    asking: set[asyncio.Task[None]] = set()
    turns: list[str] = []

    async def send(url: str, number: int) -> None:
        caller = idle[url].pop() if idle[url] else await generator.connect(url)
        if caller.transport.is_closing():  # the server closed the idle connection
            caller = await generator.connect(url)
        generator.took_s[url][number] = await generator.ask(caller, requests[url])
        idle[url].append(caller)

    began = due = perf_counter()
    while (due := due + random.expovariate(rate_per_s * len(urls))) < began + seconds:
        await asyncio.sleep(max(due - perf_counter(), 0.0))
        turns = turns or random.sample(urls, len(urls))
        url = turns.pop()
        generator.took_s[url].append(0.0)
        task = loop.create_task(send(url, len(generator.took_s[url]) - 1))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    return generator.report(began)


async def overload(url: str, n_connections: int, seconds: float, rate_per_s: float) -> dict[str, object]:
    """Send requests at a rate for some seconds over some connections, whether or not the server can answer so many."""
    generator, random = _Generator([url]), Random(1)
    request = generator.request(url)
    idle = [await generator.connect(url) for _ in range(n_connections)]
    asking: set[asyncio.Task[None]] = set()

    async def send(caller: _Caller) -> None:
        took_s = await generator.ask(caller, request)
        if not caller.transport.is_closing():
            generator.took_s[url].append(took_s)
            idle.append(caller)

    began = due = perf_counter()
    while (now := perf_counter()) < began + seconds:
        while due <= now:
            due += random.expovariate(rate_per_s)
            if idle:
                task = asyncio.get_running_loop().create_task(send(idle.pop()))
                asking.add(task)
                task.add_done_callback(asking.discard)
            else:
                generator.n_given_up += 1
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*asking)
    return generator.report(began)


def _main(command: str, number: str, *rest: str) -> None:
    if command == "serve":
        asyncio.run(serve(number))
    elif command == "load":
        print(json.dumps(asyncio.run(load(rest[1], int(rest[0]), float(number)))))
    elif command == "overload":
        rate_per_s, n_connections, url = rest
        print(json.dumps(asyncio.run(overload(url, int(n_connections), float(number), float(rate_per_s)))))
    else:
        print(json.dumps(asyncio.run(race(list(rest[1:]), float(number), float(rest[0])))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
