"""Serve command: the options of `shadowsim serve`, the lines that it prints, its start and its stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from shadowsim.cli.option_parsers import number, option_parser, positive_s, seconds, whole
from shadowsim.errors import InputError, ShadowsimError
from shadowsim.option_defaults import (
    FLUSH_S,
    MAX_BODY_BYTES,
    PORT,
    SERVER_SEED,
    SKEW_S,
    STREAM_S,
    TIME_SCALE,
    TRANSITION_S,
)
from shadowsim.server.log_format import FORMATS, start_log
from shadowsim.server.own_process import allow_connections, settle_memory

if TYPE_CHECKING:
    from shadowsim.scenario.reading import Mirroring
    from shadowsim.scenario.service import Service
    from shadowsim.server.app import App
    from shadowsim.server.processes.supervisor import StoreFacts, Supervisor
    from shadowsim.server.state.store import Store
    from shadowsim.server.state.undocumented import Undocumented

VARIABLES = (
    *("AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL_CLOUDWATCH"),
    "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING",
)
ONE_SIGNAL_S = 0.1
_LOG = logging.getLogger(__name__)
_EXAMPLES = """\b
Examples:
  shadowsim serve
  shadowsim serve --db rehearsal.db --backend my-model=http://127.0.0.1:8080
  shadowsim serve --scenario scenario.json --time-scale 3600
