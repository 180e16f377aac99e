"""Loads a real service with the traffic of a scenario, and measures it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import numpy as np

from shadowsim import __version__
from shadowsim.arrays import Floats
from shadowsim.errors import InputError
from shadowsim.measuring.generator.bodies import Bodies, read_bodies
from shadowsim.measuring.generator.load_frames import load_frames
from shadowsim.measuring.generator.load_processes import run_job, run_jobs, runner, shares
from shadowsim.measuring.generator.load_records import CUT, DROPPED, UNAVAILABLE, LiveCounts, RecordTable, merged
from shadowsim.measuring.generator.load_run import LoadRun
from shadowsim.measuring.generator.load_schedule import (
    LoadSchedule,
    bodies_of,
    load_assumptions,
    load_scenario,
    parse_stages,
    schedule_of,
)
from shadowsim.measuring.generator.saturation import GeneratorLimits, held_open, judge
from shadowsim.measuring.generator.sender import Control, Ladder, LoadJob, LoadStage, Sent
from shadowsim.measuring.generator.targets import HTTP, OPENAI, Target, checked_url, endpoint_target
from shadowsim.quantities import integer, number
from shadowsim.scenario.scenario import Scenario

URL_PROTOCOLS = (HTTP, OPENAI)
_UNREACHABLE_S, _FEWEST_UNREACHABLE = 2.0, 3  # from the first counts on, a second after the start; and of requests
_SECRET = ("authorization", "cookie", "token", "secret", "key")  # in names of headers whose values are not written


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A load run before it starts: what to send where.

    Attributes
    ----------
    target : Target
    scenario : Scenario
    schedule : LoadSchedule
        Empty with a ladder.
    bodies : Bodies
    timeout_s : float
    max_in_flight : int or None
    max_rate_per_s : float or None
    processes : int
    ladder : Ladder or None
    limits : GeneratorLimits
    keep_going : bool
        Whether a service that nothing reaches is waited for.
    """

    target: Target
    scenario: Scenario
    schedule: LoadSchedule
    bodies: Bodies
    timeout_s: float
    max_in_flight: int | None
    max_rate_per_s: float | None
    processes: int
    ladder: Ladder | None
    limits: GeneratorLimits
    keep_going: bool

    @property
    def job(self) -> LoadJob:
        """All of it, for one process."""
        due_s = self.schedule.due_s
        return LoadJob(
            target=self.target,
            bodies=self.bodies,
            due_s=due_s,
            number=np.arange(due_s.size),
            stage=self.schedule.stage,
            timeout_s=self.timeout_s,
            max_in_flight=self.max_in_flight,
            max_rate_per_s=self.max_rate_per_s,
            ladder=self.ladder,
        )


