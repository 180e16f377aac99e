"""Application: serves SageMaker, its runtime, CloudWatch and Prometheus on one port.

    POST /                                              an action, by X-Amz-Target (JSON): of SageMaker, Application
                                                        Auto Scaling or CloudWatch; CloudWatch's also as a form,
                                                        answered in XML
    POST /endpoints/<name>/invocations                  InvokeEndpoint
    POST /endpoints/<name>/invocations-response-stream  InvokeEndpointWithResponseStream
    POST /endpoints/<name>/openai/v1/chat/completions   OpenAI's API, with server-sent events if "stream" is true; also
                                                        /completions
    GET  /ping                                          200 while the server answers, without a signature or a name
    GET  /metrics                                       Prometheus
    GET  /, /shadowsim/page/..., /shadowsim/events      the live page, as page/site.py describes
    GET  /shadowsim/experiments/<name>/<frame>.<form>   windows, latency or requests, as parquet or json

Everything runs in one event loop, but files are written and frames are built in threads. A defect of the server is
logged and answered with InternalFailure.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from time import perf_counter, time
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from aiohttp import web

from shadowsim.aws.contract import AUTO_SCALING, SAGEMAKER, preload
from shadowsim.errors import SerializationError, ShadowsimError, UnknownOperationError, json_kind, shown
from shadowsim.server.control import actions
from shadowsim.server.control.scaler import Scaler
from shadowsim.server.data_plane.backends import INVOCATIONS, Container
from shadowsim.server.data_plane.capture_journal import JOURNAL_S
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.completions import completion_request
from shadowsim.server.data_plane.connections import ReadAllowance, open_session
from shadowsim.server.data_plane.exchanges import ContainerSession
from shadowsim.server.data_plane.frame_slices import SLICE_ROWS, encoded, slices
from shadowsim.server.data_plane.invoke import ERROR_TYPE, REQUEST_ID, Reply, Runtime, error_reply, oversized
from shadowsim.server.data_plane.live import BackendSources, LiveEndpoints, ModelContainers
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.data_plane.spare_time import SpareTime, rest
from shadowsim.server.http.access import (
    MAX_ARRIVING_BYTES,
    ArrivingBodies,
    Hosts,
    StalledWrites,
    Token,
    check_origin,
    open_server,
    origin_form,
    read_body,
    url_of,
)
from shadowsim.server.http.bearer_tokens import check_token, is_bearer
from shadowsim.server.http.browser_sessions import BrowserSessions
from shadowsim.server.http.signatures import ReplayMemory, SignedRequest, Verifier
from shadowsim.server.http.streamed_replies import INTERNAL_STREAM_FAILURE, StreamedReply
from shadowsim.server.metrics import cloudwatch, cloudwatch_wire
from shadowsim.server.page.site import Site
from shadowsim.server.settings import Settings
from shadowsim.server.state import views
from shadowsim.server.state.quotas import INVOKE, Quotas
from shadowsim.server.state.store import Store

SERVICES = {"SageMaker": SAGEMAKER, "AnyScaleFrontendService": AUTO_SCALING}  # by prefix of X-Amz-Target
MAX_ACTION_BYTES = 2 * 2**20
MAX_VALUES = 100_000  # of a JSON body: more take longer to parse than the event loop can spare
SAMPLE_S, REFRESH_S, PING_S, STALLED_CHECK_S, SCALE_S = 10.0, 0.5, 0.1, 0.5, 0.05  # periods
INVOCATION_PATH = re.compile(
    r"/endpoints/([^/]+)/(invocations|invocations-response-stream|openai(/v1/(?:chat/)?completions))"
)
_OTHERS = {
    "async-invocations": "InvokeEndpointAsync is for asynchronous endpoints, which shadow tests exclude.",
}
_OTHER_INVOCATIONS = re.compile(f"/endpoints/[^/]+/({'|'.join(_OTHERS)})")
_FRAME = re.compile(r"/shadowsim/experiments/([^/]+)/(windows|latency|requests)\.(parquet|json)")
_LOG = logging.getLogger(__name__)


class _NoPageError(ShadowsimError, LookupError):
    """A page that does not exist; a page of the web, not an action of AWS."""

    code = "ResourceNotFound"
    http_status = 404


class App:
    """The server, which can be started and stopped in a running event loop.

    Parameters
    ----------
    settings : Settings
    store : Store
        Account of the control plane; the caller closes it.
    memory : ReplayMemory, optional
        Remembers requests if replays are refused; one of its own by default.

    Attributes
    ----------
    url : str
        URL of the server once it has started.
    token : Token or None
        Token that pages require if signatures are verified.
    server : aiohttp.web.Server
        HTTP server with its connections, once it has started.
    endpoints : LiveEndpoints
    loop_clock : LoopClock
        Clock of the event loop, with its lag, once it has started.
    spare_time : SpareTime
        Of the event loop, for copies.
    """

    def __init__(self, settings: Settings, store: Store, memory: ReplayMemory | None = None):
        self.settings, self._store = settings, store
        self.url = ""
        self.token = None if settings.secrets is None else Token()
        self._hosts = Hosts(settings.host, settings.hosts)
        self._verifier = (
            None
            if settings.secrets is None
            else Verifier(settings.secrets, settings.skew_s, settings.refuse_replays, memory)
        )
        most = max(settings.limits.max_body_bytes, MAX_ACTION_BYTES)
        self._arriving = ArrivingBodies(max(MAX_ARRIVING_BYTES, 2 * most))
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: dict[int, StreamedReply] = {}  # by identity of the caller's transport
        self._probed_since_s: dict[tuple[str, int, str], float] = {}  # by probe, when it was first seen

    async def start(self) -> None:
        """Bind the address and start to serve.

        Raises
        ------
        OSError
            The address cannot be bound.
        """
        s = self.settings
        self.loop_clock, self.spare_time = LoopClock(), SpareTime()
        self._sessions, self._containers = open_containers(s, self.loop_clock)
        self._open_data_plane()
        self._open_control_plane()
        self._browsers = None if self.token is None else BrowserSessions(self.token)
        self._site = Site(self._store, self.endpoints, self._browsers, secure=s.certificate is not None)
        self._unknown_operation = self._store.world.choices.unknown_operation
        self.server = open_server(self._answer, refused, s.silent_s)
        stalled_writes = StalledWrites(s.body_s, perf_counter)
        self._runner = web.ServerRunner(self.server, shutdown_timeout=s.grace_s / 2)  # aiohttp waits that long twice
        await self._runner.setup()
        try:
            await self._listen(self._runner)
        except OSError:
            await self._close()
            raise
        self.loop_clock.start()
        watching = every(STALLED_CHECK_S, lambda: stalled_writes.check(self._answering()))
        self._tasks = [asyncio.create_task(work) for work in (watching, *self._periodic())]

    def _open_control_plane(self) -> None:
        """Make what answers actions, and what they set going."""
        preload()
        self._scaler = Scaler(self._store, self.settings.services)

    def _open_data_plane(self) -> None:
        """Make what answers invocations: captures, endpoints and the runtime."""
        s = self.settings
        self.captures = CaptureWriter(s.sink, Random(s.seed), s.flush_s, s.journal)
        self.endpoints = live_endpoints(
            s, self._store, BackendSources(self._containers, s.services, s.seed, s.overhead_s), self.spare_time
        )
        shared = self._store.world.choices.event_id == "shared"
        self._runtime = Runtime(self.endpoints, self.captures, s.limits, Random(s.seed), shared)

    async def _journal(self) -> None:
        await self.captures.journal()

    async def _listen(self, runner: web.ServerRunner) -> None:
        """Bind the address, and set the URL."""
        s = self.settings
        context = s.certificate.context if s.certificate else None
        await web.TCPSite(runner, s.host, s.port, ssl_context=context).start()
        host, port, *_ = runner.addresses[0]
        self.url = url_of(host, port, "https" if s.certificate else "http")

    def _periodic(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Return what is done again and again while the server runs."""
        return (
            self.captures.run(),
            every(JOURNAL_S, self._journal),
            every(SAMPLE_S, self.endpoints.sample),
            every(REFRESH_S, self._refresh),
            every(SCALE_S, self._scale),
            every(PING_S, self._ping),
        )

    def _answering(self) -> list[web.RequestHandler]:
        """Return the connections without those of streams, which watch over their callers themselves."""
        return [c for c in self.server.connections if id(c.transport) not in self._streams]

    @property
    def page_link(self) -> str:
        """The address of the live page; a link that works once if signatures are verified."""
        return self._site.page_link(self.url)

    @property
    def n_held_for_callers(self) -> int:
        """Bytes of parts of streamed answers that wait for slow callers."""
        return sum(stream.n_held for stream in self._streams.values())

    async def stop(self) -> None:
        """Finish requests in flight (within `grace_s`), flush captures (within as long again), and close."""
        began = perf_counter()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._site.close()
        await self._runner.cleanup()
        left_s = max(self.settings.grace_s - (perf_counter() - began), 0.0)
        await self._close_data_plane(left_s)
        self.loop_clock.stop()
        await self._close()

    async def _close_data_plane(self, left_s: float) -> None:
        """Finish copies within a time, and write captures."""
        await asyncio.gather(*(live.mirror.drain(left_s) for live in self.endpoints.by_name.values()))
        await self.captures.close(self.settings.grace_s)

    @property
    def store(self) -> Store:
        """The account of the control plane."""
        return self._store

    @property
    def n_lost(self) -> int:
        """Captured lines that were lost."""
        return sum(self.captures.n_lost.values())

    @property
    def n_left(self) -> int:
        """Captured lines that wait for the next server, once this one has stopped."""
        return self.captures.n_left

    def abandon(self) -> None:
        """Do nothing more: the process ends at once, and there is no other."""

    def replace_quotas(self, quotas: Quotas) -> None:
        """Enforce other quotas from now on."""
        self._store.replace_quotas(quotas)

    def read_certificate(self) -> None:
        """Use what the files of the certificate hold now; raise InputError if they cannot be used."""
        if self.settings.certificate is not None:
            self.settings.certificate.read_again()

    async def flush_captures(self) -> None:
        """Write the captures that there are."""
        await self.captures.flush()

    def replace_secrets(self, secrets: Mapping[str, str]) -> None:
        """Verify signatures with other keys from now on, if the server verifies any."""
        if self._verifier is not None:
            self._verifier.replace_secrets(secrets)

    async def _close(self) -> None:
        await self._runner.cleanup()
        for session in self._sessions:
            await session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        began, request_id = perf_counter(), str(uuid4())
        target, authority = origin_form(request.raw_path)
        path = target.partition("?")[0]
        invoked = INVOCATION_PATH.fullmatch(path)
        try:
            if path == "/ping" and request.method in ("GET", "HEAD"):
                reply: Reply | web.StreamResponse = Reply(200, b"", {})
            else:
                if authority is not None:
                    self._hosts.check([authority])
                reply = await self._reply(request, target, invoked, began, request_id)
        except ShadowsimError as error:
            reply = error_reply(error) if invoked else _refusal(error)
            if isinstance(error, UnknownOperationError):
                reply = replace(reply, status=self._unknown_operation)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _LOG.exception("a defect of the server while answering %s %s", request.method, path)
            defect = ShadowsimError("The server has a defect; see its log.")
            reply = error_reply(defect) if invoked else _refusal(defect)
        if isinstance(reply, web.StreamResponse):
            return reply
        headers = {**_own_headers(request_id), **reply.headers}
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    async def _reply(
        self, request: web.BaseRequest, target: str, invoked: re.Match[str] | None, began: float, request_id: str
    ) -> Reply | web.StreamResponse:
        path, _, query = target.partition("?")
        self._hosts.check(request.headers.getall("Host", []))
        check_origin(request.method, request.headers)
        if request.method == "GET":
            page = await self._site.answer(request, path, query, self.url)
            if page is not None:
                return page
            if self.token is not None and not (self._browsers and self._browsers.holds(request.headers)):
                self.token.check(request.headers, query)
            return await self._page(path)
        other = _OTHER_INVOCATIONS.fullmatch(path)
        if other is not None:
            raise UnknownOperationError(_OTHERS[other[1]])
        if request.method != "POST" or not (invoked or path == "/"):
            raise UnknownOperationError(f"There is no {shown(request.method)} {shown(path)} on this server.")
        most = self.settings.limits.max_body_bytes if invoked else MAX_ACTION_BYTES
        signed = None
        authorization = request.headers.get("Authorization", "")
        if self._verifier is not None and invoked and invoked[3] and is_bearer(authorization):
            check = partial(check_token, authorization, self._verifier.secrets, self.settings.skew_s, time())
            await self._check(request, check)
        elif self._verifier is not None and not (
            self._browsers and self._browsers.may_act(request.method, path, request.headers)
        ):
            headers: dict[str, list[str]] = {}
            for name, value in request.headers.items():
                headers.setdefault(name.lower(), []).append(value)
            signed = SignedRequest(request.method, target, headers, b"")
            await self._check(request, partial(self._verifier.check_head, signed, time()))
        body = await read_body(request, most, self.settings.body_s, self._arriving)
        if body is None:
            if invoked:
                raise oversized(most)
            raise SerializationError(f"The body is longer than {most} bytes.")
        if self._verifier is not None and signed is not None:
            self._verifier.check(replace(signed, body=body), time())
        if invoked:
            self._store.throttle.admit(INVOKE)
            return await self._invoke(request, invoked, body, began, request_id)
        return await self._action(request.headers, body)

    async def _invoke(
        self, request: web.BaseRequest, invoked: re.Match[str], body: bytes, began: float, request_id: str
    ) -> Reply | web.StreamResponse:
        name, operation, path = unquote(invoked[1]), invoked[2], invoked[3] or INVOCATIONS
        completion = completion_request(path, _object(body)) if invoked[3] else None
        call = partial(self._runtime.invoke, name, request.headers, body, began, path=path, completion=completion)
        as_events = operation == "invocations-response-stream"
        if not (as_events or (completion is not None and completion.is_streamed)):
            reply = await call()
            assert reply is not None
            return reply
        stream = StreamedReply(
            request,
            as_events=as_events,
            within_s=self.settings.limits.stream_s,
            stall_s=self.settings.body_s,
            within=self.loop_clock.within,
        )
        stream.headers.update(_own_headers(request_id))
        key = id(request.transport)  # which is gone once the caller is
        self._streams[key] = stream
        try:
            reply = await call(stream=stream)
        except Exception:
            if stream.response is None:
                raise
            _LOG.exception("a defect of the server while streaming an answer of endpoint %s", name)
            await stream.fail(INTERNAL_STREAM_FAILURE, "The server has a defect; see its log.")
            reply = None
        finally:
            del self._streams[key]
        if reply is None:
            assert stream.response is not None
            return stream.response
        return reply

    async def _check(self, request: web.BaseRequest, check: Callable[[], object]) -> None:
        """Check what stands in the head of a request, before its body is read."""
        try:
            check()
        except ShadowsimError:
            await read_body(request, 0, self.settings.body_s, self._arriving)  # its sender reads the refusal then
            raise

    async def _action(self, headers: Mapping[str, str], body: bytes) -> Reply:
        if cloudwatch_wire.is_form(headers):
            await self._refresh()
            handle = partial(cloudwatch.handle, endpoints=self.endpoints.by_name)
            status, parts = await cloudwatch_wire.answer_form(body, handle)
            return _in_parts(status, parts, "text/xml")
        service, _, action = headers.get("X-Amz-Target", "").rpartition(".")
        if service == cloudwatch.TARGET:
            document = _object(body)
            await self._refresh()
            result = await cloudwatch.handle(action, document, self.endpoints.by_name)
            return _in_parts(200, cloudwatch_wire.json_pieces(result), "application/x-amz-json-1.0")
        if service not in SERVICES:
            what = "must name an action of SageMaker, of Application Auto Scaling or of CloudWatch."
            raise UnknownOperationError(f"X-Amz-Target {what}")
        try:
            result = actions.handle(action, _object(body), self._store.clock.now(), self._store, SERVICES[service])
        finally:
            self.endpoints.expire()
        return _json(result, "application/x-amz-json-1.1")

    async def _page(self, path: str) -> Reply:
        if path == "/metrics":
            from shadowsim.server.metrics.prometheus import CONTENT_TYPE, prometheus_slices

            await self._refresh()
            parts = prometheus_slices(self.endpoints.by_name, self.captures, self.loop_clock, self.n_held_for_callers)
            return _in_parts(200, parts, CONTENT_TYPE)
        match = _FRAME.fullmatch(path)
        if match is None:
            raise _NoPageError(f"There is no GET {shown(path)} on this server.")
        experiment, frame, form = unquote(match[1]), match[2], match[3]
        logbook = self.endpoints.logbook(experiment)
        if logbook is None:
            raise _NoPageError(f"No experiment {shown(experiment)} has served since the server started.")
        if frame == "latency":
            frames = slices(await asyncio.to_thread(logbook.latency), form)
        else:
            frames = (logbook.request_slices if frame == "requests" else logbook.window_slices)(SLICE_ROWS[form])
        body: Any = encoded(frames, form)  # sent as it is made
        headers = {"X-Shadowsim-Rows-Forgotten": str(logbook.n_forgotten)} if frame == "requests" else {}
        types = {"parquet": "application/vnd.apache.parquet", "json": "application/json"}
        return Reply(200, body, {"Content-Type": types[form], **headers})

    async def _refresh(self) -> None:
        await self.endpoints.refresh(self._store.world_at(self._store.clock.now()).endpoints)

    async def _scale(self) -> None:
        """Let the scalable targets scale that are due to."""
        now = self._store.clock.now()
        endpoints = self._scaler.endpoints(now)
        if endpoints and await self._scaler.look(self.endpoints.readings(endpoints), now):
            self.endpoints.expire()

    async def _ping(self) -> None:
        """Ping the containers that deployments wait for, and record the results."""
        probes = views.models_to_ping(self._store, self._store.clock.now())
        keys = [(probe.endpoint, probe.deployment, probe.variant.name) for probe in probes]
        self._probed_since_s = {key: self._probed_since_s.get(key, perf_counter()) for key in keys}
        await asyncio.gather(*(self._ping_one(*item) for item in zip(keys, probes, strict=True)))

    async def _ping_one(self, key: tuple[str, int, str], probe: views.Probe) -> None:
        containers = self._containers.get(probe.variant.model_name)
        failure = None if containers is None else await containers.callers.ping(probe.variant.instance_count)
        if failure is None or perf_counter() - self._probed_since_s[key] > probe.limit_s:
            views.record_ping(self._store, probe, self._store.clock.now(), failure)
            self.endpoints.expire()