"""


app = typer.Typer()


@app.command(epilog=_EXAMPLES)
def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to bind.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole, least=0, most=65_535), metavar="N", help="Port to bind; 0 picks a free one."
        ),
    ] = PORT,
    db: Annotated[
        str, typer.Option(metavar="FILE", help="SQLite file that keeps the state; :memory: keeps none.")
    ] = ":memory:",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=URL[,URL...]",
            help="Containers of a model, one URL per instance; repeatable. Other models are simulated.",
        ),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="S.json", help="Scenario with service models, mirror and endpoint settings."),
    ] = None,
    time_scale: Annotated[
        float,
        typer.Option(
            parser=option_parser(number), metavar="N", help="Speed of schedules and status changes, as a factor."
        ),
    ] = TIME_SCALE,
    transition_s: Annotated[
        float,
        typer.Option(
            parser=option_parser(seconds),
            metavar="S",
            help="Seconds that Creating, Starting, Updating and Stopping take, in scaled time.",
        ),
    ] = TRANSITION_S,
    quotas: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Quotas file; `default`: a new AWS account's quotas.", show_default="generous quotas"
        ),
    ] = None,
    s3_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder for captures, with a folder per bucket; not used if AWS_ENDPOINT_URL_S3 is set.",
        ),
    ] = Path("shadowsim-s3"),
    flush_s: Annotated[
        float,
        typer.Option(
            parser=option_parser(positive_s, most=86_400.0), metavar="S", help="Seconds between writes of captures."
        ),
    ] = FLUSH_S,
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="AWS credentials file: requests must be signed with one of its keys."),
    ] = None,
    skew_s: Annotated[
        float,
        typer.Option(
            parser=option_parser(positive_s, most=86_400.0),
            metavar="S",
            help="Permitted clock skew of signatures, in seconds.",
        ),
    ] = SKEW_S,
    refuse_replays: Annotated[
        bool, typer.Option("--refuse-replays", help="Refuse a signed request that has come before, as AWS does not.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate in PEM, for https; needs --tls-key.", show_default="plain http"),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, in PEM.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept unsigned requests from other machines.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Additional name to accept in the Host header; repeatable.")
    ] = None,
    max_body_bytes: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole, most=2**30),
            metavar="N",
            help="Longest body of an invocation and of its answer.",
        ),
    ] = MAX_BODY_BYTES,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            parser=option_parser(positive_s, most=3600.0),
            metavar="S",
            help="Time limit of a model's answer, in seconds.",
            show_default="the scenario's, or SageMaker's 60",
        ),
    ] = None,
    stream_timeout_s: Annotated[
        float,
        typer.Option(
            parser=option_parser(positive_s, most=3600.0),
            metavar="S",
            help="Time limit of a whole streamed answer, in seconds; its first byte has that of any answer.",
        ),
    ] = STREAM_S,
    seed: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole, least=0),
            metavar="N",
            help="Seed of simulated backends, sampling and routing.",
        ),
    ] = SERVER_SEED,
    log_format: Annotated[
        str, typer.Option(parser=parse_log_format, metavar="text|json", help="Form of the log; json has times.")
    ] = "text",
    processes: Annotated[
        int,
        typer.Option(
            parser=option_parser(whole, least=1, most=64),
            metavar="N",
            help="Processes that serve callers; with 2 or more, copies and the control plane have their own, too.",
        ),
    ] = 1,
    region: Annotated[str, typer.Option(help="Region used in ARNs.")] = "us-east-1",
    account: Annotated[str, typer.Option(help="Account used in ARNs: 12 digits.")] = "111122223333",
    choose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Choice where AWS documents nothing, such as desired_state=Completed; repeatable.",
        ),
    ] = None,
) -> None:
    """Run a local stand-in for SageMaker.

    It serves boto3, the AWS CLI and callers of endpoints. Shadow tests are created, started, stopped and deleted as on
    AWS. Requests are copied to containers or to simulated instances. State is kept in a file or in memory. The server
    fetches nothing that a request names. On SIGHUP it writes captures and reads the files of --credentials, --tls-cert,
    --tls-key and --quotas again.
    """
    from shadowsim.server.app import App
    from shadowsim.server.data_plane.capture_journal import CaptureJournal
    from shadowsim.server.data_plane.invoke import Limits
    from shadowsim.server.data_plane.mirror import CopyLimits
    from shadowsim.server.http.access import check_bind
    from shadowsim.server.http.signatures import read_credentials
    from shadowsim.server.http.tls import Certificate
    from shadowsim.server.processes.supervisor import Supervisor, n_processes
    from shadowsim.server.settings import Settings
    from shadowsim.server.state.destinations import sink_of
    from shadowsim.server.state.quotas import Quotas
    from shadowsim.server.state.store import Store

    check_bind(host, credentials is not None, insecure)
    containers = dict(map(parse_backend, backend or []))
    of_scenario = scenario_settings(scenario, timeout_s)
    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert", "needs --tls-key, and --tls-key needs --tls-cert: give both, or none")
    certificate = Certificate(tls_cert, tls_key) if tls_cert and tls_key else None
    start_log(log_format)
    kept: dict[str, Any] = {
        "path": db,
        "choices": parse_choices(choose or []),
        "probed": frozenset(containers),
        "region": region,
        "account": account,
        "time_scale": time_scale,
        "transition_s": transition_s,
    }
    settings = Settings(
        host=host,
        hosts=tuple(allow_host or ()),
        containers=containers,
        services=of_scenario.services,
        routing=of_scenario.routing,
        mirroring=of_scenario.mirroring,
        copy_limits=CopyLimits(timeout_s=of_scenario.timeout_s),
        overhead_s=of_scenario.overhead_s,
        limits=Limits(max_body_bytes, of_scenario.timeout_s, stream_timeout_s, account=account, region=region),
        sink=sink_of(s3_root, dict(os.environ)),
        secrets=None if credentials is None else read_credentials(credentials),
        port=port,
        seed=seed,
        flush_s=flush_s,
        certificate=certificate,
        skew_s=skew_s,
        refuse_replays=refuse_replays,
    )
    files = ReloadedFiles(credentials, None if quotas == "default" else quotas)
    of_account = Quotas.read(quotas)
    if (n_workers := n_processes(processes)) > 1:
        _run(Supervisor(settings, kept, of_account, n_workers, log_format), files)
        return
    with Store(kept.pop("path"), quotas=of_account, **kept) as store:
        limits = replace(settings.limits, account=store.account, region=store.region)
        journal = CaptureJournal(Path(f"{db}-captures")) if store.is_kept else None
        _run(App(replace(settings, limits=limits, journal=journal), store), files)


def _run(server: App | Supervisor, files: ReloadedFiles) -> None:
    from shadowsim.kernel_timer import exact_loop

    with asyncio.Runner(loop_factory=exact_loop) as runner:
        runner.run(_serve(server, files))


@dataclass(frozen=True, slots=True)
class ReloadedFiles:
    """The files that SIGHUP reads again, besides the certificate's; None for those that were not given."""

    credentials: Path | None
    quotas: str | None