def load(
    url: str | None = None,
    *,
    endpoint: str | None = None,
    scenario: object = None,
    rate_per_s: float | None = None,
    duration_s: float | None = None,
    stages: str | Sequence[tuple[float, float]] = (),
    characterise: bool | Ladder = False,
    changes: Mapping[str, object] | None = None,
    seed: int | None = None,
    body: bytes | str | os.PathLike[str] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    protocol: str = HTTP,
    stream: bool = False,
    inference_ids: bool | None = None,
    endpoint_url: str | None = None,
    region: str | None = None,
    real_aws: bool = False,
    max_rate_per_s: float | None = None,
    max_in_flight: int | None = None,
    timeout_s: float | None = None,
    processes: int = 1,
    limits: GeneratorLimits | None = None,
    keep_going: bool = False,
    on_counts: Callable[[LiveCounts, float], None] | None = None,
) -> LoadRun:
    """Load a service with planned requests and measure it; works in scripts, threads and notebooks alike.

    Requests leave at their planned times, whatever the answers, and latency counts from there. An interrupt (Ctrl-C)
    ends the run and keeps what was measured: `about["interrupted"]` says so. A second one does not wait for answers.

    Parameters
    ----------
    url : str, optional
        Where requests go; or else `endpoint`.
    endpoint : str, optional
        A SageMaker endpoint, whose requests are signed.
    scenario : Scenario, mapping or path, optional
        Its traffic, horizon and seed; by default Poisson arrivals at `rate_per_s` for `duration_s` (60 s).
    rate_per_s, duration_s : float, optional
    stages : str or sequence of (float, float), optional
        "10/s 30s, 20/s 30s", or rates per second and lengths in seconds: Poisson arrivals at one after the other.
    characterise : bool or Ladder
        Run the designed experiment for `calibrate` instead: single requests, rising concurrency, mixed load.
    changes : mapping, optional
        Changes of the scenario, as for `Scenario.replace`.
    seed : int, optional
    body : bytes or path, optional
        As `bodies` describes; by default random bytes of the scenario's `request_bytes`, or an empty body.
    headers : mapping, optional
    method : str
    protocol : str
        Of a URL: http, or openai for completions, whose tokens are timed and counted.
    stream : bool
        Of an endpoint: InvokeEndpointWithResponseStream.
    inference_ids : bool, optional
        Whether requests bear an inference id; by default those of an endpoint do.
    endpoint_url, region : str, optional
        Of the SageMaker runtime.
    real_aws : bool
        Must be set for requests that go to AWS, together with `max_rate_per_s`.
    max_rate_per_s : float, optional
        A ceiling of the rate. Requests that it holds back make the run no longer open.
    max_in_flight : int, optional
        A cap; requests beyond it are dropped and counted.
    timeout_s : float, optional
        By default the scenario's `endpoint.timeout_s`, 60 s.
    processes : int
    limits : GeneratorLimits, optional
        Beyond which the run is invalid.
    keep_going : bool
        Whether to go on when no request at all has reached the service, as for one that starts later. By default such
        a run ends after 3 s. A service that was reached once may be away for as long as it likes.
    on_counts : callable, optional
        Is given the counts since the start and the seconds since then, once a second.

    Returns
    -------
    LoadRun

    Raises
    ------
    InputError
        What is wrong, by the name of the option; or that the service cannot be reached.

    Notes
    -----
    With a service at this address::

        run = ss.load("http://127.0.0.1:8080/invocations", rate_per_s=200, duration_s=60)
        run.verdict.status, run.quantile(0.99)

    Examples
    --------
    >>> import threading, shadowsim as ss
    >>> from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    >>> class Service(BaseHTTPRequestHandler):
    ...     protocol_version = "HTTP/1.1"
    ...     def do_POST(self):
    ...         self.rfile.read(int(self.headers["Content-Length"]))
    ...         self.send_response(200)
    ...         self.send_header("Content-Length", "2")
    ...         self.end_headers()
    ...         self.wfile.write(b"ok")
    ...     def log_message(self, *args): pass
    >>> server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    >>> threading.Thread(target=server.serve_forever, daemon=True).start()
    >>> run = ss.load(f"http://127.0.0.1:{server.server_port}", rate_per_s=20, duration_s=1)
    >>> sorted(set(run.requests["status"]))
    ['answered']
    >>> server.shutdown(); server.server_close()
    """
    planned = plan_load(
        url,
        endpoint=endpoint,
        scenario=scenario,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        stages=stages,
        characterise=characterise,
        changes=changes,
        seed=seed,
        body=body,
        headers=headers,
        method=method,
        protocol=protocol,
        stream=stream,
        inference_ids=inference_ids,
        endpoint_url=endpoint_url,
        region=region,
        real_aws=real_aws,
        max_rate_per_s=max_rate_per_s,
        max_in_flight=max_in_flight,
        timeout_s=timeout_s,
        processes=processes,
        limits=limits,
        keep_going=keep_going,
    )
    return run_in_thread(planned, on_counts)


def run_in_thread(plan: LoadPlan, on_counts: Callable[[LiveCounts, float], None] | None = None) -> LoadRun:
    """Send what was planned from outside of any event loop, or from inside of one, which then stands still."""
    control = Control()
    outcome: list[LoadRun | BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []
    interrupts: list[int] = []

    async def core() -> LoadRun:
        loops.append(asyncio.get_running_loop())
        for _ in interrupts:  # that came before there was a loop
            control.stop()
        return await run_plan(plan, control, on_counts)

    def go() -> None:
        try:
            with runner() as run:
                outcome.append(run.run(core()))
        except BaseException as error:
            outcome.append(error)

    def stop(signal_number: int, *_: object) -> None:
        if not loops:
            interrupts.append(signal_number)
            return
        with contextlib.suppress(RuntimeError):  # the run has just ended
            loops[0].call_soon_threadsafe(control.stop)

    # A thread of its own: a notebook's has a running loop, and the main one stays free for signals.
    thread = threading.Thread(target=go, name="shadowsim-load", daemon=True)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, stop) if in_main else None
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


async def load_async(
    url: str | None = None,
    *,
    control: Control | None = None,
    on_counts: Callable[[LiveCounts, float], None] | None = None,
    **options: Any,
) -> LoadRun:
    """Load a service from a running event loop; options as for `load`, and a `Control` that can stop it."""
    planned = await asyncio.to_thread(lambda: plan_load(url, **options))
    return await run_plan(planned, control or Control(), on_counts)