def live_endpoints(
    settings: Settings, store: Store, sources: BackendSources, spare_time: SpareTime, **options: Any
) -> LiveEndpoints:
    """Return endpoints that follow a store; the options are those of `LiveEndpoints`."""
    return LiveEndpoints(
        view=lambda name: views.endpoint_view(store, name, store.clock.now()),
        sources=sources,
        mirroring=settings.mirroring,
        copy_limits=settings.copy_limits,
        routing=settings.routing,
        clock=perf_counter,
        spare_time=spare_time,
        **options,
    )


def open_containers(
    settings: Settings, loop_clock: LoopClock
) -> tuple[tuple[ContainerSession, ...], dict[str, ModelContainers]]:
    """Return sessions for callers and for copies, to be closed, and the containers of each model."""
    s, allowance = settings, ReadAllowance()
    most = s.limits.max_body_bytes
    of_callers, of_copies = (
        open_session(loop_clock=loop_clock),
        open_session(s.copy_connections, allowance, loop_clock),
    )
    containers = {
        model: ModelContainers(
            callers=Container(urls, of_callers, most, loop_clock),
            copies=Container(urls, of_copies, most, loop_clock, allowance),
        )
        for model, urls in s.containers.items()
    }
    return (of_callers, of_copies), containers


async def every(period_s: float, work: Callable[[], Awaitable[None] | None]) -> None:
    """Do some work periodically; an exception is a defect, which is logged and does not end the work."""
    while True:
        try:
            coroutine = work()
            if coroutine is not None:
                await coroutine
        except Exception:
            _LOG.exception("a defect of the server in its periodic work")
        await asyncio.sleep(period_s)


