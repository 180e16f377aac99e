"""Serves callers in one of several processes on a port, and passes on other requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, cast

import aiohttp
from aiohttp import web
from yarl import URL

from shadowsim.errors import SerializationError, ShadowsimError
from shadowsim.server.app import INVOCATION_PATH, MAX_ACTION_BYTES, App, live_endpoints, refused
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.http.access import (
    MAX_ARRIVING_BYTES,
    MAX_SURPLUS_BYTES,
    ArrivingBodies,
    BusyError,
    check_origin,
    origin_form,
    url_of,
)
from shadowsim.server.processes.copies import TAKEN, CopyChannel, CopyingRuntime
from shadowsim.server.processes.links import Link, Message, keep_linked
from shadowsim.server.processes.member import HELLO, MIRROR, Member, ProcessStart
from shadowsim.server.processes.reports import LineReporter
from shadowsim.server.processes.shared_memory import SharedMemory
from shadowsim.server.processes.simulations import RemoteSources
from shadowsim.server.state.store import Store

_OF_CONNECTIONS = ("connection", "keep-alive", "transfer-encoding", "expect", "upgrade", "te", "trailer")
_UNSENT = ("User-Agent", "Accept-Encoding", "Accept", "Content-Type")
_REPORT_S = 5.0  # for the last reports of a process that stops
_MIRROR_S = 1.0  # for the mirror process to be there before the first caller


class Worker(App):
    """A server of invocations that shares its port and its limits with others.

    Parameters
    ----------
    start : ProcessStart
    memory : SharedMemory
    """

    def __init__(self, start: ProcessStart, memory: SharedMemory):
        self._start, settings = start, start.settings
        self._member = Member(start, memory, LoopClock(), lambda: self.n_held_for_callers)
        super().__init__(settings, cast(Store, self._member.world), memory)
        self.token = start.page_token()
        most = max(settings.limits.max_body_bytes, MAX_ACTION_BYTES)
        self._arriving = ArrivingBodies(max(MAX_ARRIVING_BYTES // start.n_workers, 2 * most))

    async def start(self) -> None:
        """Wait for the account, then serve."""
        await self._member.join()
        connector = aiohttp.UnixConnector(self._start.pages, limit=0)
        self._control = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_UNSENT,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        await super().start()

    def replace_quotas(self, quotas: Any) -> None:
        """Enforce other quotas from now on."""
        self._member.world.throttle.quotas = quotas

    def _open_data_plane(self) -> None:
        member, s = self._member, self.settings
        member.loop_clock = self.loop_clock
        sources = RemoteSources(self._containers, simulations=member.simulations, seed=s.seed, overhead_s=s.overhead_s)
        self.endpoints = live_endpoints(s, self._store, sources, self.spare_time, **member.options)
        member.serve(self.endpoints)
        shared = self._store.world.choices.event_id == "shared"
        captures = LineReporter(member.outbox, Random(s.seed))
        self._runtime = runtime = CopyingRuntime(self.endpoints, captures, s.limits, Random(s.seed), shared)
        self._copies = runtime.copies = CopyChannel(member.outbox, self.spare_time)
        greeting: Message = (HELLO, self._start.name, self._start.generation)
        make = partial(Link, self._hear_of_mirror, self._lose_mirror)
        linking = keep_linked(self._start.socket(MIRROR), make, lambda link: link.send(greeting))
        self._linking = asyncio.get_running_loop().create_task(linking)

    def _open_control_plane(self) -> None:
        """Make nothing: actions are the control process's."""

    async def _listen(self, runner: web.ServerRunner) -> None:
        s = self.settings
        with suppress(TimeoutError):  # without it callers are served, too
            await asyncio.wait_for(self._copies.begun.wait(), _MIRROR_S)
        self._member.count()
        context = s.certificate.context if s.certificate else None
        await web.TCPSite(runner, s.host, s.port, ssl_context=context, reuse_port=True).start()
        host, port, *_ = runner.addresses[0]
        self.url = url_of(host, port, "https" if s.certificate else "http")

    def _periodic(self) -> Iterable[Coroutine[Any, Any, None]]:
        return ()

    def _hear_of_mirror(self, link: Link, message: Message) -> None:
        if message[0] == TAKEN:
            self._copies.taken(message[1], message[2])
        else:
            self._copies.begin(link, message[1])

    def _lose_mirror(self, link: Link) -> None:
        self._copies.link = None

    async def _close_data_plane(self, left_s: float) -> None:
        await self._control.close()
        await self.spare_time.drain(left_s)
        self._linking.cancel()  # what was handed over is sent
        await asyncio.gather(self._linking, return_exceptions=True)
        await self._member.leave(_REPORT_S)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        target, authority = origin_form(request.raw_path)
        path = target.partition("?")[0]
        if path == "/ping" or (request.method == "POST" and INVOCATION_PATH.fullmatch(path)):
            return await super()._answer(request)
        try:
            self._hosts.check(request.headers.getall("Host", []))
            if authority is not None:
                self._hosts.check([authority])
            check_origin(request.method, request.headers)
            return await self._pass_on(request, target)
        except ShadowsimError as error:
            return refused(error, error.http_status)

    async def _pass_on(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        """Let the control process answer a request."""
        if (request.content_length or 0) > MAX_ACTION_BYTES + MAX_SURPLUS_BYTES:
            raise SerializationError(f"The body is longer than {MAX_ACTION_BYTES} bytes.")
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _OF_CONNECTIONS]
        target = target.replace("#", "%23")  # what begins with it is not sent
        response: web.StreamResponse | None = None
        try:
            async with self._control.request(
                request.method,
                URL(f"http://control{target}", encoded=True),
                headers=headers,
                data=await _body_of(request),
                allow_redirects=False,
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, value in answer.headers.items():
                    if name.lower() not in _OF_CONNECTIONS:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, OSError) as error:
            if response is not None and response.prepared:
                if request.transport is not None:
                    request.transport.close()  # the answer breaks off
                return response
            raise BusyError("The control process is being restarted. Please try again.") from error
        except UnicodeEncodeError:
            raise SerializationError("A header is not text.") from None


async def _body_of(request: web.BaseRequest) -> bytes | AsyncIterator[bytes] | None:
    """Return the body as it was sent: whole if it has arrived, else as it comes."""
    if not request.can_read_body:
        return b"" if request.method == "POST" else None
    if request.content.is_eof():
        return request.content.read_nowait()
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # so that aiohttp does not take the answer as begun
    return request.content.iter_any()