def plan_load(
    url: str | None = None,
    *,
    endpoint: str | None = None,
    scenario: object = None,
    rate_per_s: float | None = None,
    duration_s: float | None = None,
    stages: str | Sequence[tuple[float, float]] = (),
    characterise: bool | Ladder = False,
    changes: Mapping[str, object] | None = None,
    seed: int | None = None,
    body: bytes | str | os.PathLike[str] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    protocol: str = HTTP,
    stream: bool = False,
    inference_ids: bool | None = None,
    endpoint_url: str | None = None,
    region: str | None = None,
    real_aws: bool = False,
    max_rate_per_s: float | None = None,
    max_in_flight: int | None = None,
    timeout_s: float | None = None,
    processes: int = 1,
    limits: GeneratorLimits | None = None,
    keep_going: bool = False,
) -> LoadPlan:
    """Check what a run is asked to do, and plan it; parameters and errors are those of `load`."""
    if (url is None) == (endpoint is None):
        raise InputError("url", "must be given, or `endpoint`, and not both", *([] if url is None else [url]))
    if protocol not in URL_PROTOCOLS:
        raise InputError("protocol", f"must be one of {', '.join(URL_PROTOCOLS)}", protocol)
    processes = integer(processes, "processes", least=1, most=64)
    if max_in_flight is not None and integer(max_in_flight, "max_in_flight", least=1) < processes:
        raise InputError("max_in_flight", f"must be >= {processes}, the number of processes", max_in_flight)
    if rate_per_s is not None:
        rate_per_s = number(rate_per_s, "rate_per_s", above=0.0)
    if max_rate_per_s is not None:
        max_rate_per_s = number(max_rate_per_s, "max_rate_per_s", above=0.0)
    if timeout_s is not None:
        timeout_s = number(timeout_s, "timeout_s", above=0.0, most=3600.0)
    ids = f"load-{uuid4().hex[:12]}-" if inference_ids or (inference_ids is None and endpoint is not None) else ""
    target = _target(url, endpoint, protocol, stream, method, headers, endpoint_url, region, ids)
    if target.is_aws:
        if not real_aws:
            what = "must be given to send requests to AWS itself, where they cost money and may hurt an endpoint"
            raise InputError("real_aws", what)
        if characterise:
            raise InputError("characterise", "must not be given for AWS itself: no ceiling holds for its ladder")
        if max_rate_per_s is None:
            raise InputError("max_rate_per_s", "must be given together with `real_aws`: the most requests per second")
    ladder = (Ladder() if seed is None else Ladder(seed=seed)) if characterise is True else characterise or None
    steps = parse_stages(stages) if isinstance(stages, str) else list(stages)
    if ladder is not None:
        given = {
            "rate_per_s": rate_per_s,
            "duration_s": duration_s,
            "stages": steps or None,
            "max_rate_per_s": max_rate_per_s,
        }
        given |= {"max_in_flight": max_in_flight, "processes": None if processes == 1 else processes}
        for option, value in given.items():
            if value is not None:
                raise InputError(option, "must not be given together with `characterise`", value)
        rate_per_s = None if scenario is not None else 1.0  # a place holder, until the run has its rate
    planned = load_scenario(
        scenario,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        stages=steps,
        changes=changes,
        seed=seed,
        name=endpoint or "load",
    )
    planned = load_assumptions(planned)
    none = np.empty(0, np.int64)
    schedule = LoadSchedule(np.empty(0), none) if ladder is not None else schedule_of(planned, steps)
    return LoadPlan(
        target=target,
        scenario=planned,
        schedule=schedule,
        bodies=_bodies(body, planned, schedule.due_s.size),
        timeout_s=timeout_s or planned.timeout_s,
        max_in_flight=max_in_flight,
        max_rate_per_s=max_rate_per_s,
        processes=processes,
        ladder=ladder,
        limits=limits or GeneratorLimits(),
        keep_going=keep_going,
    )


