"""`shadowsim serve`: its options, the lines that it prints, and how it stops."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from shadowsim.cli.options import number_of, only_given, positive_of, whole_of
from shadowsim.errors import InputError

if TYPE_CHECKING:
    from shadowsim.scenario.service import Service
    from shadowsim.server.app import App
    from shadowsim.server.data_plane.mirror import Mirroring
    from shadowsim.server.settings import Settings
    from shadowsim.server.state.store import Store
    from shadowsim.server.state.undocumented import Undocumented

PORT = 4599
_MOST_FILES, _MOST_FILES_SOON = 65_536, 8_192
_COLLECTED_AFTER = 500, 3, 500  # the young ones often and so briefly, the old ones hardly ever
VARIABLES = ("AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL_CLOUDWATCH")
_EXAMPLES = """\b
Examples:
  shadowsim serve
  shadowsim serve --db rehearsal.db --backend my-model=http://127.0.0.1:8080
  shadowsim serve --scenario scenario.json --time-scale 3600
"""


app = typer.Typer()


@app.command(epilog=_EXAMPLES)
def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="What to bind to.")] = "127.0.0.1",
    port: Annotated[str | None, typer.Option(metavar="N", help=f"0 is any free port. [{PORT}]")] = None,
    db: Annotated[str, typer.Option(metavar="FILE", help="Where state is kept; :memory: keeps none.")] = ":memory:",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=URL[,URL...]",
            help="A model's containers, one an instance; repeatable. Models without are simulated.",
        ),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="S.json", help="Service models, mirror and endpoint settings.")
    ] = None,
    time_scale: Annotated[
        str | None, typer.Option(metavar="N", help="Schedules and statuses pass N times as fast. [1]")
    ] = None,
    transition_s: Annotated[
        str | None,
        typer.Option(metavar="S", help="How long Creating, Starting, Updating and Stopping last, in their time. [1]"),
    ] = None,
    quotas: Annotated[
        str | None, typer.Option(metavar="FILE", help="Quotas; `default` is a new AWS account's. [generous ones]")
    ] = None,
    s3_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR", file_okay=False, help="Captures: a folder a bucket, unless AWS_ENDPOINT_URL_S3 is set."
        ),
    ] = Path("shadowsim-s3"),
    flush_s: Annotated[str | None, typer.Option(metavar="S", help="How often captures are written. [60]")] = None,
    credentials: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify signatures by the keys of this AWS credentials file.")
    ] = None,
    skew_s: Annotated[str | None, typer.Option(metavar="S", help="Permitted skew of a signature's date. [300]")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without signatures.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name in the Host header; repeatable.")
    ] = None,
    max_body_bytes: Annotated[
        str | None, typer.Option(metavar="N", help="Of an invocation and of its answer. [6291456]")
    ] = None,
    timeout_s: Annotated[
        str | None, typer.Option(metavar="S", help="How long a model may take. [the scenario's, or 60]")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Of the simulated backends, the copies and the routing. [7]")
    ] = None,
    region: Annotated[str, typer.Option(help="In ARNs.")] = "us-east-1",
    account: Annotated[str, typer.Option(help="In ARNs: 12 digits.")] = "111122223333",
    choose: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What AWS leaves open, as in desired_state=Completed; repeatable."),
    ] = None,
) -> None:
    """Stand where SageMaker stands, for boto3, the AWS CLI and whoever invokes endpoints.

    Shadow tests are created, started, stopped and deleted as on AWS; traffic is really copied, to containers or to
    simulated instances. State is kept in a file or not at all; nothing that a request names is ever fetched.
    """
    from shadowsim.server.data_plane.invoke import MAX_BODY_BYTES, Limits
    from shadowsim.server.http.access import check_bind
    from shadowsim.server.http.signatures import read_credentials
    from shadowsim.server.settings import Settings
    from shadowsim.server.state.destinations import sink_of
    from shadowsim.server.state.quotas import Quotas
    from shadowsim.server.state.store import Store

    check_bind(host, credentials is not None, insecure)
    most_bytes = whole_of("--max-body-bytes", max_body_bytes, 1, 2**30) or MAX_BODY_BYTES
    numbers = only_given(
        port=whole_of("--port", port, 0, 65_535),
        seed=whole_of("--seed", seed, 0),
        flush_s=positive_of("--flush-s", flush_s, 86_400.0),
        skew_s=positive_of("--skew-s", skew_s, 86_400.0),
    )
    times = only_given(
        time_scale=number_of("--time-scale", time_scale), transition_s=number_of("--transition-s", transition_s)
    )
    containers = dict(map(parse_backend, backend or []))
    said = _said(scenario, positive_of("--timeout-s", timeout_s, 3600.0))
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    with Store(
        db,
        choices=parse_choices(choose or []),
        probed=frozenset(containers),
        quotas=Quotas.read(quotas),
        region=region,
        account=account,
        **times,
    ) as store:
        settings = Settings(
            host=host,
            hosts=tuple(allow_host or ()),
            containers=containers,
            services=said.services,
            routing=said.routing,
            mirroring=said.mirroring,
            limits=Limits(most_bytes, said.timeout_s, store.account, store.region),
            sink=sink_of(s3_root, dict(os.environ)),
            secrets=None if credentials is None else read_credentials(credentials),
            **numbers,
        )
        asyncio.run(_serve(settings, store))


@dataclass(frozen=True, slots=True)
class _Said:
    """What a scenario says for a server."""

    services: Mapping[str, Service]
    routing: Mapping[str, str]
    mirroring: Mirroring
    timeout_s: float


def _said(file: Path | None, timeout_s: float | None) -> _Said:
    from dataclasses import replace

    from shadowsim.scenario.defaults import TIMEOUT_S
    from shadowsim.server.data_plane.mirror import Mirroring

    if file is None:
        timeout_s = timeout_s or TIMEOUT_S
        return _Said({}, {}, Mirroring(timeout_s=timeout_s), timeout_s)
    from shadowsim.scenario.scenario import Scenario

    scenario = Scenario.load(file)
    for name, service in scenario.services.items():
        if service.time.kind == "linear":
            what = "must not be linear: a server has no trace whose columns it could take"
            raise InputError(f"services.{name}.time", what)
    # What the scenario leaves out, an endpoint's configuration may say.
    routing = scenario.routing if scenario.document.get("endpoint", {}).get("routing") else {}  # type: ignore[attr-defined]
    timeout_s = timeout_s or scenario.timeout_s
    return _Said(scenario.services, routing, replace(Mirroring.of(scenario), timeout_s=timeout_s), timeout_s)


async def _serve(settings: Settings, store: Store) -> None:
    from shadowsim.server.app import App

    _allow_connections()
    app, stopping = App(settings, store), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await app.start()
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InputError("--host", "must be an address or a name of this machine", settings.host) from None
        why = error.strerror or error
        raise InputError("--port", f"{settings.host}:{settings.port} cannot be bound: {why}") from None
    # A collection that looks at everything would hold up every caller for tens of ms. What is loaded stays loaded, and
    # what copies hold while they wait comes and goes by their references: of cycles, few grow old.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)
    try:
        for line in lines(app, store):
            typer.echo(line)
        await stopping.wait()
        typer.echo("stopping: what is in flight is finished, captures are written")
    finally:
        await app.stop()


def _allow_connections() -> None:
    """Have as many open files as the system lets us: a caller takes two, a copy one."""
    try:
        import fcntl
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # Linux holds a process with threads for some 15 ms whenever its table of files is doubled: it is so at once here.
    with open(os.devnull) as some:
        os.close(fcntl.fcntl(some.fileno(), fcntl.F_DUPFD, min(wanted, _MOST_FILES_SOON) - 1))


def lines(app: App, store: Store) -> Iterator[str]:
    """Yield what is printed at the start: what is kept, where the server is, and what makes boto3 talk to it."""
    if store.is_kept:
        yield f"state is kept in {store.path}"
    else:
        yield "state is kept in memory only, and is gone when the server stops (--db FILE keeps it)"
    if store.clock.scale != 1.0:
        here = datetime.fromtimestamp(store.clock.now(), UTC)
        yield f"schedules pass {store.clock.scale:g} times as fast; for them it is {here:%Y-%m-%dT%H:%M:%SZ}"
    yield f"shadowsim serves at {app.url}"
    for name in VARIABLES:
        yield f"export {name}={app.url}"
    if app.token is None:
        yield "# any credentials do, and any region; the data are not checked for who sends them"
    else:
        yield f"# signatures are verified; {app.url}/metrics and frames want ?token={app.token.text}"


def parse_choices(texts: Sequence[str]) -> Undocumented:
    """Return the choices of `NAME=VALUE` texts.

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
            raise InputError("--choose", f"must be NAME=VALUE, NAME of {', '.join(CHOICES)}", text)
        values[name] = {str(choice).lower(): choice for choice in CHOICES[name]}.get(value.lower(), value)
    try:
        return Undocumented(**values)
    except InputError as error:
        raise InputError(f"--choose {error.path}", error.constraint, *error.value) from None


def parse_backend(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the model and the URLs of `MODEL=URL[,URL...]`.

    Raises
    ------
    InputError
        It is not of that form, or a URL is not of a server's root.
    """
    model, _, urls = text.partition("=")
    found = tuple(url.strip() for url in urls.split(",") if url.strip())
    if not model or not found:
        raise InputError("--backend", "must be MODEL=http://host:port[,http://...]", text)
    for url in found:
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
            right = right and (parts.port is None or parts.port > 0) and url.isprintable() and " " not in url
        except ValueError:
            right = False
        if not right:
            raise InputError("--backend", "must have URLs such as http://127.0.0.1:8080", url)
    return model, found