@dataclass(frozen=True, slots=True)
class ScenarioSettings:
    """Settings of a server that a scenario holds.

    Attributes
    ----------
    services : mapping of str to Service
        By variant.
    routing : mapping of str to str
        Routing strategies by variant; empty if the scenario leaves them open.
    mirroring : Mirroring
    timeout_s : float
        Time limit for an answer.
    overhead_s : float
        What answers of simulated instances take beyond the model's latency.
    """

    services: Mapping[str, Service]
    routing: Mapping[str, str]
    mirroring: Mirroring
    timeout_s: float
    overhead_s: float = 0.0


def scenario_settings(file: Path | None, timeout_s: float | None) -> ScenarioSettings:
    """Return the settings in a scenario file, or the defaults without one; a given time-out takes precedence.

    Raises
    ------
    InputError, ValidationError, SerializationError
        The file is not a scenario, or has a service that a server cannot simulate.
    """
    from shadowsim.scenario.reading import TIMEOUT_S, Mirroring
    from shadowsim.scenario.scenario import Scenario
    from shadowsim.server.data_plane.simulated import check_simulable

    if file is None:
        return ScenarioSettings({}, {}, Mirroring(), timeout_s or TIMEOUT_S)

    scenario = Scenario.load(file)
    for name, service in scenario.services.items():
        check_simulable(service, f"services.{name}")
    # Routing that the scenario leaves open is the endpoint configuration's.
    routing = scenario.routing if scenario.document.get("endpoint", {}).get("routing") else {}  # type: ignore[attr-defined]
    return ScenarioSettings(
        scenario.services, routing, scenario.mirroring, timeout_s or scenario.timeout_s, scenario.overhead_s
    )


async def _serve(app: App | Supervisor, files: ReloadedFiles) -> None:
    allow_connections()
    stopping = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    def start_reload() -> None:
        if app.url and not stopping.is_set():
            reloads.add(task := asyncio.get_running_loop().create_task(_reload(app, files)))
            task.add_done_callback(reloads.discard)

    _handle_signals(stopping, start_reload, app.abandon)
    try:
        await app.start()
    except OSError as error:
        host = app.settings.host
        # Python 3.13 gives no number where none of a host's addresses is the machine's.
        if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, None):
            raise InputError("--host", "must be an address or a name of this machine", host) from None
        why = error.strerror or error
        raise InputError("--port", f"{host}:{app.settings.port} cannot be bound: {why}") from None
    settle_memory()
    try:
        for line in startup_lines(app, app.store):
            typer.echo(line)
        await stopping.wait()
        typer.echo("stopping: finishing requests in flight, writing captures")
    finally:
        await app.stop()
    if app.n_lost:
        _LOG.error("%d lines of captures were lost", app.n_lost)
    if app.n_left:
        _LOG.error("%d lines of captures could not be written, and wait for the next server", app.n_left)
    if app.n_lost or app.n_left:
        raise typer.Exit(1)


async def _reload(app: App | Supervisor, files: ReloadedFiles) -> None:
    """Read files again and write captures; a file that cannot be used leaves in force what was."""
    from shadowsim.server.http.signatures import read_credentials
    from shadowsim.server.state.quotas import Quotas

    done = []

    def of_credentials(file: Path) -> None:
        app.replace_secrets(read_credentials(file))

    def of_quotas(file: str) -> None:
        app.replace_quotas(Quotas.read(file))

    for name, work in (
        ("credentials", files.credentials and partial(of_credentials, files.credentials)),
        ("quotas", files.quotas and partial(of_quotas, files.quotas)),
        ("certificate", app.settings.certificate and app.read_certificate),
    ):
        if work:
            try:
                work()
                done.append(name)
            except ShadowsimError as error:
                _LOG.error("SIGHUP: the %s in force stay, since the new ones cannot be used: %s", name, error)
    await app.flush_captures()
    read = f"read {', '.join(done)} again, and " if done else ""
    _LOG.info("SIGHUP: %swrote captures", read)