async def run_plan(
    plan: LoadPlan, control: Control, on_counts: Callable[[LiveCounts, float], None] | None = None
) -> LoadRun:
    """Send what was planned, and return what was measured."""
    _raise_file_limit()
    began_s = monotonic()

    failing_since_s, gives_up = math.inf, False

    def tell(counts: LiveCounts) -> None:
        nonlocal failing_since_s, gives_up
        if on_counts is not None:
            on_counts(counts, monotonic() - began_s)
        if plan.keep_going or counts.unreachable < counts.answered + counts.failed or not counts.unreachable:
            return
        failing_since_s = min(failing_since_s, monotonic())
        enough = counts.unreachable >= _FEWEST_UNREACHABLE and monotonic() - failing_since_s >= _UNREACHABLE_S
        if enough and not control.stopped.is_set():
            gives_up = True
            control.stop()

    if plan.processes == 1:
        sent = await run_job(plan.job, control, tell)
    else:
        sent = await run_jobs(shares(plan.job, plan.processes), control, tell)
    if not plan.keep_going and (gives_up or not control.stopped.is_set()):
        _check_reached(plan.target, merged([part.table for part in sent]))
    return await asyncio.to_thread(_measured, plan, sent)


def _check_reached(target: Target, table: RecordTable) -> None:
    """Refuse a run of which not one request reached the service: it says nothing but that the address is wrong."""
    status = table["status"]
    n = int((status == UNAVAILABLE).sum())
    if n < _FEWEST_UNREACHABLE or not np.isin(status, (UNAVAILABLE, DROPPED, CUT)).all():
        return
    why = next(iter(_causes(table)), "")
    raise InputError(
        "url" if target.protocol in URL_PROTOCOLS else "endpoint",
        f"must be a service that can be reached, but all {n:,} requests failed ({why})",
        target.url,
        hint="; is it running? `keep_going` waits for one that starts later",
    )


def _measured(plan: LoadPlan, sent: Sequence[Sent]) -> LoadRun:
    started = datetime.now(UTC) - timedelta(seconds=monotonic() - sent[0].start_s)
    table = merged([part.table for part in sent])
    stages = sent[0].stages if plan.ladder is not None else plan.schedule.stages
    interrupted = any(part.stopped for part in sent)
    scenario = _followed(plan, table, stages, interrupted, max(part.sending_s for part in sent))
    frames = load_frames(scenario, table, plan.target.id_prefix)
    verdict = judge(table, sent, len(table), plan.limits)
    about = {
        "shadowsim": __version__,
        "started": started.isoformat(),
        "target": {
            "protocol": plan.target.protocol,
            "method": plan.target.method,
            "url": plan.target.url,
            "headers": {
                n: "..." if any(s in n.lower() for s in _SECRET) else v for n, v in plan.target.headers.items()
            },
        },
        "timeout_s": plan.timeout_s,
        "max_in_flight": plan.max_in_flight,
        "max_rate_per_s": plan.max_rate_per_s,
        "asked": _asked(plan, table, scenario),
        "achieved": _achieved(table, sent, scenario),
        "causes": _causes(table),
        "stages": [
            {
                "kind": s.kind,
                "begin_s": s.begin_s,
                "end_s": s.end_s,
                "rate_per_s": s.rate_per_s,
                "in_flight": s.in_flight,
            }
            for s in stages
        ],
        "open_loop": held_open(table, plan.ladder is not None),
        "interrupted": interrupted,
        "limits": {
            "lag_s": plan.limits.lag_s,
            "lag_share": plan.limits.lag_share,
            "dropped": plan.limits.dropped,
            "cpu": plan.limits.cpu,
        },
        "verdict": verdict.status,
        "why": list(verdict.why),
    }
    tokens = frames["tokens"] if len(frames["tokens"]) else None
    return LoadRun(scenario, frames["windows"], frames["latency"], frames["requests"], about, tokens)


def _followed(
    plan: LoadPlan, table: RecordTable, stages: Sequence[LoadStage], interrupted: bool, sending_s: float
) -> Scenario:
    """Return the scenario as it was followed: up to an interrupt, or with the mean rate of a ladder."""
    scenario = plan.scenario
    if plan.ladder is None and not interrupted:
        return scenario
    last = float(np.max(table["planned"], initial=0.0))
    if plan.ladder is None:
        # all planned times lie before it, also where that is the last
        return _cut(plan, min(max(sending_s, last * (1.0 + 1e-12) + 1e-9), scenario.horizon_s))
    end_s = max([last * (1.0 + 1e-12) + 1e-9, *(stage.end_s for stage in stages)])
    rate = max(len(table), 1) / end_s
    followed = scenario.replace({"traffic": {"process": "poisson", "rate_per_s": rate}, "horizon_s": end_s})
    text = "traffic: requests came in the stages that load.json lists, partly as answers came; the rate is their mean."
    return replace(followed, assumed={**followed.assumed, "traffic": text})


