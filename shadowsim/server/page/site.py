"""Answers a browser: the page with its files, the links to it, and the stream of its events.

    GET /                        the page; with `?key=`, a link that the server printed, which gives a session
    GET /shadowsim/page/<file>   its style sheet and scripts
    GET /shadowsim/events        the state of the account, and with `?experiment=` that of an experiment, as server-sent
                                 events: one at once, then one every second

The page may run no script but its own files, be framed by no other page, and send nothing elsewhere: its
Content-Security-Policy says so. What viewers of the same experiment see is made once a second for all of them, and not
at all while nobody looks. The parts that take long are made in a thread, the comparisons in a process.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from shadowsim.errors import ShadowsimError, shown
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.invoke import Reply
from shadowsim.server.data_plane.live import LiveEndpoints
from shadowsim.server.http.access import ForbiddenError
from shadowsim.server.http.browser_sessions import BrowserSessions, set_cookie
from shadowsim.server.page.looks import LookPlan, Looks
from shadowsim.server.page.states import account_state, counts_state, experiment_state, looks_state, moment_text
from shadowsim.server.page.timeline import Timeline
from shadowsim.server.state.account import ExperimentRecord
from shadowsim.server.state.store import Store

EVENTS, FILES = "/shadowsim/events", "/shadowsim/page/"
PERIOD_S, MOST_VIEWERS, KEPT_WATCHED = 1.0, 64, 16
_STYLE = ("shadowsim.report", "report.css"), ("shadowsim.server.page", "page.css")
_SCRIPTS = ("page.js", "charts.js", "words.js")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOG = logging.getLogger(__name__)


class TooManyViewersError(ShadowsimError):
    """A page beyond those that are open."""

    code = "ServiceUnavailable"
    http_status = 503


@dataclass(slots=True)
class _Watched:
    """An experiment that somebody watches, or has watched."""

    logbook: Logbook
    timeline: Timeline
    looks: Looks
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Site:
    """The page of one server.

    Parameters
    ----------
    store : Store
    endpoints : LiveEndpoints
    sessions : BrowserSessions or None
        None if requests need no signature, and so the page no session.
    secure : bool
        Whether the server speaks TLS.
    """

    def __init__(self, store: Store, endpoints: LiveEndpoints, sessions: BrowserSessions | None, secure: bool):
        self._store, self._endpoints, self._sessions, self._secure = store, endpoints, sessions, secure
        self._watched: dict[str, _Watched] = {}  # by experiment
        self._made: dict[str, tuple[float, asyncio.Task[bytes]]] = {}  # by experiment, when its event was begun
        self._n_viewers = 0
        self._closing = asyncio.Event()

    def page_link(self, url: str) -> str:
        """Return the address of the page; a link that works once if it needs a session."""
        return f"{url}/" if self._sessions is None else f"{url}/?key={self._sessions.key}"

    async def answer(
        self, request: web.BaseRequest, path: str, query: str, url: str
    ) -> Reply | web.StreamResponse | None:
        """Answer a GET; None if it is not of the page.

        Raises
        ------
        ForbiddenError
            A stream is asked for without a session.
        TooManyViewersError
        """
        if path.startswith(FILES):
            return page_file(path.removeprefix(FILES))
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if path == "/" and self._sessions is not None and "key" in asked:
            return self._admitted(request, asked["key"], url)
        if path not in ("/", EVENTS):
            return None
        if self._sessions is not None and not self._sessions.holds(request.headers):
            if path == EVENTS:
                raise ForbiddenError(
                    "The stream of events needs a session, which the link that the server prints gives."
                )
            return _html("locked.html", 403)
        return _html("page.html", 200) if path == "/" else await self._stream(request, asked.get("experiment", ""))

    def _admitted(self, request: web.BaseRequest, key: str, url: str) -> Reply:
        """Send a browser that follows a link on to the page, whose address holds no key."""
        assert self._sessions is not None
        to_page = {"Location": "/", **_HEADERS}
        if self._sessions.holds(request.headers):
            return Reply(303, b"", to_page)
        try:
            session = self._sessions.admit(key)
        except ForbiddenError:
            return _html("locked.html", 403)
        _LOG.info("a browser has opened the page; the next one can by %s", self.page_link(url))
        return Reply(303, b"", {"Set-Cookie": set_cookie(session, self._secure), **to_page})

    async def close(self) -> None:
        """End all streams, and give up the looks that are being made."""
        self._closing.set()
        for watched in self._watched.values():
            await watched.looks.close()

    async def _stream(self, request: web.BaseRequest, experiment: str) -> web.StreamResponse:
        if self._n_viewers >= MOST_VIEWERS:
            raise TooManyViewersError(f"The page is open {MOST_VIEWERS} times already.")
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream", "Server": "shadowsim"})
        self._n_viewers += 1
        try:
            await response.prepare(request)
            while not self._closing.is_set():
                try:
                    event = await self._event(experiment)
                except ShadowsimError as error:  # as of a full disk
                    event = json.dumps({"problem": str(error)}).encode()
                except Exception:
                    _LOG.exception("a defect of the server while describing an experiment for the page")
                    break  # the browser asks again
                await response.write(b"event: state\ndata: " + event + b"\n\n")
                try:
                    await asyncio.wait_for(self._closing.wait(), PERIOD_S)
                except TimeoutError:
                    continue
        finally:
            self._n_viewers -= 1
        return response

    async def _event(self, experiment: str) -> bytes:
        """Return the present state as JSON, which all who ask within a period share."""
        began, task = self._made.get(experiment, (-PERIOD_S, None))
        if task is None or perf_counter() - began > 0.9 * PERIOD_S:
            self._made = {name: made for name, made in self._made.items() if perf_counter() - made[0] < 10 * PERIOD_S}
            task = asyncio.create_task(self._make(experiment))
            self._made[experiment] = perf_counter(), task
        return await asyncio.shield(task)

    async def _make(self, experiment: str) -> bytes:
        now_s = self._store.clock.now()
        world = self._store.world_at(now_s)
        state = account_state(world, now_s, self._store.clock.scale)
        name = experiment or (state["experiments"][0]["name"] if state["experiments"] else "")
        record = world.experiments.get(name)
        if record is None:
            state["experiment"] = None
            state["missing"] = shown(experiment) if experiment else ""
            return json.dumps(state).encode()
        live = self._endpoints.by_name.get(record.endpoint_name)
        one = state["experiment"] = experiment_state(world, record, live)
        watched = self._watch(record)
        if watched is None:
            return json.dumps(state).encode()
        ended_s = record.completed_s
        age_s = self._age_s(now_s if ended_s is None else ended_s, watched.logbook)
        one["age_s"], one["counts"] = age_s, counts_state(watched.logbook)
        would_be_s = self._age_s(now_s, watched.logbook)
        watched.looks.begin_due(age_s, would_be_s)
        one["looks"] = looks_state(watched.looks, would_be_s)
        async with watched.lock:
            return await asyncio.to_thread(_complete, state, watched.timeline, age_s)

    def _watch(self, record: ExperimentRecord) -> _Watched | None:
        """Return what is kept of a watched experiment; None if the server has not seen its shadow serve."""
        logbook = self._endpoints.logbook(record.name)
        if logbook is None or logbook.created_s != record.created_s:
            return None
        watched = self._watched.get(record.name)
        if watched is None or watched.logbook is not logbook:
            clock = self._store.clock
            plan = LookPlan.of(max(self._age_s(record.stage.end_s, logbook), 1.0))
            ages_s = (plan.age_s(look + 1) for look in range(len(plan.fractions)))
            moments = [moment_text(clock.at(logbook.began_s) + age_s * clock.scale) for age_s in ages_s]
            watched = self._watched[record.name] = _Watched(logbook, Timeline(logbook), Looks(logbook, plan, moments))
            while len(self._watched) > KEPT_WATCHED:
                del self._watched[next(iter(self._watched))]
        return watched

    def _age_s(self, moment_s: float, logbook: Logbook) -> float:
        """Return the wall seconds from the beginning of a logbook to a moment of the schedules' clock."""
        clock = self._store.clock
        return max((moment_s - clock.at(logbook.began_s)) / clock.scale, 0.0)


def _complete(state: dict[str, Any], timeline: Timeline, age_s: float) -> bytes:
    """Put an experiment's timeline into its state; to be called in a thread."""
    timeline.update(age_s)
    state["experiment"]["timeline"] = timeline.figures(age_s)
    return json.dumps(state).encode()


@cache
def page_file(name: str) -> Reply | None:
    """Return a style sheet or a script of the page; None if there is none of this name."""
    if name == "page.css":
        text = "\n".join((files(package) / file).read_text(encoding="utf-8") for package, file in _STYLE)
        return Reply(200, text.encode(), {"Content-Type": "text/css; charset=utf-8", **_HEADERS})
    if name in _SCRIPTS:
        text = (files("shadowsim.server.page") / name).read_text(encoding="utf-8")
        return Reply(200, text.encode(), {"Content-Type": "text/javascript; charset=utf-8", **_HEADERS})
    return None


def _html(name: str, status: int) -> Reply:
    body = (files("shadowsim.server.page") / name).read_bytes()
    return Reply(status, body, {"Content-Type": "text/html; charset=utf-8", **_HEADERS})
