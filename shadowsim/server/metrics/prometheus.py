"""Prometheus metrics of the server, in the text format that Prometheus scrapes.

Counters run from the server's start and never decrease. A request keeps the role that its variant had when it came:
what a promoted variant served as a shadow stays under role="shadow". Counters of events that have not happened yet are
zero instead of absent, since a rate does not include the event with which its counter appears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.utils import floatToGoString

from shadowsim.frames import LOST_CAUSES, SERVER_CRASH, SERVER_LAG
from shadowsim.server.data_plane.captures import CaptureWriter
from shadowsim.server.data_plane.counts import BOUNDS_S, Totals
from shadowsim.server.data_plane.live import LiveEndpoint
from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.metrics.cloudwatch_wire import pieces

CONTENT_TYPE = CONTENT_TYPE_LATEST
SLICE_CHARACTERS = 65_536  # some 600 lines, about a millisecond
_CAUSES = (*LOST_CAUSES, SERVER_LAG, SERVER_CRASH)
_number_text: Callable[[float], str] = floatToGoString
_BOUNDS = (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf")


def prometheus_slices(
    endpoints: Mapping[str, LiveEndpoint], captures: CaptureWriter, loop_clock: LoopClock, n_held: int = 0
) -> Iterator[bytes]:
    """Yield the page of all metrics in Prometheus's text format, in slices that take a ms or two each.

    `n_held` are the bytes of streams that wait for callers.
    """
    return pieces(_texts(endpoints, captures, loop_clock, n_held), SLICE_CHARACTERS)


def _texts(
    endpoints: Mapping[str, LiveEndpoint], captures: CaptureWriter, loop_clock: LoopClock, n_held: int
) -> Iterator[str]:
    """Yield the lines of one family after another, those of a variant or of an endpoint at a time.

    The client library takes ten times as long for a line, and so describes the families only. Names of endpoints and
    variants are letters, digits and hyphens, which need no escapes.
    """
    lives = sorted(endpoints.items())
    for family, lines_of in _OF_VARIANTS:
        yield family_text(family).decode()
        for labels, totals in _totals(lives):
            yield lines_of(*labels, totals)
    unanswered = GaugeMetricFamily("shadowsim_unanswered_requests", "Requests waiting or in service")
    yield family_text(unanswered).decode()
    for name, live in lives:
        for pool in live.serving():
            role = "shadow" if pool.copies else "source"
            yield _line(unanswered.name, _labels(name, role, pool.variant.name), sum(pool.outstanding))
    yield family_text(CounterMetricFamily("shadowsim_captures_lost", "Capture lines lost")).decode()
    for name in (*(name for name, _ in lives), *sorted(captures.n_lost.keys() - endpoints.keys())):
        yield _line("shadowsim_captures_lost_total", f'endpoint="{name}"', captures.n_lost.get(name, 0))
    lag = CounterMetricFamily("shadowsim_loop_lag_seconds", "Time for which the server's event loop was late")
    lag.add_metric((), loop_clock.total_s)
    yield family_text(lag).decode()
    held = GaugeMetricFamily("shadowsim_stream_held_bytes", "Bytes of streamed parts that wait for slow callers")
    held.add_metric((), n_held)
    yield family_text(held).decode()


class _OneFamily:
    """A registry of one metric family."""

    def __init__(self, family: Metric):
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        return (self._family,)


def family_text(family: Metric) -> bytes:
    """Return a family's lines: those that describe it, and its samples."""
    return generate_latest(_OneFamily(family))  # which asks for nothing but `collect`


def _totals(lives: Iterable[tuple[str, LiveEndpoint]]) -> Iterator[tuple[tuple[str, str, str], Totals]]:
    """Yield the endpoint, role and name of each variant, and its totals in that role."""
    for name, live in lives:
        for variant, series in sorted(live.series.items()):
            present = "shadow" if variant in live.shadows else "source"
            for role, totals in sorted({present: Totals(), **series.totals}.items()):
                yield (name, role, variant), totals


def _labels(endpoint: str, role: str, variant: str, bound: str = "") -> str:
    return f'endpoint="{endpoint}",{bound}role="{role}",variant="{variant}"'


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number_text(value)}\n"


def _invocations(endpoint: str, role: str, variant: str, totals: Totals) -> str:
    return _line("shadowsim_invocations_total", _labels(endpoint, role, variant), totals.n)


def _errors(endpoint: str, role: str, variant: str, totals: Totals) -> str:
    return _line("shadowsim_model_errors_total", _labels(endpoint, role, variant), totals.model_errors)


def _lost(endpoint: str, role: str, variant: str, totals: Totals) -> str:
    labels, name = _labels(endpoint, role, variant), "shadowsim_copies_lost_total"
    causes = sorted({*totals.lost, *(_CAUSES if role == "shadow" else ())})
    return "".join(_line(name, f'cause="{cause}",{labels}', totals.lost.get(cause, 0)) for cause in causes)


def _captured(endpoint: str, role: str, variant: str, totals: Totals) -> str:
    return _line("shadowsim_captured_records_total", _labels(endpoint, role, variant), totals.captured_records)


def _latency(endpoint: str, role: str, variant: str, totals: Totals) -> str:
    name, labels, upto = "shadowsim_model_latency_seconds", _labels(endpoint, role, variant), accumulate(totals.below)
    buckets = [
        _line(f"{name}_bucket", _labels(endpoint, role, variant, f'le="{bound}",'), n)
        for bound, n in zip(_BOUNDS, upto, strict=True)
    ]
    whole = _line(f"{name}_count", labels, sum(totals.below)), _line(f"{name}_sum", labels, totals.latency_sum)
    return "".join((*buckets, *whole))


_OF_VARIANTS: tuple[tuple[Metric, Callable[[str, str, str, Totals], str]], ...] = (
    (CounterMetricFamily("shadowsim_invocations", "Requests (for a shadow: copies)"), _invocations),
    (CounterMetricFamily("shadowsim_model_errors", "Responses other than 2xx"), _errors),
    (CounterMetricFamily("shadowsim_copies_lost", "Copies that were lost, by cause"), _lost),
    (CounterMetricFamily("shadowsim_captured_records", "Captured invocations"), _captured),
    (
        HistogramMetricFamily("shadowsim_model_latency_seconds", "ModelLatency: response time of the model"),
        _latency,
    ),
)