def _cut(plan: LoadPlan, end_s: float) -> Scenario:
    """Return the scenario up to an interrupt, if its arrivals stay the same; a profile may be scaled by its mean."""
    due_s = plan.schedule.due_s
    try:
        shorter = plan.scenario.replace({"horizon_s": end_s})
        planned, sent = schedule_of(shorter).due_s, due_s[due_s < end_s]
        if planned.size == sent.size and np.allclose(planned, sent, rtol=0.0, atol=1e-6):  # knots are rounded
            return shorter
    except InputError:
        pass
    text = f"run.horizon_s: the run was interrupted after {end_s:.3g} s; its later windows are empty."
    return replace(plan.scenario, assumed={**plan.scenario.assumed, "run.horizon_s": text})


def _asked(plan: LoadPlan, table: RecordTable, scenario: Scenario) -> dict[str, object]:
    n = plan.schedule.due_s.size or len(table)
    horizon_s = plan.scenario.horizon_s if plan.schedule.due_s.size else scenario.horizon_s
    return {
        "requests": int(n),
        "duration_s": horizon_s,
        "rate_per_s": plan.scenario.traffic.mean_rate(horizon_s, plan.scenario.start)
        if plan.ladder is None
        else n / horizon_s,
        "drawn_rate_per_s": n / horizon_s,
        "gap_scv": _gap_scv(table["planned"]),
        "seed": plan.scenario.seed,
    }


def _achieved(table: RecordTable, sent: Sequence[Sent], scenario: Scenario) -> dict[str, object]:
    moments = np.sort(table["sent"][~np.isnan(table["sent"])])
    lag = table["lag"][~np.isnan(table["lag"])]
    inside = int((moments < scenario.horizon_s + 0.1).sum())  # one that left in the last moment counts
    return {
        "requests": int(moments.size),
        "dropped": int((table["status"] == DROPPED).sum()),
        "held_back": int(table["held"].astype(bool).sum()),
        "resent": sum(part.n_resent for part in sent),
        "rate_per_s": inside / scenario.horizon_s,
        "gap_scv": _gap_scv(moments),
        "lag_p50_s": float(np.quantile(lag, 0.5)) if lag.size else None,
        "lag_p99_s": float(np.quantile(lag, 0.99)) if lag.size else None,
        "lag_maximum_s": float(lag.max()) if lag.size else None,
        "processes": len(sent),
        "cpu_share": [part.cpu_share for part in sent],
        "starved_share": [None if np.isnan(part.starved_share) else part.starved_share for part in sent],
    }


def _gap_scv(moments: Floats) -> float | None:
    """Return variance / mean² of the times between moments."""
    gaps = np.diff(np.sort(moments))
    return float(gaps.var() / gaps.mean() ** 2) if gaps.size > 1 and gaps.mean() > 0.0 else None


def _causes(table: RecordTable) -> dict[str, int]:
    counts = np.bincount(table["cause"][table["cause"] >= 0], minlength=len(table.causes)).tolist()
    return dict(sorted(zip(table.causes, counts, strict=True), key=lambda one: -one[1]))


def _target(
    url: str | None,
    endpoint: str | None,
    protocol: str,
    stream: bool,
    method: str,
    headers: Mapping[str, str] | None,
    endpoint_url: str | None,
    region: str | None,
    ids: str,
) -> Target:
    if not method.isalpha():
        raise InputError("method", "must be a method of HTTP such as POST", method)
    for name, value in (headers or {}).items():
        if not name or not name.isascii() or any(c in f"{name}{value}" for c in "\r\n\0") or " " in name:
            raise InputError("headers", "must be a name and a value of HTTP", f"{name}: {value}")
    if url is not None:
        given = {"endpoint_url": endpoint_url, "region": region, "stream": "" if stream else None}
        for option in (name for name, one in given.items() if one is not None):
            raise InputError(option, "is for `endpoint`, not for a URL", *filter(None, [given[option]]))
        return Target(protocol, checked_url(url), method.upper(), dict(headers or {}), id_prefix=ids)
    assert endpoint is not None
    if method.upper() != "POST" or protocol != HTTP:
        raise InputError("method" if method.upper() != "POST" else "protocol", "is for a URL, not for `endpoint`")
    return endpoint_target(
        endpoint, endpoint_url=endpoint_url, stream=stream, region=region, headers=headers, id_prefix=ids
    )


def _bodies(body: bytes | str | os.PathLike[str] | None, scenario: Scenario, n_requests: int) -> Bodies:
    if isinstance(body, bytes):
        return Bodies((body,), ("application/octet-stream",))
    if body is not None:
        return read_bodies(body)
    return bodies_of(scenario, n_requests) or Bodies()


def _raise_file_limit() -> None:
    """Let this process and its children have as many sockets as the system allows."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, ValueError, OSError):  # not on this system
        pass