def _handle_signals(stopping: asyncio.Event, start_reload: Callable[[], None], abandon: Callable[[], None]) -> None:
    """Stop at the first SIGTERM or Ctrl-C, end at once at the second, and reload at SIGHUP.

    The first one again within ONE_SIGNAL_S is no second: `timeout` sends to the process and to its group, and nobody
    presses Ctrl-C that fast.
    """
    loop = asyncio.get_running_loop()
    first, first_s = 0, 0.0

    def handle(number: int) -> None:
        nonlocal first, first_s
        if stopping.is_set():
            if number == first and loop.time() - first_s < ONE_SIGNAL_S:
                return
            _LOG.error("ending at once, as by kill -9: requests in flight are lost")
            abandon()
            os._exit(128 + number)
        first, first_s = number, loop.time()
        stopping.set()

    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, handle, stop)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, start_reload)


def startup_lines(app: App | Supervisor, store: Store | StoreFacts) -> Iterator[str]:
    """Yield the lines printed at the start: where state is kept, the URLs, and the variables that boto3 needs."""
    from shadowsim.server.http.browser_sessions import first_link

    if store.is_kept:
        yield f"state is kept in {store.path}"
    else:
        yield "state is kept in memory only and is lost when the server stops (--db FILE keeps it)"
    if store.clock.scale != 1.0:
        scaled = datetime.fromtimestamp(store.clock.now(), UTC)
        yield f"schedules run {store.clock.scale:g} times as fast; their clock shows {scaled:%Y-%m-%dT%H:%M:%SZ}"
    for name, service in app.settings.services.items():
        if service.scaling is not None:
            what = "nothing scales until RegisterScalableTarget and PutScalingPolicy say so"
            yield f"{name}: {what}; out_points, in_points and delay_s are those of its scaling"
    yield f"shadowsim serves at {app.url}"
    once = "" if app.token is None else " (for one browser, once; then the log tells the next link)"
    yield f"live page: {first_link(app.url, app.token)}{once}"
    for name in VARIABLES:
        yield f"export {name}={app.url}"
    yield f"export AWS_DEFAULT_REGION={store.region}"
    if app.token is None:
        yield from ("export AWS_ACCESS_KEY_ID=any", "export AWS_SECRET_ACCESS_KEY=any")
        yield "# requests are not authenticated: any credentials and any region will do"
    else:
        yield f"# requests must be signed; {app.url}/metrics and frames need ?token={app.token.text}"


def parse_log_format(text: str) -> str:
    """Parse the value of --log-format.

    Raises
    ------
    InputError
        It is none of its formats.
    """
    if text not in FORMATS:
        raise InputError("--log-format", f"must be {' or '.join(FORMATS)}", text)
    return text


def parse_choices(texts: Sequence[str]) -> Undocumented:
    """Parse `NAME=VALUE` texts into choices.

    Raises
    ------
    InputError
        An unknown name, or a value that is not one of its choices.
    """
    from shadowsim.server.state.undocumented import CHOICES, Undocumented

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in CHOICES:
            raise InputError("--choose", f"must be NAME=VALUE, where NAME is one of {', '.join(CHOICES)}", text)
        values[name] = {str(choice).lower(): choice for choice in CHOICES[name]}.get(value.lower(), value)
    try:
        return Undocumented(**values)
    except InputError as error:
        raise InputError(f"--choose {error.path}", error.constraint, *error.value) from None


def parse_backend(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse `MODEL=URL[,URL...]` into the model and its URLs.

    Raises
    ------
    InputError
        The text has another form, or a URL is not the root of an HTTP server.
    """
    model, _, listed = text.partition("=")
    urls = tuple(url.strip() for url in listed.split(",") if url.strip())
    if not model or not urls:
        raise InputError("--backend", "must be MODEL=http://host:port[,http://...]", text)
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
            valid = valid and (parts.port is None or parts.port > 0) and url.isprintable() and " " not in url
        except ValueError:
            valid = False
        if not valid:
            raise InputError("--backend", "must have URLs such as http://127.0.0.1:8080", url)
    return model, urls