async def _in_turns(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield parts, and let other work go on before each."""
    for part in parts:
        await rest()
        if part:
            yield part


def _in_parts(status: int, parts: Iterable[bytes], content_type: str) -> Reply:
    """Return a reply that is sent as it is made."""
    body: Any = _in_turns(parts)
    return Reply(status, body, {"Content-Type": content_type})


def _object(body: bytes) -> dict[str, Any]:
    if body.count(b",") >= MAX_VALUES:  # a comma in a text counts, too
        raise SerializationError(f"The body must have less than {MAX_VALUES} values.")
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise SerializationError("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise SerializationError(f"The body must be an object, not {json_kind(document)}.")
    return document


def _json(document: Mapping[str, Any], content_type: str) -> Reply:
    return Reply(200, json.dumps(document).encode(), {"Content-Type": content_type})


def _refusal(error: ShadowsimError) -> Reply:
    body = {"__type": error.code, "message": str(error)}
    headers = {ERROR_TYPE: error.code, "Content-Type": "application/x-amz-json-1.1"}
    return Reply(error.http_status, json.dumps(body).encode(), headers)


def _own_headers(request_id: str) -> dict[str, str]:
    return {REQUEST_ID: request_id, "Server": "shadowsim"}


def refused(error: ShadowsimError, status: int) -> web.Response:
    """Return the answer of this port to what it refuses."""
    reply = _refusal(error)
    headers = {**_own_headers(str(uuid4())), **reply.headers}
    return web.Response(status=status, body=reply.body, headers=headers)
