"""Settings of the server and their defaults; cli/serve.py checks the values that users give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shadowsim.option_defaults import FLUSH_S, PORT, SERVER_SEED, SKEW_S
from shadowsim.scenario.reading import Mirroring
from shadowsim.scenario.service import Service
from shadowsim.server.data_plane.capture_journal import CaptureJournal
from shadowsim.server.data_plane.invoke import Limits
from shadowsim.server.data_plane.mirror import CopyLimits
from shadowsim.server.http.tls import Certificate
from shadowsim.server.state.destinations import Sink

SILENT_S, BODY_S, GRACE_S = 75.0, 60.0, 30.0
COPY_CONNECTIONS = 512  # leaves callers their file descriptors when a shadow does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a server.

    Attributes
    ----------
    host, port : str, int
        Address and port to bind; port 0 picks a free one.
    hosts : tuple of str
        Additional names that the Host header may give.
    containers : mapping of str to tuple of str
        URLs by model.
    services : mapping of str to Service
        By variant, for models without URLs.
    routing : mapping of str to str
        Routing strategies by variant that override the control plane's.
    mirroring : Mirroring
    overhead_s : float
        Time from a request's arrival to its answer beyond the model's latency, at simulated instances: an answer that
        would leave earlier waits. The server's own time is part of it.
    copy_limits : CopyLimits
    copy_connections : int
        Connections to all shadows' containers together; further copies wait for one.
    limits : Limits
    sink : Sink
        Destination of captures.
    flush_s : float
        Interval between writes of captures.
    journal : CaptureJournal or None
        Keeps captures between two writes.
    secrets : mapping of str to str, or None
        Secret access keys by id; None to accept unsigned requests.
    certificate : Certificate or None
        Certificate for TLS; None to serve plain HTTP.
    skew_s : float
        Permitted difference of a signature's date.
    refuse_replays : bool
        Whether a signed request that has come before is refused.
    silent_s, body_s, grace_s : float
        Time limits for a silent connection, for a body, and for requests in flight once the server stops.
    seed : int
        Seed of simulated backends, sampling and routing.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    hosts: tuple[str, ...] = ()
    containers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    routing: Mapping[str, str] = field(default_factory=dict)
    mirroring: Mirroring = field(default_factory=Mirroring)
    overhead_s: float = 0.0
    copy_limits: CopyLimits = field(default_factory=CopyLimits)
    copy_connections: int = COPY_CONNECTIONS
    limits: Limits = field(default_factory=Limits)
    sink: Sink
    flush_s: float = FLUSH_S
    journal: CaptureJournal | None = None
    secrets: Mapping[str, str] | None = None
    certificate: Certificate | None = None
    skew_s: float = SKEW_S
    refuse_replays: bool = False
    silent_s: float = SILENT_S
    body_s: float = BODY_S
    grace_s: float = GRACE_S
    seed: int = SERVER_SEED
